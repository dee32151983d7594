"""One progress for all that a measurement does, with what is being done as its note."""

from stylecli.progress import Progress


class Meter:
    """Adds up pictures and pairs of every phase; ``total`` is known before."""

    def __init__(self, report: Progress, total: float) -> None:
        self._report, self._done, self._total = report, 0.0, total

    def add(self, count: float, note: str) -> None:
        """Say that ``count`` more are done."""
        if count:
            self._done += count
            self._report(self._done, self._total, note)

    def share(self, size: float) -> Progress:
        """Return a progress callback for a part of the whole, ``size`` of its units."""
        before = self._done

        def report(done: float, total: float, note: str = "") -> None:
            self._done = before + round(size * done / total)
            self._report(self._done, self._total, note)

        return report

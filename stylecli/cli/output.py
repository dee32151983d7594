"""The one sink: results go to stdout, everything else to stderr, bars only to a terminal."""

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from stylecli.errors import printable, printable_json
from stylecli.files import to_json
from stylecli.progress import Progress, silent

SecondsLeft = Callable[[float], float | None]  # from what is done


def format_seconds(seconds: float) -> str:
    """Write a duration the short way: ``42s``, ``3m05s``, ``2h10m``, ``4d02h``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def print_error(text: str) -> None:
    """Print the one line that a command ends with."""
    print(f"stylecli: {text}", file=sys.stderr, flush=True)


def _json_text(document: Mapping[str, Any]) -> str:
    """Return JSON that the encoding of stdout can hold."""
    text = printable_json(to_json(document, indent=2, default=str).decode())
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # replacing letters there would break the document
        return to_json(document, indent=2, default=str, ascii=True).decode()
    return text


class Output:
    """What a command says. Make one per command from its ``--json`` and ``--quiet``.

    Whatever the text holds, a terminal gets letters only: see ``errors.printable``.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet

    def result(self, document: Mapping[str, Any], lines: Sequence[str]) -> None:
        """Print the command's result: ``document`` under --json, else the lines, to stdout."""
        if self.json:
            print(_json_text(document))
        else:
            for line in lines:
                print(printable(line))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
        """Lay rows out in aligned columns; return the lines, to be handed to ``result``."""
        columns = list(zip(header, *rows, strict=True))
        widths = [max(len(cell) for cell in column) for column in columns]
        return [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [header, *rows]
        ]

    def note(self, text: str) -> None:
        """Tell something useful on stderr; silenced by --quiet."""
        if not self.quiet:
            print(printable(text), file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Warn on stderr, always."""
        print(f"warning: {printable(text)}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def progress(
        self, title: str, unit: str = "", seconds_left: SecondsLeft | None = None
    ) -> Iterator[Progress]:
        """Yield a progress callback: a live bar on a terminal, a line now and then elsewhere.

        ``seconds_left`` estimates the time left where the rate so far does not tell it.
        """
        if self.quiet:
            yield silent
        elif sys.stderr.isatty():
            with _live_bar(title, unit, seconds_left) as report:
                yield report
        else:
            yield _PlainProgress(title, unit, seconds_left)


class _PlainProgress:
    """Progress for logs and pipes: a line at most every ten seconds, and one at the end."""

    def __init__(
        self,
        title: str,
        unit: str,
        seconds_left: SecondsLeft | None = None,
        every_seconds: float = 10.0,
    ) -> None:
        self.title, self.unit, self.every_seconds = title, unit, every_seconds
        self.seconds_left = seconds_left
        self.started = self.last = time.monotonic()
        self.first: float | None = None
        self.finished = False

    def __call__(self, done: float, total: float, note: str = "") -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = done
        complete = done >= total
        estimate = self.seconds_left(done) if self.seconds_left else None
        if self.finished or (not complete and now - self.last < self.every_seconds):
            return
        self.last, self.finished = now, complete
        rate = (done - self.first) / max(now - self.started, 1e-9)
        parts = [f"{self.title}: {done:g}/{total:g} {self.unit}".rstrip()]
        if rate > 0:
            parts.append(_rate(rate, self.unit))
            if complete:
                parts.append(f"took {format_seconds(now - self.started)}")
            elif self.seconds_left is None:
                parts.append(f"{format_seconds((total - done) / rate)} left")
            elif estimate is not None:
                parts.append(f"about {format_seconds(estimate)} left")
        text = ", ".join([*parts, note] if note else parts)
        print(printable(text), file=sys.stderr, flush=True)


def _rate(per_second: float, unit: str) -> str:
    return f"{per_second:.1f} {unit}".rstrip() + "/s"


@contextlib.contextmanager
def _live_bar(title: str, unit: str, seconds_left: SecondsLeft | None = None) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    plain = functools.partial(TextColumn, markup=False)  # names may hold square brackets
    left = plain("{task.fields[left]}") if seconds_left else TimeRemainingColumn(compact=True)
    bar = Progress(
        plain("{task.description}"),
        BarColumn(),
        plain("{task.fields[amount]}"),
        plain("{task.fields[rate]}"),
        left,
        plain("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=False,
    )
    with bar:
        task = bar.add_task(title, total=None, amount="", rate="", note="", left="")
        started = time.monotonic()
        first: list[float] = []

        def report(done: float, total: float, note: str = "") -> None:
            first[:] = first or [done]
            rate = (done - first[0]) / max(time.monotonic() - started, 1e-9)
            estimate = seconds_left(done) if seconds_left else None
            bar.update(
                task,
                left="" if estimate is None else f"about {format_seconds(estimate)} left",
                completed=done,
                total=total,
                amount=f"{done:g}/{total:g} {unit}".rstrip(),
                rate=_rate(rate, unit) if rate else "",
                note=printable(note),
            )

        yield report

"""How long work reports itself: the one callback type that library functions accept, and how people
read durations and bytes."""

from typing import Protocol


class Progress(Protocol):
    """Called with the amount done and the total; ``note`` is a short live remark."""

    def __call__(self, done: float, total: float, note: str = "") -> None: ...


def silent(done: float, total: float, note: str = "") -> None:
    """Report nothing: the default where no progress is wanted."""


def format_seconds(seconds: float) -> str:
    """Write a duration the short way, in its two largest units: ``42s``, ``3m05s``, ``4d02h``."""
    whole = max(0, round(seconds))
    units = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))
    for size, unit, part, rest in units:
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02d}{rest}"
    return f"{whole}s"


def describe_seconds(seconds: float) -> str:
    """Write about how long something takes, in words: ``80 seconds``, ``5 minutes``, ``2.5 hours``.

    A unit begins at one and a half of it.
    """
    units = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}
    unit = next((unit for unit, size in units.items() if seconds >= 1.5 * size), "second")
    amount = max(0.0, seconds) / units[unit]
    digits = 1 if unit in ("day", "hour") and amount < 10 else 0
    text = f"{amount:,.{digits}f}".removesuffix(".0")
    return f"{text} {unit}{'' if text == '1' else 's'}"


def format_bytes(count: float) -> str:
    """Write a number of bytes the short way: ``512 B``, ``3.4 MB``, ``1.2 TB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:.3g} TB" if count < 999.5 else f"{count:,.0f} TB"

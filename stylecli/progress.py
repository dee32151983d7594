"""How long work reports itself: the one callback type that library functions accept."""

from typing import Protocol


class Progress(Protocol):
    """Called with the amount done and the total; ``note`` is a short live remark."""

    def __call__(self, done: float, total: float, note: str = "") -> None: ...


def silent(done: float, total: float, note: str = "") -> None:
    """Report nothing: the default where no progress is wanted."""

"""A full disk as one clear sentence: before writing, and when a write fails all the same."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from stylecli.errors import StyleCLIError

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows has no quota error


def check_room(path: Path, needed: int) -> None:
    """Raise StyleCLIError when the disk of ``path`` has fewer than ``needed`` bytes free."""
    free = _free_bytes(path)
    if free is not None and free < needed:
        raise StyleCLIError(_sentence(path, needed, free))


@contextlib.contextmanager
def room_for(path: Path, needed: int) -> Iterator[None]:
    """Check for ``needed`` bytes, then turn a disk that fills up all the same into one sentence.

    Free space is a guess: quotas and other programs are not in it. Other errors pass unchanged.
    """
    check_room(path, needed)
    try:
        yield
    except Exception as error:
        if not _means_full(error):
            raise
        raise StyleCLIError(_sentence(path, needed, _free_bytes(path))) from error


def _means_full(error: Exception) -> bool:
    """Whether a write failed for lack of space; safetensors says so in words only."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return "No space left on device" in str(error) or "StorageFull" in str(error)


def _free_bytes(path: Path) -> int | None:
    """Return the free bytes of the disk that ``path`` is or will be on; None if not known."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def _sentence(path: Path, needed: int, free: int | None) -> str:
    left = "an unknown number is" if free is None else f"{_sized(free)} are"
    return (
        f"the disk is full: {path} needs {_sized(needed)}, {left} free; nothing was replaced: "
        "make room and run the same command again"
    )


def _sized(count: int) -> str:
    return f"{count:,} bytes ({count / 2**20:,.1f} MiB)"

"""How much room a dataset takes, before it is written, and whether there is as much."""

from pathlib import Path

from stylecli.data.database import free_bytes
from stylecli.data.format import Codec
from stylecli.errors import DataError

_PAGE, _PAGE_HEADER = 4096, 16
_IN_PAGE = 2000  # larger values get pages of their own
ROW_BYTES = 400  # digest, label, metadata, keys, and what the pages that hold them leave free


def value_bytes(size: int) -> int:
    """Return the room that one stored value takes in LMDB's pages."""
    if size > _IN_PAGE:
        return -(-(size + _PAGE_HEADER) // _PAGE) * _PAGE
    # Keys of several kinds grow side by side, which leaves up to half of each page free.
    return 2 * (size + 32)


def picture_bytes(channels: int, resolution: int, codec: Codec = "raw", levels: int = 1) -> int:
    """Return the room that one picture takes: exact for raw pixels.

    PNG and lossless WebP depend on the picture: half of the raw size is assumed.
    """
    sizes = [channels * (resolution >> level) ** 2 for level in range(levels)]
    stored = [size if codec == "raw" else size // 2 for size in sizes]
    return sum(map(value_bytes, stored)) + ROW_BYTES


def check_room(folder: Path, needed: int, *, is_exact: bool) -> int:
    """Return the bytes that are free where ``folder`` is.

    Raises DataError when ``needed`` bytes are known exactly and do not fit.
    """
    free = free_bytes(folder)
    if is_exact and needed > free:
        raise DataError(
            f"the pictures need {format_bytes(needed)}, but {format_bytes(free)} are free for "
            f"{folder}: make room, give another --out, or take a smaller --resolution, fewer "
            "--max-images, or --codec webp (slower, smaller)"
        )
    return free


def format_bytes(count: float) -> str:
    """Write a number of bytes the short way: ``512 B``, ``3.4 MB``, ``1.2 TB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:.3g} TB"

"""Files that are either whole or not there, and a full disk as one clear sentence.

A file is written under a temporary name, synced and renamed.
"""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stylecli.errors import StyleCLIError

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows has no quota error


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is fsynced and takes its name.

    The suffix is kept, so that writers which look at it work. On any error the temporary file is
    removed and ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{path.stem}-", suffix=f".part{path.suffix}", dir=path.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files private; ours are ordinary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, content: str) -> None:
    """Write UTF-8 text to ``path`` atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path`` atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_directory(folder: Path) -> None:
    """Make a rename in ``folder`` durable; systems that cannot open folders do without."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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

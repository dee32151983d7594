"""Statistics of pictures on disk, by name: made once, and continued where they are unfinished."""

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stylecli.cache_folder import cache_folder, keep_private, private_folder, whose
from stylecli.errors import UsageError
from stylecli.files import replacing

CACHE_FOLDER = "features"
MOST_BYTES = 4 << 30


class Stored(Protocol):
    """What can be written as arrays and filled from them again."""

    def state(self) -> dict[str, NDArray[Any]]: ...
    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None: ...


def digest_of(*parts: str) -> str:
    """Return a name for what was made from ``parts``: 32 hex digits."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class StatisticsCache:
    """A folder of statistics by name. ``use=False`` reads and keeps nothing.

    Files are npz archives,
    whose parts carry checksums: a damaged one is made again. One that cannot be written costs the
    next run time, nothing else. The folder is kept below ``MOST_BYTES``; what was not used for
    longest goes first.
    """

    def __init__(self, use: bool = True) -> None:
        self.use = use

    def load(self, name: str, into: Stored) -> bool:
        """Fill ``into`` from the file of this name; tell whether there was one that fits."""
        path = self._path(name)
        if not self.use or not path.is_file():
            return False
        try:
            if whose(path):  # numbers that somebody else may have written
                return False
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                into.restore(dict(stored))
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, UsageError, KeyError):
            return False
        with contextlib.suppress(OSError):
            os.utime(path)  # used: it goes last
        return True

    def save(self, name: str, collected: Stored) -> str | None:
        """Keep what was collected under this name; return why it is not kept, None if it is."""
        if not self.use:
            return "nothing is kept with --no-cache"
        arrays = collected.state()
        size = sum(array.nbytes for array in arrays.values())
        if size > MOST_BYTES:
            return f"{size} bytes of statistics are more than is kept ({MOST_BYTES})"
        path = self._path(name)
        try:
            private_folder(CACHE_FOLDER)
            self._make_room(size)
            with replacing(path) as temporary:
                np.savez(temporary, allow_pickle=False, **arrays)
            keep_private(path)
        except (OSError, ValueError) as error:  # zipfile closes a broken archive with a ValueError
            cause = error.strerror if isinstance(error, OSError) and error.strerror else "disk full"
            return f"{path.parent} cannot be written ({cause})"
        return None

    def drop(self, name: str) -> None:
        """Remove the file of this name, if there is one."""
        with contextlib.suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    @staticmethod
    def _path(name: str) -> Path:
        return cache_folder() / CACHE_FOLDER / f"{name}.npz"

    @staticmethod
    def _make_room(size: int) -> None:
        folder = cache_folder() / CACHE_FOLDER
        kept = sorted(folder.glob("*.np[yz]"), key=lambda path: path.stat().st_mtime)
        total = size + sum(path.stat().st_size for path in kept)
        for path in kept:
            if total <= MOST_BYTES:
                return
            total -= path.stat().st_size
            path.unlink(missing_ok=True)

"""One writer at a time: a lock that ends with the process that holds it, however it ends."""

import os
import sys
from pathlib import Path

from stylecli.errors import DataError

LOCK_FILE = "writer.lock"
_LOCKED_BYTE = 1 << 20  # beyond what is written, so that Windows lets others read who holds it


class OwnerLock:
    """Holds ``<folder>/writer.lock`` until ``release``; raises DataError when another has it.

    The system lets go of the lock when the process dies, by kill -9 too. On file systems without
    locks there is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # set it anew after renaming
        while True:
            try:
                self._file = open(folder / LOCK_FILE, "a+b")
            except OSError as error:
                raise DataError(f"{folder} cannot be written: {error}") from None
            try:
                _lock(self._file.fileno())
            except BlockingIOError:
                self._file.seek(0)
                owner = self._file.read(20).decode("ascii", "replace").strip()
                self._file.close()
                raise DataError(
                    f"{folder} is being written by another command (process {owner or 'unknown'}): "
                    "let it end first"
                ) from None
            except OSError:
                pass  # no locks here: network drives, mostly
            if self._is_mine():
                break
            self._file.close()  # its owner finished and took it away meanwhile
        self._file.truncate(0)
        self._file.write(str(os.getpid()).encode())
        self._file.flush()

    def release(self) -> None:
        """Let go, and remove the file."""
        if sys.platform == "win32":
            self._file.close()  # open files cannot be removed there
        if not self._file.closed or sys.platform == "win32":
            (self.folder / LOCK_FILE).unlink(missing_ok=True)
        self._file.close()

    def _is_mine(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.folder / LOCK_FILE))
        except OSError:
            return False


def _lock(handle: int) -> None:
    """Lock or raise: BlockingIOError when another process has it, OSError when nobody can."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            raise BlockingIOError from None
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

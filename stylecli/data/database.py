"""The LMDB that a writer writes: whole transactions or nothing, a map that grows on demand."""

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import lmdb

from stylecli.data.database_file import check_pages, pad_file
from stylecli.data.format import DATA_FILE
from stylecli.errors import DataError

FIRST_MAP_BYTES = 16 << 20
_NEARLY_FULL = 1 << 20


class StorageError(DataError):
    """A transaction could not be stored, mostly because the disk is full; nothing of it is."""


class Database:
    """One LMDB open for writing. What ``commit`` has returned from survives a loss of power.

    ``durable=False`` syncs only on ``close``. ``shared=True`` is for a dataset that others may be
    reading: they read without locks, so no page that their snapshot may hold is used again while
    this is open. Raises DataError when the folder cannot be written or holds a damaged file.
    """

    def __init__(self, folder: Path, *, durable: bool = True, shared: bool = False) -> None:
        self.folder = folder
        self._file = folder / DATA_FILE
        self._shared, self._durable = shared, durable
        if self._file.exists() and self._file.stat().st_size:  # empty: killed before the first page
            check_pages(self._file)
        try:
            self._env: lmdb.Environment = lmdb.open(
                str(folder),
                map_size=FIRST_MAP_BYTES,
                sync=durable,
                lock=shared,
                meminit=False,
                mode=0o666,  # less the umask, as for every other file
            )
        except (OSError, lmdb.Error) as error:
            if "already open" in str(error):
                raise DataError(
                    f"{folder} is open for reading in this program: close it before adding to it"
                ) from None
            raise StorageError(f"{folder} cannot be written: {error}") from None
        self._pin: lmdb.Transaction[bytes] | None = None
        if shared:
            self._env.reader_check()  # forget writers that were killed
            self._pin = self._env.begin()

    def get(self, key: bytes) -> bytes | None:
        """Return what is stored under a key."""
        with self._env.begin() as transaction:
            return transaction.get(key)

    def scan(self, prefix: bytes, first: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) of all keys with a ``prefix``, in order, from ``first`` on."""
        with self._env.begin() as transaction, transaction.cursor() as cursor:
            if not cursor.set_range(first or prefix):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, value

    def commit(self, puts: Iterable[tuple[bytes, bytes]], deletes: Iterable[bytes] = ()) -> None:
        """Store all in one transaction, doubling the map until it fits.

        Raises StorageError when it cannot be stored; then nothing of it is.
        """
        puts, deletes = list(puts), list(deletes)
        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    for key in deletes:
                        transaction.delete(key)
                    for key, value in puts:
                        transaction.put(key, value)
                return
            except lmdb.MapFullError:
                self._grow()
            except lmdb.Error as error:
                # A full disk shows as DiskError or, where a page fitted in part, as an I/O error.
                full = isinstance(error, lmdb.DiskError) or free_bytes(self.folder) < _NEARLY_FULL
                cause = "the disk is full" if full else str(error)
                raise StorageError(f"{self.folder} cannot be written: {cause}") from None

    def close(self) -> None:
        """Sync and close; the file then holds every page it speaks of."""
        if self._pin is not None:
            self._pin.abort()
        try:
            if not self._durable:
                self._env.sync(True)
        finally:
            self._env.close()
        with contextlib.suppress(OSError):
            pad_file(self._file)
        if self._shared:
            (self.folder / "lock.mdb").unlink(missing_ok=True)

    def _grow(self) -> None:
        if self._pin is not None:
            self._pin.abort()  # no transaction may be open while the map moves
        self._env.set_mapsize(2 * self._env.info()["map_size"])
        if self._pin is not None:
            self._pin = self._env.begin()


def free_bytes(folder: Path) -> int:
    """Return how much room is left where ``folder`` is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free

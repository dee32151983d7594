"""Open LMDB folders for reading: each once per process, never taken over from a parent."""

import os
import weakref
from pathlib import Path

import lmdb

from stylecli.data.database_file import check_tree
from stylecli.data.format import DATA_FILE
from stylecli.errors import DataError


class SharedEnvironment:
    """One open LMDB folder of one process; LMDB forbids opening a file twice in a process."""

    def __init__(self, path: Path) -> None:
        self.process = os.getpid()
        self.lmdb: lmdb.Environment = lmdb.open(
            str(path), readonly=True, lock=False, readahead=False, meminit=False, create=False
        )

    def __del__(self) -> None:
        if hasattr(self, "lmdb"):
            self.lmdb.close()


# By file, so that all its readers share it until the last lets go.
_shared: weakref.WeakValueDictionary[tuple[int, int], SharedEnvironment] = (
    weakref.WeakValueDictionary()
)


def open_environment(path: Path) -> SharedEnvironment:
    """Open the LMDB in the folder ``path``; keep the result as long as it is read.

    LMDB trusts what it maps, so the file's pages are walked first. Raises OSError when there is no
    such file and DataError when it is no LMDB, is damaged or was cut short.
    """
    file = path / DATA_FILE
    status = file.stat()
    key = (status.st_dev, status.st_ino)
    environment = _shared.get(key)
    if environment is not None and environment.process == os.getpid():
        return environment
    if environment is not None:
        environment.lmdb.close()  # a parent's, inherited by fork: drop our copy of it, open anew
    check_tree(file)
    try:
        environment = _shared[key] = SharedEnvironment(path)
    except lmdb.Error as error:
        raise DataError(f"{path} is not a readable dataset: {error}") from None
    return environment

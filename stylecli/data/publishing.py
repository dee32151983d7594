"""Give a finished dataset its name, and never take a name from what is no dataset."""

import os
import sys
import tempfile
from pathlib import Path

from stylecli.data.layout import DATA_FILE
from stylecli.data.ownership import LOCK_FILE, OwnerLock
from stylecli.errors import DataError
from stylecli.files import sync_directory

OWN_FILES = {DATA_FILE, "lock.mdb", LOCK_FILE}  # a killed writer may leave the locks behind


def check_target(path: Path, *, force: bool) -> None:
    """Raise DataError when something stands at ``path`` that must not be replaced."""
    if not path.exists():
        return
    if not force:
        raise DataError(f"{path} exists: give another --out, or --force to replace it")
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if DATA_FILE not in names or not names <= OWN_FILES:
        raise DataError(f"{path} is not a dataset and is not replaced: give another --out")


def publish(part: Path, path: Path, owner: OwnerLock) -> None:
    """Rename ``part`` to ``path``; what stands there is kept until that moment."""
    if sys.platform == "win32":
        owner.release()  # a folder with an open file in it cannot be renamed there
    if path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as aside:
            os.replace(path, Path(aside) / "old")
            os.replace(part, path)
    else:
        os.replace(part, path)
    owner.folder = path
    sync_directory(path.parent)


def wipe(folder: Path) -> None:
    """Remove the database of an unfinished dataset."""
    for name in (DATA_FILE, "lock.mdb"):
        (folder / name).unlink(missing_ok=True)

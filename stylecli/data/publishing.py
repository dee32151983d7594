"""Give a finished dataset its name, and never take a name from what is no dataset."""

import contextlib
import os
import shutil
import sys
from pathlib import Path

from stylecli.data.format import DATA_FILE
from stylecli.errors import DataError
from stylecli.files import LOCK_FILE, OwnerLock, sync_directory

OWN_FILES = {DATA_FILE, "lock.mdb", LOCK_FILE}  # a killed writer may leave the locks behind


def real_path(path: Path) -> Path:
    """Return where a dataset lies: a link to a larger disk is followed, never replaced."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


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
    """Rename ``part`` to ``path``; what stands there is removed only after that.

    A full folder cannot be replaced in one step, so the old one is moved aside, and back if its
    place cannot be taken. Whatever ends the process in between, ``settle`` brings in order.
    """
    if sys.platform == "win32":
        owner.release()  # a folder with an open file in it cannot be renamed there
    aside = replaced_path(path)
    if path.exists():
        settle(path)
        for name in ("", DATA_FILE):  # as private as it was
            shutil.copymode(path / name, part / name)
        os.replace(path, aside)
    try:
        os.replace(part, path)
    except BaseException:
        if aside.exists():
            os.replace(aside, path)
        raise
    owner.folder = path
    sync_directory(path.parent)
    settle(path)


def replaced_path(path: Path) -> Path:
    """Return where a dataset lies while another one takes its place; no hand gives such a name."""
    return path.with_name(f".{path.name}.replaced")


def settle(path: Path) -> None:
    """Bring in order what was left by a kill while ``path`` was being replaced.

    The old dataset is removed where the new one has its name, and else gets its name back. Only
    for who holds the lock of the unfinished dataset.
    """
    aside = replaced_path(path)
    if not aside.exists():
        return
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.replace(aside, path)


def sweep_locks(path: Path) -> None:
    """Remove the lock files that a killed writer left in a complete dataset."""
    with contextlib.suppress(DataError):  # somebody is writing
        if (path / LOCK_FILE).exists():
            owner = OwnerLock(path)
            (path / "lock.mdb").unlink(missing_ok=True)
            owner.release()


def wipe(folder: Path) -> None:
    """Remove the database of an unfinished dataset."""
    for name in (DATA_FILE, "lock.mdb"):
        (folder / name).unlink(missing_ok=True)

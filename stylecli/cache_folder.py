"""The folder of what can be made again: where it is, and that it is this user's own."""

import os
import tempfile
from pathlib import Path

CACHE_VARIABLE = "STYLECLI_CACHE"


def cache_folder() -> Path:
    """Return the folder of what can be made again: ``$STYLECLI_CACHE`` or the default.

    A user without a home folder, as in some containers, has it among the temporary files.
    """
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser() if given.startswith("~") else Path(given)
    try:
        return Path.home() / ".cache" / "stylecli"
    except RuntimeError:
        user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""  # Windows keeps them apart
        return Path(tempfile.gettempdir()) / f"stylecli{user}"


def private_folder(name: str) -> Path:
    """Return a folder of the cache, made where it is missing, for this user alone (mode 0700).

    Raises OSError where that cannot be, RuntimeError where there is no home folder.
    """
    folder = cache_folder() / name
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not whose(folder) and folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def keep_private(path: Path) -> None:
    """Let nobody else read or write a file of the cache, whatever the umask."""
    path.chmod(0o600)


def whose(path: Path) -> str:
    """Say why a file of the cache, or its folder, is not this user's own; empty where it is.

    What somebody else can write is code that a GPU runs, or numbers that others believe: it is not
    loaded. What root owns is trusted, as root is. Raises OSError where there is no such file.
    """
    if not hasattr(os, "geteuid"):  # Windows keeps profiles apart
        return ""
    for each in (path, path.parent) if path.is_file() else (path,):
        state = each.stat()
        if state.st_uid not in (os.geteuid(), 0):
            return f"{each} belongs to another user"
        if state.st_mode & 0o022:
            return f"{each} can be written by others"
    return ""

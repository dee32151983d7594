"""A folder of pictures, searched with its sub-folders; these may name classes."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stylecli.data.decoding import open_picture
from stylecli.data.sources.naming import Arrangement, arrange, is_picture, listing, printable
from stylecli.errors import DataError


@dataclass(frozen=True)
class PictureFile:
    """One picture file of a folder."""

    path: Path
    name: str  # below the folder, with forward slashes
    label: int | None

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the file's name below its folder."""
        return {"source": self.name}

    def open(self) -> Image.Image:
        """Open the file; only its header is read. Raises DataError with the cause."""
        try:
            is_file = stat.S_ISREG(self.path.stat().st_mode)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}") from None
        if not is_file:  # opening a pipe would wait for ever
            raise DataError("is not a regular file")
        return open_picture(self.path)


class ImageFolder:
    """The pictures of a folder in the order of their paths' bytes, the same in every locale.

    When every picture lies in a sub-folder, the first-level sub-folders are the classes (unless
    ``classes`` is off), with the exceptions that ``naming.arrange`` knows. Raises DataError when
    there is no picture.
    """

    def __init__(self, path: Path, *, classes: bool = True) -> None:
        self.path = path
        names, unreadable = _picture_names(path)
        if not names:
            raise DataError(
                f"{path} holds no picture: expected files such as .png, .jpg or .webp in it "
                "or in its sub-folders"
            )
        found = arrange(names) if classes else Arrangement(sorted(names, key=os.fsencode))
        self._names, self._labels = found.names, found.labels
        self.class_names = found.class_names
        self.notes = list(found.notes)
        if unreadable:
            self.notes.append(
                f"{len(unreadable)} folders cannot be read and are left out: {listing(unreadable)}"
            )

    @property
    def name(self) -> str:
        """The folder's own name."""
        return printable(self.path.resolve().name)

    def fingerprint(self) -> str:
        """Return a digest over every picture's name and size in bytes."""
        digest = hashlib.sha256()
        for name in self._names:
            try:
                size = (self.path / name).stat().st_size
            except OSError:
                size = -1  # a dangling link: it is skipped with its cause when it is opened
            digest.update(os.fsencode(name) + b"\0%d\0" % size)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> PictureFile:
        name = self._names[index]
        label = None if self._labels is None else self._labels[index]
        return PictureFile(self.path / name, printable(name), label)


def _picture_names(path: Path) -> tuple[list[str], list[str]]:
    """Return (pictures below ``path`` as relative names, folders that could not be read).

    Links to folders are followed, each folder once, so that a circle of links ends.
    """
    names: list[str] = []
    failed: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(path, followlinks=True, onerror=failed.append):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(folder, path).replace(os.sep, "/")
        prefix = "" if below == "." else below + "/"
        names += [prefix + name for name in files if is_picture(name)]
    unreadable = [str(error.filename) for error in failed]
    return names, unreadable

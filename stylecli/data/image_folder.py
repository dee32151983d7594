"""A folder of pictures, searched with its sub-folders; the first level of these names classes."""

import hashlib
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from stylecli.errors import DataError

SUFFIXES = frozenset(".png .jpg .jpeg .jfif .webp .bmp .tif .tiff .gif .ppm .pgm .pbm .tga".split())
# FFHQ and NVIDIA's tools file pictures by number in folders of five digits: these are no classes.
_NUMBERED = re.compile(r"\d{5}")


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
        with warnings.catch_warnings():
            # Pillow warns from 89 million pixels and refuses from twice that; refusing is enough.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            try:
                return Image.open(self.path)
            except Exception as error:  # Pillow's plugins raise anything on damaged files
                raise DataError(_cause(error)) from None


class ImageFolder:
    """The pictures of a folder in the order of their paths' bytes, the same in every locale.

    When every picture lies in a sub-folder, the first-level sub-folders are the classes, unless
    there is only one or all are mere numbers of five digits. Raises DataError when there is no
    picture.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        names = sorted(_picture_names(path), key=os.fsencode)
        if not names:
            raise DataError(
                f"{path} holds no picture: expected files such as .png, .jpg or .webp in it "
                "or in its sub-folders"
            )
        self._names = names
        self._folders = _class_folders(names)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def class_names(self) -> list[str] | None:
        """The sub-folders' names in order, or None."""
        return [_printable(name) for name in self._folders] if self._folders else None

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
        label = self._folders.get(name.partition("/")[0]) if self._folders else None
        return PictureFile(self.path / name, _printable(name), label)


def _picture_names(path: Path) -> list[str]:
    """Return all pictures below ``path``, without hidden files, as relative names."""
    names = []
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(folder, path).replace(os.sep, "/")
        prefix = "" if below == "." else below + "/"
        names += [
            prefix + name
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
        ]
    return names


def _class_folders(names: list[str]) -> dict[str, int]:
    """Return first-level folder -> label; empty when the folders are no classes."""
    folders = {
        folder: None for folder, slash, _ in (name.partition("/") for name in names) if slash
    }
    if any("/" not in name for name in names) or len(folders) < 2:
        return {}
    if all(_NUMBERED.fullmatch(folder) for folder in folders):
        return {}
    return {folder: label for label, folder in enumerate(sorted(folders, key=os.fsencode))}


def _printable(name: str) -> str:
    """Make a file name that is not UTF-8 fit for JSON."""
    return os.fsencode(name).decode("utf-8", "replace")


def _cause(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "is not a picture of a known kind"
    if isinstance(error, Image.DecompressionBombError):
        return f"is too large: {error}"
    return f"cannot be read: {error}"

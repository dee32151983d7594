"""Pictures in a folder or in a zip: which names are pictures, which folders are splits or classes.

A zip is read in place, stored or deflated: nothing is unpacked to the disk. The directory at its
end is read once; after that an item knows where its bytes lie. The sizes in the directory are
limits: a member that inflates to more is refused, not followed.
"""

import hashlib
import io
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from stylecli.data.decoding import open_picture
from stylecli.data.sources.base import MAX_PICTURE_BYTES, listing, printable, read_stored
from stylecli.errors import DataError

SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .mpo .webp .bmp .dib .tif .tiff .gif .ppm .pgm .pbm .pnm .tga "
    ".jp2 .j2k .jpx .avif .avifs .qoi .pcx .sgi .psd .dds .ico".split()
)
# FFHQ and NVIDIA's tools file pictures by number in folders of five digits: these are no classes.
_NUMBERED = re.compile(r"\d{5}")
_TRAIN = frozenset({"train", "training"})
_SPLITS = _TRAIN | {"val", "valid", "validation", "test", "testing"}


_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., bytes of name, bytes of extra field
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class Arrangement:
    """Pictures in order, with the classes that their folders are."""

    names: list[str]
    labels: list[int] | None = None
    class_names: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def is_picture(name: str) -> bool:
    """Tell whether a name with forward slashes is that of a picture that is not hidden."""
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and os.path.splitext(parts[-1])[1].lower() in SUFFIXES


def arrange(names: Iterable[str]) -> Arrangement:
    """Sort pictures by the bytes of their paths and find the classes among their folders.

    A single folder around everything counts for nothing. Of folders that are splits (train, val,
    test) only the training set is taken. What is then first in every path is the class, if there
    are several and not all are numbers of five digits.
    """
    names = sorted(names, key=os.fsencode)
    notes: list[str] = []
    depth = 0
    while True:
        folders = {_folder(name, depth) for name in names}
        if folders <= _SPLITS and folders & _TRAIN and len(folders) > 1:
            kept = [name for name in names if _folder(name, depth) in _TRAIN]
            others = ", ".join(sorted(folder for folder in folders - _TRAIN if folder))
            notes.append(
                f"{len(names) - len(kept):,} pictures in {others} are left out: "
                "name that folder to take them"
            )
            names, depth = kept, depth + 1
        elif len(folders) == 1 and None not in folders:
            depth += 1
        else:
            break
    classes = sorted((folder for folder in folders if folder is not None), key=os.fsencode)
    if len(classes) < 2 or set(classes) <= _SPLITS or all(map(_NUMBERED.fullmatch, classes)):
        return Arrangement(names, notes=notes)
    if None in folders:
        outside = [name for name in names if _folder(name, depth) is None]
        notes.append(
            f"{len(outside):,} pictures lie outside the {len(classes)} sub-folders "
            f"({listing(outside)}), so these are not taken as classes: move the pictures, or give "
            "--labels"
        )
        return Arrangement(names, notes=notes)
    numbers = {folder: label for label, folder in enumerate(classes)}
    labels = [numbers[_folder(name, depth) or ""] for name in names]
    return Arrangement(names, labels, [printable(folder) for folder in classes], notes)


def _folder(name: str, depth: int) -> str | None:
    """Return a path's part at ``depth``, or None when that is the file itself."""
    parts = name.split("/", depth + 1)
    return parts[depth] if len(parts) > depth + 1 else None


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
    ``classes`` is off), with the exceptions that ``arrange`` knows. Raises DataError when
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


@dataclass(frozen=True)
class ZipMember:
    """Where the bytes of one file lie in a zip."""

    archive: Path
    offset: int  # of its local header
    stored_bytes: int
    unpacked_bytes: int
    method: int
    crc: int

    def read(self, most: int = MAX_PICTURE_BYTES) -> bytes:
        """Return the content. Raises DataError when it is damaged or has over ``most`` bytes."""
        if max(self.unpacked_bytes, self.stored_bytes) > most:
            raise DataError(f"is too large: it unpacks to {self.unpacked_bytes:,} bytes")
        header = read_stored(self.archive, self.offset, _LOCAL_HEADER.size)
        signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        if signature != b"PK\x03\x04":
            raise DataError("is not where the zip's directory says")
        start = self.offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        content = read_stored(self.archive, start, self.stored_bytes)
        if self.method == zipfile.ZIP_DEFLATED:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(
                    content, self.unpacked_bytes + 1
                )
            except zlib.error as error:
                raise DataError(f"is damaged: {error}") from None
        elif self.method != zipfile.ZIP_STORED:
            raise DataError(f"is compressed by method {self.method}: expected stored or deflated")
        if len(content) != self.unpacked_bytes or zlib.crc32(content) != self.crc:
            raise DataError("is damaged: size or checksum differ from the zip's directory")
        return content


@dataclass(frozen=True)
class ZipPicture:
    """One picture inside a zip."""

    member: ZipMember
    name: str
    label: int | None

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the picture's name in the zip."""
        return {"source": self.name}

    def open(self) -> Image.Image:
        """Open the picture by its content. Raises DataError with the cause."""
        return open_picture(io.BytesIO(self.member.read()))


class ZipPictures:
    """The pictures of a zip in the order of their names' bytes; folders may be classes.

    ``members`` is its directory. Raises DataError when it holds no picture.
    """

    def __init__(self, path: Path, members: dict[str, ZipMember], *, classes: bool = True) -> None:
        self.path, self._members = path, members
        names = [name for name in members if is_picture(name)]
        if not names:
            raise DataError(f"{path} holds no picture such as .png, .jpg or .webp")
        found = arrange(names) if classes else Arrangement(sorted(names, key=str.encode))
        self._names, self._labels = found.names, found.labels
        self.class_names, self.notes = found.class_names, list(found.notes)

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return printable(self.path.resolve().stem)

    def fingerprint(self) -> str:
        """Return a digest over every picture's name, size and CRC-32."""
        digest = hashlib.sha256()
        for name in self._names:
            member = self._members[name]
            digest.update(f"{name}\0{member.unpacked_bytes}\0{member.crc}\0".encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> ZipPicture:
        name = self._names[index]
        label = None if self._labels is None else self._labels[index]
        return ZipPicture(self._members[name], name, label)


def read_directory(path: Path) -> dict[str, ZipMember]:
    """Return the files of a zip by name, with forward slashes; of two equal names the later one.

    Raises DataError when it is no zip, is damaged, or holds encrypted files.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damaged directories raise nearly anything
        raise DataError(
            f"{path} is not a readable zip: {error or type(error).__name__}; get it again"
        ) from None
    members = {}
    for entry in entries:
        name = "/".join(part for part in entry.filename.replace("\\", "/").split("/") if part)
        if entry.is_dir() or not name:
            continue
        if entry.flag_bits & _ENCRYPTED:
            raise DataError(
                f"{path} is encrypted ({printable(name)[:80]}): unpack it with its password, "
                "then name the folder"
            )
        members[printable(name)] = ZipMember(
            path,
            entry.header_offset,
            entry.compress_size,
            entry.file_size,
            entry.compress_type,
            entry.CRC,
        )
    return members

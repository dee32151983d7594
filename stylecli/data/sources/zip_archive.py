"""Pictures inside a zip, stored or deflated, read in place: nothing is unpacked to the disk.

The directory at the archive's end is read once; after that an item knows where its bytes lie.
The sizes in the directory are limits: a member that inflates to more is refused, not followed.
"""

import hashlib
import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stylecli.data.decoding import open_picture
from stylecli.data.sources.naming import Arrangement, arrange, is_picture, printable
from stylecli.data.sources.stored_picture import MAX_PICTURE_BYTES, read_stored
from stylecli.errors import DataError

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., bytes of name, bytes of extra field
_ENCRYPTED = 0x1


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

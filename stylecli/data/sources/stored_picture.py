"""A picture that lies as a run of bytes in a larger file: read in place, by any process."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stylecli.data.decoding import open_picture
from stylecli.data.sources.protocol import Label
from stylecli.errors import DataError

MAX_PICTURE_BYTES = 1 << 29


@dataclass(frozen=True)
class StoredPicture:
    """One encoded picture inside a file."""

    file: Path
    offset: int
    size: int
    name: str
    label: Label | None

    @property
    def metadata(self) -> dict[str, Any]:
        """Return its name in the file."""
        return {"source": self.name}

    def open(self) -> Image.Image:
        """Open the picture by its content. Raises DataError with the cause."""
        if self.size > MAX_PICTURE_BYTES:
            raise DataError(f"is too large: {self.size:,} bytes")
        return open_picture(io.BytesIO(read_stored(self.file, self.offset, self.size)))


def read_stored(file: Path, offset: int, size: int) -> bytes:
    """Return ``size`` bytes of a file. Raises DataError when they are not there any more."""
    try:
        with open(file, "rb") as opened:
            opened.seek(offset)
            content = opened.read(size)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}") from None
    if len(content) != size:
        raise DataError(f"cannot be read: {file.name} was cut short")
    return content

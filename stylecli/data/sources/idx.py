"""idx files, the format of MNIST and Fashion-MNIST: pictures and, beside them, labels.

A file is a magic number (0, 0, 8 = bytes, number of dimensions), the dimensions as big-endian
uint32, then the bytes; often gzipped. Sides that are no power of two are padded with zeros, as
StyleGAN's tools do: 28 px become 32 px.
"""

import gzip
import hashlib
import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.data.layout import MAX_RESOLUTION
from stylecli.errors import DataError

_IMAGES = re.compile(r"(?P<set>.*)images(?P<dash>[-.])idx3-ubyte(?P<gz>\.gz)?")
_MAX_BYTES = 1 << 33
_DEFLATE_LIMIT = 1032  # no deflate stream grows by more than this factor


@dataclass(frozen=True)
class IdxItem:
    """One picture of an idx file."""

    pixels: npt.NDArray[np.uint8]  # [H, W]
    name: str
    label: int | None

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the file's name and the picture's number in it."""
        return {"source": self.name}

    def open(self) -> Image.Image:
        """Return the picture, padded with zeros to a square whose side is a power of two."""
        height, width = self.pixels.shape
        side = max(4, 1 << (max(height, width) - 1).bit_length())
        top, left = (side - height) // 2, (side - width) // 2
        padding = (top, side - height - top), (left, side - width - left)
        return Image.fromarray(np.pad(self.pixels, padding))


class IdxSource:
    """All pictures of the given idx files, one file after the other."""

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.path = path
        self._files = files
        self._images = [read_idx(file, dimensions=3) for file in files]
        if len({images.shape[1:] for images in self._images}) > 1:
            raise DataError(f"the idx files of {path} hold pictures of different sizes")
        self._starts = np.cumsum([0] + [len(images) for images in self._images])
        labels = [_find_labels(file) for file in files]
        if any(found is None for found in labels):
            self._labels: list[npt.NDArray[np.uint8]] | None = None
        else:
            self._labels = [read_idx(found, dimensions=1) for found in labels if found]
            for file, images, found in zip(files, self._images, self._labels, strict=True):
                if len(images) != len(found):
                    raise DataError(f"{file} holds {len(images)} pictures but {len(found)} labels")

    @property
    def name(self) -> str:
        """The folder's name, or what stands before ``images`` in the single file's."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return folder.resolve().name

    @property
    def class_names(self) -> list[str] | None:
        """The classes' numbers, or None without label files."""
        if self._labels is None:
            return None
        return [str(label) for label in range(1 + max(int(part.max()) for part in self._labels))]

    @property
    def notes(self) -> list[str]:
        """Say nothing: what is there is used."""
        return []

    def fingerprint(self) -> str:
        """Return a digest over the files' names and sizes."""
        parts = [f"{file.name} {file.stat().st_size}" for file in self._files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> IdxItem:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[part])
        label = None if self._labels is None else int(self._labels[part][row])
        return IdxItem(self._images[part][row], f"{self._files[part].name}#{row}", label)


def find_idx_files(path: Path) -> list[Path]:
    """Return the idx picture files at ``path``, a file or a folder: training set first."""
    candidates = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [file for file in candidates if file.is_file() and _IMAGES.fullmatch(file.name)]
    return sorted(found, key=lambda file: (not file.name.startswith("train"), file.name))


def read_idx(path: Path, *, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an idx file of bytes with so many dimensions, gzipped or not.

    The sizes in its header are checked against the file's before memory is taken. Raises DataError
    when it is damaged or of another kind.
    """
    file_bytes = path.stat().st_size
    with open(path, "rb") as start:
        zipped = start.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if zipped else open(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
                raise DataError(f"{path} is not an idx file of bytes in {dimensions} dimensions")
            shape: tuple[int, ...] = struct.unpack(f">{dimensions}I", header[4:])
            size = math.prod(shape)
            largest = file_bytes * _DEFLATE_LIMIT if zipped else file_bytes - len(header)
            sides = shape[1:]
            if not 0 < size <= min(largest, _MAX_BYTES) or max(sides, default=1) > MAX_RESOLUTION:
                raise DataError(f"{path} says it holds {shape} bytes, which its size rules out")
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}") from None
    if len(data) != size:
        raise DataError(f"{path} does not hold the {shape} bytes its header says: get it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _find_labels(images: Path) -> Path | None:
    """Return the label file that belongs to a picture file, if it lies beside it."""
    match = _IMAGES.fullmatch(images.name)
    if match is None:
        return None
    stem = f"{match['set']}labels{match['dash']}idx1-ubyte"
    names = [stem + ".gz", stem] if match["gz"] else [stem, stem + ".gz"]
    return next(
        (images.with_name(name) for name in names if images.with_name(name).is_file()), None
    )

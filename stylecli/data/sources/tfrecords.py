"""StyleGAN's TFRecord pyramids: ``<name>-rNN.tfrecords`` for each level, ``<name>-rxx.labels``.

A file is a row of records: the data's length (uint64, little-endian), the length's masked CRC-32C,
the data, its masked CRC-32C. The data is a tf.train.Example with raw pixels, see ``tf_example.py``.
Every level holds the same pictures in the same order; the highest has them whole.
"""

import hashlib
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.data.layout import MAX_RESOLUTION
from stylecli.data.sources.checksums import masked_crc32c
from stylecli.data.sources.labels import LabelTable, classes_of, interpret_rows
from stylecli.data.sources.naming import printable
from stylecli.data.sources.npy import read_npy
from stylecli.data.sources.protocol import Label
from stylecli.data.sources.stored_picture import read_stored
from stylecli.data.sources.tf_example import parse_example
from stylecli.errors import DataError

_LEVEL_NAME = re.compile(r"(?P<stem>.*)-r(?P<level>\d\d)\.tfrecords", re.DOTALL)
_MAX_RECORD_BYTES = 4 * MAX_RESOLUTION**2 + 4096
_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class TFRecordPicture:
    """One record of a TFRecord file."""

    file: Path
    offset: int  # of the data
    size: int
    name: str
    label: Label | None

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the file's name and the record's number in it."""
        return {"source": self.name}

    def open(self) -> Image.Image:
        """Read and check the record. Raises DataError with the cause."""
        content = memoryview(read_stored(self.file, self.offset, self.size + _CRC.size))
        data = content[: self.size]
        if _CRC.unpack(content[self.size :])[0] != masked_crc32c(data):
            raise DataError("is damaged: its checksum is wrong")
        (channels, height, width), pixels = parse_example(data)
        if channels not in (1, 3) or max(height, width) > MAX_RESOLUTION:
            raise DataError(f"is a record of {channels} x {height} x {width} values, not a picture")
        array = np.frombuffer(pixels, np.uint8).reshape(channels, height, width)
        if channels == 1:
            return Image.fromarray(array[0])
        return Image.fromarray(np.ascontiguousarray(array.transpose(1, 2, 0)))


class TFRecordPyramid:
    """The pictures of one level: of the given file, or of a folder's highest level.

    Raises DataError when the file is damaged or cut short, when a folder holds several pyramids, or
    when there are not as many labels as pictures.
    """

    def __init__(self, path: Path) -> None:
        self._file = _highest_level(path) if path.is_dir() else path
        match = _LEVEL_NAME.fullmatch(self._file.name)
        self.name = printable(match["stem"] if match else self._file.stem)
        self._offsets, self._sizes, self._checksums = _index_records(self._file)
        found = _find_labels(self._file, len(self)) if match else None
        self._values = found.values if found else None
        self.class_names = found.class_names if found else None
        self.notes = list(found.notes) if found else []

    def fingerprint(self) -> str:
        """Return a digest over the records' sizes and checksums, and the labels."""
        digest = hashlib.sha256(self._sizes.astype("<i8").tobytes() + self._checksums)
        if self._values is not None:
            digest.update(np.ascontiguousarray(self._values).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> TFRecordPicture:
        index = range(len(self))[index]
        label: Label | None = None
        if self._values is not None:
            value = self._values[index].tolist()
            label = value if isinstance(value, int) else tuple(value)
        offset, size = int(self._offsets[index]), int(self._sizes[index])
        name = f"{printable(self._file.name)}#{index}"
        return TFRecordPicture(self._file, offset, size, name, label)


def is_tfrecords(path: Path) -> bool:
    """Tell by the first record's length and its checksum whether a file holds TFRecords."""
    try:
        with open(path, "rb") as file:
            start = file.read(_HEADER.size)
    except OSError:
        return False
    return len(start) == _HEADER.size and _HEADER.unpack(start)[1] == masked_crc32c(start[:8])


def find_tfrecords(path: Path) -> bool:
    """Tell whether a folder holds levels of a pyramid."""
    return any(_LEVEL_NAME.fullmatch(entry.name) for entry in path.iterdir())


def _highest_level(path: Path) -> Path:
    matches = [_LEVEL_NAME.fullmatch(entry.name) for entry in path.iterdir()]
    levels = sorted((match["stem"], match["level"]) for match in matches if match)
    stems = sorted({stem for stem, _ in levels})
    if len(stems) > 1:
        raise DataError(
            f"{path} holds several pyramids ({', '.join(map(printable, stems[:4]))}): name one "
            f"file, such as {printable(path.name)}/{printable('-r'.join(levels[-1]))}.tfrecords"
        )
    return path / ("-r".join(levels[-1]) + ".tfrecords")


def _index_records(
    file: Path,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], bytes]:
    """Return (where the records' data begin, their sizes, their checksums), by the lengths."""
    offsets: list[int] = []
    sizes: list[int] = []
    checksums = bytearray()
    known: dict[bytes, int] = {}  # the last length's: most records are of one
    try:
        end = file.stat().st_size
        with open(file, "rb", buffering=0) as content:
            place = 0
            header = content.read(_HEADER.size)
            while place < end:
                if len(header) < _HEADER.size:
                    raise _cut_short(file, len(offsets))
                size, crc = _HEADER.unpack(header)
                if header[:8] not in known:
                    known = {header[:8]: masked_crc32c(header[:8])}
                if known[header[:8]] != crc or not 0 < size <= _MAX_RECORD_BYTES:
                    raise DataError(
                        f"{file} is damaged, or no TFRecord file: the length of record "
                        f"{len(offsets)} (byte {place:,}) does not fit its checksum; get it again"
                    )
                offsets.append(place + _HEADER.size)
                sizes.append(size)
                content.seek(place + _HEADER.size + size)
                following = content.read(_CRC.size + _HEADER.size)
                if len(following) < _CRC.size:
                    raise _cut_short(file, len(offsets) - 1)
                checksums += following[: _CRC.size]
                header = following[_CRC.size :]
                place += _HEADER.size + size + _CRC.size
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from None
    if not offsets:
        raise DataError(f"{file} holds no record")
    return np.array(offsets, np.int64), np.array(sizes, np.int64), bytes(checksums)


def _cut_short(file: Path, count: int) -> DataError:
    return DataError(f"{file} is cut short: it ends within record {count}; get it again")


def _find_labels(file: Path, count: int) -> LabelTable | None:
    """Read the float32 [N, L] beside a pyramid; None when there are none."""
    stem = file.name.rpartition("-r")[0]
    path = file.with_name(f"{stem}-rxx.labels")
    if not path.exists():
        return None
    rows = read_npy(path, empty=True)
    if rows.ndim == 2 and rows.shape[1] == 0:
        return None
    if rows.ndim == 1 and rows.dtype.kind in "iu" and len(rows):
        table = LabelTable(classes_of(rows, path))
    elif rows.ndim == 2:
        table = interpret_rows(rows, path)
    else:
        raise DataError(f"{path} holds labels of shape {list(rows.shape)}: expected [N, L]")
    if len(table.values) != count:
        raise DataError(f"{path} holds {len(rows):,} labels for {count:,} pictures")
    return table

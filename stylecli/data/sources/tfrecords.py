"""StyleGAN's TFRecord pyramids: ``<name>-rNN.tfrecords`` for each level, ``<name>-rxx.labels``.

A file is a row of records: the data's length (uint64, little-endian), the length's masked CRC-32C
(Castagnoli), the data, its masked CRC-32C. The data is a tf.train.Example with raw pixels. Every
level holds the same pictures in the same order; the highest has them whole.

Protocol buffers on the wire: a field is a varint, number * 8 + type (0 varint, 1 eight bytes, 2 a
length and so many bytes, 5 four bytes), then its value. The message is

    Example  { 1: Features }           Features { 1: repeated entry }
    entry    { 1: name, 2: Feature }   Feature  { 1: bytes list, 2: floats, 3: int64 list }

and both kinds of lists hold their values in field 1.

A CRC is linear: the CRC of a message is the XOR of what each of its bytes contributes, and a byte's
contribution depends on its value and its distance from the end only. So a block of 64 bytes is 64
look-ups, done for all blocks at once; then neighbouring blocks are joined pairwise, the left one
shifted over the length of the right one, until one is left. Measured in one thread: 0.5 ms for
200 kB, 8 ms for 3 MB; a compiled library would take a tenth, but be one more dependency.
"""

import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.data.layout import MAX_RESOLUTION
from stylecli.data.sources.base import Label, printable, read_stored
from stylecli.data.sources.labels import LabelTable, classes_of, interpret_rows, read_npy
from stylecli.errors import DataError

_POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41 with its bits reversed, as the CRC is defined
_BLOCK = 64
_CHUNK_BLOCKS = 1 << 12  # 256 KiB at a time: the indices of a look-up are 8 times its bytes
_ONES = 0xFFFFFFFF

Words = npt.NDArray[np.uint32]


_MAX_FIELDS = 1000  # at each level; a StyleGAN record has two features
_FIXED = {1: 8, 5: 4}
_LEVEL_NAME = re.compile(r"(?P<stem>.*)-r(?P<level>\d\d)\.tfrecords", re.DOTALL)
_MAX_RECORD_BYTES = 4 * MAX_RESOLUTION**2 + 4096
_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")


def crc32c(data: "bytes | memoryview[int]") -> int:
    """Return the CRC-32C of ``data``; of b"123456789" it is 0xE3069283."""
    content = np.frombuffer(data, np.uint8)
    whole = len(content) // _BLOCK * _BLOCK
    state = _ONES
    if whole:
        # Linear again: what the initial ones become, and what the blocks make of a state of zero.
        linear = _blocks(content[:whole].reshape(-1, _BLOCK))
        state = linear ^ _shift_one(_ONES, whole)
    byte_table = _byte_table().tolist() if len(content) > whole else []
    for byte in content[whole:].tolist():
        state = byte_table[(state ^ byte) & 0xFF] ^ state >> 8
    return state ^ _ONES


def masked_crc32c(data: "bytes | memoryview[int]") -> int:
    """Return the CRC as a TFRecord stores it: rotated right by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & _ONES


def _blocks(blocks: npt.NDArray[np.uint8]) -> int:
    """Return the CRC, from a state of zero, of blocks [M, 64]."""
    parts = []
    for start in range(0, len(blocks), _CHUNK_BLOCKS):
        chunk = blocks[start : start + _CHUNK_BLOCKS]
        places = chunk.astype(np.intp)
        places += np.arange(_BLOCK, dtype=np.intp) * 256
        parts.append(np.bitwise_xor.reduce(_block_table().ravel().take(places), axis=1))
    states = np.concatenate(parts)
    length = _BLOCK
    while len(states) > 1:
        if len(states) % 2:  # a zero state in front changes nothing
            states = np.concatenate([np.zeros(1, np.uint32), states])
        states = _shift(states[::2], length) ^ states[1::2]
        length *= 2
    return int(states[0])


def _shift(states: Words, length: int) -> Words:
    """Return what states become when ``length`` zero bytes follow; a power of two."""
    table = _shift_table(length)
    shifted: Words = (
        table[0][states & 0xFF]
        ^ table[1][states >> 8 & 0xFF]
        ^ table[2][states >> 16 & 0xFF]
        ^ table[3][states >> 24]
    )
    return shifted


def _shift_one(state: int, length: int) -> int:
    """Do the same to a single state, over any length."""
    states = np.array([state], np.uint32)
    bit = 1
    while bit <= length:
        if length & bit:
            states = _shift(states, bit)
        bit *= 2
    return int(states[0])


@cache
def _byte_table() -> Words:
    """Return what each byte does to a state of zero: [256]."""
    table: Words = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = table >> np.uint32(1) ^ (table & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    return table


@cache
def _shift_table(length: int) -> Words:
    """Return, for each byte of a state, what it becomes after ``length`` zero bytes: [4, 256]."""
    table: Words = np.arange(256, dtype=np.uint32) << np.arange(0, 32, 8, dtype=np.uint32)[:, None]
    if length == 1:
        table = _byte_table()[table & 0xFF] ^ table >> np.uint32(8)
        return table
    half = length // 2
    return _shift(_shift(table, half), half)


@cache
def _block_table() -> Words:
    """Return what byte values contribute at each place of a block: [64, 256]."""
    rows: list[Words] = [_byte_table()]
    for _ in range(_BLOCK - 1):
        rows.append(_shift(rows[-1], 1))
    return np.stack(rows[::-1])


def parse_example(record: "memoryview[int]") -> tuple[tuple[int, int, int], "memoryview[int]"]:
    """Return (shape [C, H, W], pixels as uint8 bytes in that order), views of the record.

    Raises DataError when the record holds anything else, or not as many bytes as the shape says.
    """
    features: dict[bytes, memoryview[int]] = {}
    for features_message in _messages(record, 1):
        for entry in _messages(features_message, 1):
            name = next(iter(_messages(entry, 1)), memoryview(b""))
            features[bytes(name[:64])] = next(iter(_messages(entry, 2)), memoryview(b""))
    if not {b"shape", b"data"} <= features.keys():
        raise DataError(f"is a record of {sorted(features)}: expected shape and data")
    shape = [number for values in _messages(features[b"shape"], 3) for number in _integers(values)]
    data = next(
        (value for values in _messages(features[b"data"], 1) for value in _messages(values, 1)),
        memoryview(b""),
    )
    if len(shape) != 3 or min(shape) < 1 or shape[0] * shape[1] * shape[2] != len(data):
        raise DataError(f"is a record of shape {shape[:8]} with {len(data):,} bytes of pixels")
    return (shape[0], shape[1], shape[2]), data


def _messages(message: "memoryview[int]", wanted: int) -> "Iterator[memoryview[int]]":
    """Yield the values of a field that have a length."""
    for number, value in _fields(message):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _integers(message: "memoryview[int]") -> Iterator[int]:
    """Yield the integers of an int64 list, packed into one value or not."""
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            yield value
        elif number == 1 and isinstance(value, memoryview):
            place = 0
            while place < min(len(value), _MAX_FIELDS):
                integer, place = _varint(value, place)
                yield integer


def _fields(message: "memoryview[int]") -> "Iterator[tuple[int, memoryview[int] | int]]":
    """Yield (number, value) of a message's fields."""
    place = 0
    for _ in range(_MAX_FIELDS):
        if place == len(message):
            return
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            integer, place = _varint(message, place)
            yield tag >> 3, integer
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise DataError(f"is not a readable record: it has a field of type {kind}")
        if size > len(message) - place:
            raise DataError("is not a readable record: a field runs out of it")
        yield tag >> 3, message[place : place + size]
        place += size
    raise DataError(f"is not a StyleGAN record: it has over {_MAX_FIELDS:,} fields")


def _varint(message: "memoryview[int]", place: int) -> tuple[int, int]:
    """Return (integer, where it ends): seven bits a byte, the lowest first."""
    integer = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        integer |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return integer, place
    raise DataError("is not a readable record: an integer does not end")


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

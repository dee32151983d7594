"""TFRecords of pictures: StyleGAN's pyramids, and files or shards with encoded pictures.

A pyramid is ``<name>-rNN.tfrecords`` for each level and ``<name>-rxx.labels``.

A file is a row of records: the data's length (uint64, little-endian), the length's masked CRC-32C
(Castagnoli), the data, its masked CRC-32C. The data is a tf.train.Example with raw pixels, or with
an encoded picture. Every level of a pyramid holds the same pictures in the same order; the highest
has them whole.

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

import contextlib
import hashlib
import io
import math
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.data.format import MAX_RESOLUTION
from stylecli.data.pictures import START_BYTES, open_picture, picture_kind
from stylecli.data.sources.base import (
    Label,
    listing,
    printable,
    read_stored,
)
from stylecli.data.sources.folders import SPLITS, TRAIN
from stylecli.data.sources.labels import (
    LabelTable,
    Values,
    interpret_array,
    interpret_numbers,
    read_npy,
)
from stylecli.errors import DataError, plural

_POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41 with its bits reversed, as the CRC is defined
_BLOCK = 64
_CHUNK_BLOCKS = 1 << 12  # 256 KiB at a time: the indices of a look-up are 8 times its bytes
_ONES = 0xFFFFFFFF

Words = npt.NDArray[np.uint32]


_MAX_FIELDS = 1000  # at each level; a StyleGAN record has two features
_FIXED = {1: 8, 5: 4}
_LEVEL_NAME = re.compile(r"(?P<stem>.*)-r(?P<level>\d\d)\.tfrecords(\.gz)?", re.DOTALL)
_SHARD_NAME = re.compile(r"(?P<stem>.*?)-\d{5}-of-(?P<count>\d{5})(\.\w+)*", re.DOTALL)
_PLAIN_NAME = re.compile(r"(?P<stem>.*)\.tfrecords?(\.gz)?", re.DOTALL)
_LABEL_FEATURES = (b"label", b"labels", b"class")
_TRIED = 20  # files of a folder that are opened to see whether they are TFRecords
_START_READ = 4096  # of a compressed file, to see the first record's header
_ANY_HEADER = 32 + zlib.MAX_WBITS  # zlib's own name for: gzip or zlib
_GZIP = b"\x1f\x8b"
_MAX_UNPACKED_BYTES = 1 << 30
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


def parse_example(
    record: "memoryview[int]",
) -> tuple[tuple[int, int, int] | None, "memoryview[int]"]:
    """Return (shape [C, H, W], pixels as uint8 bytes in that order), or (None, encoded picture).

    Both are views of the record. Raises DataError when the record holds anything else, or not as
    many bytes as the shape says.
    """
    features = _features(record)
    contents = {name: _first_bytes(feature) for name, feature in features.items()}
    shape = _numbers(features, b"shape")
    pixels = contents.get(b"data", memoryview(b""))
    if len(shape) == 3 and min(shape) >= 1 and math.prod(shape) == len(pixels):
        return (shape[0], shape[1], shape[2]), pixels
    encoded = [data for data in contents.values() if picture_kind(bytes(data[:START_BYTES]))]
    if encoded:
        return None, max(encoded, key=len)
    if shape and len(pixels):
        raise DataError(f"is a record of shape {shape[:8]} with {len(pixels):,} bytes of pixels")
    raise DataError(
        f"is a record of {_listed(features)}: expected shape and data, or an encoded picture"
    )


def _listed(features: Iterable[bytes]) -> str:
    return listing(sorted(name.decode("utf-8", "replace") for name in features)) or "nothing"


def _features(record: "memoryview[int]") -> "dict[bytes, memoryview[int]]":
    features: dict[bytes, memoryview[int]] = {}
    for features_message in _messages(record, 1):
        for entry in _messages(features_message, 1):
            name = next(iter(_messages(entry, 1)), memoryview(b""))
            features[bytes(name[:64])] = next(iter(_messages(entry, 2)), memoryview(b""))
    return features


def _first_bytes(feature: "memoryview[int]") -> "memoryview[int]":
    values = (value for values in _messages(feature, 1) for value in _messages(values, 1))
    return next(values, memoryview(b""))


def _numbers(features: "dict[bytes, memoryview[int]]", name: bytes) -> list[int]:
    feature = features.get(name, memoryview(b""))
    return [number for values in _messages(feature, 3) for number in _integers(values)]


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
    content: bytes | None = None  # the data and its checksum, of a file that is compressed

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the file's name and the record's number in it."""
        return {"source": self.name}

    def open(self) -> Image.Image:
        """Read and check the record. Raises DataError with the cause."""
        content = memoryview(
            read_stored(self.file, self.offset, self.size + _CRC.size)
            if self.content is None
            else self.content
        )
        data = content[: self.size]
        if _CRC.unpack(content[self.size :])[0] != masked_crc32c(data):
            raise DataError("is damaged: its checksum is wrong")
        shape, pixels = parse_example(data)
        if shape is None:
            return open_picture(io.BytesIO(pixels))
        channels, height, width = shape
        if channels not in (1, 3) or max(height, width) > MAX_RESOLUTION:
            raise DataError(f"is a record of {channels} x {height} x {width} values, not a picture")
        array = np.frombuffer(pixels, np.uint8).reshape(channels, height, width)
        if channels == 1:
            return Image.fromarray(array[0])
        return Image.fromarray(np.ascontiguousarray(array.transpose(1, 2, 0)))


@dataclass(frozen=True)
class _Records:
    """Where the records of a file lie."""

    file: Path
    offsets: npt.NDArray[np.int64]  # of their data
    sizes: npt.NDArray[np.int64]
    checksums: bytes
    content: bytes | None  # of a file that is compressed: all of it, unpacked


class TFRecordPictures:
    """The pictures of a file, of a folder's highest level, or of all the shards in a folder.

    Compressed files are unpacked in memory. Raises DataError when a file is damaged or cut short,
    when a folder holds several sets, when the records hold no pictures, or, with ``own_labels``,
    when there are not as many labels as pictures.
    """

    def __init__(self, path: Path, *, own_labels: bool = True) -> None:
        self.notes: list[str] = []
        files = _choose_files(path, self.notes) if path.is_dir() else [path]
        self._parts = [_index_records(file) for file in files]
        self._starts = np.cumsum([0] + [len(part.sizes) for part in self._parts])
        self.name = printable(_set_name(path, files))
        self._values: Values | None = None
        self.class_names: list[str] | None = None
        label = self._check_first()
        if not own_labels:
            return
        found = _find_labels(files[0], len(self)) if _LEVEL_NAME.fullmatch(files[0].name) else None
        if found is None and label is not None:
            numbers = [number for part in self._parts for number in _record_labels(part, label)]
            found = interpret_numbers(numbers, f"{_listed([label])} of the records")
        if found is not None:
            self._values, self.class_names = found.values, found.named_classes()
            self.notes += found.notes

    def _check_first(self) -> bytes | None:
        """Return the name of the feature that holds a class, if the first record has one.

        Raises DataError when the record holds something other than a picture.
        """
        first = self[0]
        part = self._parts[0]
        content = memoryview(first.content or read_stored(first.file, first.offset, first.size))
        try:
            features = _features(content[: first.size])
            parse_example(content[: first.size])
        except DataError as error:
            if _CRC.unpack(part.checksums[: _CRC.size])[0] == masked_crc32c(content[: first.size]):
                raise DataError(
                    f"{first.file} holds TFRecords of another kind: the first {error}"
                ) from None
            return None  # it is skipped with its cause when its turn comes
        likely = [name for name in features if name.rpartition(b"/")[2] in _LABEL_FEATURES]
        return next((name for name in likely if len(_numbers(features, name)) == 1), None)

    def fingerprint(self) -> str:
        """Return a digest over the records' sizes and checksums, and the labels."""
        digest = hashlib.sha256()
        for part in self._parts:
            digest.update(part.sizes.astype("<i8").tobytes() + part.checksums)
        if self._values is not None:
            digest.update(np.ascontiguousarray(self._values).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> TFRecordPicture:
        index = range(len(self))[index]
        label: Label | None = None
        if self._values is not None:
            value = self._values[index].tolist()
            label = value if isinstance(value, int) else tuple(value)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        part, row = self._parts[number], index - int(self._starts[number])
        offset, size = int(part.offsets[row]), int(part.sizes[row])
        content = part.content and part.content[offset : offset + size + _CRC.size]
        name = f"{printable(part.file.name)}#{row}"
        return TFRecordPicture(part.file, offset, size, name, label, content or None)


def is_tfrecords(path: Path) -> bool:
    """Tell by the first record's length and its checksum whether a file holds TFRecords."""
    try:
        with open(path, "rb") as file:
            start = file.read(_START_READ)
    except OSError:
        return False
    if _begins_record(start):
        return True
    with contextlib.suppress(zlib.error):  # what is not compressed ends here, too
        return _begins_record(zlib.decompressobj(_ANY_HEADER).decompress(start, _HEADER.size))
    return False


def _begins_record(start: bytes) -> bool:
    start = start[: _HEADER.size]
    return len(start) == _HEADER.size and _HEADER.unpack(start)[1] == masked_crc32c(start[:8])


def find_tfrecords(path: Path) -> bool:
    """Tell whether a folder holds levels of a pyramid, or shards, or files called .tfrecords."""
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    if any(map(_LEVEL_NAME.fullmatch, names)):
        return True
    likely = [name for name in names if _SHARD_NAME.fullmatch(name) or _PLAIN_NAME.fullmatch(name)]
    return any(is_tfrecords(path / name) for name in likely[:_TRIED])


def _choose_files(path: Path, notes: list[str]) -> list[Path]:
    """Return the files of a folder that make up one set."""
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    if any(map(_LEVEL_NAME.fullmatch, names)):
        return [_highest_level(path)]
    sets: dict[str, list[str]] = {}
    for name in names:
        if match := _SHARD_NAME.fullmatch(name):
            sets.setdefault(match["stem"].rpartition(".tfrecord")[0] or match["stem"], []).append(
                name
            )
        elif (match := _PLAIN_NAME.fullmatch(name)) and is_tfrecords(path / name):
            sets.setdefault(match["stem"] if split_of(match["stem"]) else "", []).append(name)
    chosen = list(sets)
    if len(sets) > 1:
        chosen = [stem for stem in sets if split_of(stem) == "train"]
        left = [name for stem in sets if stem not in chosen for name in sets[stem]]
        if len(chosen) != 1 or not all(split_of(stem) for stem in sets):
            raise DataError(
                f"{path} holds several sets of TFRecords ({listing(sets)}): give each a folder of "
                "its own, or name one file"
            )
        notes.append(
            f"{plural(len(left), 'file is', 'files are')} left out ({listing(left)}): "
            f"name one to take it"
        )
    files = sets[chosen[0]]
    if match := _SHARD_NAME.fullmatch(files[0]):
        missing = int(match["count"]) - len(files)
        if missing > 0:
            notes.append(f"missing: {missing:,} of {plural(int(match['count']), 'shard')}")
    return [path / name for name in files]


def split_of(stem: str) -> str:
    """Return which part of a set its file's name says it is: train, test, or nothing."""
    last = re.split(r"[-_.]", stem.lower())[-1]
    if last in TRAIN:
        return "train"
    return "test" if last in SPLITS else ""


def _set_name(path: Path, files: list[Path]) -> str:
    """Return what a dataset made of the files is called."""
    name = files[0].name
    for pattern in (_LEVEL_NAME, _SHARD_NAME, _PLAIN_NAME):
        if match := pattern.fullmatch(name):
            stem = match["stem"].rpartition(".tfrecord")[0] or match["stem"]
            is_own = pattern is _LEVEL_NAME or (len(files) == 1 and not split_of(stem))
            return stem if is_own or not path.is_dir() else path.resolve().name
    return files[0].stem


def _highest_level(path: Path) -> Path:
    names = [entry.name for entry in path.iterdir() if entry.is_file()]
    matches = map(_LEVEL_NAME.fullmatch, names)
    levels = sorted((match["stem"], match["level"], match[0]) for match in matches if match)
    stems = sorted({stem for stem, _, _ in levels})
    if len(stems) > 1:
        raise DataError(
            f"{path} holds several pyramids ({', '.join(map(printable, stems[:4]))}): name one "
            f"file, such as {printable(path.name)}/{printable(levels[-1][2])}"
        )
    return path / levels[-1][2]


def _index_records(file: Path) -> _Records:
    """Find the records of a file by their lengths."""
    offsets: list[int] = []
    sizes: list[int] = []
    checksums = bytearray()
    known: dict[bytes, int] = {}  # the last length's: most records are of one
    try:
        unpacked = _unpacked(file)
        end = file.stat().st_size if unpacked is None else len(unpacked)
        opened = open(file, "rb", buffering=0) if unpacked is None else io.BytesIO(unpacked)
        with opened as content:
            place = 0
            header = content.read(_HEADER.size)
            while place < end:
                if len(header) < _HEADER.size:
                    raise _cut_short(file, len(offsets))
                size, crc = _HEADER.unpack(header)
                if header[:8] not in known:
                    known = {header[:8]: masked_crc32c(header[:8])}
                if known[header[:8]] != crc or not size:
                    raise DataError(
                        f"{file} is damaged, or no TFRecord file: the length of record "
                        f"{len(offsets)} (byte {place:,}) does not fit its checksum; get it again"
                    )
                if size > _MAX_RECORD_BYTES:
                    raise DataError(
                        f"{file} holds TFRecords of another kind: record {len(offsets)} has "
                        f"{size:,} bytes, too many for a picture"
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
    return _Records(
        file, np.array(offsets, np.int64), np.array(sizes, np.int64), bytes(checksums), unpacked
    )


def _record_labels(part: _Records, name: bytes) -> list[int]:
    """Return the class in every record; what is damaged gets any, and is skipped when opened."""
    labels: list[int] = []
    for offset, size in zip(part.offsets.tolist(), part.sizes.tolist(), strict=True):
        content = part.content and part.content[offset : offset + size]
        found: list[int] = []
        with contextlib.suppress(DataError):
            record = content or read_stored(part.file, offset, size)
            found = _numbers(_features(memoryview(record)), name)
        labels.append(found[0] if found else 0)
    return labels


def _unpacked(file: Path) -> bytes | None:
    """Return the content of a file that TensorFlow compressed, GZIP or ZLIB; None for others."""
    with open(file, "rb") as opened:
        start = opened.read(_HEADER.size)
        # A length may begin like a compressed file; then its checksum fits.
        if _begins_record(start) or (start[:2] != _GZIP and not is_tfrecords(file)):
            return None
        opened.seek(0)
        parts: list[bytes] = []
        total, stream = 0, zlib.decompressobj(_ANY_HEADER)
        try:
            while chunk := stream.unconsumed_tail or stream.unused_data or opened.read(1 << 20):
                if stream.eof:  # gzip files may be several, one after the other
                    stream = zlib.decompressobj(_ANY_HEADER)
                parts.append(stream.decompress(chunk, 1 << 24))
                total += len(parts[-1])
                if total > _MAX_UNPACKED_BYTES:
                    raise DataError(
                        f"{file} unpacks to over {_MAX_UNPACKED_BYTES >> 20} MiB: run gunzip first"
                    )
        except zlib.error as error:
            raise DataError(f"{file} is damaged: {error}; get it again") from None
    if not stream.eof:
        raise DataError(f"{file} is cut short: its compressed data do not end; get it again")
    return b"".join(parts)


def _cut_short(file: Path, count: int) -> DataError:
    return DataError(f"{file} is cut short: it ends within record {count}; get it again")


def _find_labels(file: Path, count: int) -> LabelTable | None:
    """Read the float32 [N, L] beside a pyramid; None when there are none."""
    stem = file.name.rpartition("-r")[0]
    path = file.with_name(f"{stem}-rxx.labels")
    if not path.is_file():
        return None
    rows = read_npy(path, empty=True)
    if rows.ndim == 2 and rows.shape[1] == 0:
        return None
    table = interpret_array(rows, path)
    if len(table.values) != count:
        raise DataError(f"{path} holds {plural(len(rows), 'label')} for {plural(count, 'picture')}")
    return table

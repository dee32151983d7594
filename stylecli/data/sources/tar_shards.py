"""Tar files of pictures, such as the shards of WebDataset: read in place, never unpacked.

Members that share a key, which is the name up to the first dot of its last part, are one sample:
``cats/0001.jpg``, ``cats/0001.cls``, ``cats/0001.json``. The picture is what is packed, ``.cls`` or
a key of the JSON its label, the rest is kept with it. A tar of pictures alone may have classes as
folders, as a zip may.

A tar is a row of headers of 512 bytes, each followed by its file's bytes and zeros up to the next
multiple of 512; two blocks of zeros end it. Numbers are octal text, or big-endian where the first
bit is set. Longer names stand in entries of their own before the file's: of type L (GNU), or x
(POSIX), whose content is lines of ``<bytes of the line> <key>=<value>``.

Names are names and never paths: no file is written, no link followed. Where the bytes lie is kept
in arrays: 95 to 108 bytes for each picture, measured with names of 13 to 18 letters. While a tar is
read, its keys are kept too, so that a million pictures in one file take up to 316 MB for a moment.
"""

import contextlib
import hashlib
import io
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.data.pictures import open_picture
from stylecli.data.sources.base import (
    MAX_PICTURE_BYTES,
    Label,
    listing,
    printable,
    read_stored,
)
from stylecli.data.sources.folders import (
    arrange,
    describe_left_out,
    is_hidden,
    is_picture,
    plain_name,
)
from stylecli.data.sources.labels import Values, interpret_values
from stylecli.data.sources.tfrecords import split_of
from stylecli.errors import DataError, plural
from stylecli.files import parse_json
from stylecli.workspace import SHARDS

_BLOCK = 512
_MOST_HEADER = 1 << 20  # bytes of a long name, or of POSIX's lines
_MOST_TEXT = 1 << 16  # bytes of a label, a text or a JSON that are read
_MOST_CLASSES = 1000  # that texts may be
_PATIENCE = 20_000  # entries without a picture
_PER_PICTURE = 100  # further entries that a picture makes plausible
_FILES, _LINKS, _FOLDERS = b"0\0" + b"7", b"12", b"5"
_TEXTS = ("cls", "json", "txt")
_LABEL_KEYS = ("label", "cls", "class", "class_id", "class_name", "category", "labels")
_MOST_SHARDS = 100_000
_NUMBER = re.compile(r"[-_.]?\d+$")


class _Member(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class TarPicture:
    """One picture in a tar, and where what belongs to it lies."""

    file: Path
    offset: int
    size: int
    name: str
    label: Label | None
    texts: tuple[tuple[str, int, int], ...] = ()  # kind, offset, size

    @property
    def metadata(self) -> dict[str, Any]:
        """Return its name, what its JSON says and, as ``text``, what its .txt says."""
        known: dict[str, Any] = {"source": self.name}
        for kind, offset, size in self.texts:
            with contextlib.suppress(DataError):  # a spoilt text spoils no picture
                content = read_stored(self.file, offset, size)
                if kind == "json":
                    known |= parse_json(content, self.name)
                elif kind == "txt":
                    known["text"] = content.decode("utf-8", "replace").strip()
        return known

    def open(self) -> Image.Image:
        """Open the picture by its content. Raises DataError with the cause."""
        if self.size > MAX_PICTURE_BYTES:
            raise DataError(f"is too large: {self.size:,} bytes")
        return open_picture(io.BytesIO(read_stored(self.file, self.offset, self.size)))


class _Shard:
    """Where the samples of one tar lie."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.others: dict[str, int] = {}  # kind of what is left out -> how many
        self.left_out: list[str] = []  # names of some files that belong to no picture
        self.again = 0  # members of the same name
        self.notes: list[str] = []
        self._names = bytearray()
        self._ends = array("q")
        self.places = {kind: (array("q"), array("q")) for kind in ("picture", *_TEXTS)}
        rows: dict[str, int] = {}
        ranks = bytearray()  # of the picture's suffix, the plainest first
        for member in _members(file, self):
            self._take(member, rows, ranks)
        offsets = np.array(self.places["picture"][0], np.int64)
        self.rows = np.flatnonzero(offsets >= 0)

    def _take(self, member: _Member, rows: dict[str, int], ranks: bytearray) -> None:
        """Enter a file into the row of its sample."""
        if is_hidden(member.name):
            return
        folder, slash, last = member.name.rpartition("/")
        key, _, suffix = last.partition(".")
        kind = suffix.lower() if suffix.lower() in _TEXTS else ""
        if is_picture(member.name):
            kind = "picture"
        elif not kind:
            if len(self.left_out) < _MOST_CLASSES:
                self.left_out.append(member.name)
            self.others["file"] = self.others.get("file", 0) + 1
            return
        row = rows.setdefault(folder + slash + key, len(rows))
        if row == len(self._ends):
            self._names += printable(member.name).encode()
            self._ends.append(len(self._names))
            ranks.append(255)
            for offsets, sizes in self.places.values():
                offsets.append(-1)
                sizes.append(0)
        offsets, sizes = self.places[kind]
        if kind == "picture":
            rank = min(suffix.count("."), 254)
            if rank > ranks[row]:
                self.others["further picture of a sample"] = (
                    self.others.get("further picture of a sample", 0) + 1
                )
                return
            self.again += rank == ranks[row]
            ranks[row] = rank
        elif offsets[row] >= 0:
            self.again += 1
        offsets[row], sizes[row] = member.offset, member.size

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        """Return the name of the sample's first file."""
        row = int(self.rows[index])
        start = self._ends[row - 1] if row else 0
        return self._names[start : self._ends[row]].decode()

    def picture(self, index: int, label: Label | None) -> TarPicture:
        """Return a picture and where its texts lie."""
        row = int(self.rows[index])
        offsets, sizes = self.places["picture"]
        texts = tuple(
            (kind, self.places[kind][0][row], self.places[kind][1][row])
            for kind in _TEXTS
            if self.places[kind][0][row] >= 0 and self.places[kind][1][row] <= _MOST_TEXT
        )
        name = f"{printable(self.file.name)}/{self.name(index)}"
        return TarPicture(self.file, offsets[row], sizes[row], name, label, texts)

    def read(self, kind: str) -> Iterator[bytes | None]:
        """Yield the text of each picture; None where it has none, or an absurd one."""
        offsets, sizes = self.places[kind]
        with open(self.file, "rb") as opened:
            for row in self.rows.tolist():
                if offsets[row] < 0 or sizes[row] > _MOST_TEXT:
                    yield None
                else:
                    opened.seek(offsets[row])
                    yield opened.read(sizes[row])

    def digest(self) -> bytes:
        """Return a digest over the names and sizes of all that counts."""
        found = hashlib.sha256(self._names)
        found.update(np.array(self._ends, np.int64).tobytes())
        for offsets, sizes in self.places.values():
            found.update(np.array(sizes, np.int64).tobytes())
            found.update((np.array(offsets, np.int64) >= 0).tobytes())
        return found.digest()


class TarPictures:
    """The pictures of tar files, in the files' order and in each in its own.

    Raises DataError when a file is damaged, cut short or compressed, and when there is no picture.
    """

    as_stored = False

    def __init__(self, files: Sequence[Path], name: str, *, own_labels: bool = True) -> None:
        self.name = name
        self.notes: list[str] = []
        self._shards = [_Shard(file) for file in files]
        self._order: npt.NDArray[np.int64] | None = None
        self._values: Values | None = None
        self.class_names: list[str] | None = None
        self._starts = np.cumsum([0] + [len(shard) for shard in self._shards])
        self._say_what_is_left_out()
        if not self._starts[-1]:
            more = f" ({'; '.join(self.notes)})" if self.notes else ""
            raise DataError(
                f"{listing(map(str, files))} holds no picture{more}: expected files such as .jpg "
                "or .png, one for each sample"
            )
        if own_labels and not self._find_labels():
            self._find_classes()

    def _say_what_is_left_out(self) -> None:
        others: dict[str, int] = {}
        for shard in self._shards:
            self.notes += shard.notes
            for kind, count in shard.others.items():
                others[kind] = others.get(kind, 0) + count
        counted = {kind: count for kind, count in others.items() if kind != "file"}
        if counted:
            self.notes.append(
                "left out: " + ", ".join(plural(count, kind) for kind, count in counted.items())
            )
        if again := sum(shard.again for shard in self._shards):
            self.notes.append(
                f"{plural(again, 'file has', 'files have')} the name of an earlier one: as tar "
                "does, the later one is taken"
            )
        names = [name for shard in self._shards for name in shard.left_out][:_MOST_CLASSES]
        self.notes += describe_left_out(names, lambda name: b"")

    def _find_labels(self) -> bool:
        """Read the labels beside the pictures; return whether there are any."""
        for kind, reading in (("cls", _word), ("json", _label_of_json), ("txt", _text)):
            values: list[Any] = []
            lacking = 0
            for shard in self._shards:
                for content in shard.read(kind):
                    value = None if content is None else reading(content)
                    lacking += value is None
                    values.append(value)
                if lacking == len(values):
                    break  # there are none of this kind
            if lacking == len(values):
                continue
            if kind == "txt" and (lacking or not _are_classes(values)):
                continue
            if lacking:
                self.notes.append(
                    f"{lacking:,} of {plural(len(self), 'picture')} lack a label in .{kind}, so "
                    "these are not used as labels: give --labels FILE"
                )
                return True
            table = interpret_values(values, f".{kind} of {self.name}")
            self._values, self.class_names = table.values, table.named_classes()
            self.notes += table.notes
            return True
        return False

    def _find_classes(self) -> None:
        """Take folders as classes where there are only pictures, as in a zip."""
        if any("/" in shard.name(0) for shard in self._shards if len(shard)):
            names = {}
            for index in range(len(self)):
                shard, row = self._place(index)
                names[f"{shard.name(row)}\0{index}"] = index
            found = arrange(names)
            self.notes += found.notes
            self._order = np.array([names[name] for name in found.names], np.int64)
            if found.labels is not None:
                self._values = np.array(found.labels, np.int64)
                self.class_names = found.class_names

    def fingerprint(self) -> str:
        """Return a digest over the names and sizes of the files, and the labels."""
        digest = hashlib.sha256()
        for shard in self._shards:
            digest.update(shard.digest())
        if self._values is not None:
            digest.update(np.ascontiguousarray(self._values).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._order is None else len(self._order)

    def _place(self, index: int) -> tuple[_Shard, int]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._shards[number], index - int(self._starts[number])

    def __getitem__(self, index: int) -> TarPicture:
        index = range(len(self))[index]
        label: Label | None = None
        if self._values is not None:
            value = self._values[index].tolist()
            label = value if isinstance(value, int) else tuple(value)
        shard, row = self._place(index if self._order is None else int(self._order[index]))
        return shard.picture(row, label)


def _word(content: bytes) -> Any:
    """Return what a .cls holds: a number, several, or the name of a class."""
    text = content.decode("utf-8", "replace").strip()
    if not text:
        return None
    with contextlib.suppress(ValueError, DataError):
        found = parse_json(content, ".cls", of=object)
        if isinstance(found, int | float | list) and not isinstance(found, bool):
            return found
    return text


def _label_of_json(content: bytes) -> Any:
    with contextlib.suppress(DataError):
        found = parse_json(content, ".json")
        for key in _LABEL_KEYS:
            if isinstance(found.get(key), int | float | str | list):
                return found[key]
    return None


def _text(content: bytes) -> str | None:
    return content.decode("utf-8", "replace").strip() or None


def _are_classes(texts: list[str]) -> bool:
    """Tell whether texts are names of classes and no captions: short, few, and repeated."""
    distinct = set(texts)
    return len(distinct) <= min(_MOST_CLASSES, len(texts) // 2) and max(map(len, distinct)) <= 64


# ---- the format


def is_tar(path: Path) -> bool:
    """Tell by its first header whether a file is a tar that is not compressed."""
    try:
        with open(path, "rb") as file:
            return _is_header(file.read(_BLOCK))
    except OSError:
        return False


def _is_header(block: bytes) -> bool:
    if len(block) < _BLOCK or not block.strip(b"\0"):
        return False
    with contextlib.suppress(ValueError):
        wanted = _number(block[148:156])
        plain = sum(block) - sum(block[148:156]) + 8 * 32
        if plain == wanted:
            return True
        return plain - 256 * sum(byte > 127 for byte in block[:148] + block[156:]) == wanted
    return False


def _number(field: bytes) -> int:
    """Read a number of a header; raise ValueError for what is none."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    return int(digits, 8) if digits else 0


def _members(file: Path, shard: _Shard) -> Iterator[_Member]:
    """Yield the plain files of a tar; count the rest."""
    try:
        size = file.stat().st_size
        with open(file, "rb", buffering=1 << 17) as opened:
            yield from _walk(file, opened, size, shard)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from None


def _walk(file: Path, opened: IO[bytes], end: int, shard: _Shard) -> Iterator[_Member]:
    place, entries, pictures, name = 0, 0, 0, ""
    known: dict[str, str] = {}  # what POSIX's lines say of the next file
    while place < end:
        opened.seek(place)
        block = opened.read(_BLOCK)
        if len(block) == _BLOCK and not block.strip(b"\0"):
            if opened.read(_MOST_HEADER).strip(b"\0"):
                shard.notes.append(f"{file}: what follows its end, at byte {place:,}, is not read")
            return
        if len(block) < _BLOCK:
            raise _cut_short(file, name)
        if not _is_header(block):
            raise _damaged(file, place)
        entries += 1
        if entries > _PATIENCE + _PER_PICTURE * pictures:
            first = plural(entries - 1, "entry", "entries")
            found = f"{plural(pictures, 'picture')} among its first {first}"
            raise DataError(f"{file} has {found}: it is no shard of pictures")
        try:
            size = int(known["size"]) if "size" in known else _number(block[124:136])
        except ValueError:
            raise _damaged(file, place) from None
        kind, start = block[156:157], place + _BLOCK
        if size < 0 or start + size > end:
            raise _cut_short(file, known.get("path") or _header_name(block))
        place = start + -(-size // _BLOCK) * _BLOCK
        if kind in (b"L", b"K", b"x", b"g"):
            if size > _MOST_HEADER:
                told = f"a name of {plural(size, 'byte')} at byte {start:,}"
                raise DataError(f"{file} has {told}: it is damaged, or made to do harm")
            opened.seek(start)
            content = opened.read(size)
            if kind == b"L":
                known["path"] = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif kind == b"x":
                known |= _pax(content)
            continue
        name = known.get("path") or _header_name(block)
        sparse = kind == b"S" or any(key.startswith("GNU.sparse") for key in known)
        known = {}
        if kind in _FILES and kind and not sparse and not name.endswith("/"):
            clean = plain_name(name)
            if clean and size:
                pictures += is_picture(clean)
                yield _Member(clean, start, size)
        elif kind not in _FOLDERS and not name.endswith("/"):
            what = "sparse file" if sparse else "link" if kind in _LINKS else "special file"
            shard.others[what] = shard.others.get(what, 0) + 1
    shard.notes.append(f"{file} has no end mark: it may be cut short")


def _header_name(block: bytes) -> str:
    """Return the name in a header, which POSIX writes in two parts."""
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape")


def _pax(content: bytes) -> dict[str, str]:
    """Read POSIX's lines: path and size count, the rest tells what is sparse."""
    found, place = {}, 0
    while place < len(content):
        digits, _, _ = content[place : place + 20].partition(b" ")
        if not digits.isdigit() or int(digits) < len(digits) + 3:
            break
        line = content[place + len(digits) + 1 : place + int(digits) - 1]
        key, _, value = line.partition(b"=")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse"):
            found[key.decode("ascii")] = value.decode("utf-8", "surrogateescape")
        place += int(digits)
    return found


def _damaged(file: Path, place: int) -> DataError:
    return DataError(
        f"{file} is damaged, or no tar: what stands at byte {place:,} is no header; get it again"
    )


def _cut_short(file: Path, name: str) -> DataError:
    within = f" within {printable(name)[:80]}" if name else ""
    return DataError(f"{file} is cut short: it ends{within}; get it again")


# ---- which files


def expand_pattern(path: Path) -> list[Path] | None:
    """Return the files that ``shards-{000..009}.tar`` names; None for a name without braces.

    Raises DataError where some of them are missing, and names the first.
    """
    text = str(path)
    found = SHARDS.search(text)
    if found is None or path.exists():
        return None
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < _MOST_SHARDS:
        raise DataError(f"{path} counts from {first} to {last}: expected a rising range of shards")
    width = max(len(found[1]), len(found[2]))
    numbers = [str(number).zfill(width) for number in range(first, last + 1)]
    names = [text[: found.start()] + number + text[found.end() :] for number in numbers]
    files: list[Path] = []
    for name in names:
        inner = expand_pattern(Path(name))
        files += [Path(name)] if inner is None else inner
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise DataError(
            f"{len(missing):,} of {plural(len(files), 'shard')} of {path} are missing, such as "
            f"{missing[0]}: get them, or give another range"
        )
    return files


def find_tars(path: Path) -> list[Path]:
    """Return the tar files in a folder, by name; none where it holds pictures of its own."""
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    if any(map(is_picture, names)):
        return []
    return [path / name for name in names if name.lower().endswith(".tar") and is_tar(path / name)]


def open_tars(path: Path, files: list[Path], *, own_labels: bool = True) -> TarPictures:
    """Open the shards in a folder, or one tar; of several sets the training set is taken.

    Raises DataError where a folder holds several sets, none of which is called the training set.
    """
    sets: dict[str, list[Path]] = {}
    for file in files:
        sets.setdefault(_NUMBER.sub("", file.stem), []).append(file)
    notes = []
    if len(sets) > 1 and all(split_of(stem) for stem in sets):
        left = [file.name for stem in sets if split_of(stem) != "train" for file in sets[stem]]
        files = [file for stem in sets if split_of(stem) == "train" for file in sets[stem]]
        notes.append(f"left out: {listing(left)}; name one to take it")
        if not files:
            raise DataError(f"{path} holds several sets of shards ({listing(sets)}): name one file")
    single = len(files) == 1 and not path.is_dir()
    name = _NUMBER.sub("", files[0].stem) if not path.is_dir() else path.resolve().name
    found = TarPictures(files, printable(files[0].stem if single else name), own_labels=own_labels)
    found.notes[:0] = notes
    return found

"""LMDBs of pictures as sources: other tools', rosinality's and LSUN's, and datasets of ours.

LMDB maps a file into memory and follows every number in it, so a cut or damaged file from
elsewhere would end the process. Here all pages of the tree are read and checked once as plain
bytes; what comes out, an offset and a size for every key, lets other processes read a value with
one ``seek``, and needs no open database.

rosinality's ``prepare_data``: keys ``{size}-{index:05d}`` with JPEGs at quality 100, one for each
size, and ``length`` with their number as text. LSUN: 40 hexadecimal digits as keys, JPEG or WebP
of any size as values; the folder ``bedroom_train_lmdb`` holds the category bedroom.
"""

import contextlib
import hashlib
import re
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.data.format import DATA_FILE, to_picture
from stylecli.data.lmdb_files import BIG, NAMED, SEVERAL, PageWalk, Tree, read_meta
from stylecli.data.pictures import START_BYTES, picture_kind
from stylecli.data.reader import Dataset, open_dataset
from stylecli.data.sources.base import (
    Label,
    StoredPicture,
    is_lossy,
    listing,
    printable,
    read_stored,
)
from stylecli.errors import DataError, plural

_DATABASE = struct.Struct("<IHHQQQQQ")  # pad, flags, depth, 4 counts, root
_MAGIC = bytes.fromhex("dec0efbe 01000000")

Numbers = npt.NDArray[np.int64]

_SIZED_KEY = re.compile(rb"(\d{1,5})-(\d{5,12})")
_CATEGORY = re.compile(r"(?P<category>.+?)(_(?P<split>train|val|test))?(_lmdb|\.lmdb)?")
_LSUN_KEY = re.compile(rb"[0-9a-f]{40}")
_OUR_KEYS = (b"_meta", b"_labels")
_SAMPLED = 64  # values whose beginning is read to see what kind they are
_LOSSY = (
    "the pictures are stored in a lossy format such as JPEG: pack the originals if you have them"
)
_LSUN_LOSSY = "LSUN's pictures are stored in a lossy format, JPEG or WebP; there are no originals"
_KINDS = "stylecli's, rosinality's or LSUN's, or any whose values are encoded pictures"


@dataclass(frozen=True)
class LmdbIndex:
    """The keys of an LMDB in order, and where in the file each value lies."""

    file: Path
    keys: list[bytes]
    offsets: Numbers
    sizes: Numbers
    databases: dict[bytes, Tree]  # that have a name, which are entries as well

    def beginning(self, place: int, most: int) -> bytes:
        """Return at most so many bytes of the value at ``place``."""
        size = min(most, int(self.sizes[place]))
        return read_stored(self.file, int(self.offsets[place]), size)


def is_lmdb(path: Path) -> bool:
    """Tell by its first bytes whether a file, or the data file in a folder, is an LMDB."""
    if not _file_of(path).is_file():  # a pipe would be waited for
        return False
    try:
        with open(_file_of(path), "rb") as file:
            return file.read(24)[16:] == _MAGIC
    except OSError:
        return False


def index_lmdb(
    path: Path, *, first_page_only: bool = False, database: bytes | None = None
) -> LmdbIndex:
    """Read the keys of the LMDB at ``path``, a folder or a file, and where their values lie.

    ``database`` is one with a name. ``first_page_only`` stops after the first page of entries, to
    see what kind of keys there are. Raises DataError when it is no LMDB, when it is damaged or cut
    short, and when its keys have several values each.
    """
    file = _file_of(path)
    meta = read_meta(file)
    if meta is None:
        raise DataError(f"{path} can only be read on little-endian 64-bit machines")
    try:
        with open(file, "rb") as content:
            walk = PageWalk(content, meta, kinds=BIG | NAMED | SEVERAL)
            index = _read_index(walk, file, meta.main, first_page_only and database is None)
            if database is not None:
                index = _read_index(walk, file, index.databases[database], first_page_only)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, struct.error) as error:
        raise DataError(f"{path} is damaged or cut short: {error}; copy it again") from None
    except _DuplicatesError:
        raise DataError(
            f"{path} is an LMDB of another kind: it has several values under one key (dupsort)"
        ) from None
    return index if database is None else replace(index, databases={})


class _DuplicatesError(Exception):
    """A key has several values."""


def _read_index(walk: PageWalk, file: Path, tree: Tree, first_page_only: bool) -> LmdbIndex:
    """Return all entries of a tree in order. Raises ValueError for what cannot be."""
    end = file.stat().st_size
    keys: list[bytes] = []
    offsets, sizes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    databases: dict[bytes, Tree] = {}
    for found in walk.leaves(tree):
        if (found.flags & SEVERAL).any():
            raise _DuplicatesError
        begins = found.offsets()
        if (begins + found.sizes > end).any():
            raise ValueError("values lie beyond its end")
        places = zip(found.keys.tolist(), found.key_ends.tolist(), strict=True)
        names = [found.page[start:stop] for start, stop in places]
        named = (found.flags & NAMED) > 0
        for place in np.flatnonzero(named):
            if found.flags[place] != NAMED or found.sizes[place] != _DATABASE.size:
                raise ValueError("it has an impossible database")
            _, kind, depth, *_, root = _DATABASE.unpack_from(found.page, found.key_ends[place])
            databases[names[place]] = Tree(kind, depth, root)
        keys += [name for name, is_one in zip(names, named.tolist(), strict=True) if not is_one]
        offsets.append(begins[~named])
        sizes.append(found.sizes[~named])
        if first_page_only:
            break
    return LmdbIndex(file, keys, np.concatenate(offsets), np.concatenate(sizes), databases)


def _file_of(path: Path) -> Path:
    return path / DATA_FILE if path.is_dir() else path


class RosinalityLmdb:
    """The pictures of one size, the largest unless told, of a database of ``prepare_data``.

    Raises DataError when that size is not there.
    """

    class_names: list[str] | None = None

    def __init__(self, path: Path, size: int | None = None) -> None:
        self.path = path
        index = index_lmdb(path)
        places: dict[int, list[tuple[int, int]]] = {}
        length = None
        for place, key in enumerate(index.keys):
            if match := _SIZED_KEY.fullmatch(key):
                places.setdefault(int(match[1]), []).append((int(match[2]), place))
            elif key == b"length":
                length = index.beginning(place, 20).decode("ascii", "replace")
        if not places:
            raise DataError(f"{path} holds no picture: expected keys such as 256-00000")
        self.size = max(places) if size is None else size
        if self.size not in places:
            raise DataError(f"{path} has no {size} px pictures: it has {sorted(places)}")
        # By number, not by key: beyond 99,999 these differ.
        chosen = sorted(places[self.size])
        kept = [place for _, place in chosen]
        self._numbers = [number for number, _ in chosen]
        self._index = LmdbIndex(index.file, [], index.offsets[kept], index.sizes[kept], {})
        self.notes = [_LOSSY] if any(map(is_lossy, _beginnings(self._index))) else []
        if length is None:
            self.notes.append(f"{path} has no length: its conversion was probably cut short")
        elif length != str(len(chosen)):
            self.notes.append(
                f"{path} should hold {length or 0} pictures and holds {len(chosen):,}"
            )

    @property
    def name(self) -> str:
        """The database's name."""
        return _category(self.path)[0]

    def fingerprint(self) -> str:
        """Return a digest over the numbers and sizes in bytes of the pictures."""
        digest = hashlib.sha256(f"{self.size}\n".encode())
        digest.update(np.array(self._numbers, "<i8").tobytes())
        digest.update(self._index.sizes.astype("<i8").tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> StoredPicture:
        offset, size = int(self._index.offsets[index]), int(self._index.sizes[index])
        name = f"{self.size}-{self._numbers[index]:05d}"
        return StoredPicture(self._index.file, offset, size, name, None)


class PictureLmdbs:
    """All pictures of one or several LMDBs, as LSUN's are; several categories are the classes.

    What is no picture is left out and counted. ``database`` is one with a name.
    """

    def __init__(
        self,
        path: Path,
        databases: list[Path],
        notes: list[str] | None = None,
        *,
        database: bytes | None = None,
    ) -> None:
        self.path = path
        self.notes: list[str] = []
        lossy = False
        self._indices: list[LmdbIndex] = []
        for each in databases:
            index, left_out = _keep_pictures(index_lmdb(each, database=database))
            self._indices.append(index)
            lossy = lossy or any(map(is_lossy, _beginnings(index)))
            if left_out:
                counted = plural(
                    len(left_out),
                    "entry is not a picture and is",
                    "entries are not pictures and are",
                )
                self.notes.append(f"{counted} left out: {listing(map(_readable, left_out))}")
        self._starts = np.cumsum([0] + [len(index.keys) for index in self._indices])
        if not len(self):
            raise DataError(f"{path} holds no picture")
        categories = [_category(database)[0] for database in databases]
        names = sorted(set(categories))
        self.class_names = names if len(names) > 1 else None
        self._categories = categories
        if lossy:
            is_lsun = _LSUN_KEY.fullmatch(self._indices[0].keys[0])
            self.notes.insert(0, _LSUN_LOSSY if is_lsun else _LOSSY)
        self.notes += notes or []

    @property
    def name(self) -> str:
        """The category, or the folder's name when there are several."""
        is_one = len(self._indices) == 1
        return self._categories[0] if is_one else printable(self.path.resolve().name)

    def fingerprint(self) -> str:
        """Return a digest over all keys and sizes in bytes."""
        digest = hashlib.sha256(repr(self._categories).encode())
        for index in self._indices:
            digest.update(b"\0".join(index.keys))
            digest.update(index.sizes.astype("<i8").tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, place: int) -> StoredPicture:
        place = range(len(self))[place]
        part = int(np.searchsorted(self._starts, place, side="right")) - 1
        row = place - int(self._starts[part])
        index, category = self._indices[part], self._categories[part]
        name = index.keys[row].decode("utf-8", "replace")
        label = None
        if self.class_names:
            name, label = f"{category}/{name}", self.class_names.index(category)
        return StoredPicture(
            index.file, int(index.offsets[row]), int(index.sizes[row]), name, label
        )


def open_foreign_lmdb(path: Path) -> RosinalityLmdb | PictureLmdbs:
    """Tell by the first keys and values whose LMDB lies at ``path``. Raises DataError."""
    start = index_lmdb(path, first_page_only=True)
    if any(_SIZED_KEY.fullmatch(key) or key == b"length" for key in start.keys):
        return RosinalityLmdb(path)
    if _has_pictures(start):
        return PictureLmdbs(path, [path])
    if names := list(index_lmdb(path).databases):
        found = [name for name in names if _has_pictures(index_lmdb(path, database=name))]
        chosen = [name for name in found if name in (b"train", b"training")] or found
        if len(chosen) == 1:
            left = [name for name in names if name != chosen[0]]
            notes = [f"named databases left out: {listing(map(_readable, left))}"] if left else []
            return PictureLmdbs(path, [path], notes, database=chosen[0])
        which = "several of them hold" if chosen else "none of them holds"
        raise DataError(
            f"{path} is an LMDB of named databases ({listing(map(_readable, names))}), and {which} "
            "pictures: expected exactly one; write its pictures into a folder"
        )
    raise DataError(f"{path} is an LMDB of an unknown kind ({_describe(start)}): expected {_KINDS}")


def is_ours(path: Path) -> bool:
    """Tell by the first keys whether the LMDB at ``path`` is a dataset of ours, finished or not."""
    keys = index_lmdb(path, first_page_only=True).keys
    return any(key in _OUR_KEYS or (len(key) == 10 and key[:2] == b"d/") for key in keys)


def find_lsun_databases(path: Path) -> tuple[list[Path], list[str]]:
    """Return the LSUN databases right below a folder, and notes on those left out.

    Where a category has a training set, its validation set is left out.
    """
    try:
        found = sorted(entry for entry in path.iterdir() if entry.is_dir() and is_lmdb(entry))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    found = [
        entry
        for entry in found
        if not is_ours(entry) and _has_pictures(index_lmdb(entry, first_page_only=True))
    ]
    splits = {entry: _category(entry) for entry in found}
    trained = {category for category, split in splits.values() if split == "train"}
    kept = [entry for entry in found if splits[entry][1] == "train"]
    kept += [entry for entry in found if splits[entry][0] not in trained]
    left = [entry.name for entry in found if entry not in kept]
    notes = [f"{', '.join(left)} left out: name that folder to take it"] if left else []
    return sorted(kept), notes


def _has_pictures(index: LmdbIndex) -> bool:
    return any(map(picture_kind, _beginnings(index)))


def _beginnings(index: LmdbIndex) -> list[bytes]:
    """Return what some values start with: the first ones, and others spread over all."""
    count = len(index.sizes)
    places = {*range(min(count, _SAMPLED)), *range(0, count, max(1, count // _SAMPLED))}
    return [index.beginning(place, START_BYTES) for place in sorted(places)]


def _keep_pictures(index: LmdbIndex) -> tuple[LmdbIndex, list[bytes]]:
    """Return the pictures alone, and the keys of what is none; all are looked at if some are."""
    if all(map(picture_kind, _beginnings(index))):
        return index, []
    is_picture = [
        bool(picture_kind(index.beginning(place, START_BYTES))) for place in range(len(index.keys))
    ]
    kept = [place for place, is_one in enumerate(is_picture) if is_one]
    left_out = [key for key, is_one in zip(index.keys, is_picture, strict=True) if not is_one]
    keys = [index.keys[place] for place in kept]
    return LmdbIndex(index.file, keys, index.offsets[kept], index.sizes[kept], {}), left_out


def _describe(index: LmdbIndex) -> str:
    """Say what the first entry is like."""
    if not index.keys:
        return "it is empty"
    start = index.beginning(0, START_BYTES)
    kind = "pickled Python objects" if start[:1] == b"\x80" else "no pictures"
    return (
        f"its values are {kind}: the first, under {_readable(index.keys[0])!r}, starts with "
        f"{start[:12]!r}"
    )


def _readable(key: bytes) -> str:
    return key[:40].decode("utf-8", "replace")


def _category(path: Path) -> tuple[str, str | None]:
    """Return (category, split) of a folder such as ``bedroom_train_lmdb``."""
    match = _CATEGORY.fullmatch(printable(path.resolve().name))
    return (match["category"], match["split"]) if match else (path.resolve().name, None)


@dataclass(frozen=True)
class PackedPicture:
    """One picture of a dataset; each process opens the dataset for itself."""

    dataset: Path
    index: int
    label: Label | None

    @property
    def name(self) -> str:
        """What the picture was called when it was packed, if that is known."""
        known: dict[str, Any] = {}
        with contextlib.suppress(DataError):  # whoever needs its metadata will hear of it
            known = self.metadata
        return str(known.get("source") or f"{self.dataset.name}#{self.index}")

    @property
    def metadata(self) -> dict[str, Any]:
        """Return what the dataset knows of it. Raises DataError when that is damaged."""
        return _shared(self.dataset).metadata(self.index)

    def open(self) -> Image.Image:
        """Return the picture. Raises DataError when the dataset is damaged."""
        return to_picture(_shared(self.dataset).read([self.index])[0])


class PackedSource:
    """The pictures of a dataset with their labels. Raises DataError when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        _shared.cache_clear()  # the dataset at a path may be another one now
        self.path = path
        self._dataset = open_dataset(path)
        self._dataset.verify_rows()
        self._labels = self._dataset.labels

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.path.resolve().stem

    @property
    def class_names(self) -> list[str] | None:
        """The dataset's own."""
        names = self._dataset.class_names
        if names is None and self._labels is not None and self._labels.ndim == 1:
            return [str(label) for label in range(self._dataset.label_dim)]
        return names

    @property
    def notes(self) -> list[str]:
        """Say nothing: everything is used."""
        return []

    def fingerprint(self) -> str:
        """Return a digest over the pixels' and the labels."""
        digest = hashlib.sha256(f"{self._dataset.digest}{self.class_names}".encode())
        if self._labels is not None:
            digest.update(np.ascontiguousarray(self._labels).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> PackedPicture:
        index = range(len(self))[index]
        label: Label | None = None
        if self._labels is not None:
            value = self._labels[index].tolist()
            label = value if isinstance(value, int) else tuple(value)
        return PackedPicture(self.path, index, label)


@lru_cache(maxsize=4)
def _shared(path: Path) -> Dataset:
    """Return the dataset that this process's items share; it reopens itself after a fork."""
    return open_dataset(path)

"""Other tools' LMDBs of encoded pictures: rosinality's and LSUN's.

rosinality's ``prepare_data``: keys ``{size}-{index:05d}`` with JPEGs at quality 100, one for each
size, and ``length`` with their number as text. LSUN: 40 hexadecimal digits as keys, JPEG or WebP
of any size as values; the folder ``bedroom_train_lmdb`` holds the category bedroom.
"""

import hashlib
import re
from pathlib import Path

import numpy as np

from stylecli.data.sources.lmdb_index import LmdbIndex, index_lmdb, is_lmdb
from stylecli.data.sources.naming import printable
from stylecli.data.sources.stored_picture import StoredPicture
from stylecli.errors import DataError

_SIZED_KEY = re.compile(rb"(\d{1,5})-(\d{5,12})")
_CATEGORY = re.compile(r"(?P<category>.+?)(_(?P<split>train|val|test))?(_lmdb|\.lmdb)?")
_PICTURE_STARTS = (b"\xff\xd8\xff", b"RIFF", b"\x89PNG")


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
        self._index = LmdbIndex(index.file, [], index.offsets[kept], index.sizes[kept])
        self.notes = ["the pictures are stored as JPEG: lossy, pack the originals if you have them"]
        if length is None:
            self.notes.append(f"{path} has no length: its conversion was probably cut short")
        elif length != str(len(chosen)):
            self.notes.append(f"{path} says it has {length} pictures, {len(chosen)} are there")

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


class LsunLmdbs:
    """All pictures of one or several LSUN databases; several categories are the classes."""

    def __init__(self, path: Path, databases: list[Path], notes: list[str] | None = None) -> None:
        self.path = path
        self._indices = [index_lmdb(database) for database in databases]
        self._starts = np.cumsum([0] + [len(index.keys) for index in self._indices])
        if not len(self):
            raise DataError(f"{path} holds no picture")
        categories = [_category(database)[0] for database in databases]
        names = sorted(set(categories))
        self.class_names = names if len(names) > 1 else None
        self._categories = categories
        self.notes = [
            "LSUN's pictures are stored as JPEG or WebP: lossy, and there are no others",
            *(notes or []),
        ]

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


def open_foreign_lmdb(path: Path) -> RosinalityLmdb | LsunLmdbs:
    """Tell by the first keys and values whose LMDB lies at ``path``. Raises DataError."""
    start = index_lmdb(path, first_page_only=True)
    if any(_SIZED_KEY.fullmatch(key) or key == b"length" for key in start.keys):
        return RosinalityLmdb(path)
    if start.keys and start.beginning(0, 4).startswith(_PICTURE_STARTS):
        return LsunLmdbs(path, [path])
    first = f"its first key is {start.keys[0][:40]!r}" if start.keys else "it is empty"
    raise DataError(
        f"{path} is an LMDB of an unknown kind ({first}): expected stylecli's, rosinality's or "
        "LSUN's"
    )


def find_lsun_databases(path: Path) -> tuple[list[Path], list[str]]:
    """Return the LSUN databases right below a folder, and notes on those left out.

    Where a category has a training set, its validation set is left out.
    """
    try:
        found = sorted(entry for entry in path.iterdir() if entry.is_dir() and is_lmdb(entry))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    found = [entry for entry in found if _holds_pictures(entry)]
    splits = {entry: _category(entry) for entry in found}
    trained = {category for category, split in splits.values() if split == "train"}
    kept = [entry for entry in found if splits[entry][1] == "train"]
    kept += [entry for entry in found if splits[entry][0] not in trained]
    left = [entry.name for entry in found if entry not in kept]
    notes = [f"{', '.join(left)} left out: name that folder to take it"] if left else []
    return sorted(kept), notes


def _holds_pictures(path: Path) -> bool:
    start = index_lmdb(path, first_page_only=True)
    return bool(start.keys) and start.beginning(0, 4).startswith(_PICTURE_STARTS)


def _category(path: Path) -> tuple[str, str | None]:
    """Return (category, split) of a folder such as ``bedroom_train_lmdb``."""
    match = _CATEGORY.fullmatch(printable(path.resolve().name))
    return (match["category"], match["split"]) if match else (path.resolve().name, None)

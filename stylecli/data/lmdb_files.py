"""LMDB files: whether one is whole, opening it to write and to read, how much room it takes.

LMDB maps its file into memory and believes every page number in it, so a file that was cut short or
overwritten ends the process (SIGBUS, SIGSEGV) instead of raising. ``check_whole`` reads the two
meta pages and compares what they need with the size of the file. ``check_tree`` also walks all
pages that a reader follows, and is done at every opening: without it one wrong byte ends the
process. ``check_pages`` looks at the pages of large values, too: done where a file is going to be
written to, and by ``stylecli check``. The layout is that of LMDB 0.9 on 64-bit machines.

    page   number u64, pad u16, flags u16, lower u16, upper u16 (overflow: u32 pages in a row)
    meta   page header, magic u32, version u32, address u64, map size u64, two trees (free, main)
           of 48 bytes (pad u32, flags u16, depth u16, 4 counts u64, root u64), last page u64,
           transaction u64; the first tree's pad is the size of a page
    node   size low u16, size high u16, flags u16, key bytes u16, key, value or page u64
           in a branch the first three are the number of the page below
"""

import contextlib
import os
import shutil
import struct
import sys
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import lmdb

from stylecli.data.format import DATA_FILE, Codec
from stylecli.errors import DataError
from stylecli.progress import format_bytes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Numbers = npt.NDArray[np.int64]

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_PAGE = struct.Struct("<QHHHH")
_META = struct.Struct("<IIQQ" + 2 * "IHHQQQQQ" + "QQ")
_NODE = struct.Struct("<HHHH")
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 0x01, 0x02, 0x04, 0x08
# What an entry can be; neither is set for a small value of ours.
BIG = 0x01  # its value lies on pages of its own
NAMED = 0x02  # its value is the record of a database whose name is the key
SEVERAL = 0x04  # its key has several values
_INTEGER_KEYS = 0x08
_NO_PAGE = 2**64 - 1
_MAX_DEPTH = 32  # LMDB's own cursor stack

# Files whose pages this process has walked, as they were then: device, inode, size, time.
_walked: set[tuple[int, int, int, int]] = set()

FIRST_MAP_BYTES = 16 << 20
_NEARLY_FULL = 1 << 20

_PAGE_BYTES = 4096  # of files that are written here
_IN_PAGE = 2000  # larger values get pages of their own
ROW_BYTES = 400  # digest, label, metadata, keys, and what the pages that hold them leave free


@dataclass(frozen=True)
class Tree:
    """One B-tree: its flags, its depth, and the number of its root page."""

    flags: int
    depth: int
    root: int


@dataclass(frozen=True)
class Meta:
    """What the newest meta page says."""

    page_bytes: int
    last_page: int
    transaction: int
    free: Tree
    main: Tree

    @property
    def file_bytes(self) -> int:
        """The size a file needs to hold every page."""
        return (self.last_page + 1) * self.page_bytes


def check_whole(path: Path) -> None:
    """Raise DataError unless the database file at ``path`` has all its pages."""
    meta = read_meta(path)
    size = path.stat().st_size
    if meta is not None and size < meta.file_bytes:
        raise DataError(
            f"{path} was cut short: it has {size:,} bytes of {meta.file_bytes:,}; "
            "copy it again, or pack the pictures again"
        )


def read_meta(path: Path) -> Meta | None:
    """Return what the newest meta page says; None where the layout is another (32-bit machines).

    Raises DataError when the file is no LMDB or its meta pages are damaged.
    """
    if sys.byteorder != "little" or sys.maxsize < 2**32:
        return None
    try:
        with open(path, "rb") as file:
            first = second = _parse_meta(file.read(_PAGE.size + _META.size))
            if first is not None:
                file.seek(first.page_bytes)
                second = _parse_meta(file.read(_PAGE.size + _META.size))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if first is None or second is None or first.page_bytes != second.page_bytes:
        raise DataError(
            f"{path} is not a readable dataset: it is not an LMDB, or its first pages are "
            f"damaged; copy it again, or pack the pictures again"
        )
    return max(first, second, key=lambda meta: meta.transaction)


def pad_file(path: Path) -> None:
    """Lengthen a database file to hold every page.

    Pages at the end that LMDB took and gave back within one transaction are never written; without
    them a whole file would look cut short.
    """
    meta = read_meta(path)
    with open(path, "r+b") as file:
        if meta is not None and file.seek(0, 2) < meta.file_bytes:
            file.truncate(meta.file_bytes)


def check_tree(path: Path) -> None:
    """Walk what a reader of the file follows, once per process for a file that stays as it is.

    After this no reading of the (unchanged) file can leave it. Pages of large values, nearly all of
    a dataset, are not read: it takes half a second for a million pictures. Raises DataError.
    """
    status = path.stat()
    known = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if known in _walked:
        return
    _walk(path, values=False)
    _walked.add(known)


def check_pages(path: Path) -> None:
    """Walk every page of both trees; raise DataError when one is not what LMDB expects.

    After this no writing to the (unchanged) file can leave it either. Values are not looked at:
    pixels have their own digests.
    """
    _walk(path, values=True)


def _walk(path: Path, *, values: bool) -> None:
    check_whole(path)
    meta = read_meta(path)
    if meta is None:
        return
    try:
        with open(path, "rb") as file:
            walk = PageWalk(file, meta, values=values)
            if values:
                walk.check(meta.free)  # readers do not look at it
            walk.check(meta.main)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    except (ValueError, struct.error) as error:
        raise DataError(
            f"{path} is damaged: {error}; copy it again, or pack the pictures again"
        ) from None


def _parse_meta(start: bytes) -> Meta | None:
    """Return a meta page's content, or None when it cannot be one."""
    if len(start) < _PAGE.size + _META.size:
        return None
    flags = _PAGE.unpack_from(start)[2]
    (magic, version, _, _, page_bytes, free_flags, free_depth, _, _, _, _, free_root,
     _, main_flags, main_depth, _, _, _, _, main_root, last, number,
     ) = _META.unpack_from(start, _PAGE.size)  # fmt: skip
    if magic != _MAGIC or version != _VERSION or not flags & _META_PAGE:
        return None
    if not 512 <= page_bytes <= 65536 or page_bytes & (page_bytes - 1) or not 1 <= last < 2**40:
        return None
    free, main = Tree(free_flags, free_depth, free_root), Tree(main_flags, main_depth, main_root)
    # The upper bits say what is stored, not how. Anything else means keys or values of a kind that
    # neither we nor the tools we read from ever write.
    if free.flags & 0x7FFF != _INTEGER_KEYS or main.flags & 0x7FFF:
        return None
    for tree in (free, main):
        empty = tree.root == _NO_PAGE
        if not empty and not (2 <= tree.root <= last and 1 <= tree.depth <= _MAX_DEPTH):
            return None
    return Meta(page_bytes, last, number, free, main)


@dataclass(slots=True)
class Entries:
    """The entries of one leaf, in the order of their keys: arrays [N], places in bytes."""

    number: int
    page: bytes
    keys: "Numbers"  # where each key begins in the page
    key_ends: "Numbers"  # where it ends, and what the page holds for it begins
    flags: "Numbers"
    sizes: "Numbers"  # of the values

    def offsets(self) -> "Numbers":
        """Return where in the file each value begins."""
        places = self.number * len(self.page) + self.key_ends
        for place in ((self.flags & BIG) > 0).nonzero()[0]:
            first: int = struct.unpack_from("<Q", self.page, self.key_ends[place])[0]
            places[place] = first * len(self.page) + _PAGE.size
        return places


class PageWalk:
    """A walk over the trees of a file that raises ValueError at the first page that is wrong.

    ``kinds`` are the flags that entries may have. With ``values`` the pages of large values are
    looked at, too.
    """

    def __init__(
        self, file: BinaryIO, meta: Meta, *, kinds: int = BIG, values: bool = False
    ) -> None:
        self._file, self._meta = file, meta
        self._kinds, self._values = kinds, values
        pages = min(meta.last_page, file.seek(0, 2) // meta.page_bytes) + 1  # that can be met
        self._seen = bytearray(pages)

    def check(self, tree: Tree) -> None:
        """Walk a whole tree."""
        for _ in self.leaves(tree):
            pass

    def leaves(self, tree: Tree) -> Iterator[Entries]:
        """Yield the entries of each leaf, checked, in the order of the keys."""
        todo = [] if tree.root == _NO_PAGE else [(tree.root, 1)]
        while todo:
            number, level = todo.pop()
            if level < tree.depth:
                todo += [(child, level + 1) for child in reversed(self._branch(number))]
            else:
                yield self._leaf(number)

    def _branch(self, number: int) -> list[int]:
        """Check a page of the tree's inside; return the pages below."""
        _, nodes = self._nodes(number, _BRANCH)
        if nodes.shape[1] < 2:
            raise ValueError(f"page {number} leads to one page only")  # LMDB would abort
        low, high, top, key_bytes = nodes[1:]
        self._within(number, nodes[0] + _NODE.size + key_bytes)
        below: list[int] = (low | high << 16 | top << 32).tolist()
        return below

    def _leaf(self, number: int) -> Entries:
        """Check that a leaf's values lie within it, or on pages of their own."""
        import numpy as np

        page, nodes = self._nodes(number, _LEAF)
        low, high, flags, key_bytes = nodes[1:]
        if (flags & ~self._kinds).any():
            raise ValueError(f"page {number} has an entry of an unknown kind")
        keys, sizes = nodes[0] + _NODE.size, low | high << 16
        key_ends, big = keys + key_bytes, (flags & BIG) > 0
        self._within(number, key_ends + np.where(big, 8, sizes))
        for start, size in zip(key_ends[big].tolist(), sizes[big].tolist(), strict=True):
            self._large(struct.unpack_from("<Q", page, start)[0], size)
        return Entries(number, page, keys, key_ends, flags, sizes)

    def _large(self, first: int, size: int) -> None:
        """Check the pages of one large value."""
        needed = -(-(size + _PAGE.size) // self._meta.page_bytes)
        if not 2 <= first <= self._meta.last_page:
            raise ValueError(f"page {first} does not exist")
        if first + needed - 1 > self._meta.last_page:
            raise ValueError(f"page {first} is too short for its value")
        if not self._values:
            return
        header = self._enter(first, _PAGE.size, _OVERFLOW)
        (pages,) = struct.unpack_from("<I", header, 12)
        if pages < needed or first + pages - 1 > self._meta.last_page:
            raise ValueError(f"page {first} is too short for its value")
        if any(self._seen[first + 1 : first + pages]):
            raise ValueError(f"page {first} runs into others")
        self._seen[first + 1 : first + pages] = b"\1" * (pages - 1)

    def _nodes(self, number: int, kind: int) -> tuple[bytes, "npt.NDArray[np.int64]"]:
        """Return a page and, of each of its nodes [5, N]: where it starts, and its four words."""
        import numpy as np

        size = self._meta.page_bytes
        page = self._enter(number, size, kind)
        words = np.frombuffer(page, "<u2")
        lower, upper = int(words[6]), int(words[7])
        if not _PAGE.size < lower <= upper <= size or lower & 1:
            raise ValueError(f"page {number} has no room for its own entries")
        starts = words[_PAGE.size // 2 : lower // 2].astype(np.int64)
        if starts.min() < upper or starts.max() > size - _NODE.size or (starts & 1).any():
            raise ValueError(f"page {number} has entries outside it")
        return page, np.stack([starts, *(words[starts // 2 + place] for place in range(4))])

    def _enter(self, number: int, size: int, kind: int) -> bytes:
        """Check a page's number, kind, and that it is met once; return its first bytes."""
        if not 2 <= number <= self._meta.last_page:
            raise ValueError(f"page {number} does not exist")
        self._file.seek(number * self._meta.page_bytes)
        page = self._file.read(size)
        if len(page) < size:
            raise ValueError(f"page {number} is not there")
        if self._seen[number]:
            raise ValueError(f"page {number} is used twice")
        self._seen[number] = 1
        own, _, flags, _, _ = _PAGE.unpack_from(page)
        if own != number or flags & ~0x10 != kind:
            raise ValueError(f"page {number} contradicts the pages before it")
        return page

    def _within(self, number: int, ends: "npt.NDArray[np.int64]") -> None:
        if ends.max() > self._meta.page_bytes:
            raise ValueError(f"page {number} has an entry that runs out of it")


class StorageError(DataError):
    """A transaction could not be stored, mostly because the disk is full; nothing of it is."""


class Database:
    """One LMDB open for writing. What ``commit`` has returned from survives a loss of power.

    ``durable=False`` syncs only on ``close``. ``shared=True`` is for a dataset that others may be
    reading: they read without locks, so no page that their snapshot may hold is used again while
    this is open. Raises DataError when the folder cannot be written or holds a damaged file.
    """

    def __init__(self, folder: Path, *, durable: bool = True, shared: bool = False) -> None:
        self.folder = folder
        self._file = folder / DATA_FILE
        self._shared, self._durable = shared, durable
        if self._file.exists() and self._file.stat().st_size:  # empty: killed before the first page
            check_pages(self._file)
        try:
            self._env: lmdb.Environment = lmdb.open(
                str(folder),
                map_size=FIRST_MAP_BYTES,
                sync=durable,
                lock=shared,
                meminit=False,
                mode=0o666,  # less the umask, as for every other file
            )
        except (OSError, lmdb.Error) as error:
            if "already open" in str(error):
                raise DataError(
                    f"{folder} is open for reading in this program: close it before adding to it"
                ) from None
            raise StorageError(f"{folder} cannot be written: {error}") from None
        self._pin: lmdb.Transaction[bytes] | None = None
        if shared:
            self._env.reader_check()  # forget writers that were killed
            self._pin = self._env.begin()

    def get(self, key: bytes) -> bytes | None:
        """Return what is stored under a key."""
        with self._env.begin() as transaction:
            return transaction.get(key)

    def scan(self, prefix: bytes, first: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) of all keys with a ``prefix``, in order, from ``first`` on."""
        with self._env.begin() as transaction, transaction.cursor() as cursor:
            if not cursor.set_range(first or prefix):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, value

    def commit(self, puts: Iterable[tuple[bytes, bytes]], deletes: Iterable[bytes] = ()) -> None:
        """Store all in one transaction, doubling the map until it fits.

        Raises StorageError when it cannot be stored; then nothing of it is.
        """
        puts, deletes = list(puts), list(deletes)
        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    for key in deletes:
                        transaction.delete(key)
                    for key, value in puts:
                        transaction.put(key, value)
                return
            except lmdb.MapFullError:
                self._grow()
            except lmdb.Error as error:
                # A full disk shows as DiskError or, where a page fitted in part, as an I/O error.
                full = isinstance(error, lmdb.DiskError) or free_bytes(self.folder) < _NEARLY_FULL
                cause = "the disk is full" if full else str(error)
                raise StorageError(f"{self.folder} cannot be written: {cause}") from None

    def close(self) -> None:
        """Sync and close; the file then holds every page it speaks of."""
        if self._pin is not None:
            self._pin.abort()
        try:
            if not self._durable:
                self._env.sync(True)
        finally:
            self._env.close()
        with contextlib.suppress(OSError):
            pad_file(self._file)
        if self._shared:
            (self.folder / "lock.mdb").unlink(missing_ok=True)

    def _grow(self) -> None:
        if self._pin is not None:
            self._pin.abort()  # no transaction may be open while the map moves
        self._env.set_mapsize(2 * self._env.info()["map_size"])
        if self._pin is not None:
            self._pin = self._env.begin()


def free_bytes(folder: Path) -> int:
    """Return how much room is left where ``folder`` is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


class SharedEnvironment:
    """One open LMDB folder of one process; LMDB forbids opening a file twice in a process."""

    def __init__(self, path: Path) -> None:
        self.process = os.getpid()
        self.lmdb: lmdb.Environment = lmdb.open(
            str(path), readonly=True, lock=False, readahead=False, meminit=False, create=False
        )

    def __del__(self) -> None:
        if hasattr(self, "lmdb"):
            self.lmdb.close()


# By file, so that all its readers share it until the last lets go.
_shared: weakref.WeakValueDictionary[tuple[int, int], SharedEnvironment] = (
    weakref.WeakValueDictionary()
)


def open_environment(path: Path) -> SharedEnvironment:
    """Open the LMDB in the folder ``path``; keep the result as long as it is read.

    LMDB trusts what it maps, so the file's pages are walked first. Raises OSError when there is no
    such file and DataError when it is no LMDB, is damaged or was cut short.
    """
    file = path / DATA_FILE
    status = file.stat()
    key = (status.st_dev, status.st_ino)
    environment = _shared.get(key)
    if environment is not None and environment.process == os.getpid():
        return environment
    if environment is not None:
        environment.lmdb.close()  # a parent's, inherited by fork: drop our copy of it, open again
    check_tree(file)
    try:
        environment = _shared[key] = SharedEnvironment(path)
    except lmdb.Error as error:
        raise DataError(f"{path} is not a readable dataset: {error}") from None
    return environment


def value_bytes(size: int) -> int:
    """Return the room that one stored value takes in LMDB's pages."""
    if size > _IN_PAGE:
        return -(-(size + _PAGE.size) // _PAGE_BYTES) * _PAGE_BYTES
    # Keys of several kinds grow side by side, which leaves up to half of each page free.
    return 2 * (size + 32)


def picture_bytes(channels: int, pixels: int, codec: Codec = "raw", levels: int = 1) -> int:
    """Return the room that one picture of so many pixels takes: exact for raw ones.

    PNG and lossless WebP depend on the picture: half of the raw size is assumed.
    """
    sizes = [channels * (pixels >> 2 * level) for level in range(levels)]
    stored = [size if codec == "raw" else size // 2 for size in sizes]
    return sum(map(value_bytes, stored)) + ROW_BYTES


def check_room(folder: Path, needed: int, *, is_exact: bool) -> int:
    """Return the bytes that are free where ``folder`` is.

    Raises DataError when ``needed`` bytes are known exactly and do not fit.
    """
    free = free_bytes(folder)
    if is_exact and needed > free:
        raise DataError(
            f"the pictures need {format_bytes(needed)}, but {format_bytes(free)} are free for "
            f"{folder}: make room, or give another --out, a smaller --resolution, fewer "
            f"--max-images or --codec webp (slower, smaller)"
        )
    return free

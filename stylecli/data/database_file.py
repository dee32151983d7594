"""Is a database file whole? What LMDB takes on trust, checked before it maps the file.

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
    node   size low u16, size high u16, flags u16, key bytes u16, key, value
"""

import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from stylecli.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_PAGE = struct.Struct("<QHHHH")
_META = struct.Struct("<IIQQ" + 2 * "IHHQQQQQ" + "QQ")
_NODE = struct.Struct("<HHHH")
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 0x01, 0x02, 0x04, 0x08
_BIG = 0x01  # the node's value lies on pages of its own
_INTEGER_KEYS = 0x08
_NO_PAGE = 2**64 - 1
_MAX_DEPTH = 32  # LMDB's own cursor stack

# Files whose pages this process has walked, as they were then: device, inode, size, time.
_walked: set[tuple[int, int, int, int]] = set()


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
            f"{path} is not a readable dataset: it is no LMDB, or its first pages are damaged; "
            "copy it again, or pack the pictures again"
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
            walk = _Walk(file, meta, values)
            if values:
                walk.go(meta.free)  # readers do not look at it
            walk.go(meta.main)
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


class _Walk:
    """A walk over the trees of a file that raises ValueError at the first page that is wrong."""

    def __init__(self, file: BinaryIO, meta: Meta, values: bool) -> None:
        self._file, self._meta = file, meta
        self._values = values  # whether to look at the pages of large values, too
        self._seen = bytearray(meta.last_page + 1)

    def go(self, tree: Tree) -> None:
        if tree.root == _NO_PAGE:
            return
        todo = [(tree.root, 1)]
        while todo:
            number, level = todo.pop()
            if level == tree.depth:
                self._leaf(number)
            else:
                todo += [(child, level + 1) for child in self._branch(number)]

    def _branch(self, number: int) -> list[int]:
        """Check a page of the tree's inside; return the pages below."""
        _, nodes = self._nodes(number, _BRANCH)
        if nodes.shape[1] < 2:
            raise ValueError(f"page {number} leads to one page only")  # LMDB would abort
        low, high, top, key_bytes = nodes[1:]
        self._within(number, nodes[0] + _NODE.size + key_bytes)
        below: list[int] = (low | high << 16 | top << 32).tolist()
        return below

    def _leaf(self, number: int) -> None:
        """Check that a leaf's values lie within it, or on pages of their own."""
        import numpy as np

        page, nodes = self._nodes(number, _LEAF)
        low, high, flags, key_bytes = nodes[1:]
        if (flags & ~_BIG).any():
            raise ValueError(f"page {number} has an entry of an unknown kind")
        big, starts, sizes = flags > 0, nodes[0] + _NODE.size + key_bytes, low | high << 16
        self._within(number, starts + np.where(big, 8, sizes))
        for start, size in zip(starts[big].tolist(), sizes[big].tolist(), strict=True):
            self._large(struct.unpack_from("<Q", page, start)[0], size)

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
            raise ValueError(f"page {number} has entries outside of itself")
        return page, np.stack([starts, *(words[starts // 2 + place] for place in range(4))])

    def _enter(self, number: int, size: int, kind: int) -> bytes:
        """Check a page's number, kind, and that it is met once; return its first bytes."""
        if not 2 <= number <= self._meta.last_page:
            raise ValueError(f"page {number} does not exist")
        if self._seen[number]:
            raise ValueError(f"page {number} is used twice")
        self._seen[number] = 1
        self._file.seek(number * self._meta.page_bytes)
        page = self._file.read(size)
        if len(page) < size:
            raise ValueError(f"page {number} is not there")
        own, _, flags, _, _ = _PAGE.unpack_from(page)
        if own != number or flags & ~0x10 != kind:
            raise ValueError(f"page {number} is not what the pages before it say")
        return page

    def _within(self, number: int, ends: "npt.NDArray[np.int64]") -> None:
        if ends.max() > self._meta.page_bytes:
            raise ValueError(f"page {number} has an entry that runs out of it")

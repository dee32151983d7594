"""List what a foreign LMDB holds, and where: its tree is read as plain bytes.

LMDB maps a file into memory and follows every number in it, so a cut or damaged file from
elsewhere would end the process. Here all pages of the tree are read and checked once; what comes
out, an offset and a size for every key, lets other processes read a value with one ``seek``, and
needs no open database. The layout is that of LMDB 0.9 on 64-bit machines (``database_file.py``):

    page   number u64, pad u16, flags u16, lower u16, upper u16, offsets of its nodes u16[]
    node   size low u16, size high u16, flags u16, key bytes u16, key, value or page u64
           in a branch the first three are the number of the page below
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from stylecli.data.database_file import Meta, read_meta
from stylecli.data.layout import DATA_FILE
from stylecli.data.sources.stored_picture import read_stored
from stylecli.errors import DataError

_HEADER_BYTES, _NODE_BYTES = 16, 8
_BRANCH, _LEAF = 0x01, 0x02
_BIG = 0x01  # the value lies on pages of its own
_NO_PAGE = 2**64 - 1
_MAGIC = bytes.fromhex("dec0efbe 01000000")

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LmdbIndex:
    """The keys of an LMDB in order, and where in the file each value lies."""

    file: Path
    keys: list[bytes]
    offsets: Numbers
    sizes: Numbers

    def beginning(self, place: int, most: int) -> bytes:
        """Return at most so many bytes of the value at ``place``."""
        size = min(most, int(self.sizes[place]))
        return read_stored(self.file, int(self.offsets[place]), size)


def is_lmdb(path: Path) -> bool:
    """Tell by its first bytes whether a file, or the data file in a folder, is an LMDB."""
    try:
        with open(_file_of(path), "rb") as file:
            return file.read(24)[16:] == _MAGIC
    except OSError:
        return False


def index_lmdb(path: Path, *, first_page_only: bool = False) -> LmdbIndex:
    """Read the keys of the LMDB at ``path``, a folder or a file, and where their values lie.

    ``first_page_only`` stops after the first page of entries, to see what kind of keys there are.
    Raises DataError when it is no LMDB or is damaged or cut short.
    """
    file = _file_of(path)
    meta = read_meta(file)
    if meta is None:
        raise DataError(f"{path} can only be read on little-endian 64-bit machines")
    try:
        with open(file, "rb") as content:
            size = content.seek(0, 2)
            entries = _Tree(content, meta, size).walk(first_page_only)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except _DamagedError as error:
        raise DataError(f"{path} is damaged or cut short: {error}; copy it again") from None
    keys, offsets, sizes = entries
    return LmdbIndex(file, keys, offsets, sizes)


class _DamagedError(Exception):
    """A page is not what the pages before it say."""


class _Tree:
    """The main tree of one file, from its root to the leaves."""

    def __init__(self, content: BinaryIO, meta: Meta, size: int) -> None:
        self._content, self._meta, self._size = content, meta, size
        self._seen: set[int] = set()

    def walk(self, first_page_only: bool) -> tuple[list[bytes], Numbers, Numbers]:
        """Return (keys, offsets, sizes) of all entries in order."""
        keys: list[bytes] = []
        offsets, sizes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        root, depth = self._meta.main.root, self._meta.main.depth
        todo = [] if root == _NO_PAGE else [(root, 1)]
        while todo:
            number, level = todo.pop()
            if level < depth:
                below = self._branch(number)
                todo += [(child, level + 1) for child in reversed(below)]
                continue
            found = self._leaf(number)
            keys += found[0]
            offsets.append(found[1])
            sizes.append(found[2])
            if first_page_only:
                break
        return keys, np.concatenate(offsets), np.concatenate(sizes)

    def _branch(self, number: int) -> list[int]:
        _, words, nodes = self._page(number, _BRANCH)
        low, high, top = (words[nodes // 2 + place].astype(np.int64) for place in range(3))
        below: list[int] = (low | high << 16 | top << 32).tolist()
        return below

    def _leaf(self, number: int) -> tuple[list[bytes], Numbers, Numbers]:
        page, words, nodes = self._page(number, _LEAF)
        low, high, flags, key_bytes = (
            words[nodes // 2 + place].astype(np.int64) for place in range(4)
        )
        values = nodes + _NODE_BYTES + key_bytes
        big = (flags & _BIG) > 0
        sizes = low | high << 16
        if (flags & ~_BIG).any() or (values + np.where(big, 8, sizes) > len(page)).any():
            raise _DamagedError(f"page {number} has entries that cannot be")
        keys = [
            page[start:end]
            for start, end in zip((nodes + _NODE_BYTES).tolist(), values.tolist(), strict=True)
        ]
        offsets = number * self._meta.page_bytes + values
        for place in np.flatnonzero(big):
            start = int(values[place])
            value_page = int.from_bytes(page[start : start + 8], "little")
            if not 2 <= value_page <= self._meta.last_page:
                raise _DamagedError(f"page {value_page} does not exist")
            offsets[place] = value_page * self._meta.page_bytes + _HEADER_BYTES
        if (offsets + sizes > self._size).any():
            raise _DamagedError("values lie beyond its end")
        return keys, offsets, sizes

    def _page(self, number: int, kind: int) -> tuple[bytes, npt.NDArray[np.uint16], Numbers]:
        """Return a page as (bytes, 16-bit words, where its nodes start), checked."""
        page_bytes = self._meta.page_bytes
        if number in self._seen or not 2 <= number <= self._meta.last_page:
            raise _DamagedError(f"page {number} does not exist or is used twice")
        self._seen.add(number)
        self._content.seek(number * page_bytes)
        page = self._content.read(page_bytes)
        if len(page) < page_bytes:
            raise _DamagedError(f"page {number} is not there")
        words = np.frombuffer(page, "<u2")
        flags, lower, upper = int(words[5]), int(words[6]), int(words[7])
        if int.from_bytes(page[:8], "little") != number or flags & 0x0F != kind:
            raise _DamagedError(f"page {number} is not what the pages before it say")
        if not _HEADER_BYTES < lower <= upper <= page_bytes or lower % 2:
            raise _DamagedError(f"page {number} has no room for its entries")
        nodes = words[_HEADER_BYTES // 2 : lower // 2].astype(np.int64)
        if nodes.min() < upper or nodes.max() > page_bytes - _NODE_BYTES or (nodes % 2).any():
            raise _DamagedError(f"page {number} has entries outside of itself")
        return page, words, nodes


def _file_of(path: Path) -> Path:
    return path / DATA_FILE if path.is_dir() else path

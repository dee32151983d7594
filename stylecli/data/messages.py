"""Plain values as bytes: the form in which results come back from worker processes.

A worker decodes files of strangers, so the bytes it sends are read as what they may be: numbers,
text, bytes, collections of them, arrays, paths and dataclasses of ``stylecli.data``. Reading makes
values and runs nothing, whatever the bytes are.
"""

import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from stylecli.errors import DataError

# A value is a letter and what follows it; N is a length or a count of 8 bytes.
#   N none  T true  F false  i 8 bytes  I N digits  f 8 bytes  s N UTF-8  b N bytes  p N UTF-8, path
#   l t S N values: list, tuple, set   d N keys and values   c class, N values of its fields
#   a dtype, shape, N bytes: a numpy array   n the same for one numpy number
_COUNT, _INTEGER, _FLOAT = struct.Struct("<Q"), struct.Struct("<q"), struct.Struct("<d")
_COLLECTIONS: dict[type, bytes] = {list: b"l", tuple: b"t", set: b"S", frozenset: b"S"}
_MAKERS: dict[bytes, Callable[[Iterator[Any]], Any]] = {b"l": list, b"t": tuple, b"S": set}
_HOME = "stylecli.data."
_ARRAY_KINDS = "biufSU"  # of numpy: never O, whose items would be objects


def to_bytes(value: object) -> bytes:
    """Return a value as bytes; raise DataError for one that is none of those above."""
    parts: list[bytes] = []
    _put(value, parts)
    return b"".join(parts)


def from_bytes(content: bytes) -> Any:
    """Return the value that ``to_bytes`` wrote; raise DataError for any other bytes."""
    reader = _Reader(content)
    try:
        value = reader.take()
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, struct.error) as error:
        raise DataError(f"a worker's answer is damaged: {error}") from None
    if reader.at != len(content):
        raise DataError("a worker's answer is damaged: it is longer than its value")
    return value


def _put(value: Any, parts: list[bytes]) -> None:
    kind = type(value)
    if value is None:
        parts.append(b"N")
    elif kind is bool:
        parts.append(b"T" if value else b"F")
    elif kind is int:
        if -(1 << 63) <= value < 1 << 63:
            parts.append(b"i" + _INTEGER.pack(value))
        else:
            _put_sized(b"I", str(value).encode(), parts)
    elif kind is float:
        parts.append(b"f" + _FLOAT.pack(value))
    elif kind is str:
        _put_sized(b"s", value.encode("utf-8", "surrogatepass"), parts)
    elif kind in (bytes, bytearray, memoryview):
        _put_sized(b"b", bytes(value), parts)
    elif isinstance(value, Path):
        _put_sized(b"p", str(value).encode("utf-8", "surrogatepass"), parts)
    elif kind in _COLLECTIONS:
        parts.append(_COLLECTIONS[kind] + _COUNT.pack(len(value)))
        for item in value:
            _put(item, parts)
    elif kind is dict:
        parts.append(b"d" + _COUNT.pack(len(value)))
        for pair in value.items():
            _put(pair[0], parts)
            _put(pair[1], parts)
    elif is_dataclass(value) and kind.__module__.startswith(_HOME):
        names = [field.name for field in fields(value)]
        parts.append(b"c")
        _put_sized(b"s", f"{kind.__module__}:{kind.__qualname__}".encode(), parts)
        parts.append(_COUNT.pack(len(names)))
        for name in names:
            _put(getattr(value, name), parts)
    else:
        _put_array(value, parts)


def _put_array(value: Any, parts: list[bytes]) -> None:
    dtype = getattr(value, "dtype", None)
    if type(value).__module__ != "numpy" or getattr(dtype, "kind", "O") not in _ARRAY_KINDS:
        raise DataError(f"{value!r:.80} cannot be sent by a worker: it is no plain value")
    parts.append(b"a" if hasattr(value, "__array_interface__") and value.shape else b"n")
    _put(dtype.str, parts)  # type: ignore[union-attr]
    _put(tuple(value.shape), parts)
    _put_sized(b"b", value.tobytes(), parts)


def _put_sized(letter: bytes, content: bytes, parts: list[bytes]) -> None:
    parts += [letter, _COUNT.pack(len(content)), content]


class _Reader:
    """Reads values from bytes, one after the other."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = memoryview(content), 0

    def take(self) -> Any:
        letter = bytes(self._next(1))
        if letter in b"NTF":
            return {b"N": None, b"T": True, b"F": False}[letter]
        if letter == b"i":
            return _INTEGER.unpack(self._next(8))[0]
        if letter == b"f":
            return _FLOAT.unpack(self._next(8))[0]
        if letter == b"c":
            return self._dataclass()
        if letter in b"an":
            return self._array(single=letter == b"n")
        count = self._count()
        if letter in _MAKERS:
            return _MAKERS[letter](self.take() for _ in range(count))
        if letter == b"d":
            return {self.take(): self.take() for _ in range(count)}
        content = bytes(self._next(count))
        if letter == b"b":
            return content
        text = content.decode("utf-8", "surrogatepass")
        return {b"s": str, b"I": int, b"p": Path}[letter](text)

    def _dataclass(self) -> Any:
        """Make a value of a known class, field by field; no code of the class runs."""
        module, _, name = str(self.take()).partition(":")
        known = sys.modules.get(module) if module.startswith(_HOME) else None
        kind = getattr(known, name, None)
        if not (isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == module):
            raise ValueError(f"{module}:{name} is no dataclass of {_HOME}")
        names = [field.name for field in fields(kind)]
        if self._count() != len(names):
            raise ValueError(f"{name} has {len(names)} fields")
        value = object.__new__(kind)
        for field in names:
            object.__setattr__(value, field, self.take())
        return value

    def _array(self, *, single: bool) -> Any:
        import numpy as np

        dtype, shape, content = np.dtype(str(self.take())), self.take(), self.take()
        if dtype.kind not in _ARRAY_KINDS:
            raise ValueError(f"an array of {dtype}")
        array = np.frombuffer(content, dtype).reshape(shape)
        return array[()] if single else array.copy()

    def _count(self) -> int:
        count: int = _COUNT.unpack(self._next(8))[0]
        if count > len(self.content):
            raise ValueError(f"{count} values in {len(self.content)} bytes")
        return count

    def _next(self, length: int) -> memoryview:
        self.at += length
        if self.at > len(self.content):
            raise ValueError("it is cut off")
        return self.content[self.at - length : self.at]

"""Read pickles that hold nothing but numbers: dicts of numeric numpy arrays, executing nothing.

Two fences stand before the unpickler. The stream is scanned first: only opcodes that build
strings, numbers, tuples, dicts and arrays may occur, and memo numbers are bounded. Then the only
global names that resolve are numpy's array and dtype constructors, and they resolve to stand-ins
of ours that check type, shape and byte count.
"""

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import WeightsError

MAX_FILE_BYTES = 1 << 30
_MAX_OPCODES = 200_000
_MAX_ARRAYS = 10_000
_MAX_DEPTH = 8
_NUMERIC = frozenset(f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)) - {"f1"}
_ARRAY_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): "new array",
    ("numpy._core.multiarray", "_reconstruct"): "new array",
    ("numpy", "ndarray"): "array type",
    ("numpy", "dtype"): "new dtype",
}
_OPCODES = frozenset(
    "PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 "
    "BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES BINBYTES8 "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS "
    "BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD".split()
)


def read_array_pickle(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a pickle of nested dicts, named by their keys joined with ``/``.

    Raises WeightsError when the file is larger than 1 GiB, holds anything but numeric arrays in
    dicts with text keys, or is damaged. Nothing in the file is ever called.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise WeightsError(f"{path} has {size:,} bytes: expected at most {MAX_FILE_BYTES:,}")
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} is not readable: {error}") from None
    try:
        _scan(content)
        tree = _ArrayUnpickler(io.BytesIO(content)).load()
        return _flatten(tree)
    except _RefusedError as refusal:
        raise WeightsError(
            f"{path} is not a pickle of numeric arrays: {refusal}; nothing in it was run"
        ) from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise WeightsError(f"{path} is damaged or not a pickle: {error}") from None


class _RefusedError(Exception):
    """The pickle holds something that is not a numeric array."""


def _scan(content: bytes) -> None:
    """Refuse foreign opcodes, and memo numbers that would make the unpickler allocate at will."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if count >= _MAX_OPCODES:
            raise _RefusedError(f"it has over {_MAX_OPCODES:,} opcodes")
        if opcode.name not in _OPCODES:
            raise _RefusedError(f"it uses the opcode {opcode.name}")
        if opcode.name in ("BINPUT", "LONG_BINPUT") and (argument or 0) > _MAX_OPCODES:
            raise _RefusedError(f"it uses the memo number {argument:,}")


class _Name:
    """Stands for a global name; without a __dict__, so that a BUILD cannot change it."""

    __slots__ = ("_role",)

    def __init__(self, role: str) -> None:
        self._role = role

    def __call__(self, *arguments: Any) -> Any:
        if self._role == "new dtype":
            return _Dtype(*arguments)
        if self._role == "new array":
            return _Array()
        raise _RefusedError("it calls the array type itself")

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("it changes a name")


class _Dtype:
    """A numeric dtype, from the arguments and the state that numpy pickles."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or code not in _NUMERIC:
            raise _RefusedError(f"it holds values of type {code!r}")
        self._code, self._order = code, "="

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "=", "|"):
            raise _RefusedError("it holds a dtype that is not plain")
        self._order = order

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self._order + self._code)


class _Array:
    """An array, empty until its state (version, shape, dtype, Fortran order, bytes) is set."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _RefusedError("it holds an array in an unknown form")
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise _RefusedError("it holds an array that is not numeric")
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise _RefusedError(f"it holds an array of shape {shape!r}")
        kind = dtype.dtype()
        if math.prod(shape) * kind.itemsize != len(content):
            raise _RefusedError(
                f"it holds {len(content)} bytes for an array of shape {list(shape)}"
            )
        flat = np.frombuffer(content, kind)
        self.value = flat.reshape(shape, order="F" if fortran else "C")


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        role = _ARRAY_NAMES.get((module, name))
        if role is None:
            raise _RefusedError(f"it names {module}.{name}")
        return _Name(role)

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("it refers to something outside the file")


def _flatten(tree: Any) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}

    def visit(node: Any, names: tuple[str, ...]) -> None:
        if isinstance(node, _Array) and node.value is not None and names:
            if len(arrays) >= _MAX_ARRAYS:
                raise _RefusedError(f"it holds over {_MAX_ARRAYS:,} arrays")
            arrays["/".join(names)] = node.value
        elif isinstance(node, dict) and len(names) < _MAX_DEPTH:
            for key, value in node.items():
                if not isinstance(key, str):
                    raise _RefusedError(f"it has the key {key!r}")
                visit(value, (*names, key))
        else:
            where = "/".join(names) or "the top"
            raise _RefusedError(f"{where} is neither an array nor a dict of arrays")

    visit(tree, ())
    return arrays

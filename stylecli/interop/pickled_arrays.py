"""Inert stand-ins for what numpy puts into pickles, shared by every reader of foreign pickles.

A global name in a pickle resolves to a ``GlobalName``, which calls a function of ours and cannot
be changed by the stream; arrays come into being only from a numeric dtype, a plain shape and
exactly as many bytes as those two say.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMERIC = frozenset(f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)) - {"f1"} | {"b1"}


class RefusedError(Exception):
    """The pickle holds something that no file of this kind needs."""


class GlobalName:
    """Stands for a global name; without a __dict__, so that a BUILD cannot change it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise RefusedError("it changes a name")


class PickledDtype:
    """A numeric dtype, from the arguments and the state that numpy pickles."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or code not in NUMERIC:
            raise RefusedError(f"it holds values of type {code!r}, and only numbers are read")
        self._code, self._order = code, "="

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "=", "|"):
            raise RefusedError("it holds a dtype that is not plain")
        self._order = order

    def dtype(self) -> np.dtype[Any]:
        """Return the numpy dtype."""
        return np.dtype(self._order + self._code)


class PickledArray:
    """An array, empty until its state (version, shape, dtype, Fortran order, bytes) is set."""

    __slots__ = ("value",)

    def __init__(self, *_: Any) -> None:
        self.value: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise RefusedError("it holds an array in an unknown form")
        _, shape, dtype, fortran, content = state
        self.value = _build(shape, dtype, content, order="F" if fortran else "C")


def _build(shape: Any, dtype: Any, content: Any, order: Any = "C") -> NDArray[Any]:
    if isinstance(content, str):  # Python 2 wrote bytes that way
        content = content.encode("latin1")
    if not isinstance(dtype, PickledDtype) or not isinstance(content, bytes):
        raise RefusedError("it holds an array that is not numeric")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise RefusedError(f"it holds an array of shape {shape!r}")
    kind = dtype.dtype()
    # Python integers do not overflow, so a shape of 2^40 cannot slip past this comparison.
    if math.prod(shape) * kind.itemsize != len(content):
        raise RefusedError(f"it holds {len(content)} bytes for an array of shape {list(shape)}")
    array = np.frombuffer(content, kind).reshape(shape, order=order)
    return array.astype(kind.newbyteorder("="))


def _scalar(dtype: Any, content: Any) -> NDArray[Any]:
    return _build((), dtype, content)


def _array_type(*_: Any) -> Any:
    raise RefusedError("it calls the array type itself")


NUMPY_NAMES: dict[tuple[str, str], GlobalName] = {
    ("numpy", "ndarray"): GlobalName(_array_type),
    ("numpy", "dtype"): GlobalName(PickledDtype),
    **{
        (f"numpy.{core}.multiarray", name): GlobalName(function)
        for core in ("core", "_core")
        for name, function in (("_reconstruct", PickledArray), ("scalar", _scalar))
    },
}

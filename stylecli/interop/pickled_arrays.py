"""Stand-ins for what numpy puts into pickles, shared by every reader of foreign pickles.

Arrays come into being only from a numeric dtype, a plain shape and exactly as many bytes as those
two say, which the file's budget is charged for.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.interop.refusal import Budget, RefusedError, shown
from stylecli.interop.stand_ins import Buildable, GlobalName

NUMERIC = frozenset(f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)) - {"f1"} | {"b1"}
_MAX_DIMENSIONS = 8


class PickledDtype(Buildable):
    """A numeric dtype, from the arguments and the state that numpy pickles."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: Any, *_: Any) -> None:
        if isinstance(code, bytes):  # Python 2 wrote text that way
            code = code.decode("latin1")
        if not isinstance(code, str) or code not in NUMERIC:
            raise RefusedError(f"it holds values of type {shown(code)}, and only numbers are read")
        self._code, self._order = code, "="

    def set_state(self, state: Any) -> None:
        """Take the byte order from (version, order, subtype, names, fields, ...)."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise RefusedError("it holds a dtype that is not plain")
        self._order = order

    def dtype(self) -> np.dtype[Any]:
        """Return the numpy dtype."""
        return np.dtype(self._order + self._code)


class PickledArray(Buildable):
    """An array, empty until its state (version, shape, dtype, Fortran order, bytes) is set."""

    __slots__ = ("_budget", "value")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.value: NDArray[Any] | None = None

    def set_state(self, state: Any) -> None:
        """Make the array."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise RefusedError("it holds an array in an unknown form")
        _, shape, dtype, fortran, content = state
        order = "F" if fortran is True or fortran == 1 else "C"
        self.value = _build(self._budget, shape, dtype, content, order)


def _build(budget: Budget, shape: Any, dtype: Any, content: Any, order: Any = "C") -> NDArray[Any]:
    if isinstance(content, str):  # Python 2 wrote bytes that way
        content = content.encode("latin1")
    if not isinstance(dtype, PickledDtype) or not isinstance(content, bytes | memoryview):
        raise RefusedError("it holds an array that is not numeric")
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS:
        raise RefusedError(f"it holds an array of shape {shown(shape)}")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise RefusedError(f"it holds an array of shape {shown(shape)}")
    kind = dtype.dtype()
    # Python integers do not overflow, so a shape of 2^40 cannot slip past this comparison.
    if math.prod(shape) * kind.itemsize != len(content):
        raise RefusedError(f"it holds {len(content)} bytes for an array of shape {list(shape)}")
    budget.spend_array(len(content))
    if kind == np.bool_:  # a byte that is neither 0 nor 1 would be an impossible truth value
        truth: NDArray[Any] = np.frombuffer(content, np.uint8) != 0
        return truth.reshape(shape, order=order)
    array = np.frombuffer(content, kind).reshape(shape, order=order)
    return array.astype(kind.newbyteorder("="))


def numpy_names(budget: Budget) -> dict[tuple[str, str], GlobalName]:
    """Return the stand-ins for numpy's names; their arrays are charged to ``budget``."""

    def reconstruct(*_: Any) -> PickledArray:
        return PickledArray(budget)

    def scalar(dtype: Any, content: Any) -> NDArray[Any]:
        return _build(budget, (), dtype, content)

    def from_buffer(content: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> Any:
        if order not in ("C", "F"):
            raise RefusedError("it holds an array in an unknown form")
        return _build(budget, shape, dtype, content, order)

    def encode(text: Any, encoding: Any = "latin1") -> bytes:  # bytes in protocol 2
        if not isinstance(text, str) or encoding != "latin1":
            raise RefusedError("it encodes text in an unexpected way")
        budget.spend_array(len(text))
        return text.encode("latin1")

    functions: dict[str, Callable[..., Any]] = {"_reconstruct": reconstruct, "scalar": scalar}
    return {
        ("numpy", "ndarray"): GlobalName(_array_type),
        ("numpy", "dtype"): GlobalName(PickledDtype),
        ("_codecs", "encode"): GlobalName(encode),
        **{
            (f"numpy.{core}.multiarray", name): GlobalName(function)
            for core in ("core", "_core")
            for name, function in functions.items()
        },
        **{  # protocol 5
            (f"numpy.{core}.numeric", "_frombuffer"): GlobalName(from_buffer)
            for core in ("core", "_core")
        },
    }


def _array_type(*_: Any) -> Any:
    raise RefusedError("it calls the array type itself")

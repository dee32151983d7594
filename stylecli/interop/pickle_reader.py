"""Walk official TensorFlow pickles without running anything that is in them.

An official file is a pickle of ``Network`` objects whose state holds numpy arrays and the source
text that the original loader executes. This reader maps every global to an inert stand-in of our
own by exact name, refuses all others, and never looks at the source text (docs: spec of the
format in ``docs/formats.md``).
"""

import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stylecli.errors import NetworkError

MAX_FILE_BYTES = 4 << 30
MAX_DEPTH = 64


class TFNetwork:
    """Stand-in for ``dnnlib.tflib.network.Network``: keeps the state and does nothing."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise NetworkError("the pickle holds a Network without a state")
        self.state = state


class _Array:
    """Stand-in for a numpy array under construction; becomes real through ``value``."""

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple() as shape, _DType() as dtype, bool() as fortran, bytes() as raw):
                self.array = _build_array(shape, dtype, fortran, raw)
            case _:
                raise NetworkError("the pickle holds an array of an unknown layout")


class _DType:
    """Stand-in for a numpy dtype, limited to plain numbers."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or code not in _NUMERIC:
            raise NetworkError(f"the pickle holds data of type {code!r}: only numbers are read")
        self.code = code
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    @property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.code).newbyteorder(self.order)  # type: ignore[arg-type]  # one of four


_NUMERIC = frozenset(
    ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
)  # fmt: skip


def _build_array(shape: tuple[Any, ...], dtype: _DType, fortran: bool, raw: bytes) -> np.ndarray:
    sizes = [size for size in shape if isinstance(size, int) and size >= 0]
    if len(sizes) != len(shape) or len(sizes) > 32:
        raise NetworkError("the pickle holds an array of an impossible shape")
    # Python integers do not overflow, so a shape of 2^40 cannot slip past this comparison.
    if math.prod(sizes) * dtype.numpy.itemsize != len(raw):
        raise NetworkError("the pickle holds an array whose size and data disagree")
    array = np.frombuffer(raw, dtype=dtype.numpy).reshape(sizes, order="F" if fortran else "C")
    return array.astype(array.dtype.newbyteorder("="))


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _scalar(dtype: object, raw: object) -> np.ndarray:
    if not isinstance(dtype, _DType) or not isinstance(raw, bytes | str):
        raise NetworkError("the pickle holds a number of an unknown layout")
    return _build_array((), dtype, False, raw.encode("latin1") if isinstance(raw, str) else raw)


def _encode(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise NetworkError("the pickle encodes text in an unexpected way")
    return text.encode("latin1")


class _EasyDict(dict[str, Any]):
    """Stand-in for dnnlib's attribute dictionary."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.update(state)


class _NDArrayType:
    """Stand-in for the class numpy.ndarray, which is only ever passed to ``_reconstruct``."""

    def __init__(self, *_: object) -> None:
        raise NetworkError("the pickle builds an array in an unexpected way")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("dnnlib.tflib.network", "Network"): TFNetwork,
    ("tfutil", "Network"): TFNetwork,
    ("network", "Network"): TFNetwork,
    ("dnnlib.util", "EasyDict"): _EasyDict,
    ("collections", "OrderedDict"): dict,
    ("numpy", "ndarray"): _NDArrayType,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
    **{
        (f"numpy.{core}.multiarray", name): function
        for core in ("core", "_core")
        for name, function in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise NetworkError(
                f"the pickle asks for {module}.{name}, which no network needs: it was not run"
            ) from None

    def persistent_load(self, pid: object) -> Any:
        raise NetworkError("the pickle refers to data outside itself")


def read_tf_pickle(path: Path) -> object:
    """Return the content of an official TensorFlow pickle with every Network as a TFNetwork.

    Runs no code from the file. Raises NetworkError for anything unexpected.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise NetworkError(f"{path} is larger than 4 GiB: not a network pickle")
    try:
        _refuse_extensions(path)
        with open(path, "rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
        return _resolve(content, 0)
    except NetworkError as error:
        raise NetworkError(f"{path} cannot be read: {error}") from None
    except Exception as error:  # damaged pickles raise almost anything
        raise NetworkError(f"{path} is not a readable pickle: {error}") from None


def _refuse_extensions(path: Path) -> None:
    """Look at the opcodes before loading: extension codes could name globals past find_class."""
    with open(path, "rb") as file:
        for opcode, _, _ in pickletools.genops(file):
            if opcode.name.startswith("EXT"):
                raise NetworkError("the pickle uses extension codes")


def _resolve(value: Any, depth: int) -> Any:
    """Replace array stand-ins by arrays throughout."""
    if depth > MAX_DEPTH:
        raise NetworkError("the pickle is nested too deeply")
    match value:
        case _Array():
            if value.array is None:
                raise NetworkError("the pickle holds an array without data")
            return value.array
        case TFNetwork():
            value.state = _resolve(value.state, depth + 1)
        case dict():
            return {key: _resolve(item, depth + 1) for key, item in value.items()}
        case tuple() | list():
            return type(value)(_resolve(item, depth + 1) for item in value)
    return value

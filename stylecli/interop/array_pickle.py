"""Read pickles that hold nothing but numbers: dicts of numeric numpy arrays, executing nothing.

Two fences stand before the unpickler. The stream is scanned first: only opcodes that build
strings, numbers, tuples, dicts and arrays may occur, and memo numbers are bounded. Then the only
global names that resolve are numpy's array and dtype constructors, and they resolve to stand-ins
of ours that check type, shape and byte count.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stylecli.errors import WeightsError
from stylecli.interop.pickled_arrays import NUMPY_NAMES, PickledArray, RefusedError

MAX_FILE_BYTES = 1 << 30
_MAX_OPCODES = 200_000
_MAX_ARRAYS = 10_000
_MAX_DEPTH = 8
ARRAY_OPCODES = frozenset(
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
        scan_opcodes(content, ARRAY_OPCODES, _MAX_OPCODES)
        tree = _ArrayUnpickler(io.BytesIO(content)).load()
        return _flatten(tree)
    except RefusedError as refusal:
        raise WeightsError(
            f"{path} is not a pickle of numeric arrays: {refusal}; nothing in it was run"
        ) from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise WeightsError(f"{path} is damaged or not a pickle: {error}") from None


def scan_opcodes(content: bytes, allowed: frozenset[str], most: int) -> None:
    """Refuse foreign opcodes, and memo numbers that would make the unpickler allocate at will.

    Raises RefusedError at the first one, and when there are over ``most`` opcodes.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if count >= most:
            raise RefusedError(f"it has over {most:,} opcodes")
        if opcode.name not in allowed:
            raise RefusedError(f"it uses the opcode {opcode.name}")
        if opcode.name in ("BINPUT", "LONG_BINPUT") and (argument or 0) > most:
            raise RefusedError(f"it uses the memo number {argument:,}")


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NUMPY_NAMES:
            raise RefusedError(f"it names {module}.{name}")
        return NUMPY_NAMES[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedError("it refers to something outside the file")


def _flatten(tree: Any) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}

    def visit(node: Any, names: tuple[str, ...]) -> None:
        if isinstance(node, PickledArray) and node.value is not None and names:
            if len(arrays) >= _MAX_ARRAYS:
                raise RefusedError(f"it holds over {_MAX_ARRAYS:,} arrays")
            arrays["/".join(names)] = node.value
        elif isinstance(node, dict) and len(names) < _MAX_DEPTH:
            for key, value in node.items():
                if not isinstance(key, str):
                    raise RefusedError(f"it has the key {key!r}")
                visit(value, (*names, key))
        else:
            where = "/".join(names) or "the top"
            raise RefusedError(f"{where} is neither an array nor a dict of arrays")

    visit(tree, ())
    return arrays

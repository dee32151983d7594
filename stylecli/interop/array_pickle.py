"""Read pickles that hold nothing but numbers: dicts of numeric numpy arrays, executing nothing."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stylecli.errors import WeightsError
from stylecli.interop.pickle_machine import load_pickle
from stylecli.interop.pickled_arrays import PickledArray, numpy_names
from stylecli.interop.refusal import Budget, DamagedError, RefusedError

MAX_FILE_BYTES = 1 << 30
_MAX_OPCODES = 200_000
_MAX_DEPTH = 8


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
    budget = Budget.of(len(content), opcodes=_MAX_OPCODES)
    try:
        tree, _ = load_pickle(content, numpy_names(budget), budget)
        return _flatten(tree)
    except RefusedError as refusal:
        raise WeightsError(
            f"{path} is not a pickle of numeric arrays: {refusal}; nothing in it was run"
        ) from None
    except DamagedError as damage:
        raise WeightsError(f"{path} is damaged or not a pickle: {damage}") from None


def _flatten(tree: Any) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    nodes = 0

    def visit(node: Any, names: tuple[str, ...]) -> None:
        nonlocal nodes
        nodes += 1  # a dict met along many ways counts every time
        if nodes > _MAX_OPCODES:
            raise RefusedError("it holds too many arrays")
        if isinstance(node, PickledArray) and node.value is not None and names:
            arrays["/".join(names)] = node.value
        elif isinstance(node, dict) and len(names) < _MAX_DEPTH:
            for key, value in node.items():
                if not isinstance(key, str):
                    raise RefusedError(f"it has the key {repr(key)[:40]}")
                visit(value, (*names, key))
        else:
            where = "/".join(names) or "the top"
            raise RefusedError(f"{where[:80]} is neither an array nor a dict of arrays")

    visit(tree, ())
    return arrays

"""Read CIFAR's batches: Python 2 pickles of a dict with pixels and labels, executing nothing.

A batch holds b"data" (uint8 [N, 3072]), b"labels" or b"fine_labels" and b"coarse_labels" (lists of
integers), b"filenames", b"batch_label"; ``batches.meta`` holds lists of names. Keys come back as
text, whichever Python wrote them.
"""

from pathlib import Path
from typing import Any

from stylecli.errors import DataError
from stylecli.interop.pickle_machine import load_pickle
from stylecli.interop.pickled_arrays import PickledArray, numpy_names
from stylecli.interop.refusal import Budget, DamagedError, RefusedError

MAX_BYTES = 1 << 28  # the largest official batch, CIFAR-100's training set, has 155 MB
_MAX_OPCODES = 2_000_000  # its 50,000 file names and two lists of labels need 350,000
_MAX_ENTRIES = 20  # an official batch has 5


def read_batch_pickle(content: bytes, where: Path | str) -> dict[str, Any]:
    """Return a batch as {text: array, list, number or text}; lists hold numbers or text.

    Raises DataError when the pickle holds anything else or is damaged. Nothing in it is ever run.
    """
    if len(content) > MAX_BYTES:
        raise DataError(
            f"{where} has {len(content):,} bytes: no batch of CIFAR has over {MAX_BYTES:,}"
        )
    budget = Budget.of(len(content), opcodes=_MAX_OPCODES)
    try:
        batch, _ = load_pickle(content, numpy_names(budget), budget)
        if not isinstance(batch, dict):
            raise RefusedError("it holds no dict")
        if len(batch) > _MAX_ENTRIES:  # each may name the same long list, which is copied
            raise RefusedError(f"it holds {len(batch):,} entries")
        return {_text(key): _plain(value) for key, value in batch.items()}
    except RefusedError as refusal:
        raise DataError(f"{where} is no batch of CIFAR: {refusal}; nothing in it was run") from None
    except DamagedError as damage:
        raise DataError(f"{where} is damaged or no batch of CIFAR: {damage}") from None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, str):
        return value
    raise RefusedError(f"it has a {type(value).__name__} where text is expected")


def _plain(value: Any) -> Any:
    if isinstance(value, PickledArray):
        if value.value is None:
            raise RefusedError("it holds an array without data")
        return value.value
    if isinstance(value, list):
        return [entry if type(entry) is int else _text(entry) for entry in value]
    return value if type(value) is int else _text(value)

"""Read CIFAR's batches: Python 2 pickles of a dict with pixels and labels, executing nothing.

A batch holds b"data" (uint8 [N, 3072]), b"labels" or b"fine_labels" and b"coarse_labels" (lists of
integers), b"filenames", b"batch_label"; ``batches.meta`` holds lists of names. As in
``array_pickle``, the opcodes are looked at first and only numpy's array constructors resolve, to
stand-ins of ours. Keys come back as text, whichever Python wrote them.
"""

import io
import pickle
from pathlib import Path
from typing import Any

from stylecli.errors import DataError
from stylecli.interop.array_pickle import ARRAY_OPCODES, scan_opcodes
from stylecli.interop.pickled_arrays import NUMPY_NAMES, GlobalName, PickledArray, RefusedError

MAX_BYTES = 1 << 28  # the largest official batch, CIFAR-100's training set, has 155 MB
_MAX_OPCODES = 2_000_000  # its 50,000 file names and two lists of labels need 350,000
_OPCODES = ARRAY_OPCODES | frozenset(
    "EMPTY_LIST APPEND APPENDS BINSTRING SHORT_BINSTRING BINUNICODE8 LONG4".split()
)


def read_batch_pickle(content: bytes, where: Path | str) -> dict[str, Any]:
    """Return a batch as {text: array, list, number or text}; lists hold numbers or text.

    Raises DataError when the pickle holds anything else or is damaged. Nothing in it is ever run.
    """
    if len(content) > MAX_BYTES:
        raise DataError(
            f"{where} has {len(content):,} bytes: no batch of CIFAR has over {MAX_BYTES:,}"
        )
    try:
        scan_opcodes(content, _OPCODES, _MAX_OPCODES)
        # latin1 keeps every byte of what Python 2 wrote as text.
        batch = _BatchUnpickler(io.BytesIO(content), encoding="latin1").load()
        if not isinstance(batch, dict):
            raise RefusedError("it holds no dict")
        return {_text(key): _plain(value) for key, value in batch.items()}
    except RefusedError as refusal:
        raise DataError(f"{where} is no batch of CIFAR: {refusal}; nothing in it was run") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(f"{where} is damaged or no batch of CIFAR: {error}") from None


class _BatchUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return GlobalName(_encode)
        if (module, name) not in NUMPY_NAMES:
            raise RefusedError(f"it names {module}.{name}")
        return NUMPY_NAMES[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedError("it refers to something outside the file")


def _encode(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedError("it encodes text in an unexpected way")
    return text.encode("latin1")


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

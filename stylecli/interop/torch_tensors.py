"""Stand-ins for what PyTorch puts into pickles: storages and the tensors that look at them.

A tensor is a window (offset, size, stride) on a storage. Where the storage's bytes come behind the
pickle they are filled in later, so a window is turned into an array only when all has been read.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.interop.refusal import Budget, DamagedError, RefusedError, shown
from stylecli.interop.stand_ins import GlobalName, PlainObject

# class of the storage -> numpy dtype; bfloat16, which numpy lacks, is read as its 16 bits
_TYPES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "BFloat16Storage": "<u2",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1",
    "ByteStorage": "u1", "BoolStorage": "u1", "UntypedStorage": "u1",
}  # fmt: skip
_MAX_DIMENSIONS = 8
_TOO_LARGE = 1 << 48  # elements
LoadBytes = Callable[[Any], "Storage"]


class StorageKind:
    """The class of a storage, such as ``torch.FloatStorage``."""

    __slots__ = ("dtype", "name")

    def __init__(self, name: str) -> None:
        self.name, self.dtype = name, np.dtype(_TYPES[name])


@dataclass
class Storage:
    """Elements of one kind; ``content`` is None until their bytes are found."""

    kind: StorageKind
    count: int
    content: memoryview | None = None


class PickledTensor:
    """A window on a storage."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any) -> None:
        if not isinstance(storage, Storage) or not _tuples(size, stride):
            raise RefusedError("it holds a tensor in an unknown form")
        if len(size) != len(stride) or len(size) > _MAX_DIMENSIONS:
            raise RefusedError(f"it holds a tensor of shape {shown(size)}")
        # Larger numbers would overflow where numpy counts bytes, empty windows included.
        if not all(type(n) is int and 0 <= n < _TOO_LARGE for n in (offset, *size, *stride)):
            raise RefusedError("it holds a tensor in an unknown form")
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def array(self, budget: Budget) -> NDArray[Any]:
        """Copy the window out of its storage, once it is clear that it lies inside."""
        storage = self.storage
        if storage.content is None:
            raise DamagedError("it holds a tensor without data")
        count = math.prod(self.size)
        steps = zip(self.size, self.stride, strict=True)
        last = self.offset + sum((n - 1) * step for n, step in steps)
        if count and last >= storage.count:
            raise RefusedError(
                f"it holds a tensor of shape {shown(self.size)} over a storage of "
                f"{storage.count} elements"
            )
        kind = storage.kind
        budget.spend_array(count * (4 if kind.name == "BFloat16Storage" else kind.dtype.itemsize))
        if not count:
            try:
                return np.zeros(self.size, kind.dtype)
            except ValueError:
                raise RefusedError(f"it holds a tensor of shape {shown(self.size)}") from None
        elements = np.frombuffer(storage.content, kind.dtype, storage.count)
        strides = tuple(step * kind.dtype.itemsize for step in self.stride)
        window = np.lib.stride_tricks.as_strided(
            elements[self.offset :], self.size, strides, writeable=False
        )
        copied = np.array(window, order="C")
        if kind.name == "BFloat16Storage":  # the upper half of a float32
            return (copied.astype(np.uint32) << 16).view(np.float32)
        return copied != 0 if kind.name == "BoolStorage" else copied


def _tuples(*values: Any) -> bool:
    return all(isinstance(value, tuple) for value in values)


def make_storage(pid: Any) -> tuple[Storage, str]:
    """Return the storage that a persistent id describes, without its bytes, and its key.

    The id is ("storage", kind, key, device, count[, view]).
    """
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
        raise RefusedError("it refers to something outside the file")
    _, kind, key, _, count = pid[:5]
    if len(pid) == 6 and pid[5] is not None:
        raise RefusedError("it holds a storage that is part of another one")
    if not isinstance(kind, StorageKind) or not isinstance(key, str):
        raise RefusedError("it holds a storage in an unknown form")
    if type(count) is not int or count < 0:
        raise RefusedError("it holds a storage of impossible size")
    return Storage(kind, count), key


def fill_storage(storage: Storage, content: memoryview) -> None:
    """Give a storage its bytes; raise DamagedError when there are too few or too many."""
    wanted = storage.count * storage.kind.dtype.itemsize
    if len(content) != wanted:
        raise DamagedError(f"it has {len(content)} bytes for a storage of {wanted}")
    storage.content = content


def torch_names(load_bytes: LoadBytes | None = None) -> dict[tuple[str, str], Any]:
    """Return the stand-ins for torch's names in state dicts and in pickled modules.

    ``load_bytes`` reads the nested stream of a storage that was pickled outside ``torch.save``.
    PyTorch's own function of that name would run whatever the stream holds.
    """

    def tensor(storage: Any, offset: Any = 0, size: Any = (), stride: Any = (), *_: Any) -> Any:
        return PickledTensor(storage, offset, size, stride)

    def parameter(value: Any, *_: Any) -> Any:
        if not isinstance(value, PickledTensor):
            raise RefusedError("it holds a parameter that is not a tensor")
        return value

    names: dict[tuple[str, str], Any] = {
        ("torch._utils", "_rebuild_tensor_v2"): GlobalName(tensor),
        ("torch._utils", "_rebuild_tensor"): GlobalName(tensor),
        ("torch._utils", "_rebuild_parameter"): GlobalName(parameter),
        ("torch.storage", "UntypedStorage"): StorageKind("UntypedStorage"),
        ("torch", "device"): GlobalName(lambda *_: PlainObject("device")),
        ("torch", "Size"): GlobalName(_size),
        **{("torch", kind): StorageKind(kind) for kind in _TYPES},
    }
    if load_bytes is not None:
        names["torch.storage", "_load_from_bytes"] = GlobalName(load_bytes)
    return names


def _size(sizes: Any = ()) -> tuple[Any, ...]:
    if not isinstance(sizes, tuple):
        raise RefusedError("it holds a shape in an unknown form")
    return sizes

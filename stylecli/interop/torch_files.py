"""Files of ``torch.save``: the zip of today and the stream of pickles before it, parsed here.

From top to bottom: the zip's table of contents; storages and the tensors that look at them; the two
kinds of file; the tensors of a TorchScript program. Nothing is ever given to ``torch.load``, whose
safe mode is a list of torch's choosing that changes between versions and whose other mode runs what
the file holds.
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import plural
from stylecli.interop.pickles import (
    Budget,
    DamagedError,
    GlobalName,
    PlainObject,
    RefusedError,
    load_pickle,
    shown,
)

# ---- The table of contents of a zip that stores its entries as they are, such as torch writes.
#
# Only the positions of entries are found; nothing is unpacked, so nothing can grow. Entries must be
# uncompressed, lie inside the file without overlapping, and have plain relative names.

_END = struct.Struct("<4s4H2IH")  # end of central directory
_LOCATOR = struct.Struct("<4sIQI")  # where the zip64 end record is
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")  # central directory entry
_LOCAL = struct.Struct("<4s5H3I2H")
_MAX_ENTRIES = 20_000
_MAX_COMMENT = 1 << 16


def read_directory(content: memoryview) -> dict[str, memoryview]:
    """Return the entries' contents by name, as views of the file.

    Program text of TorchScript, which is compressed and never needed, comes back empty. Raises
    DamagedError for what is no zip and RefusedError for other compressed, encrypted or overlapping
    entries, names that lead elsewhere, and more than 20,000 of them.
    """
    try:
        entries = _entries(content)
    except (struct.error, OverflowError):  # an offset that no index can be
        raise DamagedError("it is an incomplete zip file") from None
    found: dict[str, memoryview] = {}
    behind = 0
    for start, stop, name, readable in sorted(entries):
        if start < behind:
            raise RefusedError("its zip entries overlap")
        if name in found:
            raise RefusedError("its zip names an entry twice")
        behind = stop
        found[name] = content[start : stop if readable else start]
    return found


def _entries(content: memoryview) -> list[tuple[int, int, str, bool]]:
    count, position = _directory(content)
    if count > _MAX_ENTRIES:
        raise RefusedError(f"its zip has {plural(count, 'entry', 'entries')}")
    entries = []
    for _ in range(count):
        fields = _ENTRY.unpack_from(content, position)
        magic, flags, method = fields[0], fields[3], fields[4]
        packed, size, name_length, extra_length, comment_length = fields[8:13]
        if magic != b"PK\1\2":
            raise DamagedError("its zip directory is damaged")
        position += _ENTRY.size
        name = _name(bytes(content[position : position + name_length]))
        extra = bytes(content[position + name_length : position + name_length + extra_length])
        position += name_length + extra_length + comment_length
        packed, size, offset = _large(packed, size, fields[16], extra)
        readable = not (method or packed != size or flags & 1)
        if not readable and (flags & 1 or name.split("/")[1:2] != ["code"]):
            raise RefusedError("its zip entries are compressed or encrypted")
        local = _LOCAL.unpack_from(content, offset)
        start = offset + _LOCAL.size + local[9] + local[10]
        if local[0] != b"PK\3\4" or start + packed > len(content):
            raise DamagedError("its zip entries lie outside the file")
        entries.append((start, start + packed, name, readable))
    return entries


def _directory(content: memoryview) -> tuple[int, int]:
    """Return how many entries the central directory has, and where it begins."""
    tail = bytes(content[-(_MAX_COMMENT + _END.size) :])
    place = tail.rfind(b"PK\5\6")
    if place < 0:
        raise DamagedError("it is an incomplete zip file")
    end = len(content) - len(tail) + place
    _, _, _, _, count, _, offset, _ = _END.unpack_from(content, end)
    if count == 0xFFFF or offset == 0xFFFFFFFF or _has_locator(content, end):
        magic, _, where, _ = _LOCATOR.unpack_from(content, max(0, end - _LOCATOR.size))
        if magic != b"PK\6\7" or where > len(content):
            raise DamagedError("its zip directory is damaged")
        record = _END64.unpack_from(content, where)
        if record[0] != b"PK\6\6":
            raise DamagedError("its zip directory is damaged")
        count, offset = record[7], record[9]
    if offset > len(content):
        raise DamagedError("its zip directory lies outside the file")
    return count, offset


def _has_locator(content: memoryview, end: int) -> bool:
    start = end - _LOCATOR.size
    return start >= 0 and bytes(content[start : start + 4]) == b"PK\6\7"


def _large(packed: int, size: int, offset: int, extra: bytes) -> tuple[int, int, int]:
    """Replace numbers that did not fit 32 bits by those of the zip64 extra field, in its order."""
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        if kind == 1:
            numbers = list(struct.unpack(f"<{length // 8}Q", extra[place + 4 :][: length // 8 * 8]))
            wanted = [size, packed, offset]
            for index, value in enumerate(wanted):
                if value == 0xFFFFFFFF and numbers:
                    wanted[index] = numbers.pop(0)
            size, packed, offset = wanted
        place += 4 + length
    return packed, size, offset


def _name(raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedError("its zip has a name that is not text") from None
    parts = name.split("/")
    if "\\" in name or "\0" in name or name.startswith("/") or ".." in parts:
        raise RefusedError(f"its zip names the entry {ascii(name)[:80]}")
    return name


# ---- Stand-ins for what PyTorch puts into pickles: storages and the tensors that look at them.
#
# A tensor is a window (offset, size, stride) on a storage. Where the storage's bytes come behind
# the pickle they are filled in later, so a window is turned into an array only when all has been
# read.

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


# ---- Files of ``torch.save``: the zip of today and the stream of pickles before it, parsed here.
#
# Neither is ever given to ``torch.load``, whose safe mode is a list of torch's choosing that
# changes between versions and whose other mode runs what the file holds.
#
# A zip holds ``<name>/data.pkl`` and the bytes of each storage in ``<name>/data/<key>``. A stream
# holds five pickles (a magic number, the version, a dict that tells the byte order, the value, the
# keys of its storages) and then, per key, a count in 64 bits and the elements.

MAGIC = 0x1950A86A20F9469CFC6C
MAGIC_PICKLE = b"\x80\x02\x8a\n" + MAGIC.to_bytes(10, "little") + b"."
_PROTOCOL = 1001
Names = Mapping[tuple[str, str], Any]


def read_torch_zip(
    content: memoryview, names: Names, budget: Budget, *, torchscript: bool = False
) -> Any:
    """Return the value saved in a torch zip; raise RefusedError or DamagedError.

    Of a TorchScript program, if allowed, that is the object that carries its tensors; its text is
    not looked at.
    """
    entries = read_directory(content)
    roots = {name.partition("/")[0] for name in entries if name.count("/") == 1
             and name.endswith("/data.pkl")}  # fmt: skip
    if not torchscript and any(name.split("/")[1:2] == ["code"] for name in entries):
        raise RefusedError("it is a TorchScript program, which is not run")
    if len(roots) != 1:
        raise RefusedError("it is a zip, but torch did not save it")
    (root,) = roots
    order = bytes(entries.get(f"{root}/byteorder", b"little")[:8])
    if order != b"little":
        raise RefusedError("it was written on a machine of the other byte order")
    storages: dict[str, Storage] = {}

    def refer(pid: Any) -> Storage:
        storage, key = make_storage(pid)
        name = f"{root}/data/{key}"
        if name not in entries:
            raise DamagedError("it refers to a storage that is not in the file")
        known = storages.setdefault(key, storage)
        if known.kind is not storage.kind or known.count != storage.count:
            raise RefusedError("it describes one storage in two ways")
        if known.content is None:
            fill_storage(known, entries[name])
        return known

    value, _ = load_pickle(entries[f"{root}/data.pkl"], names, budget, refer=refer)
    return value


def read_torch_stream(content: memoryview, names: Names, budget: Budget) -> Any:
    """Return the value saved in a torch stream; raise RefusedError or DamagedError."""
    storages: dict[str, Storage] = {}

    def refer(pid: Any) -> Storage:
        storage, key = make_storage(pid)
        known = storages.setdefault(key, storage)
        if known.kind is not storage.kind or known.count != storage.count:
            raise RefusedError("it describes one storage in two ways")
        return known

    plain: Names = {}
    magic, at = load_pickle(content, plain, budget)
    version, at = load_pickle(content, plain, budget, start=at)
    machine, at = load_pickle(content, plain, budget, start=at)
    if magic != MAGIC or version != _PROTOCOL or not isinstance(machine, dict):
        raise RefusedError("torch did not save it")
    if machine.get("little_endian") is not True:
        raise RefusedError("it was written on a machine of the other byte order")
    value, at = load_pickle(content, names, budget, start=at, refer=refer)
    keys, at = load_pickle(content, plain, budget, start=at)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise DamagedError("it does not list its storages")
    for key in keys:
        if key not in storages or storages[key].content is not None:
            raise DamagedError("it lists a storage that it does not use")
        storage = storages[key]
        if len(content) < at + 8:
            raise DamagedError("it ends too early")
        (count,) = struct.unpack_from("<q", content, at)
        size = storage.count * storage.kind.dtype.itemsize
        if count != storage.count:
            raise DamagedError("it counts the elements of a storage in two ways")
        fill_storage(storage, content[at + 8 : at + 8 + size])
        at += 8 + size
    return value


def read_nested_storage(content: Any, names: Names, budget: Budget) -> Storage:
    """Return the storage of a torch stream inside a pickle, where torch would run any pickle."""
    if not isinstance(content, bytes | memoryview):
        raise RefusedError("it holds a storage in an unknown form")
    value = read_torch_stream(memoryview(content), names, budget)
    if not isinstance(value, Storage):
        raise RefusedError("it holds something other than a storage in one")
    return value


# ---- The tensors of a TorchScript program: its modules are objects without behaviour, of any
# class.
#
# A program names its own classes below ``__torch__``; what they are called does not matter, for
# only the attributes that the file lists are kept. The program's text is never read.

_MODULE = GlobalName(lambda *_: PlainObject("TorchScript module"))
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist",
          "restore_type_tag")  # fmt: skip
_MAX_TENSORS = 10_000


class _ScriptNames(dict[tuple[str, str], Any]):
    """The names of the other files, and every class of a program."""

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (isinstance(key, tuple) and _is_class(key))

    def __missing__(self, key: tuple[str, str]) -> Any:
        if _is_class(key):
            return _MODULE
        raise KeyError(key)


def _is_class(key: tuple[Any, ...]) -> bool:
    return isinstance(key[0], str) and key[0].split(".")[0] == "__torch__"


def script_names(names: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    """Return ``names`` with those that TorchScript's own files need."""

    def as_it_is(value: Any = (), *_: Any) -> Any:
        return value

    return _ScriptNames(
        names | {("torch.jit._pickle", name): GlobalName(as_it_is) for name in _LISTS}
    )


def named_tensors(program: PlainObject) -> dict[str, NDArray[Any]]:
    """Return a program's tensors by the path of attributes that leads to each.

    Raises RefusedError for more than 10,000 steps: modules may be shared, and paths to them double
    with every level.
    """
    found: dict[str, NDArray[Any]] = {}
    for steps, (name, value) in enumerate(_walk("", program)):
        if steps > _MAX_TENSORS:
            raise RefusedError("it has more parts than any network needs")
        if isinstance(value, np.ndarray):
            found[name] = value
    return found


def _walk(prefix: str, module: PlainObject) -> Iterator[tuple[str, Any]]:
    for name, value in module.state.items():
        path = f"{prefix}{name}"
        yield path, value
        if isinstance(value, PlainObject):
            yield from _walk(f"{path}.", value)

"""Files of ``torch.save``: the zip of today and the stream of pickles before it, parsed here.

Neither is ever given to ``torch.load``, whose safe mode is a list of torch's choosing that changes
between versions and whose other mode runs what the file holds.

A zip holds ``<name>/data.pkl`` and the bytes of each storage in ``<name>/data/<key>``. A stream
holds five pickles (a magic number, the version, a dict that tells the byte order, the value, the
keys of its storages) and then, per key, a count in 64 bits and the elements.
"""

import struct
from collections.abc import Mapping
from typing import Any

from stylecli.interop.pickle_machine import load_pickle
from stylecli.interop.refusal import Budget, DamagedError, RefusedError
from stylecli.interop.torch_tensors import Storage, fill_storage, make_storage
from stylecli.interop.zip_directory import read_directory

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
        raise RefusedError("it is a zip, but none that torch saved")
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
        raise RefusedError("it is no file that torch saved")
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
        raise RefusedError("it hides something else than a storage in one")
    return value

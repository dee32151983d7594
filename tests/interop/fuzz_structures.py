"""Fuzz the converters of foreign files by structure: a script, not a test.

    PYTHONPATH=. python tests/interop/fuzz_structures.py KIND CPU_SECONDS [SEED]

KIND is one of ``SOURCES`` or ``CONTAINERS``. What the reader makes of a good file is spoilt at
random (names, shapes, types, settings, whole branches) and goes through all that a file goes
through: unwrapped, recognised, described, converted, and once in a while built. Of containers the
files themselves are spoilt, by what they consist of: steps of a pickle, entries of a zip, values of
a header. Any exception but a StyleCLIError, any sign that code ran, and memory beyond 2 GiB stop
it. The same in short is ``test_hostile_files``.
"""

import copy
import io
import json
import pickletools
import random
import resource
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stylecli import checkpoint
from stylecli.errors import StyleCLIError
from stylecli.interop import conversion
from stylecli.interop.families import recognise, unwrap
from stylecli.interop.pickles import PlainObject
from stylecli.interop.trees import PersistentModule, TFNetwork, parse_foreign
from tests.conftest import FIXTURES
from tests.interop import foreign_files, reader_checks

OFFICIAL = FIXTURES / "official"
SOURCES = {
    "rosinality2": ("rosinality_stylegan2.pt",),
    "stylegan2": ("stylegan2_labels_snapshot.pkl", "stylegan2_stylegan3_snapshot.pkl"),
    "stylegan3": ("stylegan3_r_snapshot.pkl",),
    "stylegan2-tf": ("stylegan2_tf_G_D_Gs.pkl",),
    "r3gan": ("r3gan_labels_snapshot.pkl",),
    "lucidrains": ("lucidrains_stylegan2.pt",),
}
_MADE = {"rosinality2": ("rosinality2-zip", "rosinality2-stream"), "stylegan2": ("ada",),
         "r3gan": ("r3gan",), "lucidrains": ("lucidrains",)}  # fmt: skip
_ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 3, 1 << 40, 1 << 62, -(1 << 70), 0.5, 1e30, float("nan"), float("inf"),
    "", "lrelu", "x" * 500, b"x", [], {}, (), [4, 4], [1, 2, 3], [[1]], [None] * 80, "é\0\n",
)  # fmt: skip
_OBJECTS = PlainObject | PersistentModule | TFNetwork
_MOST_BYTES = 2 << 30
_LARGE_BYTES = 1 << 16  # larger entries are at most doubled: what is made must fit in memory


def inside(value: Any) -> Any:
    """Return the dict or list that a node's children are in, or None."""
    if isinstance(value, _OBJECTS):
        return value.state
    return value if isinstance(value, dict | list) else None


def containers(tree: Any) -> list[Any]:
    """Return every dict and list in a tree, each once."""
    found, seen, waiting = [], set(), [tree]
    while waiting:
        value = waiting.pop()
        children = list(value) if isinstance(value, tuple) else inside(value)
        if children is None or id(children) in seen:
            continue
        seen.add(id(children))
        if not isinstance(value, tuple) and len(children):
            found.append(children)
        waiting += children.values() if isinstance(children, dict) else children
    return found


def odd_array(array: np.ndarray, rng: random.Random) -> Any:
    """Return an array in another shape, type or with other values."""
    shape = list(array.shape)
    match rng.randrange(9):
        case 0 if shape:
            shape[rng.randrange(len(shape))] = rng.choice((0, 1, 2, 3, 5, 64))
            return np.zeros(shape, np.float32)
        case 1:
            return array[None]
        case 2:
            return array.reshape(-1)
        case 3:
            return array.T
        case 4:
            return array.astype(rng.choice((np.int8, np.bool_, np.complex64, np.float16)))
        case 5:
            return np.full_like(array, np.nan, dtype=np.float32)
        case 6:
            return np.zeros([*shape, 0], np.float32)
        case 7 if array.ndim and len(array) > 1:
            return array[:-1]
    return np.concatenate([array, array]) if shape else np.zeros(2)


def odd_name(name: str, rng: random.Random) -> str:
    """Return a name with a number, a word or a letter changed."""
    words = name.split(".")
    at = rng.randrange(len(words))
    choices = (str(rng.choice((0, 1, 2, 7, 63, 64, 999, -1, 10**9))), "weight", "", "b1048576",
               "module", words[at][::-1], words[at] * 40)  # fmt: skip
    words[at] = rng.choice(choices)
    return ".".join(words)


def spoil(tree: Any, rng: random.Random) -> None:
    """Change one thing in a tree."""
    if not (places := containers(tree)):
        return
    place = rng.choice(places)
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    key = rng.choice(keys)
    match rng.randrange(6):
        case 0:
            del place[key]
        case 1 if isinstance(key, str) and isinstance(place, dict):
            place[odd_name(key, rng)] = place.pop(key)
        case 2 if isinstance(key, str) and isinstance(place, dict):
            place[odd_name(key, rng)] = place[key]
        case 3 if len(keys) > 1:
            other = rng.choice(keys)
            place[key], place[other] = place[other], place[key]
        case 4:
            place[key] = rng.choice(_ODD)
        case _:
            value = place[key]
            place[key] = (
                odd_array(value, rng) if isinstance(value, np.ndarray) else rng.choice(_ODD)
            )


def check(tree: Any, build: bool) -> str:
    """Take a tree through everything that a file goes through; return the error's kind."""
    path = Path("file")
    try:
        tree = unwrap(tree, path)
        family = recognise(tree, path)
        family.facts(tree)
        made = family.convert(tree, path.name)
        if build:
            import torch

            tensors = {f"{name}.{key}": torch.from_numpy(array)
                       for name, part in made.networks.items()
                       for key, array in part.items()}  # fmt: skip
            checkpoint._build(path, made.config, tensors, made.lods, made.info)
    except StyleCLIError as error:
        return type(error).__name__
    return "read"


# ---- containers


def odd_pickle(content: bytes, rng: random.Random) -> bytes:
    """Return a pickle with a step left out, repeated, moved or changed; what follows it stays."""
    places = [place for _, _, place in pickletools.genops(content) if place is not None]
    end = content.index(b".", places[-1]) + 1
    steps = [content[a:b] for a, b in zip(places, [*places[1:], end], strict=True)]
    at, other = rng.randrange(len(steps)), rng.randrange(len(steps))
    match rng.randrange(5):
        case 0:
            del steps[at]
        case 1:
            steps.insert(at, steps[other])
        case 2:
            steps[at], steps[other] = steps[other], steps[at]
        case 3:
            steps[at] = steps[at][:1] + rng.randbytes(max(0, len(steps[at]) - 1))
        case _:
            steps[at : at + 1] = [bytes([rng.randrange(256)]) + steps[at][1:]]
    return b"".join(steps) + content[end:]


def odd_zip(content: bytes, rng: random.Random) -> bytes:
    """Return a torch zip whose pickle or one of whose entries is spoilt."""
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        entries = [(info.filename, source.read(info)) for info in source.infolist()]
    at = rng.randrange(len(entries))
    name, data = entries[at]
    match rng.randrange(8):
        case 0:
            del entries[at]
        case 1:
            entries[at] = (odd_name(name.replace("/", "."), rng).replace(".", "/"), data)
        case 2:
            entries[at] = (name, data[: rng.randrange(len(data) + 1)])
        case 3:
            times = 1000 if len(data) <= _LARGE_BYTES else 2
            entries[at] = (name, data * rng.choice((2, times)))
        case 4:
            entries.append((name, data[::-1]))
        case _:
            entries = [(n, odd_pickle(d, rng) if n.endswith("data.pkl") else d) for n, d in entries]
    kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", kind) as written, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that stand in it twice
        for name, data in entries:
            written.writestr(name, data)
    made = target.getvalue()
    return made if rng.randrange(9) else made[: rng.randrange(len(made))]


def odd_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Return one of our files with something of its header, or of our part of it, spoilt."""
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    if rng.randrange(2):
        spoil(header, rng)
    else:
        ours = json.loads(header["__metadata__"]["stylecli"])
        spoil(ours, rng)
        header["__metadata__"]["stylecli"] = json.dumps(ours, default=str)
    text = json.dumps(header, default=str).encode()
    length = len(text) if rng.randrange(9) else rng.choice((0, 7, len(text) - 1, 1 << 40, 1 << 63))
    return length.to_bytes(8, "little") + text + (data if rng.randrange(9) else data[:-3])


CONTAINERS: dict[str, tuple[tuple[str, ...], Callable[[bytes, random.Random], bytes]]] = {
    "torch-zip": (("rosinality2-zip", "lucidrains", "huangzh13-zip"), odd_zip),
    "torch-stream": (("rosinality2-stream", "huangzh13-stream"), odd_pickle),
    "pickle": (("ada", "tf-4", "tf-2", "r3gan"), odd_pickle),
    "safetensors": (("ours",), odd_safetensors),
}


def check_file(path: Path) -> str:
    """Load and describe a file; return the error's kind."""
    found = "read"
    for look in (checkpoint.load_network, checkpoint.describe_network):
        try:
            look(path)
        except StyleCLIError as error:
            found = type(error).__name__
    return found


def spoil_files(kind: str, rng: random.Random) -> Callable[[int], str]:
    """Return what spoils and checks another file."""
    made = {**foreign_files.all_kinds(), "ours": foreign_files.own_network()}
    names, odd = CONTAINERS[kind]
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    path = folder / "file"
    for name in names:  # and import what is imported late
        path.write_bytes(made[name])
        assert check_file(path) == "read", name

    def one(number: int) -> str:
        content = made[rng.choice(names)]
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            try:
                content = odd(content, rng)
            except (
                ValueError,
                IndexError,
                KeyError,
                zipfile.BadZipFile,
                AttributeError,
                TypeError,
            ):
                break  # spoilt too much to be taken apart again
        path.write_bytes(content)
        with reader_checks.watch():
            return check_file(path)

    return one


def good_trees(kind: str) -> list[Any]:
    """Return what the reader makes of the good files of a kind."""
    made = foreign_files.all_kinds()
    contents = [(OFFICIAL / name).read_bytes() for name in SOURCES[kind]]
    contents += [made[name] for name in _MADE.get(kind, ())]
    return [parse_foreign(content, Path("file")) for content in contents]


def spoil_trees(kind: str, rng: random.Random) -> Callable[[int], str]:
    """Return what spoils and checks another tree, and builds each twentieth."""
    trees = good_trees(kind)
    for tree in trees:
        assert check(copy.deepcopy(tree), True) == "read"

    def one(number: int) -> str:
        tree = copy.deepcopy(rng.choice(trees))
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
            spoil(tree, rng)
        with reader_checks.watch():
            return check(tree, number % 20 == 0)

    return one


def main() -> None:
    """Spoil and check until the CPU time is used."""
    kind, seconds = sys.argv[1], float(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    rng = random.Random(seed)
    conversion._AVERAGED = conversion._CHUNK = 10  # the mean of w is arithmetic, not reading
    one = spoil_files(kind, rng) if kind in CONTAINERS else spoil_trees(kind, rng)
    counts: dict[str, int] = {}
    number = 0
    while time.process_time() < seconds:
        number += 1
        try:
            result = one(number)
        except BaseException:
            print(f"{kind}: input {number} of seed {seed}", flush=True)
            raise
        counts[result] = counts.get(result, 0) + 1
        if (most := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) > _MOST_BYTES:
            raise MemoryError(f"{kind}: input {number} of seed {seed} took {most:,} bytes")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{kind}: {number} inputs in {seconds:g} CPU-s, peak {peak} MiB, {counts}", flush=True)


if __name__ == "__main__":
    main()

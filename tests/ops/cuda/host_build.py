"""Build the kernel source with g++ and run launches with it: the GPU's stand-in of the tests.

``HostBackend`` takes the place of the driver, so that tests drive the very launches and autograd
code that run on a GPU. ``Recorder`` writes launches down with their data; ``replay`` repeats them
in a program built with a sanitizer.
"""

import ctypes
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

import stylecli.ops.cuda
from stylecli.ops.cuda.calls import variants
from stylecli.ops.cuda.launches import Int64, Launch, set_backend

SOURCE = Path(stylecli.ops.cuda.__file__).parent
MAIN = Path(__file__).with_name("host_main.cpp")
COMPILER = shutil.which(os.environ.get("CXX", "g++"))

NOT_PROVEN = (
    "KERNELS NOT PROVEN: no g++ on this machine. `apt install g++` (or CXX=<compiler>) runs "
    "these tests"
)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason=NOT_PROVEN)

ALL_KERNELS = tuple(name for group in variants().values() for name in group)
# Not optimised: no access is folded away, and it builds in a quarter of the time.
SANITIZERS = {
    "address": ["-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-O0", "-g", "-fsanitize=thread", "-DSTYLECLI_OS_THREADS"],
}
# No fused multiply-add: whether the compiler uses it may depend on the build.
CHANNELS_LAST = torch.channels_last
FLAGS = ["-std=c++20", "-ffp-contract=off", "-w", "-pthread"]


def build(kernels: Iterable[str], flags: Iterable[str], *, program: bool = False) -> Path:
    """Compile the named template instances, once for equal input; return the library or program."""
    assert COMPILER is not None
    instances = "".join(f'Entry<&{name}>::named("{name}"),\n' for name in sorted(set(kernels)))
    kind = ["-DSTYLECLI_REPLAY"] if program else ["-shared", "-fPIC"]
    command = [COMPILER, *FLAGS, *flags, *kind]
    digest = hashlib.sha256(repr(command).encode() + instances.encode())
    for path in (*sorted(SOURCE.glob("*.cuh")), MAIN):
        digest.update(path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"stylecli-host-{os.getuid()}" / digest.hexdigest()[:20]
    made = folder / ("replay" if program else "kernels.so")
    if not made.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            (Path(work) / "instances.inc").write_text(instances)
            output = Path(work) / made.name
            subprocess.run(
                [*command, f"-I{SOURCE}", f"-I{work}", str(MAIN), "-o", str(output)], check=True
            )
            output.replace(made)
    return made


class HostBackend:
    """Runs launches on CPU tensors, one after the other, with threads in a chosen order."""

    def __init__(self, kernels: Iterable[str] = ALL_KERNELS, *, reverse: bool = False) -> None:
        flags = ["-O1", *(["-DSTYLECLI_REVERSED"] if reverse else [])]
        self.library = ctypes.CDLL(str(build(kernels, flags)))
        self.library.host_signature.restype = ctypes.c_char_p
        self.lock = threading.Lock()  # the emulation has one block index and one shared memory
        self.launched: list[str] = []

    def launch(self, record: Launch) -> None:
        index = self.library.host_find(record.kernel.encode())
        assert index >= 0, f"{record.kernel} is not in calls.variants()"
        signature = self.library.host_signature(index).decode()
        assert signature == codes(record), f"{record.kernel} takes {signature}: {codes(record)}"
        assert record.grid[1:] == (1, 1) and record.shared_bytes == 0
        values = [packed(argument) for argument in record.arguments]
        slots = (ctypes.c_void_p * len(values))(
            *[ctypes.cast(ctypes.pointer(value), ctypes.c_void_p) for value in values]
        )
        with self.lock:
            self.launched.append(record.kernel)
            self.library.host_launch(index, ctypes.c_uint(record.grid[0]), record.block, slots)


def codes(record: Launch) -> str:
    """Return the argument types as the kernels name them: pointer, int, long long, double."""
    letters = {Int64: "l", int: "i", float: "d"}
    return "".join(letters.get(type(argument), "p") for argument in record.arguments)


def packed(argument: object) -> ctypes.Structure:
    """Return an argument as the C value a kernel takes."""
    match argument:
        case None:
            return ctypes.c_void_p(None)
        case Tensor():
            assert argument.is_contiguous() or argument.is_contiguous(memory_format=CHANNELS_LAST)
            return ctypes.c_void_p(argument.data_ptr())
        case Int64():
            return ctypes.c_longlong(argument.value)
        case float():
            return ctypes.c_double(argument)
        case int():
            return ctypes.c_int(argument)
    raise TypeError(f"no kernel takes {argument!r}")


@dataclass
class Recorder:
    """Passes launches on and keeps each with its data before and after."""

    backend: HostBackend
    launches: list[bytes] = field(default_factory=list)
    kernels: set[str] = field(default_factory=set)

    def launch(self, record: Launch) -> None:
        before = [bytes_of(argument) for argument in record.arguments]
        self.backend.launch(record)
        self.kernels.add(record.kernel)
        name = record.kernel.encode()
        parts = [struct.pack("<i", len(name)), name]
        parts.append(struct.pack("<Iii", record.grid[0], record.block, len(record.arguments)))
        for code, argument, old in zip(codes(record), record.arguments, before, strict=True):
            parts.append(code.encode())
            if isinstance(argument, Tensor):
                shift = argument.data_ptr() % 16
                parts += [struct.pack("<qi", len(old), shift), old, bytes_of(argument)]
            else:
                value = argument.value if isinstance(argument, Int64) else argument
                parts.append(
                    struct.pack("<q", -1) if value is None else struct.pack(f"<{CODE[code]}", value)
                )
        self.launches.append(b"".join(parts))

    def write(self, path: Path) -> None:
        path.write_bytes(struct.pack("<i", len(self.launches)) + b"".join(self.launches))


CODE = {"i": "i", "l": "q", "d": "d"}


def bytes_of(argument: object) -> bytes:
    if not isinstance(argument, Tensor):
        return b""
    return ctypes.string_at(argument.data_ptr(), argument.numel() * argument.element_size())


def replay(
    recorder: Recorder, folder: Path, flags: Iterable[str]
) -> subprocess.CompletedProcess[str]:
    """Repeat recorded launches in a program built with ``flags``; return how it ended."""
    program = build(recorder.kernels, flags, program=True)
    data = folder / "launches.bin"
    recorder.write(data)
    return subprocess.run([str(program), str(data)], capture_output=True, text=True, timeout=100)


@contextmanager
def installed(backend: object) -> Iterator[None]:
    """Make the operators use ``backend`` for CPU tensors."""
    before = set_backend("cpu", backend)
    try:
        yield
    finally:
        set_backend("cpu", before)

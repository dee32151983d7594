"""Kernel source to machine code by NVRTC, and the folder that keeps what was compiled.

NVRTC, the compiler library that CUDA builds of torch bring, is reached through NVIDIA's
``cuda-core`` and ``cuda-bindings`` (extra ``cuda``). Their ``cuda-pathfinder`` finds the library
under whatever name it has: ``libnvrtc.so.13`` in the wheels beside torch, in conda or in a toolkit,
``nvrtc64_130_0.dll`` on Windows, and its companion ``nvrtc-builtins`` before it. No driver, GPU,
header or host compiler takes part, so the tests compile for every architecture. Importing this
module compiles and loads nothing.
"""

import contextlib
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from stylecli.cache_folder import cache_folder, keep_private, private_folder, whose
from stylecli.errors import DataError, DeviceError
from stylecli.files import parse_json, row_line, write_bytes

# ---- the source

_INCLUDE = re.compile(r'^#include "([^"]+)"\n', re.MULTILINE)


@cache
def kernel_source() -> str:
    """Return kernels.cuh with every file it includes put in place once; nothing else is included.

    The host compiler's own headers stay behind the preprocessor's conditions of shim.cuh.
    """
    seen: set[str] = set()

    def flat(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
        return _INCLUDE.sub(lambda match: flat(match[1]), text.replace("#pragma once\n", ""))

    return flat("kernels.cuh")


# ---- the compiler

INSTALL = "pip install 'stylecli[cuda]'"

OPTIONS: dict[str, str] = {"std": "c++17", "ptxas_options": "-v"}
"""What NVRTC is told besides the architecture; -v makes ptxas log registers and spills."""

PROGRAM_NAME = "stylecli.cu"

_ENTRY = re.compile(r"Compiling entry function '([^']+)'")
_MEMORY = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Resources:
    """What one kernel takes of a multiprocessor, from the log of ptxas."""

    registers: int  # per thread
    stack_bytes: int  # local memory per thread
    spill_bytes: int  # stores and loads
    shared_bytes: int  # static, per block


@dataclass(frozen=True)
class Compiled:
    """Machine code of some kernels for one architecture."""

    architecture: str  # "sm_90"
    cubin: bytes
    symbols: dict[str, str]  # template-id -> name in the cubin
    resources: dict[str, Resources]  # by template-id


def nvrtc_problem() -> str | None:
    """Return why NVRTC cannot be used and what to do, or None when it can."""
    for module, package in (("cuda.bindings", "cuda-bindings"), ("cuda.core", "cuda-core")):
        try:
            found = find_spec(module)
        except (ImportError, ValueError):
            found = None
        if found is None:
            return f"the package {package} is not installed, run: {INSTALL}"
    try:
        nvrtc_version()
    except Exception as error:  # a missing library, one of another CUDA, a broken install, ...
        return f"NVRTC cannot be loaded ({_first_line(error)}), run: pip install {_nvrtc_package()}"
    return None


def _nvrtc_package() -> str:
    """Return the package that brings the NVRTC which cuda-bindings looks for: one of its major.

    A driver older than that may refuse what it compiles: then bindings of the driver's own too.
    """
    bindings = int(version("cuda-bindings").partition(".")[0])
    driver = _driver_major() or bindings
    major = min(bindings, driver)
    package = "nvidia-cuda-nvrtc-cu12" if major == 12 else f"'nvidia-cuda-nvrtc=={major}.*'"
    return package if major == bindings else f"'cuda-bindings=={major}.*' {package}"


def _driver_major() -> int | None:
    """Return the CUDA version that the driver is of, 12 or 13; None where there is none."""
    try:
        from cuda.bindings import driver

        error, found = driver.cuDriverGetVersion()
    except Exception:  # no library, no binding, one of another driver
        return None
    return int(found) // 1000 if error == driver.CUresult.CUDA_SUCCESS and found else None


@cache
def nvrtc_version() -> str:
    """Return NVRTC's version as "13.0"; raise what its binding raises when it is not there."""
    from cuda.bindings import nvrtc

    error, major, minor = nvrtc.nvrtcVersion()
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise DeviceError(f"NVRTC does not report its version: {error}")
    return f"{major}.{minor}"


@cache
def nvrtc_architectures() -> tuple[int, ...]:
    """Return the architectures that this NVRTC compiles for, rising: 75, 80, 86, ..."""
    from cuda.bindings import nvrtc

    error, found = nvrtc.nvrtcGetSupportedArchs()
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise DeviceError(f"NVRTC does not report its architectures: {error}")
    return tuple(sorted(found))


def architecture_for(capability: tuple[int, int], supported: Sequence[int] | None = None) -> str:
    """Return the architecture to compile for on a GPU of this compute capability: "sm_90".

    Code for a lower minor version of the same major one runs too, so a card newer than NVRTC may
    still be served. Raises DeviceError when nothing fits.
    """
    supported = nvrtc_architectures() if supported is None else supported
    major, minor = capability
    fitting = [one for one in supported if one // 10 == major and one % 10 <= minor]
    if not fitting:
        raise DeviceError(
            f"the NVRTC here compiles for {', '.join(f'sm_{one}' for one in supported)}: "
            f"the GPU is sm_{major}{minor}"
        )
    return f"sm_{max(fitting)}"


def compile_kernels(source: str, template_ids: Sequence[str], architecture: str) -> Compiled:
    """Compile the named instances of templates in one program; return the code.

    0.1 s and about 0.2 s for each kernel. Raises DeviceError with the beginning of NVRTC's log.
    """
    problem = nvrtc_problem()
    if problem:
        raise DeviceError(problem)
    from cuda.core import Program, ProgramOptions

    log = io.StringIO()
    try:
        options = ProgramOptions(name=PROGRAM_NAME, arch=architecture, **OPTIONS)
        program = Program(source, "c++", options)
        code = program.compile("cubin", name_expressions=tuple(template_ids), logs=log)
        mangled = {name: lowered.decode() for name, lowered in code.symbol_mapping.items()}
        symbols = {name: mangled[name] for name in template_ids}
        cubin = bytes(code.code)
        program.close()
    except Exception as error:
        raise DeviceError(
            f"NVRTC {nvrtc_version()} refused the kernels for {architecture}: {_complaint(error)}"
        ) from error
    by_symbol = parse_log(log.getvalue())
    resources = {name: by_symbol[symbol] for name, symbol in symbols.items() if symbol in by_symbol}
    return Compiled(architecture, cubin, symbols, resources)


def parse_log(log: str) -> dict[str, Resources]:
    """Read the verbose log of ptxas; return the resources by symbol."""
    found = {}
    for block in re.split(r"(?=Compiling entry function)", log)[1:]:
        entry, memory = _ENTRY.search(block), _MEMORY.search(block)
        used, shared = _USED.search(block), _SHARED.search(block)
        if entry and memory and used:
            found[entry[1]] = Resources(
                registers=int(used[1]),
                stack_bytes=int(memory[1]),
                spill_bytes=int(memory[2]) + int(memory[3]),
                shared_bytes=int(shared[1]) if shared else 0,
            )
    return found


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _complaint(error: BaseException) -> str:
    """Return the first line of a compilation log that says ``error``, else the first line."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if "error:" in line), _first_line(error))


# ---- what was compiled, kept on disk: one file each in ``kernels/`` of the cache folder
#
# A file is a line that says what it is, a line of JSON (symbols, resources, the SHA-256 of the
# rest) and the machine code. It is written whole or not at all, so processes may share the folder.
# What others own or may write is not loaded: it is made again, and stays in memory only where the
# folder is theirs. Nothing here ever fails a command: a file that is not what was stored is removed
# and made again, a folder that cannot be written leaves the code in memory only.

_FOLDER = "kernels"
FIRST_LINE = b"stylecli kernels 1\n"
MAX_BYTES = 256 * 2**20
"""All kernels of one dtype and GPU are about 0.6 MB; old ones go once the folder is larger."""

Compile = Callable[[str, Sequence[str], str], Compiled]


def kernel_folder() -> Path:
    """Return the folder of compiled kernels; it need not exist."""
    return cache_folder() / _FOLDER


def cache_key(
    source: str, template_ids: Sequence[str], architecture: str, nvrtc_version: str
) -> str:
    """Return the SHA-256 of everything that decides the machine code, in hexadecimal."""
    parts = [source, *template_ids, architecture, nvrtc_version, json.dumps(OPTIONS)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def compile_cached(
    source: str,
    template_ids: Sequence[str],
    architecture: str,
    *,
    nvrtc_version: str,
    compile_kernels: Compile,
) -> Compiled:
    """Return the kernels from the cache, or compile and store them.

    Raises what ``compile_kernels`` raises; the state of the cache raises nothing.
    """
    key = cache_key(source, template_ids, architecture, nvrtc_version)
    try:
        path = kernel_folder() / f"{key}.kernels"
    except RuntimeError:  # no home folder, as in some containers
        return compile_kernels(source, template_ids, architecture)
    stored = _read(path)
    if stored is not None:
        return stored
    compiled = compile_kernels(source, template_ids, architecture)
    with contextlib.suppress(OSError):
        if not whose(private_folder(_FOLDER)):
            write_bytes(path, encode(compiled))
            keep_private(path)
            _remove_oldest(path.parent, keep=path)
    return compiled


def encode(compiled: Compiled) -> bytes:
    """Return the content of a cache file."""
    told = {
        "architecture": compiled.architecture,
        "symbols": compiled.symbols,
        "resources": {name: asdict(one) for name, one in compiled.resources.items()},
    }
    body = row_line(told) + compiled.cubin
    return FIRST_LINE + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def decode(content: bytes) -> Compiled:
    """Return what ``encode`` was given; raise ValueError for any other content."""
    if not content.startswith(FIRST_LINE):
        raise ValueError("not a file of compiled kernels")
    digest, _, body = content[len(FIRST_LINE) :].partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("the content is not what was stored")
    told, _, cubin = body.partition(b"\n")
    fields = parse_json(told, "the list of kernels")
    resources = {name: Resources(**one) for name, one in fields["resources"].items()}
    return Compiled(fields["architecture"], cubin, fields["symbols"], resources)


def _read(path: Path) -> Compiled | None:
    try:
        if whose(path):  # code that somebody else may have written
            return None
        compiled = decode(path.read_bytes())
    except OSError:
        return None
    except (DataError, ValueError, KeyError, TypeError, AttributeError):
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # read now: among the last to be removed
    return compiled


def _remove_oldest(folder: Path, *, keep: Path) -> None:
    """Remove the files read longest ago until the folder is within MAX_BYTES."""
    found = []
    for path in folder.glob("*.kernels"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            found.append((stat.st_mtime_ns, stat.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= MAX_BYTES:
            return
        if path != keep:
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size

"""Compiled kernels kept on disk: one file each in ``kernels/`` of the cache folder.

A file is a line that says what it is, a line of JSON (symbols, resources, the SHA-256 of the rest)
and the machine code. It is written whole or not at all, so processes may share the folder. Nothing
here ever fails a command: a file that is not what was stored is removed and made again, a folder
that cannot be written leaves the code in memory only.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from stylecli.errors import DataError
from stylecli.files import parse_json, row_line, write_bytes
from stylecli.ops.cuda.compiler import OPTIONS, Compiled, Resources
from stylecli.weights import cache_folder

FIRST_LINE = b"stylecli kernels 1\n"
MAX_BYTES = 256 * 2**20
"""All kernels of one dtype and GPU are about 0.6 MB; old ones go once the folder is larger."""

Compile = Callable[[str, Sequence[str], str], Compiled]


def kernel_folder() -> Path:
    """Return the folder of compiled kernels; it need not exist."""
    return cache_folder() / "kernels"


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
        write_bytes(path, encode(compiled))
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

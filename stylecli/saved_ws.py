"""Styles on disk: the ``.npz`` with a key ``w`` that every StyleGAN tool exchanges.

The array is [N, num_ws, w_dim] as ours and NVIDIA's projector write it; [N, 1, w_dim] and
[N, w_dim] mean the same w in every layer. Of other tools' habits are read: a bare ``.npy``, another
key, an axis of 1 too many, one face as [num_ws, w_dim], a tensor in a ``.pt``. Beside a projected
picture's w stand its noise maps, ``noise.0`` [N, 1, h, w] and so on. Files come from
strangers: nothing in them is executed, and no memory is taken on a file's word alone.
"""

import contextlib
import io
import itertools
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stylecli.errors import NetworkError, UsageError, plural
from stylecli.files import name_failed_download, parse_json, to_json, write_bytes
from stylecli.interop.trees import read_foreign_tree

KEY, PROVENANCE_KEY, NOISE_KEY = "w", "stylecli", "noise."
MAX_BYTES = 1 << 30  # 29 thousand faces of a 1024 px network
_HEADER_BYTES = 1 << 16  # an array's header takes some 120
_ZIP_START, _NPY_START, _PICKLE_START = b"PK\x03\x04", b"\x93NUMPY", b"\x80"
_MOST_ARRAYS, _DEEPEST = 100, 3  # arrays and levels that are looked at
_Header = tuple[tuple[int, ...], bool, np.dtype[Any]]  # shape, Fortran order, kind
# Everything that the zip and array readers of the libraries raise on bytes that make no sense.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError,
    OSError, ValueError, TypeError, EOFError, RuntimeError, ArithmeticError, MemoryError,
)  # fmt: skip


def load_ws(
    path: Path | str,
    shape: tuple[int, int] | None = None,
    *,
    tell: Callable[[str], None] = lambda reading: None,
) -> Tensor:
    """Read the styles ws [N, num_ws, w_dim] of a .npz, .npy or torch file, float32.

    ``shape`` (num_ws, w_dim) is what a network takes: one w per face is then repeated for every
    layer, and an array of exactly that shape is one face. Without it such a file gives
    [N, 1, w_dim]. ``tell`` gets a sentence where a file could be read in two ways. Raises
    NetworkError when the file is missing, damaged, too large, of another kind, or does not fit.
    """
    path = Path(path)
    key, array = _find(path, shape)
    if array.dtype.kind != "f" or (axes := _styles_shape(array.shape, shape)) is None:
        raise NetworkError(
            f"{path} holds {array.dtype} of shape {list(array.shape)}: "
            "expected floating-point styles [N, layers, w_dim]"
        )
    rows = torch.from_numpy(array.astype(np.float32)).reshape(axes)
    if not bool(torch.isfinite(rows).all()):
        raise NetworkError(f"{path} holds styles that are not finite numbers: nothing can be drawn")
    if key not in ("", KEY):
        tell(f"{path} has no array {KEY!r}: its array {key!r} is read as styles w")
    if array.shape == shape and shape[0] > 1:
        tell(
            f"{path} holds {list(array.shape)}, which was read as one face with a style for each "
            f"of the {shape[0]} layers, not as {plural(shape[0], 'face')}"
        )
    return rows if shape is None else _fitted(path, rows, shape)


def _styles_shape(
    found: tuple[int, ...], shape: tuple[int, int] | None
) -> tuple[int, int, int] | None:
    """Return the shape [N, layers, w_dim] as which an array is read; None for no styles."""
    if len(found) < 2 or 0 in found:
        return None
    if found == shape:
        return (1, *found)
    if len(found) == 2:
        return (found[0], 1, found[1])
    *many, layers, width = found
    if sum(axis != 1 for axis in many) > 1:
        return None
    return (math.prod(many), layers, width)


def save_ws(
    path: Path | str,
    ws: Tensor,
    *,
    noise: Sequence[Tensor] = (),
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write styles ws [N, num_ws, w_dim] to a .npz file, atomically, with how they were made.

    ``noise`` are noise maps [N, 1, h, w] of every layer that belong to them. Raises UsageError for
    another shape or suffix.
    """
    if Path(path).suffix.lower() != ".npz":
        raise UsageError(f"cannot save styles to {path}: expected a name that ends in .npz")
    if ws.ndim != 3:
        raise UsageError(f"styles of shape {list(ws.shape)} cannot be saved: expected three axes")
    if ws.numel() * 4 > MAX_BYTES:
        raise UsageError(
            f"the styles of {plural(len(ws), 'face')} take {ws.numel() * 4:,} bytes; a file holds "
            f"at most "
            f"{MAX_BYTES:,}: save fewer at a time"
        )
    arrays = {KEY: ws.detach().to("cpu", torch.float32).numpy()}
    for layer, maps in enumerate(noise):
        arrays[f"{NOISE_KEY}{layer}"] = maps.detach().to("cpu", torch.float32).numpy()
    if provenance is not None:
        text = to_json(provenance)
        arrays[PROVENANCE_KEY] = np.frombuffer(text, dtype=np.uint8)
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stubs take the names for options
    write_bytes(path, stream.getvalue())


def load_noise(
    path: Path | str, shapes: Sequence[tuple[int, ...]], faces: int | None = None
) -> list[Tensor] | None:
    """Return the noise maps [N, 1, h, w] that belong to a file's styles; None where it has none.

    ``shapes`` [1, 1, h, w] are those that a network takes, one for each layer; ``faces`` is N where
    it is known. Raises NetworkError for maps that are damaged or do not fit.
    """
    path = Path(path)
    with _opened(path) as (file, start):
        if not start.startswith(_ZIP_START):
            return None
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            count = sum(name.startswith(NOISE_KEY) for name in names)
            if not count:
                return None
            if count != len(shapes) or any(
                f"{NOISE_KEY}{layer}.npy" not in names for layer in range(count)
            ):
                raise NetworkError(
                    f"{path} holds {plural(count, 'noise map')}: this network takes {len(shapes)}"
                )
            maps = [_read_member(path, archive, f"{NOISE_KEY}{layer}") for layer in range(count)]
    count = len(maps[0]) if faces is None else faces
    for found, wanted in zip(maps, shapes, strict=True):
        if found.shape != (count, *wanted[1:]) or found.dtype.kind != "f":
            raise NetworkError(
                f"{path} holds a noise map of shape {list(found.shape)}: this network takes "
                f"[{count}, {', '.join(map(str, wanted[1:]))}]"
            )
    return [torch.from_numpy(found.astype(np.float32)) for found in maps]


def read_ws_provenance(path: Path | str) -> dict[str, Any] | None:
    """Return what ``save_ws`` wrote about how styles were made, None if it carries nothing."""
    try:
        text = _read(Path(path), PROVENANCE_KEY).tobytes()
        provenance: dict[str, Any] = parse_json(text, path, error=NetworkError)
    except NetworkError:
        return None
    return provenance


def _fitted(path: Path, ws: Tensor, shape: tuple[int, int]) -> Tensor:
    layers, width = shape
    if ws.shape[2] != width or ws.shape[1] not in (1, layers):
        raise NetworkError(
            f"{path} holds styles [N, {ws.shape[1]}, {ws.shape[2]}]: "
            f"this network takes [N, {layers}, {width}]"
        )
    if (size := len(ws) * layers * width * 4) > MAX_BYTES:
        raise NetworkError(
            f"{path} holds {plural(len(ws), 'face')}, {size:,} bytes as styles of every layer: "
            f"expected "
            f"at most {MAX_BYTES:,}"
        )
    return ws.expand(-1, layers, -1).contiguous()


def _find(path: Path, shape: tuple[int, int] | None) -> tuple[str, npt.NDArray[Any]]:
    """Return the styles of a file as they lie in it, and the key at which ("" for a bare array)."""
    with _opened(path) as (file, start):
        if start == _NPY_START:
            return "", _read_array(path, file, path.stat().st_size)
        if start.startswith(_PICKLE_START):
            return _choose(path, _torch_arrays(path), shape)
        if not start.startswith(_ZIP_START):
            wrong = name_failed_download(file.read(1024))
            raise NetworkError(f"{path} {wrong or 'is neither a .npz nor a .npy nor a .pt file'}")
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if any(name.endswith("/data.pkl") for name in names):
                return _choose(path, _torch_arrays(path), shape)
            if f"{KEY}.npy" in names:
                return KEY, _read_member(path, archive, KEY)
            arrays = {}
            for name in names[:_MOST_ARRAYS]:
                key = name.removesuffix(".npy")
                if key not in (name, PROVENANCE_KEY) and not key.startswith(NOISE_KEY):
                    with archive.open(name) as stream:
                        arrays[key] = _read_header(path, stream)[0]
            key = _choose_key(
                path, {key: (shape, kind.kind) for key, (shape, _, kind) in arrays.items()}, shape
            )
            return key, _read_member(path, archive, key)


def _choose(
    path: Path, arrays: dict[str, npt.NDArray[Any]], shape: tuple[int, int] | None
) -> tuple[str, npt.NDArray[Any]]:
    held = {key: (array.shape, array.dtype.kind) for key, array in arrays.items()}
    key = _choose_key(path, held, shape)
    return key, arrays[key]


def _choose_key(
    path: Path, arrays: Mapping[str, tuple[tuple[int, ...], str]], shape: tuple[int, int] | None
) -> str:
    """Return the key of the styles among arrays (shape, kind): w, else the only one that may be."""
    if KEY in arrays:
        return KEY
    held = ", ".join(f"{key[:60]} {list(found[:8])}" for key, (found, _) in [*arrays.items()][:5])
    floats = [key for key, (_, kind) in arrays.items() if kind == "f"]
    fitting = [key for key in floats if _fits(arrays[key][0], shape)]
    for keys in (floats, fitting):
        if len(keys) == 1:
            return keys[0]
    if not floats:
        raise NetworkError(
            f"{path} has no array {KEY!r} and no other of floating-point numbers: it holds "
            f"{held or 'nothing'}"
        )
    raise NetworkError(
        f"{path} has no array {KEY!r} but several others ({held}): name the styles {KEY!r}, or "
        "save them alone"
    )


def _fits(found: tuple[int, ...], shape: tuple[int, int] | None) -> bool:
    axes = _styles_shape(found, shape)
    return axes is not None and (
        shape is None or (axes[1] in (1, shape[0]) and axes[2] == shape[1])
    )


def _torch_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of what ``torch.save`` or pickle wrote, by the keys that lead to them."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise NetworkError(f"{path} has {size:,} bytes: expected at most {MAX_BYTES:,}")
    arrays: dict[str, npt.NDArray[Any]] = {}

    def visit(value: Any, key: str, depth: int) -> None:
        if isinstance(value, np.ndarray) and len(arrays) < _MOST_ARRAYS:
            arrays[key] = value
        elif depth < _DEEPEST and isinstance(value, dict | list | tuple):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for name, item in itertools.islice(items, _MOST_ARRAYS):
                visit(item, f"{key}.{name}" if key else str(name), depth + 1)

    visit(read_foreign_tree(path), "", 0)
    return arrays


def _read(path: Path, key: str) -> npt.NDArray[Any]:
    """Return one array of a .npz, checked before it is read."""
    with _opened(path) as (file, start):
        if not start.startswith(_ZIP_START):
            raise NetworkError(f"{path} is not a .npz file")
        with zipfile.ZipFile(file) as archive:
            if f"{key}.npy" not in archive.namelist():
                raise NetworkError(f"{path} has no array {key!r}")
            return _read_member(path, archive, key)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, bytes]]:
    """Yield a file at its beginning, and its first bytes; NetworkError for all that goes wrong."""
    if not path.is_file():
        raise NetworkError(
            f"styles {path} do not exist: make some with stylecli generate --save-ws"
        )
    try:
        with open(path, "rb") as file:
            start = file.read(len(_NPY_START))
            file.seek(0)
            yield file, start
    except _DAMAGED as error:
        raise NetworkError(f"{path} is damaged: {error}") from None


def _read_member(path: Path, archive: zipfile.ZipFile, key: str) -> npt.NDArray[Any]:
    member = archive.getinfo(f"{key}.npy")
    with archive.open(member) as stream:
        return _read_array(path, stream, member.file_size)


def _read_header(path: Path, stream: IO[bytes]) -> tuple[_Header, bytes]:
    """Return what an array's header says, and the bytes behind it that were read with it."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise NetworkError(f"{path} has an array format {version} that holds no styles")
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    # numpy reads a header of any length before it complains, up to 4 GiB out of a small zip.
    start = stream.read(_HEADER_BYTES)
    header = io.BytesIO(start)
    return read_header(header), start[header.tell() :]


def _read_array(path: Path, stream: IO[bytes], length: int) -> npt.NDArray[Any]:
    """Read an array of .npy format whose header agrees with its ``length`` in bytes."""
    (shape, fortran_order, dtype), start = _read_header(path, stream)
    if dtype.hasobject or dtype.kind not in "fu":
        raise NetworkError(f"{path} holds an array of {dtype}: expected floating-point styles")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or size > min(length, MAX_BYTES):
        raise NetworkError(
            f"{path} claims an array of shape {list(shape)}, {size:,} bytes: it holds {length:,} "
            f"and may hold {MAX_BYTES:,}"
        )
    content = start[:size] + stream.read(max(0, size - len(start)))
    if len(content) != size:
        raise NetworkError(f"{path} is cut off: {len(content):,} of {size:,} bytes are there")
    array = np.frombuffer(content, dtype=dtype)
    return array.reshape(shape, order="F" if fortran_order else "C")

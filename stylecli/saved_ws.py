"""Styles on disk: the ``.npz`` with a key ``w`` that every StyleGAN tool exchanges.

The array is [N, num_ws, w_dim] as ours and NVIDIA's projector write it; [N, 1, w_dim] and
[N, w_dim] mean the same w in every layer, and a bare ``.npy`` is read too. Files come from
strangers: nothing in them is executed, and no memory is taken on a file's word alone.
"""

import io
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stylecli.errors import NetworkError, UsageError
from stylecli.files import parse_json, to_json, write_bytes

KEY, PROVENANCE_KEY = "w", "stylecli"
MAX_BYTES = 1 << 30  # 29 thousand faces of a 1024 px network
_HEADER_BYTES = 1 << 16  # an array's header takes some 120
_ZIP_START, _NPY_START = b"PK\x03\x04", b"\x93NUMPY"
# Everything that the zip and array readers of the libraries raise on bytes that make no sense.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError,
    OSError, ValueError, TypeError, EOFError, RuntimeError, ArithmeticError, MemoryError,
)  # fmt: skip


def load_ws(path: Path | str, shape: tuple[int, int] | None = None) -> Tensor:
    """Read the styles ws [N, num_ws, w_dim] of a .npz (key ``w``) or .npy file, float32.

    ``shape`` (num_ws, w_dim) is what a network takes: one w per face is then repeated for every
    layer. Without it such a file gives [N, 1, w_dim]. Raises NetworkError when the file is missing,
    damaged, too large, of another kind, or does not fit.
    """
    path = Path(path)
    ws = _read(path, KEY)
    if ws.dtype.kind != "f" or ws.ndim not in (2, 3) or not ws.size:
        raise NetworkError(
            f"{path} holds {ws.dtype} of shape {list(ws.shape)}: "
            "expected floating-point styles [N, layers, w_dim]"
        )
    rows = torch.from_numpy(ws.astype(np.float32))
    if not bool(torch.isfinite(rows).all()):
        raise NetworkError(f"{path} holds styles that are not finite numbers: nothing can be drawn")
    if rows.ndim == 2:
        rows = rows.unsqueeze(1)  # [N, 1, w_dim]
    return rows if shape is None else _fitted(path, rows, shape)


def save_ws(path: Path | str, ws: Tensor, *, provenance: Mapping[str, Any] | None = None) -> None:
    """Write styles ws [N, num_ws, w_dim] to a .npz file, atomically, with how they were made.

    Raises UsageError for another shape or suffix.
    """
    if Path(path).suffix.lower() != ".npz":
        raise UsageError(f"{path} is no name for styles: expected one that ends in .npz")
    if ws.ndim != 3:
        raise UsageError(f"styles of shape {list(ws.shape)} cannot be saved: expected three axes")
    if ws.numel() * 4 > MAX_BYTES:
        raise UsageError(
            f"the styles of {len(ws):,} faces take {ws.numel() * 4:,} bytes, a file holds "
            f"{MAX_BYTES:,}: save fewer at a time"
        )
    arrays = {KEY: ws.detach().to("cpu", torch.float32).numpy()}
    if provenance is not None:
        text = to_json(provenance)
        arrays[PROVENANCE_KEY] = np.frombuffer(text, dtype=np.uint8)
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stubs take the names for options
    write_bytes(path, stream.getvalue())


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
            f"{path} holds {len(ws):,} faces, {size:,} bytes as styles of every layer: a file may "
            f"give {MAX_BYTES:,}"
        )
    return ws.expand(-1, layers, -1).contiguous()


def _read(path: Path, key: str) -> npt.NDArray[Any]:
    """Return one array of a .npz, or the only one of a .npy, checked before it is read."""
    if not path.is_file():
        raise NetworkError(f"styles {path} do not exist: make some with generate --save-ws")
    try:
        with open(path, "rb") as file:
            start = file.read(len(_NPY_START))
            file.seek(0)
            if start == _NPY_START:
                return _read_array(path, file, path.stat().st_size)
            if not start.startswith(_ZIP_START):
                raise NetworkError(f"{path} is neither a .npz nor a .npy file")
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                if f"{key}.npy" not in names:
                    raise NetworkError(
                        f"{path} has no array {key!r}: it holds {', '.join(names[:5]) or 'nothing'}"
                    )
                member = archive.getinfo(f"{key}.npy")
                with archive.open(member) as stream:
                    return _read_array(path, stream, member.file_size)
    except _DAMAGED as error:
        raise NetworkError(f"{path} is damaged: {error}") from None


def _read_array(path: Path, stream: IO[bytes], length: int) -> npt.NDArray[Any]:
    """Read an array of .npy format whose header agrees with its ``length`` in bytes."""
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
    shape, fortran_order, dtype = read_header(header)
    start = start[header.tell() :]
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

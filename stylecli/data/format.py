"""The dataset file: which keys an LMDB of ours holds, its header, how pixels become bytes.

    i/ + index          pixels of one picture at full resolution, in the header's codec
    p/ + level + index  the same at resolution >> level, level one byte, if packed with a pyramid
    l/ + index          its label: one int64, or float32 [L]; little-endian
    m/ + index          what is known of it, as JSON: author, licence, source, attributes
    d/ + index          SHA-256 of its raw pixels (uint8 [C, H, W] in C order)
    h/ + index          SHA-256 of what is stored at each level from 1 on, if there are such
    s/ + number         a picture that was left out, as JSON: name, cause
    _labels             all labels as one array: int64 [N] or float32 [N, L], little-endian
    _meta               the header, as JSON; written last, with "complete": true
    _state              while something is being written: how far it is, as JSON (unfinished.py)

An index is 8 bytes, big-endian, so that the order of the keys is the order of the pictures. What
stands beyond the header's count belongs to an addition that has not been finished.

Pixels are stored without loss: raw, as PNG, or as lossless WebP. The lower levels are box means in
float, rounded once (the rule of StyleGAN's own pyramid). The official tool halves the float picture
again and again and rounds each level only when it is written. Means of 8-bit values over at most
256 x 256 pixels are exact in float32, so that chain equals the plain mean over a 2^level box,
computed here from exact integer sums.

numpy is imported where it is used: a worker that packs raw pixels starts quicker without it.
"""

import hashlib
import io
import struct
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from stylecli import __version__
from stylecli.errors import DataError, UsageError, plural
from stylecli.files import parse_json
from stylecli.shapes import SQUARE, Grid, checked_grid

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FORMAT = "stylecli-dataset"
VERSION = 1  # of square pictures
WIDE_VERSION = 2  # of others, whose header also has the base; older readers refuse it
META_KEY = b"_meta"
LABELS_KEY = b"_labels"
STATE_KEY = b"_state"
DATA_FILE = "data.mdb"  # the file LMDB makes inside a dataset's folder
DIGEST_BYTES = 32
MIN_RESOLUTION, MAX_RESOLUTION = 4, 4096
MAX_COUNT = 1 << 32
MAX_LABEL_DIM = 100_000

Codec = Literal["raw", "png", "webp"]
CODECS: tuple[Codec, ...] = ("raw", "png", "webp")
LabelKind = Literal["class", "vector"]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def image_key(index: int, level: int = 0) -> bytes:
    """Return the key of a picture's pixels at resolution >> ``level``."""
    prefix = b"p/" + bytes([level]) if level else b"i/"
    return prefix + struct.pack(">Q", index)


def label_key(index: int) -> bytes:
    """Return the key of a picture's own label."""
    return b"l/" + struct.pack(">Q", index)


def metadata_key(index: int) -> bytes:
    """Return the key of a picture's metadata."""
    return b"m/" + struct.pack(">Q", index)


def digest_key(index: int) -> bytes:
    """Return the key of a picture's digest."""
    return b"d/" + struct.pack(">Q", index)


def levels_key(index: int) -> bytes:
    """Return the key of the digests of a picture's lower levels."""
    return b"h/" + struct.pack(">Q", index)


def skipped_key(number: int) -> bytes:
    """Return the key of what is known of a picture that was left out."""
    return b"s/" + struct.pack(">Q", number)


def pixel_digest(pixels: "bytes | memoryview[int]") -> bytes:
    """Return the digest of one picture: SHA-256 of its raw pixels, whatever the codec."""
    return hashlib.sha256(pixels).digest()


def dataset_digest(digests: Iterable[bytes]) -> str:
    """Return the digest of a dataset: SHA-256, as hex, over its pictures' digests in order."""
    whole = hashlib.sha256()
    for digest in digests:
        whole.update(digest)
    return whole.hexdigest()


def parse_header(path: Path, text: bytes | None) -> dict[str, Any]:
    """Read and check a header before anything is allocated from what it says.

    Raises DataError when it is missing (an unfinished or foreign LMDB), not ours, of another
    version, or holds values no dataset can have.
    """
    if text is None:
        raise DataError(
            f"{path} is not a complete stylecli dataset (it has no header): "
            "make it again with stylecli pack --force"
        )
    header: dict[str, Any] = parse_json(text, f"the header of {path}")
    if header.get("format") != FORMAT:
        raise DataError(f"{path} was not made by stylecli: pack its pictures with stylecli pack")
    if header.get("version") not in (VERSION, WIDE_VERSION):
        raise DataError(
            f"{path} has dataset version {header.get('version')!r}; this stylecli reads "
            f"{VERSION} and {WIDE_VERSION}: update stylecli, or pack the pictures again"
        )
    if header.get("complete") is not True:
        raise DataError(f"{path} is incomplete: make it again with stylecli pack --force")
    _check_numbers(path, header)
    _check_size(path, header)
    return header


def _check_numbers(path: Path, header: dict[str, Any]) -> None:
    limits = {
        "count": (1, MAX_COUNT),
        "resolution": (MIN_RESOLUTION, MAX_RESOLUTION),
        "channels": (1, 4),
        "levels": (1, MAX_RESOLUTION.bit_length()),
        "label_dim": (0, MAX_LABEL_DIM),
        "skipped": (0, MAX_COUNT),
    }
    for name, (low, high) in limits.items():
        value = header.get(name, 0 if name == "skipped" else None)
        if type(value) is not int or not low <= value <= high:
            raise DataError(
                f"the header of {path} has {name} = {value!r}: expected {low} to {high}; "
                "the file is damaged, pack the pictures again"
            )
    r = header["resolution"]
    choices: dict[str, tuple[Any, ...]] = {
        "channels": (1, 3, 4),
        "codec": CODECS,
        "label_kind": ("class", "vector") if header["label_dim"] else (None,),
        "resolution": tuple(1 << k for k in range(2, 13)),
        "levels": (1, r.bit_length() - 2),
    }
    for name, allowed in choices.items():
        if header.get(name) not in allowed:
            raise DataError(
                f"the header of {path} has {name} = {header.get(name)!r}: expected one of "
                f"{list(allowed)}; the file is damaged, pack the pictures again"
            )
    names = header.get("class_names")
    if names is not None and not (
        isinstance(names, list)
        and len(names) == header["label_dim"]
        and all(isinstance(name, str) for name in names)
    ):
        raise DataError(
            f"the header of {path} does not name its "
            f"{plural(header['label_dim'], 'class', 'classes')}"
        )
    if not isinstance(header.get("digest"), str):
        raise DataError(f"the header of {path} has no digest: pack the pictures again")
    _check_records(path, header)


def grid_of(header: dict[str, Any]) -> Grid:
    """Return the grid that the pictures of a dataset double; square ones do not tell it."""
    return checked_grid(header["base"]) if header["version"] == WIDE_VERSION else SQUARE


def _check_size(path: Path, header: dict[str, Any]) -> None:
    """Check that height and width are those of the level and the base."""
    try:
        size = grid_of(header).at(header["resolution"])
    except (KeyError, UsageError):
        size = None
    told = (header.get("height", size and size.height), header.get("width", size and size.width))
    if size is None or told != size:
        raise DataError(
            f"the header of {path} has a height, width and base that do not fit together; "
            "the file is damaged, pack the pictures again"
        )


def _check_records(path: Path, header: dict[str, Any]) -> None:
    """Check what a header says beyond the pixels: how, when and in which steps it was packed."""
    additions = header.get("additions", [])
    tally = header.get("tally", {})
    sound = {
        "tool": isinstance(header.get("tool", ""), str),
        "created": isinstance(header.get("created", ""), str),
        "tally": isinstance(tally, dict) and all(type(n) is int for n in tally.values()),
        "additions": isinstance(additions, list)
        and all(
            isinstance(entry, dict)
            and type(entry.get("first")) is int
            and type(entry.get("skipped")) is int
            and "settings" in entry
            for entry in additions
        ),
    }
    if wrong := [name for name, is_sound in sound.items() if not is_sound]:
        raise DataError(
            f"the header of {path} has {wrong[0]} = {header[wrong[0]]!r}: the file is damaged, "
            "copy it again, or pack the pictures again"
        )


def check_settings(resolution: int, channels: int, codec: str) -> None:
    """Raise UsageError for settings that no dataset can have."""
    low, high = MIN_RESOLUTION, MAX_RESOLUTION
    if not low <= resolution <= high or resolution & (resolution - 1):
        raise UsageError(f"resolution {resolution} is not a power of two from {low} to {high}")
    if channels not in (1, 3, 4):
        raise UsageError(f"channels {channels} is not 1 (grey), 3 (RGB) or 4 (RGBA)")
    if codec not in CODECS:
        raise UsageError(
            f"unknown codec {codec!r}: expected one of {', '.join(CODECS)}; lossy ones would "
            f"spoil FID"
        )


def header_fields(
    resolution: int, channels: int, codec: Codec, levels: int, grid: Grid = SQUARE
) -> dict[str, Any]:
    """Return the fields that do not depend on the pictures."""
    height, width = grid.at(resolution)
    return {
        "format": FORMAT,
        "version": VERSION if grid.is_usual else WIDE_VERSION,
        "tool": f"stylecli {__version__}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "channels": channels,
        "height": height,
        "width": width,
        "resolution": resolution,
        **({} if grid.is_usual else {"base": list(grid)}),
        "codec": codec,
        "levels": levels,
        "colour_space": "sRGB",
    }


def encode(pixels: "npt.NDArray[np.uint8]", codec: Codec) -> bytes:
    """Turn uint8 [C, H, W] into bytes that decode to exactly the same pixels."""
    if codec == "raw":
        return pixels.tobytes()
    buffer = io.BytesIO()
    picture = to_picture(pixels)
    if codec == "png":
        picture.save(buffer, "png", compress_level=6)
    else:
        # `exact` keeps the colour of fully transparent pixels, which WebP would drop.
        picture.save(buffer, "webp", lossless=True, exact=True, quality=75, method=4)
    return buffer.getvalue()


def decode(
    data: "bytes | memoryview[int]", codec: Codec, shape: tuple[int, int, int]
) -> "npt.NDArray[np.uint8]":
    """Turn stored bytes into uint8 [C, H, W] of the given shape.

    Raises DataError when the bytes are damaged or of another shape. Raw pixels are a view of
    ``data``; copy them before its transaction ends.
    """
    import numpy as np

    channels, height, width = shape
    if codec == "raw":
        if len(data) != channels * height * width:
            raise DataError(f"the stored pixels have {len(data)} bytes: expected {shape}")
        return np.frombuffer(data, np.uint8).reshape(shape)
    try:
        with Image.open(io.BytesIO(data), formats=[codec]) as picture:
            if picture.size != (width, height):
                raise DataError(
                    f"the stored picture has {picture.size} px: expected {width, height}"
                )
            # WebP has no grey: grey pictures were stored with three equal channels.
            pixels = np.asarray(picture.convert(_MODES[channels]))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"the stored {codec} picture is damaged: {error}") from None
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)


def to_picture(pixels: "npt.NDArray[np.uint8]") -> Image.Image:
    """Turn uint8 [C, H, W] into a Pillow picture: grey, RGB or RGBA."""
    import numpy as np

    if len(pixels) == 1:
        return Image.fromarray(pixels[0])
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def count_levels(resolution: int) -> int:
    """Return how many levels a picture has, from full resolution down to its base, 4×4 px."""
    return resolution.bit_length() - 2


def box_mean(pixels: "npt.NDArray[np.uint8]", level: int) -> "npt.NDArray[np.uint8]":
    """Shrink uint8 [..., H, W] to [..., H >> level, W >> level] by the mean of each box.

    Halves round to the even neighbour, as rint does. Level 0 returns the pixels themselves.
    Raises UsageError when the sides do not divide.
    """
    import numpy as np

    if level == 0:
        return pixels
    height, width = pixels.shape[-2:]
    if level < 0 or height % (1 << level) or width % (1 << level):
        raise UsageError(f"level {level} does not exist in pictures of {width} x {height} px")
    sums: npt.NDArray[Any] = pixels
    for step in range(level):
        # The narrowest integer that holds 255 * 4^(step + 1): half the memory traffic.
        dtype = np.uint16 if step < 4 else np.uint32
        sums = np.add(sums[..., ::2, :], sums[..., 1::2, :], dtype=dtype)
        sums = np.add(sums[..., ::2], sums[..., 1::2], dtype=dtype)
    means = sums.astype(np.float32)
    means *= np.float32(0.25**level)
    return np.rint(means, out=means).astype(np.uint8)

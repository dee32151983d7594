"""From any picture to the square, 8-bit pixels of a dataset: colours, centre crop, resize.

EXIF orientation and colour profiles are ignored, as in the official tools: pictures are used as
they are stored.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.errors import DataError

Filter = Literal["lanczos", "box", "bicubic"]
FILTERS: tuple[Filter, ...] = ("lanczos", "box", "bicubic")
_RESAMPLING = {
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
}
GREY_MODES = frozenset({"1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N"})
_OPAQUE_MODES = frozenset({"1", "L", "RGB", "CMYK", "YCbCr", "HSV"})
_ALPHA_MODES = frozenset({"LA", "RGBA", "PA"})


def square_pixels(
    picture: Image.Image, resolution: int, channels: int, resample: Filter = "lanczos"
) -> npt.NDArray[np.uint8]:
    """Turn a picture into uint8 [channels, resolution, resolution].

    The central square is cut out, its colours are converted, and it is resized. Raises DataError
    for pixel formats that have no plain meaning in 8 bits.
    """
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = convert_colours(picture.crop((left, top, left + side, top + side)), channels)
    if side != resolution:
        square = square.resize((resolution, resolution), _RESAMPLING[resample])
    pixels = np.asarray(square).reshape(resolution, resolution, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def convert_colours(picture: Image.Image, channels: int) -> Image.Image:
    """Convert to 8-bit grey (1), RGB (3) or RGBA (4).

    Transparent pictures are laid over white unless channels is 4; 16-bit grey is scaled to 8 bits.
    Raises DataError for 32-bit and floating-point pixels, whose range is not known.
    """
    target = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    if picture.mode.startswith("I;16"):
        sixteen = np.asarray(picture).astype(np.float32)
        picture = Image.fromarray(np.rint(sixteen / 257).astype(np.uint8))
    if picture.mode == "P" or (picture.mode in _OPAQUE_MODES and "transparency" in picture.info):
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    if picture.mode in _ALPHA_MODES:
        picture = picture.convert("RGBA")
        if channels != 4:
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture).convert("RGB")
    elif picture.mode not in _OPAQUE_MODES:
        raise DataError(f"has {picture.mode} pixels: expected 8 or 16 bits a channel")
    if picture.mode in ("CMYK", "YCbCr", "HSV"):
        picture = picture.convert("RGB")  # grey and alpha are only defined from there
    return picture if picture.mode == target else picture.convert(target)

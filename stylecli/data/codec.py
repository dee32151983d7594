"""Pixels to bytes and back, without loss: raw, PNG, or lossless WebP.

numpy is imported where it is used: a worker that packs raw pixels starts quicker without it.
"""

import io
from typing import TYPE_CHECKING

from PIL import Image

from stylecli.data.layout import Codec
from stylecli.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


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
            raise DataError(f"{len(data)} bytes of pixels found, {shape} expected")
        return np.frombuffer(data, np.uint8).reshape(shape)
    try:
        with Image.open(io.BytesIO(data), formats=[codec]) as picture:
            if picture.size != (width, height):
                raise DataError(f"a picture of {picture.size} px found, {width, height} expected")
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

"""Colours of any kind to 8-bit grey, RGB or RGBA in sRGB.

It happens in two steps around the resizing. ``simplify`` first gives every picture a mode that can
be resized: no palettes, 8 bits a channel. ``finish`` then converts the few pixels that are left:
colour profile, CMYK and LAB to sRGB; transparency over the background. What few pictures need
(numpy, the colour engine) is imported where it is used: most workers start quicker without.
"""

import functools
import io
from typing import TYPE_CHECKING

from PIL import Image

from stylecli.data.decoding import PictureHeader, read_header
from stylecli.errors import DataError

if TYPE_CHECKING:
    from PIL import ImageCms

Colour = tuple[int, int, int]  # red, green, blue, 0..255
WHITE: Colour = (255, 255, 255)
TARGETS = {1: "L", 3: "RGB", 4: "RGBA"}
_PLAIN_MODES = frozenset({"L", "RGB", "RGBA", "CMYK", "LAB"})
_OTHER_MODES = {
    "1": "L", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB",
    "LA": "RGBA", "La": "RGBA", "PA": "RGBA", "RGBa": "RGBA",
}  # fmt: skip
_PROFILE_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_NEGLIGIBLE = 2  # grey levels: a profile that moves no colour further is sRGB itself

BROKEN_PROFILE = "its colour profile is unusable: colours were taken as sRGB"


def simplify(picture: Image.Image, header: PictureHeader) -> Image.Image:
    """Convert to one of L, RGB, RGBA, CMYK, LAB, keeping all that can be seen.

    ``picture`` may have been cut or turned since ``header`` was read. 16-bit grey is scaled to 8
    bits and rounded. Raises DataError for 32-bit and floating-point pixels, whose range is not
    known.
    """
    if picture.mode.startswith("I") and header.highest > 255:
        picture = _from_16_bits(picture, header.highest)
    transparent = "transparency" in picture.info
    if picture.mode == "P" or (transparent and picture.mode in ("1", "L", "RGB")):
        return picture.convert("RGBA" if transparent else "RGB")
    if picture.mode in _OTHER_MODES:
        return picture.convert(_OTHER_MODES[picture.mode])
    if picture.mode not in _PLAIN_MODES:
        raise DataError(f"has {picture.mode} pixels: expected 8 or 16 bits a channel")
    return picture


def convert_colours(picture: Image.Image, channels: int) -> Image.Image:
    """Convert a picture as it was opened to 8-bit grey (1), RGB (3) or RGBA (4).

    Its profile is left aside. Raises DataError for 32-bit and floating-point pixels.
    """
    return finish(simplify(picture, read_header(picture)), channels)[0]


def finish(
    picture: Image.Image,
    channels: int,
    *,
    profile: bytes | None = None,
    background: Colour = WHITE,
) -> tuple[Image.Image, str]:
    """Convert what ``simplify`` returned to grey (1), RGB (3) or RGBA (4) in sRGB.

    ``profile`` is the ICC profile to convert from; one that is sRGB itself changes nothing, one
    that is broken or belongs to another kind of picture is left out. Returns the picture and a
    sentence about what was left out, or "". Unless ``channels`` is 4, transparent pictures are
    laid over ``background``.
    """
    note = ""
    if profile:
        picture, note = _apply_profile(picture, profile)
    if picture.mode == "LAB":
        picture = _apply(_from_lab(), picture)
    if picture.mode == "RGBA" and channels != 4:
        picture = lay_over(picture, background)
    elif picture.mode == "CMYK":
        picture = picture.convert("RGB")  # grey and alpha are only defined from there
    target = TARGETS[channels]
    return (picture if picture.mode == target else picture.convert(target)), note


def lay_over(picture: Image.Image, background: Colour) -> Image.Image:
    """Return an RGBA picture as RGB over a background: all that looks at pictures sees this."""
    canvas = Image.new("RGBA", picture.size, background)
    return Image.alpha_composite(canvas, picture).convert("RGB")


def _from_16_bits(picture: Image.Image, highest: int) -> Image.Image:
    import numpy as np

    table = np.rint(np.minimum(np.arange(65536) / highest, 1) * 255).astype(np.uint8)
    grey = Image.fromarray(table[np.asarray(picture).astype(np.uint16, copy=False)])
    if isinstance(level := picture.info.get("transparency"), int):
        grey.info["transparency"] = int(table[min(level, 65535)])
    return grey


def _apply_profile(picture: Image.Image, profile: bytes) -> tuple[Image.Image, str]:
    """Return (the picture in sRGB, a note); alpha passes through."""
    from PIL import ImageCms

    mode = "RGB" if picture.mode == "RGBA" else picture.mode
    try:
        transform = _to_srgb(profile, mode)
        if transform is None:
            return picture, ""
        if picture.mode != "RGBA":
            return _apply(transform, picture), ""
        converted = _apply(transform, picture.convert("RGB"))
        converted.putalpha(picture.getchannel("A"))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture, BROKEN_PROFILE
    return converted, ""


@functools.lru_cache(maxsize=8)  # cameras write the same profile into every picture
def _to_srgb(profile: bytes, mode: str) -> "ImageCms.ImageCmsTransform | None":
    """Return the way from a profile to sRGB, or None when that changes nothing.

    Raises an error of ImageCms when the profile is broken or not one for pictures of ``mode``.
    """
    import numpy as np
    from PIL import ImageCms

    opened = ImageCms.getOpenProfile(io.BytesIO(profile))
    if _PROFILE_MODES.get(opened.profile.xcolor_space) != mode:
        raise ImageCms.PyCMSError(f"not a profile for {mode} pictures")
    transform = ImageCms.buildTransform(
        opened,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if mode == "CMYK":
        return transform
    probe = _probe(mode)
    before = np.asarray(probe.convert("RGB")).astype(int)
    after = np.asarray(_apply(transform, probe)).astype(int)
    return None if np.abs(after - before).max() <= _NEGLIGIBLE else transform


def _probe(mode: str) -> Image.Image:
    """Return a picture of all greys, or of 18 x 18 x 18 colours."""
    import numpy as np

    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1)
    return Image.fromarray(cube.reshape(len(steps), -1, 3))


@functools.cache
def _from_lab() -> "ImageCms.ImageCmsTransform":
    from PIL import ImageCms

    return ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )


def _apply(transform: "ImageCms.ImageCmsTransform", picture: Image.Image) -> Image.Image:
    from PIL import ImageCms

    converted = ImageCms.applyTransform(picture, transform)
    assert converted is not None  # it is None only when done in place
    return converted

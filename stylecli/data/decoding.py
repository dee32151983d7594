"""Open pictures safely: known kinds only, no bombs, no animations, no warnings; decode JPEG lean.

Sizes are judged by the header, before memory is taken for pixels.
"""

import contextlib
import functools
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from stylecli.errors import DataError

# Where several frames mean a film. In the others they are pages, sizes or previews: a phone's
# JPEG often holds a second, small picture.
_FILM_FORMATS = frozenset({"GIF", "WEBP", "PNG", "AVIF", "FLI"})
# Drawings without pixels of their own; opening EPS would even start another program.
_DRAWING_FORMATS = frozenset({"EPS", "WMF"})
_READ_BYTES = 1 << 20  # libjpeg begins a row of blocks again whenever its input runs out within
MIN_DRAFT_SCALE = 2  # a JPEG is still decoded at least so many times larger than needed


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's warnings to itself: what is wrong with a picture is told as its cause."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_picture(file: Path | IO[bytes]) -> Image.Image:
    """Open a picture and read its header only.

    Raises DataError with the cause when it is missing, damaged, of no known kind or too large.
    """
    with quiet():
        try:
            picture = Image.open(file)
        except Exception as error:  # Pillow's plugins raise anything on damaged files
            raise DataError(name_cause(error)) from None
    return picture


def name_cause(error: BaseException) -> str:
    """Say in words that follow a picture's name why it cannot be used."""
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "is not a picture of a known kind"
    if isinstance(error, Image.DecompressionBombError):
        return f"is too large: it has more than {max_pixels():,} pixels"
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    words = " ".join(str(error).split())  # some messages hold line breaks
    return f"cannot be decoded: {words[:200] or type(error).__name__}"


def max_pixels() -> int:
    """Return how many pixels a picture may have: twice Pillow's limit, 179 million."""
    return 2 * (Image.MAX_IMAGE_PIXELS or 1 << 27)


def check_kind(picture: Image.Image) -> None:
    """Raise DataError for bombs, films and drawings, which the header tells."""
    width, height = picture.size
    if width < 1 or height < 1:
        raise DataError(f"has no pixels: {width} x {height}")
    if width * height > max_pixels():
        raise DataError(
            f"is too large: {width} x {height} px, at most {max_pixels():,} pixels are read"
        )
    if picture.format in _DRAWING_FORMATS:
        raise DataError(f"is a drawing ({picture.format}), which has no pixels: export it as PNG")
    if picture.format in _FILM_FORMATS and getattr(picture, "is_animated", False):
        frames = getattr(picture, "n_frames", 2)
        raise DataError(f"has {frames} frames: take single pictures out of it")


def draft(picture: Image.Image, scale: float) -> int:
    """Have a JPEG decoded at 1, 2, 3 or 4 eighths of its size; return how many, else 8.

    ``scale`` is the number of source pixels for one of the target. At least ``MIN_DRAFT_SCALE``
    of them remain, so that the filter that follows still decides how the result looks. On 80
    textured photographs the least PSNR to Lanczos on the whole picture was 50 dB for 3 and 4
    eighths, 46 for 2, 44 for 1. Must come before the picture is loaded.
    """
    if not isinstance(picture, JpegImagePlugin.JpegImageFile):
        return 8
    picture.decodermaxblock = _READ_BYTES
    before = picture.size
    for eighths in (1, 2, 3, 4):
        if scale * eighths < 8 * MIN_DRAFT_SCALE:
            continue
        if eighths == 3 and not _decodes_three_eighths():
            continue
        if eighths == 3:
            _draft_three_eighths(picture)
        else:
            parts = 8 // eighths
            picture.draft(None, (max(1, before[0] // parts), max(1, before[1] // parts)))
        return eighths if picture.size == drafted_size(before, eighths) else 8
    return 8


def drafted_size(size: tuple[int, int], eighths: int) -> tuple[int, int]:
    """Return the (width, height) of a picture of ``size`` after ``draft``."""
    return -(-size[0] * eighths // 8), -(-size[1] * eighths // 8)


def _draft_three_eighths(picture: JpegImagePlugin.JpegImageFile) -> None:
    """Do what ``Image.draft`` does for its own sizes.

    libjpeg-turbo decodes at any number of eighths and rounds the 1/3 we ask for up to 3/8. That
    spares a tenth of packing 1500 px photographs at 256 px.
    """
    size = drafted_size(picture.size, 3)
    picture.tile = [picture.tile[0]._replace(extents=(0, 0, *size))]
    picture.decoderconfig = (3, 0)
    picture._size = size


@functools.cache
def _decodes_three_eighths() -> bool:
    """Try it once on a small picture: it rests on how Pillow is made inside."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((24, 24)).save(file, "jpeg", quality=95)
    try:
        with Image.open(file) as picture:
            assert isinstance(picture, JpegImagePlugin.JpegImageFile)
            _draft_three_eighths(picture)
            column = picture.resize((1, 9), Image.Resampling.BOX).tobytes()
    except Exception:  # another Pillow may fail in any way, and the 1/2 is always there
        return False
    return max(abs(level - (place + 0.5) * 255 / 9) for place, level in enumerate(column)) < 8

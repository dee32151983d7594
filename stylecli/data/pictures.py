"""Open pictures safely, decode JPEG lean, and bring colours of any kind to 8-bit sRGB.

Known kinds only, no bombs, no animations, no warnings. Sizes are judged by the header, before
memory is taken for pixels. What else the header says of the pixels is read once, as
``PictureHeader``: a picture that is cut or turned has forgotten its file.

Colours are converted in two steps around the resizing. ``simplify`` first gives every picture a
mode that can be resized: no palettes, 8 bits a channel. ``finish`` then converts the few pixels
that are left: colour profile, CMYK and LAB to sRGB; transparency over the background. What few
pictures need (numpy, the colour engine) is imported where it is used: most workers start quicker
without.
"""

import contextlib
import functools
import io
import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from stylecli.errors import DataError

if TYPE_CHECKING:
    from PIL import ImageCms

# Where several frames mean a film. In the others they are pages, sizes or previews: a phone's
# JPEG often holds a second, small picture.
_FILM_FORMATS = frozenset({"GIF", "WEBP", "PNG", "AVIF", "FLI"})
# Drawings without pixels of their own; opening EPS would even start another program.
_DRAWING_FORMATS = frozenset({"EPS", "WMF"})
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"})
_BITS_PER_SAMPLE = 258  # a TIFF tag
_TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
INSTALL_HEIF = "pip install 'stylecli[heif]'"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_ENDS_EARLY = re.compile(
    r"\btruncated\b|\bend of (file|stream)\b", re.IGNORECASE
)  # decoders' words
_START_BYTES = 1024  # of a file that is no picture, to tell what it is
START_BYTES = 32  # tell what kind of picture it is
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "PSD"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
)
_READ_BYTES = 1 << 20  # libjpeg begins a row of blocks again whenever its input runs out within
MIN_DRAFT_SCALE = 2  # a JPEG is still decoded at least so many times larger than needed

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

BROKEN_PROFILE = "its colour profile is unusable: its colours are read as sRGB"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's warnings to itself: what is wrong with a picture is told as its cause."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class PictureHeader:
    """What a picture's file says of its pixels, read when it is opened.

    ``highest`` is the level that is white: 255, 4095 (12-bit TIFF) or 65535; 0 where the range of
    the pixels is not known. ``kind`` is Pillow's name of the format, "" for pixels from no file.
    """

    kind: str
    mode: str
    size: tuple[int, int]  # width, height, px
    highest: int
    profile: bytes | None = None  # ICC
    frames: int = 1
    orientation: int = 1  # by EXIF, 1 to 8; 1 unless it was asked for

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height once the picture is turned upright, px."""
        return self.size[::-1] if self.orientation >= 5 else self.size

    @property
    def is_grey(self) -> bool:
        """Whether the pixels are stored as grey."""
        return self.mode in _GREY_MODES or (self.mode == "I" and self.highest > 0)


def read_header(picture: Image.Image, *, upright: bool = False) -> PictureHeader:
    """Return what the header of a picture says that was just opened, before it is changed.

    ``upright`` asks for the orientation, too, for which Pillow decodes a PNG: it raises what
    ``check_kind`` does.
    """
    profile = picture.info.get("icc_profile")
    header = PictureHeader(
        kind=picture.format or "",
        mode=picture.mode,
        size=picture.size,
        highest=_highest_level(picture),
        profile=profile if isinstance(profile, bytes) and profile else None,
        frames=_count_frames(picture),
    )
    if not upright or header.kind == "TIFF":  # Pillow turns TIFF itself, and its size already
        return header
    check_kind(header)
    orientation = read_exif(picture).get(ExifTags.Base.Orientation, 1)
    return replace(header, orientation=orientation if orientation in _TURNS else 1)


def read_exif(picture: Image.Image) -> Mapping[int, Any]:
    """Return the EXIF tags of a picture; none where they are damaged, which harms no pixel."""
    try:
        return dict(picture.getexif())
    except MemoryError:
        raise
    except Exception:  # it parses what cameras and strangers wrote
        return {}


def turn_upright(picture: Image.Image, header: PictureHeader) -> Image.Image:
    """Return the picture as its header says that people see it."""
    turn = _TURNS.get(header.orientation)
    return picture if turn is None else picture.transpose(turn)


def check_kind(header: PictureHeader) -> None:
    """Raise DataError for bombs, films and drawings, which the header tells."""
    width, height = header.size
    if width < 1 or height < 1:
        raise DataError(f"has no pixels: {width} x {height}")
    if width * height > max_pixels():
        raise DataError(
            f"is too large: {width} x {height} px; at most {max_pixels():,} pixels are read"
        )
    if header.kind in _DRAWING_FORMATS:
        raise DataError(f"is a drawing ({header.kind}), which has no pixels: export it as PNG")
    if header.frames > 1:
        raise DataError(f"has {header.frames} frames: take single pictures out of it")


def _highest_level(picture: Image.Image) -> int:
    if picture.mode.startswith("I;16"):
        tags: Any = getattr(picture, "tag_v2", {})
        return 4095 if tags.get(_BITS_PER_SAMPLE, (16,))[0] == 12 else 65535
    if picture.mode == "I":  # Pillow scales the greys of a PGM to 16 bits
        return 65535 if picture.format == "PPM" else 0
    return 0 if picture.mode == "F" else 255


def _count_frames(picture: Image.Image) -> int:
    if picture.format not in _FILM_FORMATS or not getattr(picture, "is_animated", False):
        return 1
    return int(getattr(picture, "n_frames", 2))


def open_picture(file: Path | IO[bytes]) -> Image.Image:
    """Open a picture and read its header only.

    Raises DataError with the cause when it is missing, damaged, of no known kind or too large.
    """
    with quiet():
        try:
            picture = _open_with_text(file)
        except UnidentifiedImageError as error:
            start = _read_start(file)
            if is_heif(start):
                return _open_heif(file)
            from stylecli.files import name_failed_download  # most workers never need it

            cause = name_failed_download(start) or _damaged(picture_kind(start))
            raise DataError(cause or name_cause(error)) from None
        except Exception as error:  # Pillow's plugins raise anything on damaged files
            raise DataError(name_cause(error)) from None
    return picture


def picture_kind(start: bytes) -> str:
    """Return what kind of picture begins so, such as ``JPEG``; "" for none that is read."""
    for signature, kind in _SIGNATURES:
        if start.startswith(signature):
            return kind
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    if start[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    if is_heif(start):
        return "HEIC"
    if start[:2] == b"BM" and start[6:10] == bytes(4):
        return "BMP"
    if start[:1] == b"P" and start[1:2] in b"123456" and start[2:3].isspace():
        return "PNM"
    return ""


def is_heif(start: bytes) -> bool:
    """Tell whether a file that begins so is HEIC, as phones take photographs."""
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS


def reads_heif() -> bool:
    """Tell whether what reads HEIC is installed, without importing it."""
    return find_spec("pillow_heif") is not None


def _open_heif(file: Path | IO[bytes]) -> Image.Image:
    if not reads_heif():
        raise DataError(f"is HEIC: run {INSTALL_HEIF}, or convert it to JPEG")
    import pillow_heif

    pillow_heif.register_heif_opener()
    try:
        if not isinstance(file, Path):
            file.seek(0)
        return Image.open(file)
    except UnidentifiedImageError:
        raise DataError(_damaged("HEIC")) from None
    except Exception as error:  # damaged files raise anything
        raise DataError(name_cause(error)) from None


def _damaged(kind: str) -> str:
    """Say so of a file that begins like a picture; nothing for one that does not."""
    return f"begins like {kind} but cannot be read: copy it again" if kind else ""


def _open_with_text(file: Path | IO[bytes]) -> Image.Image:
    """Open a picture however long the text in it is, which Pillow limits in PNG.

    A profile that is too long is left out as well; ``finish`` says so.
    """
    try:
        picture = Image.open(file)
    except ValueError as error:
        if isinstance(error, UnidentifiedImageError) or _read_start(file)[:8] != _PNG_SIGNATURE:
            raise
        try:
            picture = Image.open(_without(_PNG_TEXT, file))
        except ValueError:
            picture = Image.open(_without((*_PNG_TEXT, b"iCCP"), file))
            picture.info["icc_profile"] = b"too long"
    if isinstance(picture, PngImagePlugin.PngImageFile) and picture.png is not None:
        object.__setattr__(picture.png, "__class__", _LenientStream)
    return picture


class _LenientStream(PngImagePlugin.PngStream):
    """Passes over text, or a misplaced profile, after the pixels that is too long.

    Pillow reads such a chunk to its end before it objects, so what follows is in its place.
    """

    def call(self, cid: bytes, pos: int, length: int) -> bytes:
        """Read a chunk."""
        try:
            return super().call(cid, pos, length)
        except ValueError as error:
            if cid not in (*_PNG_TEXT, b"iCCP") or isinstance(error, UnicodeDecodeError):
                raise
            return b""


def _without(kinds: tuple[bytes, ...], file: Path | IO[bytes]) -> IO[bytes]:
    """Return a PNG without the chunks of some kinds that come before the pixels."""
    content = _read_start(file, -1)
    kept, place = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + length + 12  # the length itself, the kind and the checksum
        if kind == b"IDAT":
            kept.append(content[place:])
            break
        if kind not in kinds:
            kept.append(content[place:end])
        place = end
    return io.BytesIO(b"".join(kept))


def _read_start(file: Path | IO[bytes], count: int = _START_BYTES) -> bytes:
    """Return the first bytes of a file, all for -1; nothing where they cannot be read."""
    try:
        if isinstance(file, Path):
            with open(file, "rb") as opened:
                return opened.read(count)
        file.seek(0)
        return file.read(count)
    except (OSError, ValueError):  # ValueError: Pillow may have closed it
        return b""


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
    if _ENDS_EARLY.search(words):
        return "is cut short: copy it again"
    return f"cannot be decoded: {words[:200] or type(error).__name__}"


def max_pixels() -> int:
    """Return how many pixels a picture may have: twice Pillow's limit, 179 million."""
    return 2 * (Image.MAX_IMAGE_PIXELS or 1 << 27)


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

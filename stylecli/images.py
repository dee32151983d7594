"""Pictures as arrays and as files: the one [-1, 1] ↔ uint8 conversion, grids, provenance.

A file written here says how it was made twice: for ``stylecli info`` as JSON, and for everybody
else as XMP with the IPTC digital source type ``trainedAlgorithmicMedia``, which picture libraries
and search engines read. The JSON is an iTXt chunk named ``stylecli`` in a PNG, and a property of
the XMP in JPEG and WebP files.
"""

import base64
import io
import math
import os
import re
import stat
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from stylecli.errors import DataError, UsageError, unknown_name
from stylecli.files import parse_json, to_json, write_bytes

if TYPE_CHECKING:
    from torch import Tensor

Pictures = npt.NDArray[np.uint8]  # [N, H, W, C], or one picture [H, W, C]

WHITE = 255
PROVENANCE_KEY = "stylecli"
_HEAD_BYTES = 4096  # what says how a picture was made comes first, but for WebP
_PNG_MARK, _XMP_MARK = b"iTXtstylecli\0", b"urn:stylecli:provenance"
XMP_KEY = "XML:com.adobe.xmp"  # the keyword that the XMP specification prescribes for PNG
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

PictureFormat = Literal["png", "jpeg", "webp"]
PICTURE_FORMATS: tuple[PictureFormat, ...] = get_args(PictureFormat)
SUFFIXES: dict[str, PictureFormat] = {
    ".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"
}  # fmt: skip
MAX_SIDES = {"png": 1 << 20, "jpeg": 65_500, "webp": 16_383}  # pixels that the formats can count
MAX_PIXELS = 350_000_000  # Pillow, among others, refuses to open more
# How PNGs are compressed: by runs alone. The usual level 6 takes 4 to 7 times as long at 1024 px
# and saves 5 % of a photograph at most; sheets of drawn faces come out smaller (docs/bench.md).
PNG_EFFORT: Mapping[str, int] = MappingProxyType({"compress_level": 1, "compress_type": zlib.Z_RLE})
QUALITY = 95  # of JPEG and WebP where none is given
_MOST_THREADS = 8  # a GPU draws as fast as several encode
_MAX_XMP = 65_000  # bytes; a JPEG segment holds no more

_PROPERTY = re.compile(r'stylecli:provenance="([^"]*)"')
_XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"
    xmp:CreatorTool="stylecli"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def to_uint8(images: "Tensor") -> Pictures:
    """Turn images [N, C, H, W] about [-1, 1] into pictures [N, H, W, C] of 0 to 255.

    clamp(trunc(x · 127.5 + 128), 0, 255), the official clean output; computed in float32.
    """
    import torch  # here alone: reading what a picture says needs none

    levels = images.detach().to(torch.float32) * 127.5 + 128
    pictures = levels.clamp(0, 255).to(torch.uint8)  # the cast truncates
    array: Pictures = pictures.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array


def over_white(images: "Tensor") -> "Tensor":
    """Return images [N, 1, 3 or 4, H, W] about [-1, 1] as [N, 3, H, W], laid over white."""
    if images.shape[1] == 4:
        alpha = (images[:, 3:] / 2 + 0.5).clamp(0, 1)
        return images[:, :3] * alpha + (1 - alpha)  # 1 is white
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def from_uint8(pictures: "Pictures | Tensor") -> "Tensor":
    """Turn pictures of 0 to 255 into float32 images [N, C, H, W] in [-1, 1]: x / 127.5 - 1.

    An array is [N, H, W, C], as pictures are; a tensor is [N, C, H, W], as networks want it.
    """
    import torch

    if isinstance(pictures, torch.Tensor):
        images = pictures
    else:
        images = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    return images.to(torch.float32) / 127.5 - 1


def enlarge(pictures: Pictures, scale: int) -> Pictures:
    """Repeat every pixel ``scale`` times both ways; [..., H, W, C] → [..., H·s, W·s, C].

    Raises UsageError where a picture becomes larger than any that can be opened.
    """
    if scale == 1:
        return pictures
    check_size("png", *(side * scale for side in pictures.shape[-3:-1]))
    return pictures.repeat(scale, axis=-3).repeat(scale, axis=-2)


def resize(picture: Pictures, height: int, width: int) -> Pictures:
    """Bring one picture [H, W, C] to this size with Lanczos' filter; the same size is kept."""
    if picture.shape[:2] == (height, width):
        return picture
    other = to_pillow(picture).resize((width, height), Image.Resampling.LANCZOS)
    array = np.asarray(other, dtype=np.uint8)
    return array[:, :, None] if array.ndim == 2 else array


@dataclass(frozen=True)
class Canvas:
    """The size in pixels that pictures are brought to, keeping their shape.

    They are fitted, with margins in their mean colour, or with ``crop`` fill it and lose what
    stands out. Lanczos' filter makes them smooth; ``pixels`` enlarges by whole pixels instead.
    """

    width: int
    height: int
    crop: bool = False
    pixels: bool = False

    def check(self, size: tuple[int, int], columns: int = 1, rows: int = 1) -> None:
        """Raise UsageError where a sheet of pictures (height, width) cannot be brought to it."""
        high, wide = size if self.pixels else (1, 1)
        if self.width // columns < wide or self.height // rows < high:
            needed = f"{columns * wide} x {rows * high}"
            raise UsageError(
                f"size {self.width}x{self.height} is too small: expected at least {needed}"
                + (" for whole pixels, or leave out --pixels" if self.pixels else "")
            )

    def lay_out(self, cells: Pictures | Sequence[Pictures], columns: int = 1) -> Pictures:
        """Return pictures [N, H, W, C], edge to edge in rows of ``columns``, as [height, width, C].

        Every one is enlarged by itself: none shines into its neighbours. Raises UsageError for
        more pixels than can be opened.
        """
        check_size("png", self.height, self.width)
        high, wide = cells[0].shape[:2]
        columns = min(columns, len(cells))
        rows = -(-len(cells) // columns)
        ratios = self.width / (columns * wide), self.height / (rows * high)
        factor = max(ratios) if self.crop else min(ratios)
        if self.pixels:
            scale = math.ceil(factor) if self.crop else max(1, math.floor(factor))
            return self.place(make_grid(cells, columns, scale=scale), cells)
        rounded = math.ceil if self.crop else math.floor
        # The tolerance is for 1080 / 32 * 32, which must not become 1081.
        size = [max(1, rounded(round(side * factor, 6))) for side in (high, wide)]
        check_size("png", rows * size[0], columns * size[1])  # --crop cuts most of it off again
        return self.place(make_grid([resize(cell, *size) for cell in cells], columns), cells)

    def place(self, picture: Pictures, cells: Pictures | Sequence[Pictures]) -> Pictures:
        """Put a picture into the middle: what stands out is cut off, margins are as ``cells``.

        Margins have the mean colour of these pictures [N, H, W, C].
        """
        high, wide, channels = picture.shape
        mean = np.mean(cells, axis=(0, 1, 2)).round().astype(np.uint8)
        page: Pictures = np.empty((self.height, self.width, channels), dtype=np.uint8)
        page[:] = mean
        height, width = min(high, self.height), min(wide, self.width)
        down, across = (self.height - height) // 2, (self.width - width) // 2
        top, left = (high - height) // 2, (wide - width) // 2
        page[down : down + height, across : across + width] = picture[
            top : top + height, left : left + width
        ]
        return page


def visible_scale(resolution: int, *, at_least: int = 128) -> int:
    """Return the whole factor by which small pictures must grow to be looked at on a screen."""
    return max(1, at_least // resolution)


def make_grid(
    pictures: Pictures | Sequence[Pictures], columns: int, *, padding: int = 0, scale: int = 1
) -> Pictures:
    """Lay pictures [N, H, W, C] out row by row; return one picture [H', W', C].

    ``scale`` enlarges by whole pixels first; ``padding`` white pixels stand between pictures.
    Cells left over in the last row are white. Raises UsageError when there is nothing to show, and
    for more pixels than can be opened.
    """
    cells = np.asarray(pictures, dtype=np.uint8)
    if cells.ndim != 4 or not len(cells) or columns < 1 or scale < 1 or padding < 0:
        raise UsageError(
            f"cannot lay out an array of shape {cells.shape} in {columns} columns "
            f"(scale {scale}, padding {padding}): expected [N, H, W, C] with N ≥ 1"
        )
    count, height, width, channels = cells.shape
    height, width, columns = height * scale, width * scale, min(columns, count)
    rows = -(-count // columns)
    shape = (rows * (height + padding) - padding, columns * (width + padding) - padding, channels)
    check_size("png", *shape[:2])  # before so much memory is asked for
    sheet: Pictures = np.full(shape, WHITE, dtype=np.uint8)
    for index, cell in enumerate(cells):
        top = index // columns * (height + padding)
        left = index % columns * (width + padding)
        sheet[top : top + height, left : left + width] = enlarge(cell, scale)
    return sheet


def encode_png(picture: Pictures, provenance: dict[str, Any] | None = None) -> bytes:
    """Return one picture [H, W, C] (1, 3 or 4 channels) as the bytes of a PNG file.

    With ``provenance`` the file carries it, and the mark of generated media; without, neither.
    """
    stream = io.BytesIO()
    to_pillow(picture).save(stream, format="PNG", pnginfo=_chunks(provenance), **PNG_EFFORT)
    return stream.getvalue()


def encode_picture(
    picture: Pictures,
    provenance: dict[str, Any] | None = None,
    *,
    format: PictureFormat = "png",
    quality: int | None = None,
) -> bytes:
    """Return one picture [H, W, C] as the bytes of a PNG, JPEG or WebP file; see encode_png.

    ``quality`` is 1 to 100 for JPEG (with full colour resolution) and WebP, where 100 keeps every
    pixel. Raises UsageError for what the format cannot hold.
    """
    if format not in PICTURE_FORMATS:
        raise UsageError(unknown_name("format", format, PICTURE_FORMATS))
    check_size(format, *picture.shape[:2])
    if format == "png":
        if quality is not None:
            raise UsageError(f"quality {quality} has no effect on PNG, which keeps every pixel")
        return encode_png(picture, provenance)
    level = QUALITY if quality is None else quality
    if not 1 <= level <= 100:
        raise UsageError(f"quality {level} is out of range: expected 1 to 100")
    options: dict[str, Any] = {"quality": level}
    if format == "jpeg":
        if picture.ndim == 3 and picture.shape[2] == 4:
            raise UsageError("JPEG cannot hold transparency: give --format png or webp")
        options["subsampling"] = 0
    else:
        # Without "exact" the colours under full transparency would be lost.
        options = {"lossless": True, "exact": True} if level == 100 else options
    if provenance is not None:
        options["xmp"] = _xmp(provenance)
    stream = io.BytesIO()
    to_pillow(picture).save(stream, format=format.upper(), **options)
    return stream.getvalue()


def check_size(format: PictureFormat, height: int, width: int) -> None:
    """Raise UsageError when a picture of this many pixels could not be written, or not opened."""
    if max(height, width) > MAX_SIDES[format]:
        raise UsageError(
            f"{width} x {height} pixels do not fit into a {format} file, which has at most "
            f"{MAX_SIDES[format]:,} on a side: give another format or fewer pictures to a sheet"
        )
    if height * width > MAX_PIXELS:
        raise UsageError(
            f"a picture of {width} x {height} pixels is too large to be opened again: take a "
            "smaller --scale or --size, or put fewer pictures on a sheet"
        )


def save_png(path: Path | str, picture: Pictures, provenance: dict[str, Any] | None = None) -> None:
    """Write one picture [H, W, C] to a PNG file atomically; see encode_png."""
    write_bytes(path, encode_png(picture, provenance))


def save_picture(
    path: Path | str,
    picture: Pictures,
    provenance: dict[str, Any] | None = None,
    *,
    quality: int | None = None,
) -> None:
    """Write one picture [H, W, C] atomically, in the format of the path's suffix.

    See encode_picture. Raises UsageError for another suffix than png, jpg, jpeg or webp.
    """
    content = encode_picture(picture, provenance, format=picture_format(path), quality=quality)
    write_bytes(path, content)


class Beside:
    """Encodes and writes on threads while the caller draws the next pictures; a context.

    Call it with a function and its arguments. At most twice as many calls wait as there are
    threads, so that pictures do not pile up. ``done`` tells of every call that ended, in their
    order. Leaving it waits for all, on Ctrl-C too; what a call raised is raised by the next one or
    on leaving, and those that have not begun by then are dropped.
    """

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._threads = max(1, min(_MOST_THREADS, os.cpu_count() or 1))
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="stylecli-writer")
        return self

    def __call__(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do it beside, once there is room."""
        self._waiting.append(self._pool.submit(work, *arguments))
        self._settle(2 * self._threads)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or issubclass(kind, KeyboardInterrupt):
                self._settle(0)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _settle(self, left: int) -> None:
        while self._waiting and (len(self._waiting) > left or self._waiting[0].done()):
            self._waiting[0].result()
            self._waiting.popleft()
            self._done()


def picture_format(path: Path | str) -> PictureFormat:
    """Return the format that a path's suffix stands for; raise UsageError where it is none."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path} does not end like a picture: expected {', '.join(SUFFIXES)}")
    return SUFFIXES[suffix]


def to_pillow(picture: Pictures) -> Image.Image:
    """Return a Pillow image of a picture [H, W, C]; raise UsageError for odd channel counts."""
    if picture.ndim != 3 or picture.shape[2] not in _MODES:
        raise UsageError(
            f"a picture of shape {picture.shape} cannot be written: expected [H, W, 1, 3 or 4]"
        )
    # Pillow needs grey without the channel axis.
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)


def read_provenance(path: Path | str) -> dict[str, Any] | None:
    """Return what a picture says about how it was made, None if it carries nothing of ours.

    Raises DataError when the file is not a picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large sheets: no pixel is read here
            with Image.open(path) as image:
                return provenance_of(image)
    except Exception:  # Pillow's plugins raise anything on damaged files
        raise DataError(f"{path} is not a readable picture: expected PNG, JPEG or WebP") from None


def is_own(path: Path) -> bool:
    """Tell by a file's first and last bytes whether it is a picture that this program made."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            return False
        with open(path, "rb") as file:
            start = file.read(_HEAD_BYTES)
            # XMP is at the end of a WebP.
            if start[:4] == b"RIFF" and start[12:16] == b"VP8X" and start[20] & 4:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _MAX_XMP - _HEAD_BYTES))
                start = file.read()
    except (OSError, IndexError):
        return False
    return _PNG_MARK in start or _XMP_MARK in start


def provenance_of(image: Image.Image) -> dict[str, Any] | None:
    """Return what an opened picture says about how it was made, None if nothing of ours."""
    text = getattr(image, "text", {}).get(PROVENANCE_KEY)
    if text is None:
        text = _property(image.info.get("xmp"))
    if text is None:
        return None
    try:
        provenance: dict[str, Any] = parse_json(text, "the record")
    except DataError:
        return None
    return provenance


def _chunks(provenance: dict[str, Any] | None) -> PngImagePlugin.PngInfo | None:
    if provenance is None:
        return None
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(PROVENANCE_KEY, to_json(provenance).decode())
    chunks.add_itxt(XMP_KEY, _XMP)
    return chunks


def _xmp(provenance: dict[str, Any]) -> bytes:
    """Return the XMP packet with ``provenance`` as a property of its own namespace."""
    text = escape(to_json(provenance, ascii=True).decode(), quote=False).replace('"', "&quot;")
    own = f'xmlns:stylecli="urn:stylecli:provenance"\n    stylecli:provenance="{text}"'
    tool = 'xmp:CreatorTool="stylecli"'
    packet = _XMP.replace(tool, f"{tool}\n    {own}").encode()
    if len(packet) > _MAX_XMP:
        raise UsageError(
            f"the record of how this was made takes {len(packet):,} bytes, a JPEG or WebP file "
            f"holds at most {_MAX_XMP:,}: give --format png, or fewer seeds in one sheet"
        )
    return packet


def _property(xmp: object) -> str | None:
    """Return the JSON text that ``_xmp`` put into a packet."""
    if not isinstance(xmp, bytes):
        return None
    found = _PROPERTY.search(xmp.decode("utf-8", "replace"))
    return unescape(found[1]) if found else None


def notebook_html(title: str, facts: Mapping[str, object], picture: Pictures | None = None) -> str:
    """Return what a notebook shows of an object: its facts, one a row, and a picture [H, W, C]."""
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(name, quote=False)}</th>'
        f'<td style="text-align:left">{escape(str(value), quote=False)}</td></tr>'
        for name, value in facts.items()
    )
    shown = ""
    if picture is not None:
        data = base64.b64encode(encode_png(picture)).decode()
        shown = f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
    return f"<div><strong>{escape(title, quote=False)}</strong><table>{rows}</table>{shown}</div>"

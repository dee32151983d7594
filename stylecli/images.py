"""Pictures as arrays and as PNG files: the one [-1, 1] ↔ uint8 conversion, grids, provenance.

A PNG written here says how it was made twice: for ``stylecli info`` as JSON in an iTXt chunk
named ``stylecli``, and for everybody else as XMP with the IPTC digital source type
``trainedAlgorithmicMedia``, which picture libraries and search engines read.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from stylecli.atomic import replacing
from stylecli.errors import DataError, UsageError

Pictures = npt.NDArray[np.uint8]  # [N, H, W, C], or one picture [H, W, C]

WHITE = 255
PROVENANCE_KEY = "stylecli"
XMP_KEY = "XML:com.adobe.xmp"  # the keyword that the XMP specification prescribes for PNG
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

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


def to_uint8(images: Tensor) -> Pictures:
    """Turn images [N, C, H, W] about [-1, 1] into pictures [N, H, W, C] of 0 to 255.

    clamp(trunc(x · 127.5 + 128), 0, 255), the official clean output; computed in float32.
    """
    levels = images.detach().to(torch.float32) * 127.5 + 128
    pictures = levels.clamp(0, 255).to(torch.uint8)  # the cast truncates
    array: Pictures = pictures.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array


def from_uint8(pictures: Pictures | Tensor) -> Tensor:
    """Turn pictures of 0 to 255 into float32 images [N, C, H, W] in [-1, 1]: x / 127.5 - 1.

    An array is [N, H, W, C], as pictures are; a tensor is [N, C, H, W], as networks want it.
    """
    if isinstance(pictures, Tensor):
        images = pictures
    else:
        images = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    return images.to(torch.float32) / 127.5 - 1


def enlarge(pictures: Pictures, scale: int) -> Pictures:
    """Repeat every pixel ``scale`` times both ways; [..., H, W, C] → [..., H·s, W·s, C]."""
    if scale == 1:
        return pictures
    return pictures.repeat(scale, axis=-3).repeat(scale, axis=-2)


def visible_scale(resolution: int, *, at_least: int = 128) -> int:
    """Return the whole factor by which small pictures must grow to be looked at on a screen."""
    return max(1, at_least // resolution)


def make_grid(
    pictures: Pictures | Sequence[Pictures], columns: int, *, padding: int = 0, scale: int = 1
) -> Pictures:
    """Lay pictures [N, H, W, C] out row by row; return one picture [H', W', C].

    ``scale`` enlarges by whole pixels first; ``padding`` white pixels stand between pictures.
    Cells left over in the last row are white. Raises UsageError when there is nothing to show.
    """
    cells = np.asarray(pictures, dtype=np.uint8)
    if cells.ndim != 4 or not len(cells) or columns < 1 or scale < 1 or padding < 0:
        raise UsageError(
            f"cannot lay out an array of shape {cells.shape} in {columns} columns "
            f"(scale {scale}, padding {padding}): expected [N, H, W, C] with N ≥ 1"
        )
    cells = enlarge(cells, scale)
    count, height, width, channels = cells.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    shape = (rows * (height + padding) - padding, columns * (width + padding) - padding, channels)
    sheet: Pictures = np.full(shape, WHITE, dtype=np.uint8)
    for index, cell in enumerate(cells):
        top = index // columns * (height + padding)
        left = index % columns * (width + padding)
        sheet[top : top + height, left : left + width] = cell
    return sheet


def encode_png(picture: Pictures, provenance: dict[str, Any] | None = None) -> bytes:
    """Return one picture [H, W, C] (1, 3 or 4 channels) as the bytes of a PNG file.

    With ``provenance`` the file carries it, and the mark of generated media; without, neither.
    """
    import io

    stream = io.BytesIO()
    to_pillow(picture).save(stream, format="PNG", pnginfo=_chunks(provenance))
    return stream.getvalue()


def save_png(path: Path | str, picture: Pictures, provenance: dict[str, Any] | None = None) -> None:
    """Write one picture [H, W, C] to a PNG file atomically; see encode_png."""
    content = encode_png(picture, provenance)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def to_pillow(picture: Pictures) -> Image.Image:
    """Return a Pillow image of a picture [H, W, C]; raise UsageError for odd channel counts."""
    if picture.ndim != 3 or picture.shape[2] not in _MODES:
        raise UsageError(
            f"a picture of shape {picture.shape} cannot be written: expected [H, W, 1, 3 or 4]"
        )
    # Pillow wants grey without the channel axis.
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)


def read_provenance(path: Path | str) -> dict[str, Any] | None:
    """Return what ``save_png`` wrote about how a picture was made, None if it carries nothing.

    Raises DataError when the file is not a picture.
    """
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {}).get(PROVENANCE_KEY)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError):
        raise DataError(f"{path} is not a readable picture: expected a PNG file") from None
    if text is None:
        return None
    try:
        provenance = json.loads(text)
    except ValueError:
        return None
    return provenance if isinstance(provenance, dict) else None


def _chunks(provenance: dict[str, Any] | None) -> PngImagePlugin.PngInfo | None:
    if provenance is None:
        return None
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(PROVENANCE_KEY, json.dumps(provenance, ensure_ascii=False))
    chunks.add_itxt(XMP_KEY, _XMP)
    return chunks

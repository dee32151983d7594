"""White margins with lettering around a sheet: names of columns, rows and groups of rows."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stylecli.images import WHITE, Pictures

INK = 40  # dark grey
SMALLEST, LARGEST = 11, 72  # font sizes in pixels

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def add_margins(
    sheet: Pictures,
    pitch: tuple[int, int],
    cell: tuple[int, int],
    *,
    top: Sequence[str] = (),
    left: Sequence[str] = (),
    groups: Sequence[tuple[str, int, int]] = (),
) -> Pictures:
    """Return a sheet [H, W, C] with names over its columns and beside its rows, in Pillow's font.

    Cells of ``cell`` (height, width) pixels stand every ``pitch`` (down, across) pixels. ``top``
    and ``left`` name them from the first on, an empty name writes nothing. A group (name, first
    row, rows) is written upright at the very left, with a line along its rows. The letters are a
    tenth of a cell high, 11 to 72 pixels, smaller where a name would not fit.
    """
    size = max(SMALLEST, min(LARGEST, min(cell) // 10))
    space = size // 2
    over = size + space if any(top) else 0
    names = max((round(_font(size).getlength(name)) for name in left), default=0)
    beside = names + 2 * space if names else 0
    upright = size + 2 * space if groups else 0

    height, width, channels = sheet.shape
    page = Image.new("L", (width + upright + beside, height + over), WHITE)
    draw = ImageDraw.Draw(page)
    for column, name in enumerate(top):
        middle = upright + beside + column * pitch[1] + cell[1] // 2
        draw.text((middle, over // 2), name, INK, _fitting(name, size, cell[1]), anchor="mm")
    for row, name in enumerate(left):
        middle = over + row * pitch[0] + cell[0] // 2
        draw.text((upright + beside - space, middle), name, INK, _font(size), anchor="rm")
    for name, first, rows in groups:
        start, length = over + first * pitch[0], (rows - 1) * pitch[0] + cell[0]
        page.paste(_upright(name, size, (upright - space, length)), (0, start))
        draw.line([(upright - space // 2, start), (upright - space // 2, start + length - 1)], INK)
    result = np.repeat(np.asarray(page, dtype=np.uint8)[:, :, None], channels, axis=2)
    if channels == 4:
        result[..., 3] = 255
    result[over:, upright + beside :] = sheet
    return result


def _upright(name: str, size: int, box: tuple[int, int]) -> Image.Image:
    """Return a name that reads from below, in the middle of a box (width, height)."""
    flat = Image.new("L", (box[1], box[0]), WHITE)
    middle = (box[1] // 2, box[0] // 2)
    ImageDraw.Draw(flat).text(middle, name, INK, _fitting(name, size, box[1]), anchor="mm")
    return flat.transpose(Image.Transpose.ROTATE_90)


def _fitting(name: str, size: int, width: int) -> Font:
    """Return the font at ``size``, or smaller where the name is wider than ``width``."""
    length = _font(size).getlength(name)
    return _font(size if length <= width else max(6, int(size * width / length)))


def _font(size: int) -> Font:
    return ImageFont.load_default(size)

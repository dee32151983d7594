"""Contact sheets: pages of small pictures with words below, to look over what was made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from stylecli.data import preparation
from stylecli.data.pictures import check_kind, open_picture, quiet, read_header
from stylecli.data.preparation import DecodeSettings, decode_pixels
from stylecli.files import replacing
from stylecli.progress import Progress, silent

COLUMNS, ROWS = 8, 6
PICTURE = 128  # px
GAP = 8  # px
LINE = 13  # px
LETTERS = 24  # that fit below a picture
LINES = 4
FONT_SIZE = 10
PER_PAGE = COLUMNS * ROWS
MAX_PAGES = 50
INK, PAPER, FRAME = (20, 20, 20), (255, 255, 255), (225, 225, 225)

_CELL = (PICTURE + GAP, PICTURE + LINES * LINE + GAP)


@dataclass(frozen=True)
class Cell:
    """A picture and what stands below it."""

    path: Path
    words: Sequence[str]  # a line each; long ones are broken or shortened


def write_contact_sheets(
    folder: Path, stem: str, cells: Sequence[Cell], *, progress: Progress = silent
) -> list[Path]:
    """Write pages ``<stem>-00.png``, ... of 8 × 6 pictures into ``folder``; return their paths.

    From more than 50 pages' pictures those are shown that lie evenly among all. Pages of an earlier
    call that are too many are removed. A picture that cannot be read leaves its place grey.
    """
    shown = min(len(cells), MAX_PAGES * PER_PAGE)
    chosen = [cells[place * len(cells) // shown] for place in range(shown)]
    pages = []
    for page, start in enumerate(range(0, shown, PER_PAGE)):
        path = folder / f"{stem}-{page:02d}.png"
        with replacing(path) as temporary:
            draw_sheet(chosen[start : start + PER_PAGE]).save(temporary)
        pages.append(path)
        progress(min(start + PER_PAGE, shown), shown)
    for old in folder.glob(f"{stem}-[0-9][0-9].png"):
        if old not in pages:
            old.unlink()
    return pages


def draw_sheet(cells: Sequence[Cell]) -> Image.Image:
    """Draw one page, as high as its rows."""
    rows = -(-len(cells) // COLUMNS)
    columns = min(COLUMNS, len(cells))
    sheet = Image.new("RGB", (columns * _CELL[0] + GAP, rows * _CELL[1] + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    for place, cell in enumerate(cells):
        x, y = GAP + place % COLUMNS * _CELL[0], GAP + place // COLUMNS * _CELL[1]
        picture = _small(cell.path)
        sheet.paste(picture, (x + (PICTURE - picture.width) // 2, y + PICTURE - picture.height))
        for number, line in enumerate(_lines(cell.words)):
            draw.text((x, y + PICTURE + 1 + number * LINE), line, INK, font)
    return sheet


def _small(path: Path) -> Image.Image:
    """Return the picture upright and within 128 × 128 px; a grey square if it cannot be read."""
    try:
        with open_picture(path) as picture, quiet():
            header = read_header(picture, upright=True)
            check_kind(header)
            side = min(PICTURE, max(header.size))
            placement = preparation.place("letterbox", header.upright_size, side, (side, side))
            return decode_pixels(picture, header, DecodeSettings(exif=True), placement)[0]
    except Exception:  # decoders raise anything on damaged files; the cause stands below
        return Image.new("RGB", (PICTURE, PICTURE), FRAME)


def _lines(words: Sequence[str]) -> list[str]:
    """Break words into at most four lines that fit below a picture."""
    lines: list[str] = []
    for line in words:
        # Letters that the font lacks would be boxes, or an error with the plainest font.
        rest = line.encode("latin-1", "replace").decode("latin-1")
        while rest and len(lines) < LINES:
            cut = rest.rfind(" ", 0, LETTERS + 1) if len(rest) > LETTERS else len(rest)
            cut = cut if cut > 0 else LETTERS
            lines.append(rest[:cut])
            rest = rest[cut:].lstrip()
    return lines

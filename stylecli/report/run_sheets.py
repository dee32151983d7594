"""Sample sheets small enough for a page: fewer of them, and each in fewer bytes.

Pictures that were enlarged by whole pixels go back to their own size, which loses nothing; the page
enlarges them again. Large sheets are shrunk and become JPEG.
"""

import io
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stylecli.data.pictures import check_kind, name_cause, open_picture, quiet, read_header
from stylecli.errors import DataError, plural
from stylecli.images import Pictures
from stylecli.progress import Progress, silent

MAX_SHEETS = 40  # a slider has no use for more
BUDGET_BYTES = 8_000_000  # of all sheets together; text in base64 takes a third more
_MAX_SIDE, _LEAST_SIDE = 1024, 128  # pixels
_PNG_PIXELS = 512 * 512  # of one sheet; beyond it becomes JPEG
_QUALITIES = (90, 80, 65, 50)


@dataclass(frozen=True)
class PageSheets:
    """The sheets of a page, and what was done to them in words."""

    nimg: Sequence[int]
    pictures: Sequence[bytes]  # PNG or JPEG
    note: str


def prepare_sheets(
    sheets: Sequence[tuple[int, Path]],
    keep: Collection[int] = (),
    *,
    count: int = MAX_SHEETS,
    budget: int = BUDGET_BYTES,
    progress: Progress = silent,
) -> PageSheets:
    """Choose at most ``count`` sheets and recompress them to about ``budget`` bytes in all.

    ``sheets`` are (images shown, path) by rising number; those in ``keep`` are among the chosen.
    Sheets that cannot be read are left out.
    """
    chosen = choose_evenly([nimg for nimg, _ in sheets], keep, count)
    paths = dict(sheets)
    share = budget // max(1, len(chosen))
    pictures: dict[int, bytes] = {}
    changed = 0
    for done, nimg in enumerate(chosen, start=1):
        progress(done, len(chosen))
        try:
            pictures[nimg], lossy = recompress(paths[nimg], share)
        except DataError:
            continue
        changed += lossy
    notes = []
    if len(chosen) < len(sheets):
        notes.append(f"{len(chosen)} of {plural(len(sheets), 'sheet')}, evenly chosen")
    if changed:
        notes.append(f"{changed} of those here are shrunk or compressed as JPEG")
    if missing := len(chosen) - len(pictures):
        notes.append(f"{missing} could not be read")
    note = f"To keep the page small: {'; '.join(notes)}. The run folder has them all in full."
    return PageSheets(list(pictures), list(pictures.values()), note if notes else "")


def choose_evenly(values: Sequence[int], keep: Collection[int], count: int) -> list[int]:
    """Return at most ``count`` of the rising values: the first, the last, ``keep``, and between."""
    if len(values) <= count:
        return list(values)
    kept = [value for value in values if value in keep][: max(0, count - 2)]
    places = max(2, count - len(kept))
    step = (len(values) - 1) / (places - 1)
    return sorted({values[round(index * step)] for index in range(places)} | set(kept))


def recompress(path: Path, most_bytes: int) -> tuple[bytes, bool]:
    """Return a sheet as PNG or JPEG of about ``most_bytes``, and whether it lost anything.

    Raises DataError for a file that is no picture.
    """
    try:
        with quiet(), open_picture(path) as opened:
            check_kind(read_header(opened))
            opened.load()
            image = opened if opened.mode in ("RGB", "L") else _on_white(opened)
    except Exception as error:  # Pillow's plugins raise anything on damaged files
        raise DataError(f"{path} {name_cause(error)}") from None
    # Training enlarges what is under 64 px, to sheets of 512: larger ones are as they were drawn.
    scale = whole_enlargement(np.asarray(image)) if max(image.size) <= _MAX_SIDE else 1
    if scale > 1:
        image = image.resize(
            (image.width // scale, image.height // scale), Image.Resampling.NEAREST
        )
    lossy = max(image.size) > _MAX_SIDE
    if lossy:
        factor = _MAX_SIDE / max(image.size)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    if image.width * image.height <= _PNG_PIXELS:
        packed = _encoded(image, "PNG")
        if len(packed) <= most_bytes:
            return packed, lossy
    for quality in _QUALITIES:
        packed = _encoded(image, "JPEG", quality)
        if len(packed) <= most_bytes:
            return packed, True
    while len(packed) > most_bytes and min(image.size) >= 2 * _LEAST_SIDE:  # noise, mostly
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
        packed = _encoded(image, "JPEG", _QUALITIES[-1])
    return packed, True


def whole_enlargement(picture: Pictures) -> int:
    """Return by how much a picture [H, W] or [H, W, C] was enlarged by repeating pixels.

    The largest power of two, 8 at most, that undoing loses nothing; 1 for none.
    """
    height, width = picture.shape[:2]
    scale = 1
    while scale < 8 and not (height % (2 * scale) or width % (2 * scale)):
        now = picture[::scale, ::scale]
        if not (np.array_equal(now[::2], now[1::2]) and np.array_equal(now[:, ::2], now[:, 1::2])):
            break
        scale *= 2
    # A sheet must stay large enough to be one.
    return scale if math.gcd(height, width) // scale >= 8 else 1


def _on_white(image: Image.Image) -> Image.Image:
    picture = image.convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(ground, picture).convert("RGB")


def _encoded(image: Image.Image, kind: str, quality: int = 0) -> bytes:
    file = io.BytesIO()
    if kind == "PNG":
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", quality=quality, subsampling=0 if quality >= 80 else 2)
    return file.getvalue()

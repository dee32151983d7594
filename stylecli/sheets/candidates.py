"""The sheet of faces that fit a small picture: each above what it shrinks to, the input first."""

from collections.abc import Sequence

import numpy as np

from stylecli.images import WHITE, Pictures, enlarge, make_grid, visible_scale
from stylecli.latents.sharpening import PLAUSIBLE, Candidate
from stylecli.sheets.mixing import name_height, write_below

COLUMNS = 6
_LEAST_SIDE = 128  # px of a cell


def lay_out_candidates(small: Pictures, found: Sequence[Candidate], bound: float) -> Pictures:
    """Return the sheet [H, W, C] of candidates for a picture [h, w, 1 or C].

    Below each stands the mean squared difference of what it shrinks to, and whether it is within
    ``bound``; below all, that they are plausible faces, not the person.
    """
    channels = found[0].picture.shape[2]
    given = _coloured(small, channels)
    cells = [_cell(given, given, found[0].picture.shape[:2], "given")]
    for number, one in enumerate(found, 1):
        within = "" if one.error <= bound else ", beyond"
        name = f"{number}: {one.error:.4f}{within}"
        cells.append(_cell(one.picture, one.shrunk, one.picture.shape[:2], name))
    gap = max(2, cells[0].shape[1] // 32)
    sheet = make_grid(cells, COLUMNS, padding=gap)
    return write_below(sheet, PLAUSIBLE, name_height(sheet.shape[0]) + gap)


def _cell(picture: Pictures, shrunk: Pictures, size: tuple[int, ...], name: str) -> Pictures:
    """Return a picture above what it shrinks to, both as large, above a name."""
    scale = visible_scale(min(size), at_least=_LEAST_SIDE)
    rows = [enlarge(one, scale * (size[0] // one.shape[0])) for one in (picture, shrunk)]
    both = np.concatenate(rows)
    return write_below(both, name, name_height(both.shape[0]))


def _coloured(small: Pictures, channels: int) -> Pictures:
    """Return a picture [h, w, 1 or C] with as many channels as the candidates."""
    if small.shape[2] == channels:
        return small
    colours = np.repeat(small[:, :, :1], channels, axis=2)
    if channels == 4:
        colours[..., 3] = WHITE
    return colours

"""Pictures to look at: the mean, a sample, and groups of near duplicates, as arrays and PNG."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from stylecli.data.checking.measuring import Pixels
from stylecli.images import enlarge, make_grid, save_png

SAMPLE_COLUMNS, SAMPLE_ROWS = 10, 6
SHOWN_SIDE = 128  # px, of one picture on a sheet
GROUPS_SHOWN, GROUP_SHOWN = 12, 6
_GAP = 2  # px


def choose_sample(count: int, seed: int = 0) -> list[int]:
    """Return the indices of up to 60 pictures, drawn without repetition, in order."""
    wanted = min(count, SAMPLE_COLUMNS * SAMPLE_ROWS)
    drawn = np.random.default_rng(seed).choice(count, wanted, replace=False)
    return sorted(int(index) for index in drawn)


def save_mean(path: Path, mean: Pixels) -> None:
    """Write the mean picture [C, S, S]; small ones are enlarged by whole pixels."""
    save_png(path, _lay_over_white(mean[None], 256)[0])


def save_sample(path: Path, pictures: Pixels) -> None:
    """Write pictures [B, C, S, S] side by side, ten in a row."""
    save_png(path, make_grid(_lay_over_white(pictures), SAMPLE_COLUMNS, padding=_GAP))


def save_groups(
    path: Path,
    groups: Sequence[Sequence[int]],
    fetch: Callable[[Sequence[int]], Pixels],
) -> None:
    """Write a row for each of the first groups of near duplicates."""
    shown = [list(group[:GROUP_SHOWN]) for group in groups[:GROUPS_SHOWN]]
    pictures = _lay_over_white(fetch([index for group in shown for index in group]))
    columns = max(map(len, shown))
    cells, at = [], 0
    for group in shown:
        row = pictures[at : at + len(group)]
        blank = np.full((columns - len(group), *row.shape[1:]), 255, np.uint8)
        cells.append(np.concatenate([row, blank]))
        at += len(group)
    save_png(path, make_grid(np.concatenate(cells), columns, padding=_GAP))


def _lay_over_white(pictures: Pixels, side: int = SHOWN_SIDE) -> Pixels:
    """Turn [B, C, S, S] into [B, S', S', 1 or 3] of about ``side`` px, without transparency."""
    cells = pictures.transpose(0, 2, 3, 1)
    if cells.shape[-1] == 4:
        alpha = cells[..., 3:].astype(np.float32) / 255
        cells = np.rint(cells[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return enlarge(np.ascontiguousarray(cells), max(1, side // cells.shape[1]))

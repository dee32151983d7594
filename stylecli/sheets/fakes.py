"""Sheets of generated pictures: a plain grid, and the uncurated sheet of shrinking columns."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from stylecli.errors import UsageError
from stylecli.images import WHITE, Canvas, Pictures, enlarge, make_grid, resize, visible_scale
from stylecli.networks.model import Bundle, Generator
from stylecli.progress import Progress, silent
from stylecli.sampling import PLAIN, Drawing, draw_seeds, map_latents, render, seed_labels
from stylecli.sheets.mixing import name_height, write_below

PAPER_DRAWING = Drawing(psi=0.7, psi_cutoff=8)
PAPER_LODS = (0, 1, 2, 2, 3, 3)  # Figure 2: how often each column is halved


def draw_fakes(
    net: Bundle,
    seeds: Sequence[int],
    columns: int | None = None,
    drawing: Drawing = PLAIN,
    *,
    padding: int = 0,
    progress: Progress = silent,
) -> Pictures:
    """Draw the pictures of seeds in rows of ``columns`` (default: about square), [H, W, C]."""
    pictures: list[Pictures] = []
    for _, picture in draw_seeds(net, seeds, drawing):
        pictures.append(picture)
        progress(len(pictures), len(seeds))
    return lay_out_fakes(
        pictures, columns, scale=drawing.scale, canvas=drawing.canvas, padding=padding
    )


def lay_out_fakes(
    pictures: Sequence[Pictures],
    columns: int | None = None,
    *,
    scale: int | None = None,
    canvas: Canvas | None = None,
    padding: int = 0,
    names: Sequence[str] = (),
) -> Pictures:
    """Return a sheet [H, W, C] of square pictures in rows of ``columns``, by default about square.

    ``scale`` enlarges by whole pixels, by default so that small pictures can be looked at;
    ``canvas`` is the size of the sheet instead. ``names`` are written below the pictures. Raises
    UsageError where the sheet cannot be brought to the canvas.
    """
    columns = min(len(pictures), columns or square_columns(len(pictures)))
    rows, side = -(-len(pictures) // columns), pictures[0].shape[0]
    if canvas is not None:
        canvas.check(side, columns, rows)
        if not names:
            return canvas.lay_out(pictures, columns)
        largest = _named_side(canvas, columns, rows)
        cells = [
            enlarge(picture, max(1, largest // side))
            if canvas.pixels
            else resize(picture, *[largest] * 2)
            for picture in pictures
        ]
        return canvas.place(make_grid(_with_names(cells, names), columns), pictures)
    scale = scale or visible_scale(side)
    if names:
        cells = _with_names([enlarge(picture, scale) for picture in pictures], names)
        return make_grid(cells, columns, padding=padding)
    return make_grid(pictures, columns, padding=padding, scale=scale)


def _named_side(canvas: Canvas, columns: int, rows: int) -> int:
    """Return the largest side of pictures that fit a canvas with their names."""
    side = min(canvas.width // columns, canvas.height // rows)
    while side > 1 and rows * (side + name_height(side)) > canvas.height:
        side -= 1
    return side


def _with_names(cells: Sequence[Pictures], names: Sequence[str]) -> list[Pictures]:
    """Return pictures [H, W, C] with their names in a white strip below."""
    strip = name_height(cells[0].shape[0])
    return [write_below(cell, name, strip) for cell, name in zip(cells, names, strict=True)]


def sheet_size(
    count: int,
    resolution: int,
    columns: int | None = None,
    drawing: Drawing = PLAIN,
    *,
    named: bool = False,
) -> tuple[int, int]:
    """Return the height and width in pixels of ``lay_out_fakes`` without padding.

    Raises UsageError where the sheet cannot be brought to the size that was asked for.
    """
    columns = min(count, columns or square_columns(count))
    rows = -(-count // columns)
    if drawing.canvas is not None:
        drawing.canvas.check(resolution, columns, rows)
        return drawing.canvas.height, drawing.canvas.width
    side = resolution * (drawing.scale or visible_scale(resolution))
    return rows * (side + (name_height(side) if named else 0)), columns * side


def draw_uncurated(
    G: Generator,
    seed: int = 5,
    drawing: Drawing = PAPER_DRAWING,
    *,
    rows: int = 3,
    lods: Sequence[int] = PAPER_LODS,
    crop: tuple[int, int, int, int] | None = None,
    progress: Progress = silent,
) -> Pictures:
    """Draw the uncurated sheet of Figure 2: column i holds rows · 2^lod pictures, shrunk by 2^lod.

    All latents come in one stream from numpy's RandomState(seed), the noise of every picture from
    its place in it. ``crop`` (left, top, right, bottom) cuts every picture first, as Figure 11 does
    with cars. Returns [rows · h, sum of w / 2^lod, C], enlarged by the scale; pictures are shrunk
    one by one, so memory is that of the sheet. Raises UsageError when a column would shrink to
    nothing.
    """
    resolution = G.config.resolution
    left, top, right, bottom = crop or (0, 0, resolution, resolution)
    width, height = right - left, bottom - top
    if min(lods) < 0 or min(width, height) >> max(lods) < 1:
        raise UsageError(f"columns halved {max(lods)} times do not fit a {resolution} px network")
    total = sum(rows * 2**lod for lod in lods)
    z = torch.from_numpy(np.random.RandomState(seed).randn(total, G.config.z_dim)).float()
    labels = seed_labels(G.config, range(total), drawing.label)
    ws = map_latents(G, z, labels, **drawing.truncation)
    noisy = replace(drawing, noise_mode="random", noise_seed=None)
    pictures = render(G, ws, noisy, noise_seeds=range(total))
    shape = (rows * height, sum(width >> lod for lod in lods), G.config.channels)
    sheet: Pictures = np.full(shape, WHITE, dtype=np.uint8)
    done, across = 0, 0
    for lod in lods:
        high, wide = height >> lod, width >> lod
        for down in range(0, rows * high << lod, high):
            picture = next(pictures)[top:bottom, left:right]
            sheet[down : down + high, across : across + wide] = resize(picture, high, wide)
            done += 1
            progress(done, total)
        across += wide
    return enlarge(sheet, drawing.scale or visible_scale(resolution))


def square_columns(count: int) -> int:
    """Return the columns of a grid about square, wider than high: 16 → 4, 12 → 4, 2 → 2."""
    return math.ceil(math.sqrt(count))

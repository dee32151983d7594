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
from stylecli.rendering import PLAIN, Drawing, render
from stylecli.sampling import draw_seeds, map_latents, seed_labels
from stylecli.shapes import Size
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
    """Return a sheet [H, W, C] of pictures of one size in rows of ``columns``.

    ``scale`` enlarges by whole pixels, by default so that small pictures can be looked at;
    ``canvas`` is the size of the sheet instead. ``names`` are written below the pictures. Raises
    UsageError where the sheet cannot be brought to the canvas.
    """
    columns = min(len(pictures), columns or square_columns(len(pictures)))
    rows, size = -(-len(pictures) // columns), Size(*pictures[0].shape[:2])
    if canvas is not None:
        canvas.check(size, columns, rows)
        if not names:
            return canvas.lay_out(pictures, columns)
        largest = _named_size(canvas, columns, rows, size)
        cells = [
            enlarge(picture, max(1, largest.height // size.height))
            if canvas.pixels
            else resize(picture, *largest)
            for picture in pictures
        ]
        return canvas.place(make_grid(_with_names(cells, names), columns), pictures)
    scale = scale or visible_scale(max(size))
    if names:
        cells = _with_names([enlarge(picture, scale) for picture in pictures], names)
        return make_grid(cells, columns, padding=padding)
    return make_grid(pictures, columns, padding=padding, scale=scale)


def _named_size(canvas: Canvas, columns: int, rows: int, size: Size) -> Size:
    """Return the largest size of pictures shaped as ``size`` that fit a canvas with their names."""
    height = min(canvas.width // columns * size.height // size.width, canvas.height // rows)
    while height > 1 and rows * (height + name_height(height)) > canvas.height:
        height -= 1
    return Size(height, max(1, height * size.width // size.height))


def _with_names(cells: Sequence[Pictures], names: Sequence[str]) -> list[Pictures]:
    """Return pictures [H, W, C] with their names in a white strip below."""
    strip = name_height(cells[0].shape[0])
    return [write_below(cell, name, strip) for cell, name in zip(cells, names, strict=True)]


def sheet_size(
    count: int,
    size: Size,
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
        drawing.canvas.check(size, columns, rows)
        return drawing.canvas.height, drawing.canvas.width
    scale = drawing.scale or visible_scale(max(size))
    height = size.height * scale
    return rows * (height + (name_height(height) if named else 0)), columns * size.width * scale


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
    size = G.config.size
    left, top, right, bottom = crop or (0, 0, size.width, size.height)
    width, height = right - left, bottom - top
    if min(lods) < 0 or min(width, height) >> max(lods) < 1:
        raise UsageError(f"columns halved {max(lods)} times do not fit a {size} px network")
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
    return enlarge(sheet, drawing.scale or visible_scale(max(size)))


def square_columns(count: int) -> int:
    """Return the columns of a grid about square, wider than high: 16 → 4, 12 → 4, 2 → 2."""
    return math.ceil(math.sqrt(count))

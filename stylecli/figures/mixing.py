"""The style-mixing sheet, Figure 3 of the StyleGAN paper."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

import numpy as np
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.figures.margins import add_margins
from stylecli.images import Pictures, make_grid, visible_scale
from stylecli.networks.config import StyleGAN1Config
from stylecli.networks.stylegan1 import Generator
from stylecli.progress import Progress, silent
from stylecli.rendering import NoiseMode, Precision, render
from stylecli.sampling import map_seeds, mix_ws
from stylecli.styles import name_layers


@dataclass(frozen=True)
class Sources:
    """Faces to mix: their styles ws [N, num_ws, w_dim], on the CPU, and what to call each."""

    ws: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ws)


Faces = Sequence[int] | Sources  # seeds, or styles from elsewhere
Layers = Sequence[int] | Sequence[Sequence[int]]  # the same for all rows, or for each row its own


def draw_mixing_sheet(
    G: Generator,
    rows: Faces,
    columns: Faces,
    layers: Layers,
    *,
    psi: float = 1.0,
    psi_cutoff: int | None = None,
    label: int | None = None,
    noise_mode: NoiseMode = "const",
    noise_seed: int = 0,
    lod: float | None = None,
    scale: int | None = None,
    padding: int | None = None,
    names: bool = False,
    batch: int | None = None,
    precision: Precision = "float32",
    progress: Progress = silent,
) -> Pictures:
    """Draw every row's picture with the styles of ``layers`` taken from every column.

    ``rows`` and ``columns`` are seeds, mapped with ``label`` and ``psi``, or Sources. ``layers`` is
    one list such as [0, 1, 2, 3] for the whole sheet, or one list per row as in Figure 3, where
    three rows copy coarse styles, two middle, one fine. The sheet has the columns' own pictures on
    top, the rows' at the left and a white corner; everything else about a cell (pose, identity, ...
    or colours) is its row's. Every cell has the same noise. ``scale`` enlarges by whole pixels, by
    default so that a cell can be looked at; ``names`` writes seeds and bands into margins.
    Returns [H, W, C]. Raises UsageError where the network has no styles to mix.
    """
    own = name_faces(G, rows, label=label, psi=psi, psi_cutoff=psi_cutoff)
    others = name_faces(G, columns, label=label, psi=psi, psi_cutoff=psi_cutoff)
    per_row = layers_per_row(layers, len(own))
    cells: list[Pictures] = []
    ws = list(mixed_styles(own, others, per_row))
    pictures = render(
        G, ws, noise_mode=noise_mode, noise_seeds=noise_seed, lod=lod, batch=batch,
        precision=precision,
    )  # fmt: skip
    for picture in pictures:
        cells.append(picture)
        progress(len(cells), len(ws))
    return lay_out(G, cells, own, others, per_row, scale=scale, padding=padding, names=names)


def mixed_styles(rows: Sources, columns: Sources, layers: Sequence[list[int]]) -> Iterator[Tensor]:
    """Yield the styles [num_ws, w_dim] of a sheet's pictures: all but the corner, row by row."""
    yield from columns.ws
    for row, chosen in zip(rows.ws, layers, strict=True):
        yield row
        yield from mix_ws(row.expand_as(columns.ws), columns.ws, chosen)


def lay_out(
    G: Generator,
    cells: Sequence[Pictures],
    rows: Sources,
    columns: Sources,
    layers: Sequence[list[int]],
    *,
    scale: int | None = None,
    padding: int | None = None,
    names: bool = False,
) -> Pictures:
    """Return the sheet [H, W, C] of the pictures of ``mixed_styles``, in their order."""
    scale = scale or visible_scale(G.config.resolution)
    gap = padding if padding is not None else max(1, G.config.resolution * scale // 64)
    corner = np.full_like(cells[0], 255)
    sheet = make_grid([corner, *cells], len(columns) + 1, padding=gap, scale=scale)
    if not names:
        return sheet
    height, width = (side * scale for side in cells[0].shape[:2])
    return add_margins(
        sheet, (height + gap, width + gap), (height, width),
        top=("", *columns.names), left=("", *rows.names),
        groups=_groups(layers, G.config.resolution),
    )  # fmt: skip


def name_faces(
    G: Generator,
    faces: Faces,
    *,
    label: int | None = None,
    psi: float = 1.0,
    psi_cutoff: int | None = None,
) -> Sources:
    """Return the styles of seeds, named by their numbers; Sources as they are.

    Raises UsageError where the network has no styles to mix.
    """
    check_styles(G.config)
    if isinstance(faces, Sources):
        return faces
    ws = map_seeds(G, faces, label=label, psi=psi, psi_cutoff=psi_cutoff)
    return Sources(ws, tuple(str(seed) for seed in faces))


def check_styles(config: StyleGAN1Config) -> None:
    """Raise UsageError where a network has no styles to mix."""
    if not config.has_w:
        raise UsageError(
            f"configuration {config.preset!r} has no styles to mix: train configuration c or later"
        )


def layers_per_row(layers: Layers, rows: int) -> list[list[int]]:
    """Return one list of layers per row; raise UsageError when there are not as many as rows."""
    if all(isinstance(layer, int) for layer in layers):
        return [list(cast(Sequence[int], layers))] * rows
    each = [list(chosen) for chosen in cast(Sequence[Sequence[int]], layers)]
    if len(each) != rows:
        raise UsageError(f"{len(each)} lists of layers for {rows} rows: give one per row")
    return each


def _groups(layers: Sequence[list[int]], resolution: int) -> list[tuple[str, int, int]]:
    """Return (name, first row of the sheet, rows) of neighbouring rows that copy the same."""
    groups, row = [], 1
    for chosen, same in groupby(layers):
        count = len(list(same))
        groups.append((name_layers(chosen, resolution), row, count))
        row += count
    return groups

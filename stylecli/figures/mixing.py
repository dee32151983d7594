"""The style-mixing sheet, Figure 3 of the StyleGAN paper."""

from collections.abc import Sequence

import numpy as np
import torch

from stylecli.errors import UsageError
from stylecli.images import Pictures, make_grid, visible_scale
from stylecli.networks.stylegan1 import Generator
from stylecli.progress import Progress, silent
from stylecli.rendering import NoiseMode, Precision, render
from stylecli.sampling import map_seeds, mix_ws


def draw_mixing_sheet(
    G: Generator,
    row_seeds: Sequence[int],
    column_seeds: Sequence[int],
    layers: Sequence[int],
    *,
    psi: float = 1.0,
    psi_cutoff: int | None = None,
    label: int | None = None,
    noise_mode: NoiseMode = "const",
    noise_seed: int = 0,
    lod: float | None = None,
    scale: int | None = None,
    padding: int | None = None,
    batch: int | None = None,
    precision: Precision = "float32",
    progress: Progress = silent,
) -> Pictures:
    """Draw every row's picture with the styles of ``layers`` taken from every column.

    The sheet has the columns' own pictures on top, the rows' at the left and a white corner;
    everything else about a cell (pose, identity, ... or colours) is its row's. Every cell has the
    same noise. ``scale`` enlarges by whole pixels, by default so that a cell can be looked at.
    Returns [H, W, C]. Raises UsageError where the network has no styles to mix.
    """
    if not G.config.has_w:
        raise UsageError(
            f"configuration {G.config.preset!r} has no styles to mix: "
            "train configuration c or later"
        )
    options = {"label": label, "psi": psi, "psi_cutoff": psi_cutoff}
    row_ws = map_seeds(G, row_seeds, **options)  # type: ignore[arg-type]
    column_ws = map_seeds(G, column_seeds, **options)  # type: ignore[arg-type]
    mixed = (mix_ws(row.expand_as(column_ws), column_ws, layers) for row in row_ws)
    ws = torch.cat([column_ws, *(torch.cat([row_ws[i : i + 1], m]) for i, m in enumerate(mixed))])
    cells: list[Pictures] = []
    pictures = render(
        G, ws, noise_mode=noise_mode, noise_seeds=noise_seed, lod=lod, batch=batch,
        precision=precision,
    )  # fmt: skip
    for picture in pictures:
        cells.append(picture)
        progress(len(cells), len(ws))
    corner = np.full_like(cells[0], 255)
    scale = scale or visible_scale(G.config.resolution)
    gap = padding if padding is not None else max(1, G.config.resolution * scale // 64)
    return make_grid([corner, *cells], len(column_seeds) + 1, padding=gap, scale=scale)

"""The truncation sweep, Figure 8 of the StyleGAN paper."""

from collections.abc import Sequence

import torch

from stylecli.images import Pictures, make_grid, visible_scale
from stylecli.networks.stylegan1 import Generator
from stylecli.progress import Progress, silent
from stylecli.rendering import NoiseMode, Precision, render
from stylecli.sampling import map_seeds

PAPER_PSIS = (1.0, 0.7, 0.5, 0.0, -0.5, -1.0)


def draw_truncation_sweep(
    G: Generator,
    seeds: Sequence[int],
    psis: Sequence[float] = PAPER_PSIS,
    *,
    psi_cutoff: int | None = None,
    label: int | None = None,
    noise_mode: NoiseMode = "const",
    lod: float | None = None,
    scale: int | None = None,
    padding: int | None = None,
    batch: int | None = None,
    precision: Precision = "float32",
    progress: Progress = silent,
) -> Pictures:
    """Draw one row per seed, one column per psi: from the full face over the average to its anti.

    psi 0 is the average face, the same in every row; negative psi is the opposite of the seed's.
    Acts on all layers, as in the paper, unless ``psi_cutoff`` says how many. Returns [H, W, C].
    """
    columns = [map_seeds(G, seeds, label=label, psi=psi, psi_cutoff=psi_cutoff) for psi in psis]
    ws = torch.stack(columns, dim=1).flatten(0, 1)  # [seeds * psis, num_ws, w_dim]
    cells: list[Pictures] = []
    for picture in render(G, ws, noise_mode=noise_mode, lod=lod, batch=batch, precision=precision):
        cells.append(picture)
        progress(len(cells), len(ws))
    scale = scale or visible_scale(G.config.resolution)
    gap = padding if padding is not None else max(1, G.config.resolution * scale // 64)
    return make_grid(cells, len(psis), padding=gap, scale=scale)

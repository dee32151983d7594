"""Sheets of generated pictures: a plain grid, and the uncurated sheet of shrinking columns."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from stylecli.errors import UsageError
from stylecli.images import Pictures, make_grid, to_pillow, visible_scale
from stylecli.networks.bundle import Bundle
from stylecli.networks.stylegan1 import Generator
from stylecli.progress import Progress, silent
from stylecli.rendering import NoiseMode, Precision, render
from stylecli.sampling import generate, map_latents, seed_labels

PAPER_LODS = (0, 1, 2, 2, 3, 3)  # Figure 2: how often each column is halved


def draw_fakes(
    net: Bundle,
    seeds: Sequence[int],
    columns: int | None = None,
    *,
    psi: float = 1.0,
    psi_cutoff: int | None = None,
    label: int | None = None,
    noise_mode: NoiseMode = "const",
    noise_seed: int | None = None,
    lod: float | None = None,
    scale: int | None = None,
    padding: int = 0,
    batch: int | None = None,
    precision: Precision = "float32",
    progress: Progress = silent,
) -> Pictures:
    """Draw the pictures of seeds in rows of ``columns`` (default: about square), [H, W, C].

    The options are those of ``generate``; ``scale`` enlarges by whole pixels.
    """
    pictures: list[Pictures] = []
    for _, picture in generate(
        net, seeds, psi, psi_cutoff=psi_cutoff, label=label, noise_mode=noise_mode,
        noise_seed=noise_seed, lod=lod, batch=batch, precision=precision,
    ):  # fmt: skip
        pictures.append(picture)
        progress(len(pictures), len(seeds))
    if columns is None:
        columns = square_columns(len(pictures))
    scale = scale or visible_scale(net.config.resolution)
    return make_grid(pictures, columns, padding=padding, scale=scale)


def draw_uncurated(
    G: Generator,
    seed: int = 5,
    *,
    rows: int = 3,
    lods: Sequence[int] = PAPER_LODS,
    psi: float = 0.7,
    psi_cutoff: int | None = 8,
    scale: int | None = None,
    batch: int | None = None,
    precision: Precision = "float32",
    progress: Progress = silent,
) -> Pictures:
    """Draw the uncurated sheet of Figure 2: column i holds rows · 2^lod pictures, shrunk by 2^lod.

    All latents come in one stream from numpy's RandomState(seed), the noise of every picture from
    its place in it. Returns [rows · R, sum of R / 2^lod, C], enlarged by ``scale``. Raises
    UsageError when a column would shrink to nothing.
    """
    resolution = G.config.resolution
    if min(lods) < 0 or resolution >> max(lods) < 1:
        raise UsageError(f"columns halved {max(lods)} times do not fit a {resolution} px network")
    total = sum(rows * 2**lod for lod in lods)
    z = torch.from_numpy(np.random.RandomState(seed).randn(total, G.config.z_dim)).float()
    labels = seed_labels(G.config, range(total))
    ws = map_latents(G, z, labels, psi=psi, psi_cutoff=psi_cutoff)
    pictures = render(
        G, ws, noise_mode="random", noise_seeds=range(total), batch=batch, precision=precision
    )
    columns, done = [], 0
    for lod in lods:
        column = []
        for _ in range(rows * 2**lod):
            column.append(_shrunk(next(pictures), resolution >> lod))
            done += 1
            progress(done, total)
        columns.append(np.concatenate(column))
    scale = scale or visible_scale(resolution)
    return make_grid(np.concatenate(columns, axis=1)[None], 1, scale=scale)


def square_columns(count: int) -> int:
    """Return the columns of a grid about square, wider than high: 16 → 4, 12 → 4, 2 → 2."""
    return math.ceil(math.sqrt(count))


def _shrunk(picture: Pictures, side: int) -> Pictures:
    if picture.shape[0] == side:
        return picture
    small = to_pillow(picture).resize((side, side), Image.Resampling.LANCZOS)
    array = np.asarray(small, dtype=np.uint8)
    return array[:, :, None] if array.ndim == 2 else array

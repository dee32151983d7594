"""How much the pictures of a fixed set of seeds differ: what a collapse makes fall."""

import math

import numpy as np
import torch
from torch import Tensor

from stylecli.data.reader import Dataset
from stylecli.images import from_uint8
from stylecli.networks.layers import box_average
from stylecli.networks.model import Generator, native_lod
from stylecli.sampling import seed_latents
from stylecli.training.schedule import Stage

FAKES = 32  # pictures of seeds 0 to 31: 496 pairs, the same seeds each time
REALS = 128  # drawn once from the dataset: 8,128 pairs
LARGEST_SIDE = 16  # pixels; faces and rooms differ at this size already, and it is cheap


class DiversityGauge:
    """Mean distance between pairs of fakes, as a share of that between pairs of real pictures."""

    def __init__(self, dataset: Dataset, label_table: Tensor | None, z_dim: int) -> None:
        """``label_table`` [N, label_dim]: the labels a conditional network draws from, or None."""
        rng = np.random.default_rng(0)
        count = min(REALS, len(dataset))
        self._dataset = dataset
        self._picked = np.sort(rng.permutation(len(dataset))[:count])
        self._z = seed_latents(range(FAKES), z_dim)
        self._labels = None
        if label_table is not None:
            self._labels = label_table.cpu()[rng.integers(len(label_table), size=FAKES)]
        self._real: dict[int, float] = {}  # side -> distance between pairs of reals

    @torch.no_grad()
    def measure(self, G_ema: Generator, stage: Stage) -> float:
        """Return fakes' over reals' mean pairwise distance; 1 is the variety of the data.

        Both are seen at the stage's resolution, 16 px at most, without truncation and noise. Draws
        no random numbers. NaN where all real pictures are equal.
        """
        side = min(LARGEST_SIDE, stage.resolution)
        device = next(G_ema.parameters()).device
        labels = None if self._labels is None else self._labels.to(device)
        # In chunks, so that a large network needs little memory beside the training's own.
        chunks = []
        for start in range(0, FAKES, chunk := max(4, min(FAKES, 4096 // stage.resolution))):
            picked = slice(start, start + chunk)
            ws = G_ema.mapping(
                self._z[picked].to(device), None if labels is None else labels[picked]
            )
            images = G_ema.synthesis(ws, noise_mode="none", **native_lod(G_ema.config, stage.lod))
            chunks.append(_shrink(images.float().clamp(-1, 1), side).cpu())
        real = self._real_distance(side)
        return mean_pair_distance(torch.cat(chunks)) / real if real else math.nan

    def _real_distance(self, side: int) -> float:
        if side not in self._real:
            level = (self._dataset.resolution // side).bit_length() - 1
            reals = from_uint8(torch.from_numpy(self._dataset.read(self._picked, level)))
            self._real[side] = mean_pair_distance(reals)
        return self._real[side]


def mean_pair_distance(images: Tensor) -> float:
    """Return the mean over all pairs of [N, ...] of their Euclidean distance per value; N > 1."""
    rows = images.flatten(1).double()
    return float(torch.pdist(rows).mean()) / math.sqrt(rows.shape[1])


def _shrink(images: Tensor, side: int) -> Tensor:
    """Average [N, C, R, R] down to [N, C, side, side]."""
    while images.shape[-1] > side:
        images = box_average(images, 2)
    return images

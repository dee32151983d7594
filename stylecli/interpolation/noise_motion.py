"""Noise that moves with a video: new in every frame, or drifting around a closed loop."""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.networks.stylegan1 import Generator
from stylecli.rendering import seed_noise

Motion = Literal["still", "flicker", "drift"]
MOTIONS: tuple[Motion, ...] = get_args(Motion)
_REACH = 2  # draws on either side of a moment that still weigh something


def moving_noise(
    G: Generator,
    noise_seed: int,
    frames: int,
    *,
    motion: Motion = "drift",
    draws: int = 4,
    loop: bool = True,
    start: int = 0,
) -> Iterator[list[Tensor]]:
    """Yield the noise maps of frames ``start`` to ``frames``, one tensor [1, 1, h, w] per layer.

    "still": those of ``noise_seed`` in every frame; "flicker": new ones in every frame; "drift":
    each pixel moves smoothly through ``draws`` independent draws and, closed, back to the first.
    In every frame the maps are ~ N(0, 1), so that a picture looks no different when it stands.
    Everything comes from ``noise_seed``. Raises UsageError for another motion or less than 1 draw.
    """
    if motion not in MOTIONS or draws < 1:
        raise UsageError(
            f"noise motion {motion!r} through {draws} draws is unknown: "
            f"expected {', '.join(MOTIONS)} and at least 1 draw"
        )
    if motion == "still":
        return repeat(seed_noise(G, noise_seed), frames - start)
    if motion == "flicker":
        return (seed_noise(G, draw_seed(noise_seed, frame)) for frame in range(start, frames))
    moments = (drift_weights(frame, frames, draws, loop=loop) for frame in range(start, frames))
    return _drift(G, noise_seed, moments)


def drift_weights(frame: int, frames: int, draws: int, *, loop: bool = True) -> dict[int, float]:
    """Return how much of which draws is in a frame: at most four, of unit sum of squares.

    A sum of independent N(0, 1) weighted so is N(0, 1) again. The weights are a raised cosine over
    the nearest four draws: smooth in time, and periodic when closed. Open, the first frame is about
    the first draw and the last about the last.
    """
    moment = frame * draws / frames if loop else frame * (draws - 1) / max(1, frames - 1)
    weights: dict[int, float] = {}
    for draw in range(math.floor(moment) - 1, math.floor(moment) + _REACH + 1):
        if loop or 0 <= draw < draws:  # fewer than four draws are their own neighbours
            bump = (1 + math.cos(math.pi * (moment - draw) / _REACH)) / 2
            weights[draw % draws] = weights.get(draw % draws, 0.0) + bump
    length = math.sqrt(sum(weight**2 for weight in weights.values()))
    return {draw: weight / length for draw, weight in weights.items() if weight > 1e-12}


def draw_seed(noise_seed: int, index: int) -> int:
    """Return the seed of one of many draws that belong to a noise seed, below 2^32."""
    return int(np.random.SeedSequence((noise_seed, index)).generate_state(1)[0])


def _drift(
    G: Generator, noise_seed: int, weights: Iterable[Mapping[int, float]]
) -> Iterator[list[Tensor]]:
    """Yield the weighted sums, holding only the draws that the moment needs."""
    held: dict[int, list[Tensor]] = {}
    for shares in weights:
        held = {
            draw: held[draw] if draw in held else seed_noise(G, draw_seed(noise_seed, draw))
            for draw in shares
        }
        layers = zip(*held.values(), strict=True)
        yield [
            torch.stack([share * part for share, part in zip(shares.values(), maps, strict=True)])
            .sum(dim=0)
            for maps in layers
        ]  # fmt: skip

"""Moving noise: N(0, 1) in every frame, smooth, closed."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylecli.errors import UsageError
from stylecli.interpolation.noise_motion import draw_seed, drift_weights, moving_noise
from stylecli.rendering import seed_noise

LAST = -1  # the largest maps


def _maps(G: Any, frames: int, **options: Any) -> torch.Tensor:
    return torch.stack([maps[LAST] for maps in moving_noise(G, 5, frames, **options)])


@given(st.integers(1, 400), st.integers(1, 30), st.booleans(), st.integers(0, 399))
def test_weights_keep_the_variance(frames: int, draws: int, loop: bool, frame: int) -> None:
    weights = drift_weights(frame % frames, frames, draws, loop=loop)

    assert sum(weight**2 for weight in weights.values()) == pytest.approx(1)
    assert 1 <= len(weights) <= 4 and all(0 <= draw < draws for draw in weights)


def test_drifting_noise_is_standard_normal_in_every_frame(tiny_network: Any) -> None:
    maps = torch.stack([_maps_of(tiny_network, seed) for seed in range(30)])  # [30, F, 1, 1, h, w]

    spread = maps.transpose(0, 1).flatten(1).std(dim=1)  # over seeds and pixels, per frame
    assert (spread - 1).abs().max() < 0.05  # 7680 numbers each: standard error 0.008


def _maps_of(network: Any, seed: int) -> torch.Tensor:
    return torch.stack([maps[LAST] for maps in moving_noise(network.G_ema, seed, 9, draws=5)])


@pytest.mark.parametrize("draws", [2, 3, 5])
def test_drifting_noise_closes_and_is_smooth(tiny_network: Any, draws: int) -> None:
    maps = _maps(tiny_network.G_ema, 60, motion="drift", draws=draws)

    steps = (maps - maps.roll(-1, 0)).flatten(1).norm(dim=1)
    assert steps[-1] <= 1.5 * max(steps[0], steps[-2])
    assert steps.max() < 0.5 * maps[0].norm()  # not the √2 of independent draws


def test_flickering_noise_is_new_in_every_frame(tiny_network: Any) -> None:
    maps = _maps(tiny_network.G_ema, 40, motion="flicker").flatten(1)

    correlation = np.corrcoef(maps.numpy()) - np.eye(40)
    assert abs(correlation).max() < 0.4 and float(maps.std()) == pytest.approx(1, abs=0.05)


def test_still_noise_is_that_of_the_seed(tiny_network: Any) -> None:
    first, second = moving_noise(tiny_network.G_ema, 5, 2, motion="still")

    for maps, own in zip(first, seed_noise(tiny_network.G_ema, 5), strict=True):
        assert torch.equal(maps, own)
    assert first is second


@pytest.mark.parametrize("motion", ["still", "flicker", "drift"])
def test_a_later_start_continues_the_same_noise(tiny_network: Any, motion: Any) -> None:
    G = tiny_network.G_ema

    assert torch.equal(_maps(G, 9, motion=motion)[4:], _maps(G, 9, motion=motion, start=4))


def test_draws_have_seeds_of_their_own() -> None:
    seeds = {draw_seed(noise, index) for noise in range(20) for index in range(20)}

    assert len(seeds) == 400 and max(seeds) < 2**32


def test_unknown_motion_is_refused(tiny_network: Any) -> None:
    with pytest.raises(UsageError, match="'wobble'"):
        moving_noise(tiny_network.G_ema, 0, 4, motion="wobble")  # type: ignore[arg-type]

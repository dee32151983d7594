"""Walks as frames: cells, key pictures, moving noise, closed grids."""

from typing import Any

import numpy as np
import pytest
import torch

import stylecli
from stylecli.errors import UsageError
from stylecli.images import Pictures
from stylecli.latents.walks import Route
from stylecli.sampling import Drawing
from stylecli.sheets.walking import draw_walk, walk_size


def _frames(G: Any, *arguments: Any, **options: Any) -> Pictures:
    how = {name: options.pop(name) for name in {*options} & {*Drawing.__dataclass_fields__}}
    return np.stack(list(draw_walk(G, *arguments, drawing=Drawing(scale=1, **how), **options)))


def _picture(network: Any, seed: int, **options: Any) -> Pictures:
    return next(stylecli.generate(network, [seed], **options))[1]


def test_every_cell_walks_through_its_own_seeds(tiny_network: Any) -> None:
    frames = _frames(tiny_network.G_ema, [1, 2, 3, 4], 4, grid=(2, 1), psi=0.7)

    for frame, (left, right) in {0: (1, 3), 2: (2, 4)}.items():
        np.testing.assert_array_equal(frames[frame, :, :16], _picture(tiny_network, left, psi=0.7))
        np.testing.assert_array_equal(frames[frame, :, 16:], _picture(tiny_network, right, psi=0.7))


def test_noise_that_stands_is_that_of_generate(tiny_network: Any) -> None:
    frames = _frames(tiny_network.G_ema, [1, 2], 4, noise_mode="random", noise_seed=9)

    own = _picture(tiny_network, 2, noise_mode="random", noise_seed=9)
    np.testing.assert_array_equal(frames[2], own)


def test_noise_that_moves_moves_all_cells_alike(tiny_network: Any) -> None:
    for motion in ("flicker", "drift"):
        frames = _frames(tiny_network.G_ema, [5, 5], 8, grid=(2, 1), noise_motion=motion)

        assert (frames[:, :, :16] == frames[:, :, 16:]).all()
        assert all((frames[0] != frame).any() for frame in frames[1:])


ROUTES = {
    "spline": Route(),
    "lerp": Route(method="lerp"),
    "z": Route("z"),
    "circle": Route("z", "circle"),
    "pulse": Route(psi_to=-1.0),
}


@pytest.mark.parametrize("motion", ["still", "drift"])
@pytest.mark.parametrize("name", ROUTES)
def test_the_last_frame_is_beside_the_first(tiny_network: Any, name: str, motion: Any) -> None:
    frames = _frames(
        tiny_network.G_ema, [1, 2, 3, 4], 48, ROUTES[name], grid=(2, 1), noise_motion=motion
    ).astype(float)

    steps = abs(frames - np.roll(frames, -1, axis=0)).mean(axis=(1, 2, 3))
    assert 0 < steps[-1] <= 2 * max(steps[0], steps[-2])
    assert steps[-1] < 0.5 * abs(frames[0] - frames[24]).mean()  # far from a cut


def test_an_open_walk_ends_elsewhere(tiny_network: Any) -> None:
    frames = _frames(tiny_network.G_ema, [1, 2], 9, Route(loop=False))

    np.testing.assert_array_equal(frames[-1], _picture(tiny_network, 2))


def test_classes_are_shared_out_among_the_cells(tiny_config_fields: dict[str, Any]) -> None:
    network = stylecli.new_network("f", seed=0, label_dim=3, **tiny_config_fields)
    G = network.generator

    each = _frames(G, [1, 2], 4, grid=(2, 1), labels=[0, 2])  # one face per cell, both classes
    share = _frames(G, [1, 1, 2, 2], 4, grid=(2, 1), labels=[0, 2, 0, 2])

    np.testing.assert_array_equal(each, share)
    np.testing.assert_array_equal(each[2, :, 16:], _picture(network, 2, label=2))


def test_saved_styles_are_shared_out_too(tiny_network: Any) -> None:
    ws = torch.randn(2, 6, 8)

    frames = _frames(tiny_network.G_ema, ws, 3, grid=(1, 2))

    assert frames.shape == (3, 32, 16, 3) and (frames[0] == frames[2]).all()


def test_a_later_start_draws_the_same_frames(tiny_network: Any) -> None:
    options: dict[str, Any] = {"noise_motion": "drift", "psi": 0.5}

    whole = _frames(tiny_network.G_ema, [1, 2], 12, **options)

    rest = _frames(tiny_network.G_ema, [1, 2], 12, start=7, **options)
    np.testing.assert_array_equal(whole[7:], rest)


def test_seeds_that_do_not_divide_are_refused(tiny_network: Any) -> None:
    with pytest.raises(UsageError, match="3 seeds do not divide among 2x1 cells"):
        draw_walk(tiny_network.G_ema, [1, 2, 3], 4, grid=(2, 1))


@pytest.mark.parametrize("scale", [None, 2])
def test_the_size_of_frames_is_known_before_anything_is_drawn(
    tiny_network: Any, scale: int | None
) -> None:
    G = tiny_network.G_ema

    frame = next(
        iter(draw_walk(G, [1, 2, 3, 4, 5, 6], 4, drawing=Drawing(scale=scale), grid=(3, 2)))
    )

    assert walk_size(G.config, (3, 2), Drawing(scale=scale)) == frame.shape[:2]

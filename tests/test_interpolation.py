"""Paths through latents: they pass through their keys, close, and turn smoothly."""

from typing import Any

import numpy as np
import pytest
import torch

from stylecli.errors import UsageError
from stylecli.interpolation import METHODS, follow_path, interpolate_ws, path_positions
from stylecli.sampling import map_seeds

POINTS = np.random.RandomState(0).randn(5, 4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loop", [True, False])
def test_paths_pass_through_their_points(method: Any, loop: bool) -> None:
    frames = 5 * 4 if loop else 4 * 4 + 1

    path = follow_path(POINTS, path_positions(5, frames, loop=loop), method=method, loop=loop)

    np.testing.assert_allclose(path[::4], POINTS, atol=1e-12)


def test_a_closed_spline_has_no_seam() -> None:
    around = np.array([-1e-4, 0.0, 1e-4]) % 5

    before, here, after = follow_path(POINTS, around)

    np.testing.assert_allclose(after - here, here - before, atol=1e-6)  # equal velocity
    curvature = [follow_path(POINTS, np.array([t - h, t, t + h]) % 5) for t, h in
                 ((1e-3, 1e-3), (5 - 1e-3, 1e-3))]  # fmt: skip
    left, right = (c[0] - 2 * c[1] + c[2] for c in curvature)
    np.testing.assert_allclose(left, right, atol=1e-6 * 0.1)


def test_a_spline_reproduces_a_circle_better_than_lines() -> None:
    angles = np.arange(8) / 8 * 2 * np.pi
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    positions = path_positions(8, 80)

    radii = {m: np.linalg.norm(follow_path(circle, positions, method=m), axis=1) for m in METHODS}

    assert abs(radii["spline"] - 1).max() < 0.005
    assert abs(radii["slerp"] - 1).max() < 1e-9
    assert abs(radii["lerp"] - 1).max() > 0.05


def test_one_point_stands_still() -> None:
    path = follow_path(POINTS[:1], path_positions(1, 3))

    np.testing.assert_array_equal(path, np.repeat(POINTS[:1], 3, axis=0))


def test_frames_begin_at_the_seeds_own_styles(tiny_network: Any) -> None:
    ws = map_seeds(tiny_network.G_ema, [3, 4, 5], psi=0.7)

    for space in ("w", "z"):
        frames = list(interpolate_ws(tiny_network.G_ema, [3, 4, 5], 21, space=space, psi=0.7))
        torch.testing.assert_close(torch.stack(frames[::7]), ws)


def test_w_is_refused_where_there_is_none(tiny_config_fields: dict[str, Any]) -> None:
    import stylecli

    traditional = stylecli.new_network("b", **tiny_config_fields)

    with pytest.raises(UsageError, match="use --space z"):
        next(interpolate_ws(traditional.generator, [0, 1], 4))

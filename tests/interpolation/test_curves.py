"""Curves pass through their points, close, turn smoothly, and agree with independent references."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylecli.errors import UsageError
from stylecli.interpolation.curves import follow_path, path_positions, pulse

POINTS = np.random.RandomState(0).randn(5, 4)
THROUGH_ALL = ("spline", "lerp", "slerp")

seeds = st.integers(0, 2**32 - 1)
counts = st.integers(2, 9)


def _points(seed: int, count: int, width: int = 4) -> Any:
    return np.random.RandomState(seed).randn(count, width)


@pytest.mark.parametrize("method", THROUGH_ALL)
@pytest.mark.parametrize("loop", [True, False])
def test_paths_pass_exactly_through_their_points(method: Any, loop: bool) -> None:
    frames = 5 * 7 if loop else 4 * 7 + 1

    path = follow_path(POINTS, path_positions(5, frames, loop=loop), method=method, loop=loop)

    np.testing.assert_array_equal(path[::7].astype(np.float32), POINTS.astype(np.float32))


@given(seeds, counts, st.floats(0, 0.999))
def test_slerp_turns_and_stretches_evenly(seed: int, count: int, along: float) -> None:
    points = _points(seed, count)

    here = follow_path(points, np.array([along]), method="slerp")[0]

    a, b = points[:2]
    length = (1 - along) * np.linalg.norm(a) + along * np.linalg.norm(b)
    unit_a, unit_b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    angle = np.arccos(np.clip(unit_a @ unit_b, -1, 1))
    textbook = np.sin((1 - along) * angle) * unit_a + np.sin(along * angle) * unit_b
    np.testing.assert_allclose(here, length * textbook / np.sin(angle), atol=1e-6)
    assert np.linalg.norm(here) == pytest.approx(length)


@pytest.mark.parametrize("there", [[-2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 1e-12, 0.0]])
def test_slerp_keeps_its_length_between_parallels_and_opposites(there: list[float]) -> None:
    ends = np.array([[2.0, 0.0, 0.0], there])

    path = follow_path(ends, np.linspace(0, 1, 9), method="slerp", loop=False)

    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 2)
    np.testing.assert_allclose(path[[0, -1]], ends, atol=1e-9)


def _reference_slopes(points: Any, loop: bool) -> Any:
    """Solve the whole system at once: equal second derivatives on both sides of every point."""
    count = len(points)
    matrix, right = np.zeros((count, count)), np.zeros_like(points)
    for k in range(count):
        before, after = (k - 1) % count, (k + 1) % count
        if not loop and k in (0, count - 1):  # second derivative 0
            other = after if k == 0 else before
            matrix[k, k], matrix[k, other] = 2, 1
            right[k] = 3 * (points[other] - points[k]) * (1 if k == 0 else -1)
            continue
        matrix[k, k] = 4
        matrix[k, before] += 1
        matrix[k, after] += 1
        right[k] = 3 * (points[after] - points[before])
    return np.linalg.solve(matrix, right)


@given(seeds, counts, st.booleans())
def test_a_spline_is_the_cubic_of_continuous_acceleration(
    seed: int, count: int, loop: bool
) -> None:
    points, step = _points(seed, count), 1e-4
    slopes = _reference_slopes(points, loop)
    starts = np.arange(count if loop else count - 1)

    speed = (follow_path(points, starts + step, loop=loop) - points[starts]) / step

    np.testing.assert_allclose(speed, slopes[starts], atol=0.05)
    middle = follow_path(points, starts + 0.5, loop=loop)
    ends = (starts + 1) % count
    hermite = (points[starts] + points[ends]) / 2 + (slopes[starts] - slopes[ends]) / 8
    np.testing.assert_allclose(middle, hermite, atol=1e-9)


@given(seeds, st.integers(3, 9))
def test_a_closed_spline_has_no_seam_in_position_speed_and_acceleration(
    seed: int, count: int
) -> None:
    points, step = _points(seed, count), 1e-3

    def derivatives(moment: float) -> list[Any]:
        before, here, after = follow_path(
            points, np.array([moment - step, moment, moment + step]) % count
        )
        return [here, (after - before) / 2 / step, (before - 2 * here + after) / step**2]

    for left, right, allowed in zip(
        derivatives(count - 2 * step), derivatives(2 * step), (0.1, 0.5, 0.5), strict=True
    ):
        assert abs(left - right).max() <= allowed * max(1, abs(points).max())


@given(seeds, counts, st.sampled_from(THROUGH_ALL), st.integers(3, 40))
def test_closed_paths_are_periodic(seed: int, count: int, method: Any, frames: int) -> None:
    """Beginning at another point goes the same way round."""
    points = _points(seed, count)
    positions = path_positions(count, frames * count)

    path = follow_path(points, positions, method=method)
    later = follow_path(np.roll(points, -1, axis=0), positions, method=method)

    np.testing.assert_allclose(np.roll(path, -frames, axis=0), later, atol=1e-6)


def test_a_spline_reproduces_a_circle_better_than_lines() -> None:
    angles = np.arange(8) / 8 * 2 * np.pi
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    positions = path_positions(8, 80)

    radii = {
        m: np.linalg.norm(follow_path(circle, positions, method=m), axis=1)  # type: ignore[arg-type]
        for m in THROUGH_ALL
    }

    assert abs(radii["spline"] - 1).max() < 0.005
    assert abs(radii["slerp"] - 1).max() < 1e-9
    assert abs(radii["lerp"] - 1).max() > 0.05


@given(seeds, st.integers(8, 50))
def test_a_circle_is_one_even_round_through_its_first_point(seed: int, frames: int) -> None:
    points = _points(seed, 2, 16)

    path = follow_path(points, path_positions(2, frames), method="circle")

    np.testing.assert_array_equal(path[0], points[0])
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), np.linalg.norm(points[0]))
    steps = np.linalg.norm(path - np.roll(path, -1, axis=0), axis=1)  # the last: back to the first
    np.testing.assert_allclose(steps, steps[0])
    assert np.linalg.matrix_rank(np.vstack([path, points]), tol=1e-6) == 2


def test_a_circle_of_more_than_two_points_or_open_is_refused() -> None:
    with pytest.raises(UsageError, match="through 2 points, not 5"):
        follow_path(POINTS, path_positions(5, 9), method="circle")
    with pytest.raises(UsageError, match="and open"):
        follow_path(POINTS[:2], path_positions(2, 9), method="circle", loop=False)


def test_one_point_stands_still() -> None:
    path = follow_path(POINTS[:1], path_positions(1, 3))

    np.testing.assert_array_equal(path, np.repeat(POINTS[:1], 3, axis=0))


def test_psi_sweeps_open_and_pulses_closed() -> None:
    assert pulse(-1, 1, 5, loop=False) == pytest.approx([-1, -0.5, 0, 0.5, 1])
    assert pulse(0, 1, 4) == pytest.approx([0, 0.5, 1, 0.5])
    assert pulse(0, 1, 8, pulses=2) == pytest.approx([0, 0.5, 1, 0.5] * 2)
    assert pulse(0, 1, 5, pulses=1, loop=False) == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_a_closed_pulse_has_no_seam() -> None:
    psi = pulse(-1, 1, 90, pulses=3)

    steps = abs(np.diff(psi, append=psi[0]))
    assert steps[-1] <= steps.max()
    with pytest.raises(UsageError, match="0 pulses are none"):
        pulse(0, 1, 4, pulses=0)

"""Walks: key frames are the faces that generate draws, closed walks have no seam; curves; noise."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import stylecli
from stylecli.errors import UsageError
from stylecli.images import Pictures
from stylecli.latents.walks import (
    Route,
    draw_seed,
    draw_walk,
    drift_weights,
    follow_path,
    moving_noise,
    path_positions,
    pulse,
    walk_size,
    walk_ws,
)
from stylecli.rendering import Drawing, seed_noise
from stylecli.sampling import map_seeds, truncate_ws

POINTS = np.random.RandomState(0).randn(5, 4)
THROUGH_ALL = ("spline", "lerp", "slerp")

seeds = st.integers(0, 2**32 - 1)
counts = st.integers(2, 9)
LAST = -1  # the largest maps
SEEDS = [3, 4, 5]


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
    with pytest.raises(UsageError, match="pulses 0"):
        pulse(0, 1, 4, pulses=0)


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


@pytest.fixture
def labelled(tiny_config_fields: dict[str, Any]) -> Any:
    return stylecli.new_network("f", seed=0, label_dim=3, **tiny_config_fields).generator


def _walk(G: Any, keys: Any, frames: int, route: Route = Route(), **options: Any) -> torch.Tensor:  # noqa: B008
    return torch.stack(list(walk_ws(G, keys, frames, route, **options)))


@pytest.mark.parametrize("space", ["w", "z"])
@pytest.mark.parametrize("method", ["spline", "lerp", "slerp"])
def test_key_frames_have_the_styles_of_their_seeds(
    tiny_network: Any, space: Any, method: Any
) -> None:
    G = tiny_network.G_ema
    options: dict[str, Any] = {"psi": 0.7, "psi_cutoff": 3}

    closed = _walk(G, SEEDS, 21, Route(space, method), **options)
    opened = _walk(G, SEEDS, 15, Route(space, method, loop=False), **options)

    expected = map_seeds(G, SEEDS, **options)
    assert torch.equal(closed[::7], expected) and torch.equal(opened[::7], expected)


def test_key_frames_of_a_labelled_network_have_the_classes_of_generate(labelled: Any) -> None:
    for space in ("w", "z"):
        frames = _walk(labelled, [4, 8], 8, Route(space))  # type: ignore[arg-type]

        assert torch.equal(frames[::4], map_seeds(labelled, [4, 8]))


@pytest.mark.parametrize("space", ["w", "z"])
def test_one_face_goes_from_class_to_class(labelled: Any, space: Any) -> None:
    frames = _walk(labelled, [7], 12, Route(space), labels=[0, 1, 2])

    faces = [map_seeds(labelled, [7], label=label)[0] for label in (0, 1, 2)]
    assert torch.equal(frames[::4], torch.stack(faces))
    assert not any(torch.equal(frames[2], face) for face in faces)  # between two classes


def test_classes_pull_towards_their_own_centres(labelled: Any) -> None:
    centres = torch.arange(3.0).view(3, 1).expand(3, 8).contiguous()

    frames = _walk(labelled, [7], 4, Route(method="lerp"), labels=[0, 2], psi=0.0, centre=centres)

    assert frames[:, 0, 0].tolist() == [0.0, 1.0, 2.0, 1.0]


CLOSED = {
    "spline": Route(),
    "slerp": Route("z"),
    "circle": Route("z", "circle"),
    "psi": Route(psi_to=1.0, pulses=2),
}


@pytest.mark.parametrize("name", CLOSED)
def test_a_closed_walk_has_no_seam(tiny_network: Any, name: str) -> None:
    keys = [3, 4] if name == "circle" else SEEDS

    ws = _walk(tiny_network.G_ema, keys, 60, CLOSED[name], psi=-0.5)

    steps = (
        (ws - ws.roll(-1, 0)).flatten(1).norm(dim=1)
    )  # the last is from the end to the beginning
    assert 0 < steps[-1] <= 2 * max(steps[-2], steps[0])


def test_an_open_walk_ends_at_its_last_face(tiny_network: Any) -> None:
    G = tiny_network.G_ema

    ws = _walk(G, SEEDS, 10, Route(loop=False, psi_to=0.0), psi=1.0)

    assert torch.equal(ws[0], map_seeds(G, [3])[0])
    torch.testing.assert_close(ws[-1], truncate_ws(G, map_seeds(G, [5]), 0.0)[0])


def test_saved_styles_are_visited_layer_by_layer(tiny_network: Any) -> None:
    ws = torch.randn(2, tiny_network.config.num_ws, 8)

    frames = _walk(tiny_network.G_ema, ws, 4, Route(method="lerp"))

    assert torch.equal(frames[::2], ws)
    torch.testing.assert_close(frames[1], ws.mean(dim=0))


def test_a_later_start_continues_the_same_walk(tiny_network: Any) -> None:
    route = Route(psi_to=1.0)

    whole = _walk(tiny_network.G_ema, SEEDS, 40, route, psi=0.0)
    rest = _walk(tiny_network.G_ema, SEEDS, 40, route, psi=0.0, start=17)

    assert torch.equal(whole[17:], rest)


def test_memory_does_not_grow_with_the_length(tiny_network: Any) -> None:
    def peak(frames: int) -> int:
        tracemalloc.start()
        for _ in walk_ws(tiny_network.G_ema, SEEDS, frames, psi=0.7):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(32)  # what is imported and cached once
    bytes_per_frame = (peak(1600) - peak(160)) / 1440
    assert bytes_per_frame < tiny_network.config.num_ws * 8 * 4  # the styles of one frame


@pytest.mark.parametrize(
    ("route", "options", "message"),
    [
        (Route("q"), {}, "unknown space 'q'"),  # type: ignore[arg-type]
        (Route("w", "circle"), {}, "a circle needs latents about zero"),
        (Route("z", "circle"), {}, "through 2 points, not 3"),
        (Route(pulses=2), {}, "2 pulses of psi need an end"),
        (Route(psi_to=1.0), {"psi": [0.5] * 6}, "psi of single layers cannot move"),
        (Route(), {"labels": [0]}, "trained without labels"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_frame(
    tiny_network: Any, route: Route, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        walk_ws(tiny_network.G_ema, SEEDS, 4, route, **options)


def test_saved_styles_have_neither_class_nor_z(tiny_network: Any) -> None:
    ws = torch.zeros(2, tiny_network.config.num_ws, 8)

    with pytest.raises(UsageError, match="saved styles lie in w"):
        walk_ws(tiny_network.G_ema, ws, 4, Route("z"))
    with pytest.raises(UsageError, match="saved styles have no class"):
        walk_ws(tiny_network.G_ema, ws, 4, labels=[0])


def test_classes_must_be_as_many_as_faces(labelled: Any) -> None:
    with pytest.raises(UsageError, match="2 classes for 3 seeds"):
        walk_ws(labelled, SEEDS, 4, labels=[0, 1])


def test_w_is_refused_where_there_is_none(tiny_config_fields: dict[str, Any]) -> None:
    G = stylecli.new_network("b", **tiny_config_fields).generator

    with pytest.raises(UsageError, match="use --space z"):
        walk_ws(G, [0, 1], 4, Route("w"))
    assert np.isfinite(_walk(G, [0, 1], 4).numpy()).all()


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

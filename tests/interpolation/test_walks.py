"""Walks: key frames are the faces that generate draws, closed walks have no seam."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch

import stylecli
from stylecli.errors import UsageError
from stylecli.interpolation.walks import Route, walk_ws
from stylecli.sampling import map_seeds, truncate_ws

SEEDS = [3, 4, 5]


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
        (Route("q"), {}, "space 'q' is unknown"),  # type: ignore[arg-type]
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

"""Projection against the official trajectories, and what a search promises."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stylecli.errors import UsageError
from stylecli.features.perceptual import Distance, open_distance
from stylecli.latents.projection import (
    OFFICIAL,
    Found,
    Middle,
    Plan,
    Search,
    draw_candidates,
    latent_ws,
    measure_middle,
    noise_penalty,
)
from stylecli.latents.tuning import Tuner, Tuning
from stylecli.networks.model import Generator, new_network
from stylecli.networks.registry import build_generator
from stylecli.networks.stylegan2_config import StyleGAN2Config
from tests.conftest import FIXTURES

OFFICIAL_FILES = FIXTURES / "official"


def read(path: Path, prefix: str = "") -> dict[str, Tensor]:
    with np.load(path) as arrays:
        return {
            name.removeprefix(prefix): torch.from_numpy(arrays[name])
            for name in arrays.files
            if name.startswith(prefix)
        }


@pytest.fixture
def generator() -> Generator:
    """The generator that the official projectors ran on."""
    G = build_generator(
        StyleGAN2Config(
            resolution=32,
            z_dim=32,
            w_dim=32,
            mapping_layers=4,
            fmap_base=256,
            fmap_max=32,
            conv_clamp=None,
        )
    )
    G.load_state_dict(read(OFFICIAL_FILES / "projector_network.npz"))
    return G.eval()


class RecordedDraws:
    def __init__(self, values: dict[str, Tensor]) -> None:
        self._values = values

    def maps(self, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        return [v[None, None] for k, v in self._values.items() if k.startswith("noise_start:")]

    def shake(self, step: int, shape: tuple[int, int]) -> Tensor:
        return self._values["w_noise_standard_normal"][step].reshape(shape)


def assert_close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert (found - wanted).abs().max() <= tolerance * (wanted.max() - wanted.min())


@pytest.mark.parametrize(("name", "space"), [("w_plain", "w"), ("wplus_plain", "w+")])
def test_the_official_schedule_goes_the_official_way(
    generator: Generator, name: str, space: Any
) -> None:
    values = read(OFFICIAL_FILES / "projector.npz", f"{name}:")
    losses = values["loss_per_step"]
    plan = replace(OFFICIAL[space], steps=len(losses))
    middle = measure_middle(generator, plan.latents)
    assert_close(middle.mean, values["w_start"], 1e-5)
    assert middle.spread == pytest.approx(float(values["w_std"]), rel=1e-5)

    def stub(x: Tensor) -> list[Tensor]:
        a = F.conv2d(x, values["stub_conv1"], stride=2, padding=1).tanh()
        b = F.conv2d(a, values["stub_conv2"], stride=2, padding=1).tanh()
        return [a * values["stub_scale"], b * values["stub_scale"]]

    search = Search(
        generator.requires_grad_(False), values["target"][None] / 127.5 - 1, plan,
        Distance("stub", stub), middle, draws=RecordedDraws(values),
    )  # fmt: skip
    for step, wanted in enumerate(losses.tolist()):
        assert plan.lr_at(step) == pytest.approx(plan.lr * float(values["lr_ramp"][step]), abs=1e-7)
        far, penalty = search.step()[0].double().tolist()
        assert far + plan.noise_weight * penalty == pytest.approx(wanted, rel=1e-4)
    assert search.is_over
    found = search.found
    end = values["w_opt_per_step"][-1] if space == "w" else values["ws_end"][0]
    assert_close(found.latent[0], end, 1e-4)
    ends = [plane for key, plane in values.items() if key.startswith("noise_end:")]
    for plane, wanted_plane in zip(found.noise, ends, strict=True):
        assert_close(plane[0, 0], wanted_plane, 1e-4)
    images = generator.synthesis(latent_ws(generator, found.latent), noise=found.noise)
    assert_close(images, values["img_end"], 1e-4)  # with the optimised noise


def test_tuning_goes_the_official_way(generator: Generator) -> None:
    values = read(OFFICIAL_FILES / "projector.npz", "pti_plain:")

    def stub(x: Tensor) -> list[Tensor]:
        maps = F.conv2d(x, values["stub_conv"], stride=2, padding=1).tanh()
        return [maps / maps[0].numel() ** 0.5]

    class Recorded(Tuner):
        def locality_z(self, step: int) -> Tensor:
            return values["locality_z"][step]

    original = build_generator(generator.config).eval()
    original.load_state_dict(generator.state_dict())
    rows = values["l2_perceptual_regulariser_total"]
    tuner = Recorded(
        generator, values["pivot_ws"], values["target"],
        Tuning(steps=len(rows), locality_weight=0.1, enough=0.0), Distance("stub", stub),
        original=original,
    )  # fmt: skip
    for square, far, locality, _ in rows.tolist():
        found = tuner.step()
        assert found[:2] == (pytest.approx(square, rel=1e-4), pytest.approx(far, rel=1e-4))
        assert found[2] == pytest.approx(locality, rel=2e-3, abs=1e-8)
    assert tuner.is_over
    state = generator.state_dict()
    for key, wanted in values.items():
        if key.startswith("end:"):
            assert_close(state[key.removeprefix("end:")], wanted, 1e-4)
    with torch.no_grad():
        assert_close(generator.synthesis(values["pivot_ws"]), values["img_end"], 1e-4)


def test_tuning_stops_where_the_picture_is_near_enough(tiny_network: Any) -> None:
    G = tiny_network.generator
    ws = G.mapping(torch.randn(1, 8, generator=torch.Generator().manual_seed(0))).detach()
    with torch.no_grad():
        target = G.synthesis(ws)
    before = {key: value.clone() for key, value in G.state_dict().items()}
    tuner = Tuner(G, ws, target, Tuning(steps=5), open_distance("pyramid", "cpu"))
    assert tuner.step()[1] == 0 and tuner.is_over and tuner.step_number == 0
    assert all(torch.equal(before[key], value) for key, value in G.state_dict().items())


SMALL_R3GAN: dict[str, Any] = {"fmap_base": 128, "fmap_max": 16, "group_fmaps": 4, "z_dim": 8}
SPACES: dict[str, tuple[str, dict[str, Any]]] = {
    "w": ("f", {}), "w+": ("stylegan2", {}), "z": ("r3gan", SMALL_R3GAN),
    "w of classes": ("stylegan2", {"label_dim": 3}), "z of classes": ("a", {"label_dim": 3}),
    "w without noise": ("stylegan3-t", {}),
}  # fmt: skip


def small_network(kind: str) -> Any:
    preset, fields = SPACES[kind]
    sizes = {"fmap_base": 64, "fmap_max": 16} if preset != "r3gan" else {}
    return new_network(preset, resolution=16, seed=1, **sizes, **fields)


def start_search(
    G: Generator, kind: str, count: int = 2, start: Found | None = None, **changed: Any
) -> Search:
    targets = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    space = kind.partition(" ")[0]
    plan = Plan(space=space, steps=6, lr=0.05, warm_up=0.0, latents=50, **changed)  # type: ignore[arg-type]
    middle = measure_middle(G, 50)
    if start is None and space == "z":
        start = Found(draw_candidates(G, 3).latents[:1], [])
    return Search(
        G.requires_grad_(False), targets, plan, open_distance("pyramid", "cpu"), middle, start=start
    )


@pytest.mark.parametrize("kind", SPACES)
def test_every_family_comes_nearer_and_continues_to_the_bit(kind: str) -> None:
    G = small_network(kind).generator
    search = start_search(G, kind)
    values = [search.step()]
    state = search.state()
    again = start_search(G, kind)
    again.restore(state)
    for one in (search, again):
        while not one.is_over:
            values.append(one.step())
    assert (values[search.plan.steps - 1][:, 0] < values[0][:, 0]).all()
    assert torch.equal(search.latent, again.latent)
    for one, other in zip(search.found.noise, again.found.noise, strict=True):
        assert torch.equal(one, other)
    assert bool(search.found.noise) == G.config.has_noise
    if search.plan.space == "z":
        lengths = search.latent.norm(dim=-1)
        torch.testing.assert_close(lengths, search._length[..., 0].expand_as(lengths))


def test_noise_maps_that_are_kept_stay_the_networks() -> None:
    G = small_network("w").generator
    search = start_search(G, "w", optimise_noise=False)
    search.step()
    assert not search.found.noise


def test_the_penalty_is_that_of_neighbours_at_all_sizes() -> None:
    smooth = torch.ones(1, 1, 32, 32)
    # 32, 16 and 8 px, across and down: products of 1.
    assert noise_penalty([smooth, smooth[:, :, :4, :4]], 1).tolist() == [6.0 + 2.0]
    chess = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2.0 - 1
    assert noise_penalty([chess[None, None]], 1).tolist() == [2.0]  # its halvings are 0


@pytest.mark.parametrize(
    ("size", "side"),
    [((64, 64), 32), ((1024, 1024), 128), ((48, 64), 64), ((96, 128), 64), ((32, 32), 32)],
)
def test_pictures_are_compared_smaller_but_no_smaller_than_32_px(
    size: tuple[int, int], side: int
) -> None:
    assert Plan(smaller=2).compared_side(size) == side
    assert Plan().compared_side(size) == min(max(size), 256)


def test_a_search_that_compares_smaller_pictures_sees_no_fine_detail() -> None:
    G = new_network("f", resolution=64, fmap_base=64, fmap_max=8, z_dim=8, seed=0).generator
    chess = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1).expand(1, 3, 64, 64)
    far = []
    for target in (torch.zeros_like(chess), chess):
        search = Search(
            G, target, Plan(steps=1, smaller=2), open_distance("pyramid", "cpu"),
            Middle(torch.zeros(1, 1, G.config.w_out_dim), 1.0),
        )  # fmt: skip
        far.append(search.step()[0, 0])
    assert far[0] == far[1]


def test_candidates_find_the_face_they_drew(tiny_network: Any) -> None:
    G = tiny_network.generator
    candidates = draw_candidates(G, 30)
    with torch.no_grad():
        target = G.synthesis(latent_ws(G, candidates.latents[17:18]))
    found = candidates.nearest(target, open_distance("pyramid", "cpu"))
    assert torch.equal(found[0], candidates.latents[17])


@pytest.mark.parametrize(("kind", "space"), [("z", "w"), ("w", "z"), ("w", "v")])
def test_a_space_that_the_network_lacks_is_refused(kind: str, space: Any) -> None:
    G = small_network(kind).generator
    with pytest.raises(UsageError, match="space"):
        plan = Plan(space=space, steps=1)
        Search(G, torch.zeros(1, 3, 16, 16), plan, open_distance("pyramid", "cpu"),
               Middle(torch.zeros(1, 1, 8), 1.0))  # fmt: skip

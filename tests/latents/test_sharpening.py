"""Sharpening against the published program's parts, and what a search promises."""

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.features.perceptual import open_distance
from stylecli.images import from_uint8
from stylecli.latents import projector as keeping
from stylecli.latents.projection import adam_step
from stylecli.latents.projector import State
from stylecli.latents.sharpening import (
    Sharpener,
    Sharpening,
    Styles,
    cross_over,
    cubic_kernel,
    fit_spread,
    lr_factor,
    measure_styles,
    most_different,
    pixel_errors,
    shrink_again,
    shrink_cubic,
    to_sphere,
)
from stylecli.networks.model import new_network
from stylecli.rendering import render
from stylecli.sampling import map_seeds
from tests.conftest import FIXTURES


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """What the parts of the published program returned."""
    with np.load(FIXTURES / "official" / "pulse.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]).float() for name in arrays.files}


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its weights the stand-in tells candidates apart."""
    monkeypatch.setattr("stylecli.weights._package_file", lambda network: None)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("factor", [4, 8])
def test_pictures_shrink_as_published(published: dict[str, Tensor], factor: int) -> None:
    close(cubic_kernel(factor), published[f"bicubic:{factor}:kernel"])
    shrunk = shrink_cubic(published[f"bicubic:{factor}:in"], factor)
    close(shrunk, published[f"bicubic:{factor}:out"])


def test_the_losses_are_those_published(published: dict[str, Tensor]) -> None:
    latents = published["geocross:three:latent"].requires_grad_()
    loss = cross_over(latents).sum()
    close(loss, published["geocross:three:value"])
    (gradient,) = torch.autograd.grad(loss, latents)
    close(gradient[:, 0], published["geocross:three:grad_first_layer"])
    errors = pixel_errors(published["loss:a"], published["loss:b"])
    for bound in ("0.01", "0.2"):
        close(errors.clamp(min=float(bound)).sum(), published[f"loss:L2_eps{bound}"])


def test_points_go_downhill_on_their_spheres_as_published(published: dict[str, Tensor]) -> None:
    names = ("latent", "noise")
    points = [published[f"sphere:{name}_start"].clone() for name in names]
    lengths = [
        one.square().sum(dim=tuple(range(2, one.ndim)), keepdim=True).sqrt() for one in points
    ]
    moments = [[torch.zeros_like(one) for one in points] for _ in range(2)]
    factors = [lr_factor(step, 100) for step in range(100)]
    close(torch.tensor(factors), published["schedule:linear1cycledrop"])
    steps = len(published["sphere:latent_gradients"])
    for step in range(steps):
        gradients = [published[f"sphere:{name}_gradients"][step] for name in names]
        adam_step(points, gradients, moments, step + 1, 0.4 * lr_factor(step, 100), (0.9, 0.999))
        points = [to_sphere(one, length) for one, length in zip(points, lengths, strict=True)]
        for one, name in zip(points, names, strict=True):
            close(one, published[f"sphere:adam:{name}_per_step"][step])


def test_points_become_styles_as_published(published: dict[str, Tensor]) -> None:
    net = new_network("f", resolution=16, fmap_base=64, fmap_max=8, z_dim=8, seed=0)
    styles = Styles(net.generator, published["map:mean"], published["map:std"])
    close(styles(published["map:z"]), published["map:w"])
    for found, name in zip(fit_spread(published["fit:w"]), ("mean", "std"), strict=True):
        close(found, published[f"fit:{name}"])


def test_random_points_have_the_spread_of_w_before_its_activation(tiny_network: Any) -> None:
    G = tiny_network.generator
    styles = measure_styles(G)
    points = torch.randn(4000, 1, styles.width, generator=torch.Generator().manual_seed(0))
    found, wanted = fit_spread(styles(points)[:, 0]), fit_spread(map_seeds(G, range(2000))[:, 0])
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() < 0.1 * wanted[1].max()


def own_picture(net: Any, factor: int = 4) -> np.ndarray:
    """Return a picture of the network's own, shrunk."""
    (picture,) = render(net.generator, map_seeds(net.generator, [3]))
    small = np.zeros((picture.shape[0] // factor, picture.shape[1] // factor, 3), np.uint8)
    return shrink_again(picture, small)[0]


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "w": ("f", {"fmap_base": 64, "w_dim": 8, "mapping_layers": 2, "mapping_fmaps": 8}),
    "not square": ("stylegan2", {"fmap_base": 64, "w_dim": 8, "base": (4, 3)}),
    "z": ("a", {"fmap_base": 64}),
    "classes": ("b", {"fmap_base": 64, "label_dim": 3}),
    "r3gan": ("r3gan", {"fmap_base": 128, "group_fmaps": 4}),
    "without noise": ("stylegan3-t", {"fmap_base": 64, "w_dim": 8, "num_layers": 3}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_finds_faces_and_continues_to_the_bit(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "SAVED_EVERY_SECONDS", -1.0)
    preset, fields = KINDS[kind]
    net = new_network(preset, resolution=16, fmap_max=8, z_dim=8, seed=1, **fields)
    small = own_picture(net)
    how = Sharpening(candidates=3, starts=1, steps=5, label=1 if kind == "classes" else None)
    states: list[State] = []
    whole = Sharpener(net, how, batch=2).sharpen(small, save=states.append)
    assert len(states) == 2 * how.steps
    for state in (states[2], states[7]):  # in the first group, and in the second
        again = Sharpener(net, how, batch=2).sharpen(small, state=state)
        for one, other in zip(whole, again, strict=True):
            assert torch.equal(one.ws, other.ws) and (one.picture == other.picture).all()
            assert all(map(torch.equal, one.noise, other.noise))
    for one in whole:
        assert one.ws.shape == (net.config.num_ws, net.config.w_out_dim)
        assert one.picture.shape == (*net.config.size, 3) and one.shrunk.shape == small.shape
        far = (from_uint8(one.picture[None]) + 1) / 2
        wanted = (from_uint8(small[None]) + 1) / 2
        found = float(pixel_errors(shrink_cubic(far, 4), wanted))
        assert one.error == pytest.approx(found, rel=1e-3)
    pictures = {one.picture.tobytes() for one in whole}
    assert len(pictures) == 3  # candidates differ
    assert all(parameter.requires_grad for parameter in net.generator.parameters())


def test_a_search_comes_nearer_and_keeps_what_is_within_the_bound(tiny_network: Any) -> None:
    small = own_picture(tiny_network)
    few, many = (
        Sharpener(tiny_network, Sharpening(candidates=2, starts=1, steps=steps)).sharpen(small)
        for steps in (1, 40)
    )
    assert all(one.error < other.error for one, other in zip(many, few, strict=True))
    loose = Sharpener(
        tiny_network, Sharpening(candidates=2, starts=1, steps=40, bound=0.5)
    ).sharpen(small)
    assert all(one.error <= 0.5 for one in loose)


def test_those_that_differ_most_are_kept(tiny_network: Any) -> None:
    small, near = own_picture(tiny_network), open_distance("pyramid", "cpu")

    def least(starts: int) -> float:
        how = Sharpening(candidates=3, starts=starts, steps=20, bound=0.01)
        found = Sharpener(tiny_network, how).sharpen(small)
        errors, images = (
            [one.error for one in found],
            [from_uint8(one.picture[None]) for one in found],
        )
        assert errors == sorted(errors)
        return min(float(near(images[a], images[b])) for a, b in ((0, 1), (0, 2), (1, 2)))

    assert least(4) > least(1)


@pytest.mark.parametrize("held", [0, 1])
def test_no_exchange_makes_the_chosen_more_different(held: int) -> None:
    def least(places: list[int]) -> float:
        return min(float(far[a, b]) for a, b in combinations(places, 2))

    moved = 0
    for seed in range(10):
        points = np.random.default_rng(seed).random((9, 2))
        far = np.linalg.norm(points[:, None] - points[None], axis=2).astype(np.float32)
        chosen = most_different(far, 4, held)
        assert len(set(chosen)) == 4 and chosen[:held] == [0][:held]
        for place, other in product(range(held, 4), set(range(9)) - set(chosen)):
            assert least([*chosen[:place], other, *chosen[place + 1 :]]) <= least(chosen)
        moved += chosen[0] != 0
    assert bool(moved) is not bool(held)
    assert most_different(far, 1) == [0] and sorted(most_different(far, 9)) == list(range(9))


def test_a_grey_picture_is_compared_in_grey(tiny_network: Any) -> None:
    grey = np.array(own_picture(tiny_network)[..., :1])
    (one,) = Sharpener(tiny_network, Sharpening(candidates=1, starts=1, steps=2)).sharpen(grey)
    assert one.picture.shape[2] == 3
    luma = (from_uint8(one.picture[None]) / 2 + 0.5) * torch.tensor([0.299, 0.587, 0.114]).view(
        1, 3, 1, 1
    )
    wanted = from_uint8(grey[None]) / 2 + 0.5
    far = pixel_errors(shrink_cubic(luma, 4).sum(dim=1, keepdim=True), wanted)
    assert one.error == pytest.approx(float(far), rel=1e-4)


@pytest.mark.parametrize(
    ("shape", "word"), [((16, 16, 3), "4x4"), ((5, 5, 3), "8x8"), ((4, 4, 2), "uint8"),
                        ((4, 8, 3), "8x8"), ((1, 1, 3), "8x8")],
)  # fmt: skip
def test_pictures_that_do_not_fit_are_refused(
    tiny_network: Any, shape: tuple[int, ...], word: str
) -> None:
    with pytest.raises(UsageError, match=word):
        Sharpener(tiny_network, Sharpening()).sharpen(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("given", [{"candidates": 0}, {"steps": 0}, {"bound": 0.0}, {"starts": 0}])
def test_numbers_that_make_no_search_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        Sharpening(**given)


def test_a_class_that_is_not_there_is_refused(tiny_network: Any) -> None:
    with pytest.raises(UsageError, match="label 2"):
        Sharpener(tiny_network, Sharpening(label=2))

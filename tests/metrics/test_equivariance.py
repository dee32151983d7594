"""Equivariance: operators of the official program, and networks that do and do not move exactly."""

import math

import numpy as np
import pytest
import torch

from stylecli.errors import UsageError
from stylecli.metrics import planning
from stylecli.metrics.equivariance import limit_as_turned, rotate, shift, shift_pixels
from stylecli.metrics.evaluation import evaluate
from stylecli.networks.model import new_network
from stylecli.networks.registry import make_config
from tests.conftest import REFERENCES

TINY = {"resolution": 16, "fmap_base": 64, "fmap_max": 8, "z_dim": 8, "w_dim": 8,
        "num_layers": 4, "margin": 4}  # fmt: skip
NAMES = ("eqt_int", "eqt_frac", "eqr")
SIDE = 32
MOVES = {
    "int0": lambda x: shift_pixels(x, round(0.09375 * SIDE), round(-0.0625 * SIDE)),
    "int1": lambda x: shift_pixels(x, round(-0.25 * SIDE), round(0.5 * SIDE)),
    "frac0": lambda x: shift(x, 0.037 * SIDE, -0.0915 * SIDE),
    "frac1": lambda x: shift(x, -0.11 * SIDE, 0.02 * SIDE),
    "rot0": lambda x: rotate(x, 0.3),
    "rot1": lambda x: rotate(x, -2.1),
    "prot0": lambda x: limit_as_turned(x, 0.3),
    "prot1": lambda x: limit_as_turned(x, -2.1),
}


@pytest.mark.parametrize("name", MOVES)
def test_pictures_move_as_in_the_official_program(name):
    with np.load(REFERENCES / "equivariance.npz") as file:
        image, wanted, mask = (file[key] for key in ("image", f"{name}_out", f"{name}_mask"))
    moved, known = MOVES[name](torch.from_numpy(image))
    assert np.array_equal(np.broadcast_to(known.numpy(), mask.shape), mask > 0)
    wrong = np.abs(moved.numpy() - wanted)[mask > 0].max()
    assert wrong < 1e-5 * (wanted.max() - wanted.min())


@pytest.mark.parametrize("distance", [-40, 0, 40])
def test_what_is_shifted_out_of_the_picture_is_unknown(distance):
    images = torch.rand(1, 1, 16, 16)
    moved, known = shift_pixels(images, distance, 0)
    assert torch.equal(moved, images if not distance else torch.zeros_like(images))
    assert bool(known.all()) == (not distance) and bool(known.any()) == (not distance)
    for exact, by_lanczos in zip(
        shift_pixels(images, 3, -2), shift(images, 3.0, -2.0), strict=True
    ):
        assert exact.shape == by_lanczos.shape
    assert torch.allclose(shift(images, 3.0, -2.0)[0], shift_pixels(images, 3, -2)[0], atol=1e-6)


def trained_like(preset, **more):
    """Return a fresh network whose styles depend on w."""
    net = new_network(preset, seed=0, **TINY, **more)
    with torch.no_grad():
        net.G_ema.synthesis.input.weight.normal_(generator=torch.Generator().manual_seed(1))
    return net


def measure(names, net, **how):
    found = evaluate(names, net, samples=4, device="cpu", cache=False, **how)
    return {one.name: one.value for one in found}


def test_pictures_that_move_with_the_input_are_told_from_others(monkeypatch):
    net = trained_like("stylegan3-r")
    exact = measure(NAMES, net)
    assert list(exact) == ["eqt_int@4", "eqt_frac@4", "eqr@4"]
    monkeypatch.setattr(type(net.G_ema), "move_pictures", lambda *given: None)
    ignored = measure(NAMES, net)
    assert all(ignored[name] < exact[name] - 15 for name in exact), (ignored, exact)


def test_wide_pictures_move_by_shares_of_both_sides(monkeypatch):
    net = trained_like("stylegan3-t", base=(3, 4))
    exact = measure(NAMES[:2], net)
    with pytest.raises(UsageError, match="square"):
        measure(["eqr"], net)
    monkeypatch.setattr(type(net.G_ema), "move_pictures", lambda *given: None)
    ignored = measure(NAMES[:2], net)
    assert all(ignored[name] < exact[name] - 15 for name in exact), (ignored, exact)


def test_each_number_is_the_same_beside_others_and_the_network_stays_as_it_was():
    net = trained_like("stylegan3-t")
    before = net.G_ema.synthesis.input.transform.clone()
    together = measure(NAMES, net)
    assert {name: measure([name], net)[f"{name}@4"] for name in NAMES} == {
        name.partition("@")[0]: value for name, value in together.items()
    }
    assert torch.equal(net.G_ema.synthesis.input.transform, before)


def test_names_say_the_count_and_others_are_refused():
    config = make_config("stylegan3-t")
    named = {"dataset_size": 0, "config": config, "gpu": False}
    for name in ("eqt50k_int", "eqt50k_frac", "eqr50k"):
        assert [task.name for task in planning.plan([name], None, **named)] == [name]
        (few,) = planning.plan([name], 100, **named)
        assert few.name == f"{name.replace('50k', '')}@100"
        with pytest.raises(UsageError, match=f"{name} needs a network that can move"):
            planning.plan([name], None, dataset_size=0, config=make_config("f"), gpu=False)
    (truncated,) = planning.plan(["eqr"], 9, psi=0.7, **named)
    assert "without truncation" in truncated.skipped


def test_rotation_by_nothing_only_limits_frequencies():
    ramp = torch.linspace(-1, 1, 64)
    waves = torch.sin(8 * math.pi * ramp)[None, None, None, :].expand(1, 1, 64, 64)
    turned, known = rotate(waves, 0.0)
    assert float((turned - waves)[..., known].abs().max()) < 0.02

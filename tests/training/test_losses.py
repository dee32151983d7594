"""Losses and penalties equal the official values; in float16 their scale finds its way."""

import contextlib
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stylecli.checkpoint import load_network
from stylecli.networks.model import asked_lod, new_network
from stylecli.networks.registry import build_discriminator, make_config
from stylecli.ops.cuda.launches import set_backend
from stylecli.training.config import TrainingConfig
from stylecli.training.losses import (
    FIRST_SCALE,
    STEPS_TO_GROW,
    D_loss,
    G_loss,
    LossScaler,
    gradient_penalty,
    squared_gradient,
)
from stylecli.training.schedule import Stage
from stylecli.training.step import TrainingStep
from tests.conftest import FIXTURES

OFFICIAL = FIXTURES / "official"
TORCH_NAMES = {"4x4/Conv/weight": "head.conv.weight", "16x16/Conv1_down/weight":
               "blocks.1.conv1_down.weight", "FromRGB_lod0/weight": "from_rgb.2.weight",
               "16x16/Conv0/bias": "blocks.1.conv0.bias", "4x4/Dense0/bias": "head.dense0.bias",
               "4x4/Dense1/weight": "head.dense1.weight"}  # fmt: skip
STAGE = Stage(lod=0.5, resolution=16, batch=8, lr=0.003, tick_kimg=1)


@pytest.fixture
def case() -> tuple[Any, dict[str, torch.Tensor]]:
    D = load_network(OFFICIAL / "stylegan1_labels_G_D_Gs.pkl").D
    with np.load(OFFICIAL / "stylegan1_labels_D_io.npz") as file:
        io = {key: torch.from_numpy(file[key]) for key in file}
    return lambda x: D(x, io["labels8"]), {**io, "D": D}


def test_losses_without_penalties(case: Any) -> None:
    D, io = case
    real, fake = D(io["d_images"]).detach(), D(io["loss_fakes"]).detach()
    names = {"logistic_nonsaturating": "logistic", "logistic_saturating": "logistic-saturating",
             "wgan": "wgan-gp"}  # fmt: skip
    for official, ours in names.items():
        wanted = io[f"loss_G_{official}"].mean()
        assert torch.isclose(G_loss(ours, fake).mean(), wanted, rtol=1e-5)
    for official, ours in {"logistic": "logistic", "wgan": "wgan-gp", "hinge": "hinge"}.items():
        wanted = io[f"loss_D_{official}"].mean()
        assert torch.isclose(D_loss(ours, real, fake).mean(), wanted, rtol=1e-5)


def test_r1_and_r2(case: Any) -> None:
    D, io = case
    reals, fakes = (io[name].requires_grad_() for name in ("d_images", "loss_fakes"))
    real_logits, fake_logits = D(reals), D(fakes)
    r1, r2 = squared_gradient(real_logits, reals), squared_gradient(fake_logits, fakes)
    assert torch.allclose(r1, io["r1_penalty_per_sample"], rtol=1e-4)
    total = (D_loss("logistic", real_logits, fake_logits) + 5 / 2 * r1 + 3 / 2 * r2).mean()
    assert torch.isclose(total, io["loss_D_logistic_r1_5_r2_3"].mean(), rtol=1e-4)


def test_gradient_penalties(case: Any) -> None:
    D, io = case
    reals, fakes = io["d_images"], io["loss_fakes"]
    penalty = gradient_penalty(D, reals, fakes, io["loss_wgan_mixing"])
    for official, ours in (("wgan_gp", "wgan-gp"), ("hinge_gp", "hinge-gp")):
        total = (D_loss(ours, D(reals), D(fakes)) + penalty).mean()
        assert torch.isclose(total, io[f"loss_D_{official}"].mean(), rtol=1e-4)


def test_weight_gradients_through_r1(case: Any) -> None:
    D, io = case
    reals = io["d_images"].requires_grad_()
    logits = D(reals)
    penalty = squared_gradient(logits, reals).mean()
    (D_loss("logistic", logits, D(io["loss_fakes"])).mean() + 5 * penalty).backward()
    parameters = dict(io["D"].named_parameters())
    checked = [key for key in io if key.startswith("gradD_r1_gamma10:")]
    assert len(checked) >= 4
    for key in checked:
        wanted = io[key]
        wanted = wanted.permute({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[wanted.ndim])
        found = parameters[TORCH_NAMES[key.split(":")[1]]].grad
        assert (found - wanted).abs().max() <= 1e-3 * wanted.abs().max(), key


def test_penalty_on_small_images_is_that_of_the_upscaled_ones(tiny_network: Any) -> None:
    small = torch.randn(4, 3, 8, 8, requires_grad=True)
    full = torch.nn.functional.interpolate(small.detach(), scale_factor=2).requires_grad_()
    ours = squared_gradient(tiny_network.D(small, lod=1), small, 4)
    assert torch.allclose(ours, squared_gradient(tiny_network.D(full, lod=1), full), rtol=1e-3)


class Kernels(TorchDispatchMode):
    """Writes down the sides of the kernels of all convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.sides.append(max(args[1].shape[2:]))
        if func is torch.ops.aten.convolution_backward.default:
            self.sides.append(max(args[2].shape[2:]))
        return func(*args, **(kwargs or {}))


class NothingRuns:
    """Launches of a device that only has shapes."""

    def launch(self, record: Any) -> None:
        pass


@pytest.mark.parametrize("backend", [None, NothingRuns()], ids=["plain", "kernels"])
@pytest.mark.parametrize("penalty", ["r1", "gp"])
@pytest.mark.parametrize("config", ["f", "stylegan2", "r3gan"])
def test_no_convolution_of_a_penalty_has_kernels_as_large_as_pictures(
    config: str, backend: Any, penalty: str, monkeypatch: Any
) -> None:
    """On an accelerator, whose libraries have none: here "meta", a device without numbers.

    A family whose D is new has a row here.
    """
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    before = set_backend("meta", backend)
    try:
        with torch.device("meta"):
            D = build_discriminator(make_config(config, resolution=256))
            images = torch.empty(8, 3, 256, 256, requires_grad=True)
            lod = asked_lod(D.config, 0.5 if D.config.grows else None)
            with Kernels() as seen:
                logits = D(images, **lod)
                if penalty == "r1":
                    squared = squared_gradient(logits, images)
                else:
                    mixing = torch.empty(8, 1, 1, 1)
                    squared = gradient_penalty(lambda x: D(x, **lod), images, images, mixing)
                (logits.sum() + squared.sum()).backward()
    finally:
        set_backend("meta", before)

    grads = {name: parameter.grad for name, parameter in D.named_parameters()}
    assert config != "f" or grads["blocks.5.conv0.weight"] is not None
    assert sum(grad is not None for grad in grads.values()) > 20
    assert len(seen.sides) > 50
    assert max(seen.sides) <= 4


def make_step(fields: dict[str, Any], precision: str) -> TrainingStep:
    config = TrainingConfig(precision=precision, r1_gamma=1.0)
    step = TrainingStep(new_network(seed=0, **fields), config)
    step.set_stage(STAGE, reset=False)
    return step


def reals() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=generator)


GOOD, BAD = torch.tensor(True), torch.tensor(False)


def test_the_scale_halves_on_overflow_and_doubles_after_many_good_steps() -> None:
    scaler = LossScaler("fp16")
    scaler.update(BAD)
    assert scaler.scale == FIRST_SCALE / 2
    for _ in range(STEPS_TO_GROW):
        scaler.update(GOOD)
    assert scaler.scale == FIRST_SCALE


def test_other_precisions_are_not_scaled() -> None:
    scaler = LossScaler("bf16")
    scaler.update(BAD)
    assert scaler.scale is None and scaler.state()["scale"] == 1.0


def test_the_state_comes_back() -> None:
    scaler, restored = LossScaler("fp16"), LossScaler("fp16")
    scaler.update(BAD)
    scaler.update(GOOD)
    restored.restore(scaler.state())
    assert restored.state() == scaler.state()


def test_a_step_in_float16_goes_nearly_the_same_way(tiny_config_fields: dict[str, Any]) -> None:
    """The gradients are divided by the scale again, and the penalty is of unscaled logits."""
    exact, half = make_step(tiny_config_fields, "float32"), make_step(tiny_config_fields, "fp16")
    for scaler in (half.scaler_D, half.scaler_G):
        scaler.restore({"scale": 1024.0, "good_steps": 0, "enabled": True})
    for step in (exact, half):
        step(reals(), None, STAGE, 0)

    difference = (half.flat_D.grad - exact.flat_D.grad).norm() / exact.flat_D.grad.norm()
    assert 0 < float(difference) < 0.05
    penalties = [step.take_statistics()["r1_penalty"] for step in (exact, half)]
    assert abs(penalties[1] / penalties[0] - 1) < 0.05


def test_an_overflow_leaves_the_step_out_and_lowers_the_scale(
    tiny_config_fields: dict[str, Any],
) -> None:
    step = make_step(tiny_config_fields, "fp16")
    # No float16 gradient survives this.
    step.scaler_D.restore({"scale": 2.0**24, "good_steps": 0, "enabled": True})
    before = step.flat_D.data.clone()
    step(reals(), None, STAGE, 0)

    assert torch.equal(step.flat_D.data, before)
    assert step.scaler_D.scale == 2.0**23
    assert step.take_statistics()["skipped_steps"] >= 1

"""Loss scaling for float16: the scale finds its way, and a step is nearly a whole one."""

from typing import Any

import torch

from stylecli.networks.bundle import new_network
from stylecli.training.config import TrainingConfig
from stylecli.training.optimizer import FIRST_SCALE, STEPS_TO_GROW, LossScaler
from stylecli.training.schedule import Stage
from stylecli.training.step import TrainingStep

STAGE = Stage(lod=0.5, resolution=16, batch=8, lr=0.003, tick_kimg=1)


def make_step(fields: dict[str, Any], precision: str) -> TrainingStep:
    config = TrainingConfig(precision=precision, r1_gamma=1.0)
    step = TrainingStep(new_network(seed=0, **fields), config)
    step.set_stage(STAGE, reset=False)
    return step


def reals() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=generator)


def test_the_scale_halves_on_overflow_and_doubles_after_many_good_steps() -> None:
    scaler = LossScaler.for_precision("fp16")
    scaler.update(finite=False)
    assert scaler.scale == FIRST_SCALE / 2
    for _ in range(STEPS_TO_GROW):
        scaler.update(finite=True)
    assert scaler.scale == FIRST_SCALE


def test_other_precisions_are_not_scaled() -> None:
    scaler = LossScaler.for_precision("bf16")
    scaler.update(finite=False)
    assert scaler.scale == 1.0


def test_the_state_comes_back() -> None:
    scaler, restored = LossScaler.for_precision("fp16"), LossScaler.for_precision("fp16")
    scaler.update(finite=False)
    scaler.update(finite=True)
    restored.restore(scaler.state())
    assert restored == scaler


def test_a_step_in_float16_goes_nearly_the_same_way(tiny_config_fields: dict[str, Any]) -> None:
    """The gradients are divided by the scale again, and the penalty is of unscaled logits."""
    exact, half = make_step(tiny_config_fields, "float32"), make_step(tiny_config_fields, "fp16")
    half.scaler_D.scale = half.scaler_G.scale = 1024.0
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
    step.scaler_D.scale = 2.0**24  # no float16 gradient survives this
    before = step.flat_D.data.clone()
    step(reals(), None, STAGE, 0)

    assert torch.equal(step.flat_D.data, before)
    assert step.scaler_D.scale == 2.0**23
    assert step.take_statistics()["skipped_steps"] >= 1

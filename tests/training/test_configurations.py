"""Every configuration of the paper trains: a step of both networks at every stage of growth."""

import pytest
import torch

from stylecli.networks.bundle import new_network
from stylecli.networks.stylegan1_config import PRESETS
from stylecli.training.presets import TrainingPlan, plan_training
from stylecli.training.schedule import list_stages, stage_at
from stylecli.training.step import TrainingStep

TINY = {"z_dim": 8, "w_dim": 8, "mapping_fmaps": 8, "fmap_base": 64, "fmap_max": 8}


def make_step(plan: TrainingPlan) -> TrainingStep:
    fields = plan.network.to_dict()
    preset = fields.pop("preset")
    del fields["family"]
    return TrainingStep(new_network(preset, seed=0, **fields), plan.training)


@pytest.mark.parametrize("preset", ["small", "paper"])
@pytest.mark.parametrize("config", PRESETS)
def test_a_step_at_every_stage_moves_both_networks(config: str, preset: str) -> None:
    plan = plan_training(preset, config=config, resolution=32, batch=4, network=TINY)
    step = make_step(plan)
    stages = list_stages(plan.training, 32)
    assert [(stage.resolution, stage.fading) for stage in stages] == [
        (8, False), (16, True), (16, False), (32, True), (32, False)
    ]  # fmt: skip
    for number, planned in enumerate(stages):
        middle = (planned.from_kimg + planned.to_kimg) / 2
        stage = stage_at(plan.training, 32, round(middle * 1000))
        before = step.flat_G.data.clone(), step.flat_D.data.clone(), step.flat_ema.data.clone()
        side = stage.resolution
        images = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8)
        step.set_stage(stage, reset=number > 0)
        step(images, None, stage, number)
        after = step.flat_G.data, step.flat_D.data, step.flat_ema.data
        # The average of the first step is of weights that have not moved yet.
        moved = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
        assert moved == [True, True, number > 0]
        assert all(bool(torch.isfinite(new).all()) for new in after)
    assert step.take_statistics()["skipped_steps"] == 0

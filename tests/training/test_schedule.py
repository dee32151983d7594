"""The growing schedule equals the official one."""

import json
from typing import Any

import pytest

from stylecli.training.config import TrainingConfig
from stylecli.training.schedule import resets_optimizer, schedule_at
from tests.conftest import FIXTURES

CASES = json.loads((FIXTURES / "official" / "training_schedule.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['resolution']}px")
def test_official_rows(case: dict[str, Any]) -> None:
    given = case["kwargs"]
    config = TrainingConfig(
        initial_resolution=given.get("lod_initial_resolution", 4),
        batch=given.get("minibatch_dict", {}),
        batch_base=given.get("minibatch_base", 16),
        lr=given.get("G_lrate_dict", {}),
    )
    for row in case["rows"]:
        stage = schedule_at(config, case["resolution"], row["cur_nimg"])
        assert stage.lod == pytest.approx(row["lod"], abs=1e-9)
        found = (stage.resolution, stage.batch, stage.lr, stage.tick_kimg)
        assert found == (row["resolution"], row["minibatch"], row["G_lrate"], row["tick_kimg"])


def test_paper_defaults_at_1024() -> None:
    config = TrainingConfig()
    lods = {kimg: schedule_at(config, 1024, kimg * 1000).lod for kimg in (0, 900, 7800, 8400)}
    assert lods == {0: 7.0, 900: 6.5, 7800: 1.0, 8400: 0.0}


def test_optimizers_reset_at_both_ends_of_a_fade() -> None:
    config = TrainingConfig(hold_kimg=1, fade_kimg=1)
    stages = [schedule_at(config, 32, nimg) for nimg in range(0, 6000, 250)]
    resets = [
        index * 250
        for index, (before, now) in enumerate(zip([None, *stages], stages, strict=False))
        if resets_optimizer(before, now)
    ]
    assert resets == [1250, 2000, 3250, 4000]

"""Measured stages: all that a schedule has, with passes and memory; the largest batch by search."""

from pathlib import Path
from typing import Any

import pytest
import torch

from stylecli.distributed.ranks import Ranks
from stylecli.networks.registry import make_config
from stylecli.training import costs
from stylecli.training.config import Session, TrainingConfig
from stylecli.training.costs import (
    budget_stages,
    largest_fitting,
    measure_largest_batch,
    measure_stages,
)
from stylecli.training.run_folder import RunSettings, create_run

CONFIG = TrainingConfig(total_kimg=1, hold_kimg=0.1, fade_kimg=0.1, batch={8: 16}, batch_base=8)


@pytest.fixture
def run(tmp_path: Path, tiny_config_fields: Any, monkeypatch: Any) -> Path:
    monkeypatch.setattr(costs, "SECONDS_PER_STAGE", 0.0)
    network = make_config("f", **tiny_config_fields)
    create_run(tmp_path / "run", RunSettings(network, CONFIG, Path(), ""))
    return tmp_path / "run"


def test_every_stage_is_measured(run: Path, tiny_config_fields: Any) -> None:
    costs = measure_stages(run, session=Session(batch_gpu=8))

    assert list(costs) == [(8, False), (16, True), (16, False)]
    assert [(cost.batch, cost.passes) for cost in costs.values()] == [(16, 2), (8, 1), (8, 1)]
    assert all(cost.seconds_per_image > 0 and cost.memory_mib > 0 for cost in costs.values())
    settings = RunSettings(make_config("f", **tiny_config_fields), CONFIG, Path(), "")
    budgets = budget_stages(settings, costs)
    assert sum(budget.kimg for budget in budgets) == pytest.approx(1.0)
    assert budgets[1].name == "16 px fading in"


def test_only_what_is_asked_for_is_measured(run: Path) -> None:
    assert list(measure_stages(run, only=lambda stage: stage[0] == 8)) == [(8, False)]


def test_memory_grows_with_the_batch_and_is_shared(run: Path) -> None:
    one = measure_largest_batch(run)
    two = measure_largest_batch(run, processes=2)

    if one is None or two is None:
        pytest.skip("this system does not tell its memory")
    assert one.estimated
    assert one.images % 4 == 0
    assert two.memory_mib < 0.75 * one.memory_mib


@pytest.mark.parametrize("largest", [0, 3, 4, 37, 64, 100, 4096, 9999])
def test_the_search_finds_the_largest_multiple_of_a_group(largest: int) -> None:
    tried: list[int] = []

    def fits(batch: int) -> bool:
        tried.append(batch)
        return batch <= largest

    assert largest_fitting(fits, 4, 4096) == min(largest // 4 * 4, 4096)
    assert len(tried) < 25


def test_a_batch_without_memory_does_not_fit(run: Path, monkeypatch: Any) -> None:
    def limited(images: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return scores(images, lod=0.0)

    meter = costs._Meter(run, Ranks(), Session())
    scores = meter.step.D.forward
    monkeypatch.setattr(meter.step.D, "forward", limited)

    assert meter.fits(4) and not meter.fits(8)

"""The growing schedule equals the official one; its list of stages, and the time they take."""

import json
from typing import Any

import pytest

from stylecli.networks.registry import make_config
from stylecli.training.config import TrainingConfig
from stylecli.training.schedule import (
    TimeLeft,
    grown_kimg,
    image_cost,
    list_sides,
    list_stages,
    resets_optimizer,
    stage_at,
)
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
        stage = stage_at(config, case["resolution"], row["cur_nimg"])
        assert stage.lod == pytest.approx(row["lod"], abs=1e-9)
        found = (stage.resolution, stage.batch, stage.lr, stage.tick_kimg)
        assert found == (row["resolution"], row["minibatch"], row["G_lrate"], row["tick_kimg"])


def test_paper_defaults_at_1024() -> None:
    config = TrainingConfig()
    lods = {kimg: stage_at(config, 1024, kimg * 1000).lod for kimg in (0, 900, 7800, 8400)}
    assert lods == {0: 7.0, 900: 6.5, 7800: 1.0, 8400: 0.0}


def test_optimizers_reset_at_both_ends_of_a_fade() -> None:
    config = TrainingConfig(hold_kimg=1, fade_kimg=1)
    stages = [stage_at(config, 32, nimg) for nimg in range(0, 6000, 250)]
    resets = [
        index * 250
        for index, (before, now) in enumerate(zip([None, *stages], stages, strict=False))
        if resets_optimizer(before, now)
    ]
    assert resets == [1250, 2000, 3250, 4000]


def test_the_papers_schedule_at_1024_px() -> None:
    stages = list_stages(TrainingConfig(), 1024)
    found = [(s.resolution, s.fading, s.from_kimg, s.to_kimg) for s in stages]
    assert found[:3] == [(8, False, 0, 600), (16, True, 600, 1200), (16, False, 1200, 1800)]
    assert found[-2:] == [(1024, True, 7800, 8400), (1024, False, 8400, 25_000)]
    assert grown_kimg(TrainingConfig(), 1024) == 8400
    assert [s.batch for s in stages if not s.fading] == [128, 128, 64, 32, 16, 8, 4, 4]


def test_every_stage_is_the_schedules_and_they_leave_no_gap() -> None:
    config = TrainingConfig(hold_kimg=0.7, fade_kimg=0.3, total_kimg=9.0, initial_resolution=4)
    stages = list_stages(config, 64)
    for stage in stages:
        at = stage_at(config, 64, round((stage.from_kimg + stage.to_kimg) / 2 * 1000))
        assert (at.resolution, bool(at.fade)) == (stage.resolution, stage.fading)
    assert [s.to_kimg for s in stages[:-1]] == [s.from_kimg for s in stages[1:]]


def test_growth_begins_no_larger_than_the_network() -> None:
    config = TrainingConfig(initial_resolution=8)
    assert list_sides(config, 32) == [8, 16, 32]
    assert list_sides(config, 4) == [4]


def test_stages_beyond_the_length_are_marked() -> None:
    stages = list_stages(TrainingConfig(total_kimg=1000.0), 32)
    assert [stage.reached for stage in stages] == [True, True, False, False, False]


def test_a_schedule_without_holding_only_fades() -> None:
    stages = list_stages(TrainingConfig(hold_kimg=0.0, fade_kimg=1.0, total_kimg=9.0), 32)
    assert [(s.resolution, s.fading) for s in stages] == [(16, True), (32, True), (32, False)]


CONFIG = TrainingConfig(total_kimg=100, hold_kimg=10, fade_kimg=10, batch={}, batch_base=16)
NETWORK = make_config("f", resolution=32, fmap_base=256, fmap_max=64)
COSTS = {(8, False): 1.0, (16, True): 2.0, (16, False): 2.5, (32, True): 5.0, (32, False): 6.0}


def simulate(until: float) -> tuple[TimeLeft, float | None]:
    """Train to ``until`` kimg at known costs in seconds per kimg; return the estimator's word."""
    now = 0.0
    left = TimeLeft(CONFIG, NETWORK, clock=lambda: now)
    done, said = 0.0, left(0.0)
    while done < until:
        stage = stage_at(CONFIG, 32, round(done * 1000))
        now += 0.5 * COSTS[stage.resolution, stage.fade > 0]
        done += 0.5
        said = left(done)
    return left, said


def test_a_short_schedule_ends_where_it_ends() -> None:
    short = TrainingConfig(total_kimg=15, hold_kimg=10, fade_kimg=10)
    stages = [(s.key, s.to_kimg) for s in list_stages(short, 32) if s.reached]
    assert stages == [((8, False), 10), ((16, True), 15)]


def test_what_was_measured_counts_as_measured() -> None:
    _, said = simulate(45.0)  # every stage has been seen
    assert said == pytest.approx(55 * COSTS[32, False], rel=0.02)


def test_later_stages_are_expected_to_cost_more() -> None:
    """At 8 px the rate of today would say 96 s; the truth is 520 s."""
    _, said = simulate(4.0)
    assert said is not None
    assert 200 < said < 1000


def test_a_pause_before_ctrl_c_does_not_stretch_the_time_left() -> None:
    """Asked to stop while a snapshot was measured, a run said "about 112d18h left" at its end."""
    now = 0.0
    left = TimeLeft(CONFIG, NETWORK, clock=lambda: now)
    left(45.0)
    said: float | None = None
    for step in range(1, 6):
        now += 0.1 * COSTS[32, False] * (1 if step < 5 else 3000)
        now += 1.0 if step < 5 else 0.0
        said = left(45.0 + 0.1 * step)
    assert said == pytest.approx(54.5 * (COSTS[32, False] + 10), rel=0.05)


def test_pauses_that_repeat_are_expected_at_every_snapshot() -> None:
    now = 0.0
    left = TimeLeft(CONFIG, NETWORK, clock=lambda: now)
    said = left(45.0)
    for step in range(1, 100):
        now += 0.1 * COSTS[32, False] + (100.0 if step % 33 == 0 else 0.0)
        said = left(45.0 + 0.1 * step)
    remaining = 100 - 54.9
    ticks = remaining / list_stages(CONFIG, 32)[-1].tick_kimg
    pauses = 100 * ticks / CONFIG.snapshot_ticks
    assert said == pytest.approx(remaining * COSTS[32, False] + pauses, rel=0.05)


def test_nothing_is_said_before_something_is_known() -> None:
    _, said = simulate(0.5)
    assert said is None


def test_work_grows_with_resolution_and_with_fading() -> None:
    costs = [image_cost(NETWORK, CONFIG, key) for key in COSTS]
    assert costs[0] < costs[2] < costs[1] < costs[4] < costs[3]

"""The list of stages says what the schedule function does."""

from stylecli.training.config import TrainingConfig
from stylecli.training.schedule import schedule_at
from stylecli.training.stage_table import grown_kimg, list_stages


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
        at = schedule_at(config, 64, round((stage.from_kimg + stage.to_kimg) / 2 * 1000))
        assert (at.resolution, bool(at.fade)) == (stage.resolution, stage.fading)
    assert [s.to_kimg for s in stages[:-1]] == [s.from_kimg for s in stages[1:]]


def test_stages_beyond_the_length_are_marked() -> None:
    stages = list_stages(TrainingConfig(total_kimg=1000.0), 32)
    assert [stage.reached for stage in stages] == [True, True, False, False, False]


def test_a_schedule_without_holding_only_fades() -> None:
    stages = list_stages(TrainingConfig(hold_kimg=0.0, fade_kimg=1.0, total_kimg=9.0), 32)
    assert [(s.resolution, s.fading) for s in stages] == [(16, True), (32, True), (32, False)]

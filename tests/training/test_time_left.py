"""The time left of a run whose later stages cost more."""

import pytest

from stylecli.networks.config import make_config
from stylecli.training.config import TrainingConfig
from stylecli.training.schedule import schedule_at
from stylecli.training.time_left import TimeLeft, growth_spans, image_cost

CONFIG = TrainingConfig(total_kimg=100, hold_kimg=10, fade_kimg=10, batch={}, batch_base=16)
NETWORK = make_config("f", resolution=32, fmap_base=256, fmap_max=64)
COSTS = {(8, False): 1.0, (16, True): 2.0, (16, False): 2.5, (32, True): 5.0, (32, False): 6.0}


def simulate(until: float) -> tuple[TimeLeft, float | None]:
    """Train to ``until`` kimg at known costs in seconds per kimg; return the estimator's word."""
    now = 0.0
    left = TimeLeft(CONFIG, NETWORK, clock=lambda: now)
    done, said = 0.0, left(0.0)
    while done < until:
        stage = schedule_at(CONFIG, 32, round(done * 1000))
        now += 0.5 * COSTS[stage.resolution, stage.fade > 0]
        done += 0.5
        said = left(done)
    return left, said


def test_spans_are_those_of_the_schedule() -> None:
    spans = list(growth_spans(CONFIG, 32))
    assert [key for key, _, _ in spans] == list(COSTS)
    assert spans[0][1] == 0
    assert spans[-1][2] == CONFIG.total_kimg
    for (side, fading), start, end in spans:
        middle = schedule_at(CONFIG, 32, round((start + end) / 2 * 1000))
        assert (middle.resolution, middle.fade > 0) == (side, fading)


def test_a_short_schedule_ends_where_it_ends() -> None:
    short = TrainingConfig(total_kimg=15, hold_kimg=10, fade_kimg=10)
    assert [(key, end) for key, _, end in growth_spans(short, 32)] == [
        ((8, False), 10), ((16, True), 15)
    ]  # fmt: skip


def test_what_was_measured_counts_as_measured() -> None:
    _, said = simulate(45.0)  # every stage has been seen
    assert said == pytest.approx(55 * COSTS[32, False], rel=0.02)


def test_later_stages_are_expected_to_cost_more() -> None:
    """At 8 px the rate of today would say 96 s; the truth is 520 s."""
    _, said = simulate(4.0)
    assert said is not None
    assert 200 < said < 1000


def test_nothing_is_said_before_something_is_known() -> None:
    _, said = simulate(0.5)
    assert said is None


def test_work_grows_with_resolution_and_with_fading() -> None:
    costs = [image_cost(NETWORK, CONFIG, key) for key in COSTS]
    assert costs[0] < costs[2] < costs[1] < costs[4] < costs[3]

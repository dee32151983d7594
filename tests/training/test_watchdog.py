"""The watchdog is silent on runs that went well and names what is wrong with others."""

import json
import math
from typing import Any

import pytest

from stylecli.training.config import TrainingConfig
from stylecli.training.watchdog import Finding, Watchdog, find_rising
from tests.conftest import FIXTURES

CONFIG = TrainingConfig(r1_gamma=1.0, ema_kimg=10.0)
HEALTHY = sorted((FIXTURES / "runs" / "healthy").glob("*.jsonl"))
FAILED = sorted((FIXTURES / "runs" / "failed").glob("*.jsonl"))


def ticks(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Rows of a healthy run; a change is a value, or a list of the last ticks' values."""
    rows = [
        {"tick": tick, "nimg": tick * 10_000, "lr": 0.003, "batch": 16, "steps": 625,
         "loss_G": 2.1, "loss_D": 0.6, "real_logits": 1.5, "fake_logits": -1.6,
         "skipped_steps": 0.0, "diversity": 0.9, "loader_share": 0.01}
        for tick in range(1, count + 1)
    ]  # fmt: skip
    for name, values in changes.items():
        for row, value in zip(rows[-len(values) :], values, strict=True):
            row[name] = value
    return rows


def findings(rows: list[dict[str, Any]], config: TrainingConfig = CONFIG) -> list[Finding]:
    watchdog = Watchdog(config)
    return [finding for row in rows for finding in watchdog.look(row)]


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_it_is_silent_on_runs_that_went_well(path: Any) -> None:
    """Statistics of real runs at 8 to 32 px, every stage of growth, see docs/training.md."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]

    assert len(rows) >= 25
    assert findings(rows) == []


@pytest.mark.parametrize("path", FAILED, ids=lambda path: path.stem)
def test_it_names_what_was_wrong_with_runs_that_failed(path: Any) -> None:
    """Statistics of real runs that were made to fail by a learning rate, or without a penalty."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    names = {"saturating": "logistic-saturating", "wgan-gp": "wgan-gp"}
    loss = next((names[word] for word in names if word in path.stem), "logistic")
    found = findings(rows, TrainingConfig(loss=loss, r1_gamma=0.0))

    assert path.stem.startswith(found[0].kind)


def test_losses_that_are_not_finite_are_named() -> None:
    [found] = findings(ticks(4, loss_G=[math.nan]))

    assert str(found) == "loss_G is not finite at 40 kimg: try a lower --lr (now 0.003)"


def test_skipped_updates_are_named_when_they_are_many() -> None:
    assert findings(ticks(4, skipped_steps=[2.0])) == []
    [found] = findings(ticks(4, skipped_steps=[625.0]))
    assert found.text.startswith("50% of the updates had gradients that are not finite")


def test_reduced_precision_is_the_first_suspect() -> None:
    [found] = findings(ticks(4, loss_D=[math.inf]), TrainingConfig(precision="bf16"))

    assert found.advice.startswith("try --precision float32 (now bf16)")


def test_a_winning_discriminator_is_named() -> None:
    gap = {"real_logits": [6.0, 7.0, 8.0], "fake_logits": [-6.0, -7.0, -8.0]}
    [found] = findings(ticks(8, loss_G=[6.0, 7.0, 8.0], **gap))

    assert found.kind == "D-winning"
    assert "16 apart (above 10 for 3 ticks) and loss_G is 8" in found.text
    assert "--gamma 4 (now 1)" in found.advice


def test_a_discriminator_that_gives_way_again_is_not_winning() -> None:
    gap = {"real_logits": [9.0, 7.0, 5.5], "fake_logits": [-9.0, -7.0, -5.5]}

    assert findings(ticks(3, loss_G=[9.0, 7.0, 5.5], **gap)) == []


def test_logits_of_other_losses_have_no_bound() -> None:
    gap = {"real_logits": [60.0] * 3, "fake_logits": [-60.0] * 3}

    assert findings(ticks(8, **gap), TrainingConfig(loss="wgan-gp")) == []


def test_a_collapse_is_measured_against_the_past_and_against_the_reals() -> None:
    [found] = findings(ticks(12, diversity=[0.3, 0.2, 0.1]))
    assert found.kind == "collapse"
    assert "has fallen to 0.10 of the real pictures', from 0.90" in found.text

    assert findings(ticks(12, diversity=[0.44, 0.44, 0.44])) == []  # half of the past, but varied


def test_pictures_that_never_differed_are_a_collapse_too() -> None:
    rows = ticks(12, diversity=[0.01] * 12)

    [found] = findings(rows)
    assert found.text.startswith("the pictures collapse at 50 kimg")  # 3 ticks after 30 kimg
    assert "does not grow" in found.text


def test_a_lasting_finding_is_told_now_and_then() -> None:
    rows = ticks(45, diversity=[0.01] * 45)

    assert len(findings(rows)) == 3


def test_waiting_for_pictures_is_no_reason_to_end_a_run() -> None:
    [found] = findings(ticks(5, loader_share=[0.5, 0.5, 0.4]))

    assert found.text == "training waits for pictures 40% of the time"
    assert not found.ends_run


def measured(*values: float, std: float = 0.002, **more: Any) -> list[dict[str, Any]]:
    return [
        {"name": "kid", "nimg": 1000 * (index + 1), "value": value, "std": std, **more}
        for index, value in enumerate(values)
    ]


def test_a_metric_that_keeps_rising_is_named_with_its_best() -> None:
    found = find_rising(measured(0.03, 0.01, 0.013, 0.014, 0.015))

    assert found is not None
    assert found.text == "kid rises: 0.015 at 5 kimg, its best was 0.01 (spread 0.002) at 2 kimg"


@pytest.mark.parametrize(
    "rows",
    [
        measured(0.03, 0.01, 0.0115, 0.014, 0.015),  # one within the spread
        measured(0.03, 0.01, 0.013, 0.014),  # two only
        measured(0.5, 0.9, 0.9, 0.9, name="diversity", higher_is_better=True),
        measured(math.nan, math.nan, math.nan, math.nan),
        [],
    ],
    ids=["spread", "two", "higher is better", "not a number", "nothing"],
)
def test_other_metrics_are_left_alone(rows: list[dict[str, Any]]) -> None:
    assert find_rising(rows) is None


def test_losses_beyond_all_sense_are_a_divergence() -> None:
    assert findings(ticks(4, loss_D=[900.0])) == []  # one odd tick
    [found] = findings(ticks(4, loss_D=[22080.9, 1.4, 224.9]))

    assert found.kind == "divergence"
    assert "loss_D was 224.9 and more than 10 in 2 of the last 3 ticks" in found.text


def test_float16_may_look_for_its_scale() -> None:
    half = TrainingConfig(precision="fp16")
    assert findings(ticks(4, skipped_steps=[200.0, 0.0, 0.0]), half) == []

    [found] = findings(ticks(4, skipped_steps=[600.0, 600.0, 625.0]), half)
    assert "--precision float32 (now fp16)" in found.advice


def test_a_saturated_generator_is_seen_by_its_logits() -> None:
    gap = {"real_logits": [20.0, 18.0, 22.0], "fake_logits": [-18.0, -17.0, -23.0]}
    rows = ticks(8, loss_G=[-0.001, -0.01, -0.02], **gap)

    [found] = findings(rows, TrainingConfig(loss="logistic-saturating"))
    assert found.kind == "D-winning"


def test_strong_augmentation_that_still_rises_is_overfitting() -> None:
    adaptive = TrainingConfig(augment="adaptive")
    [found] = findings(ticks(6, augment_p=[0.2, 0.4, 0.62, 0.7, 0.75, 0.8]), adaptive)
    assert found.kind == "overfitting" and "0.75" in str(found) and not found.ends_run
    assert findings(ticks(6, augment_p=[0.2, 0.4, 0.5, 0.6, 0.65, 0.64]), adaptive) == []
    assert findings(ticks(4, augment_p=[0.7, 0.7, 0.7, 0.7]), adaptive) == []


def test_a_d_that_calls_all_reals_real_knows_them() -> None:
    certain = ticks(5, real_signs=[0.7, 0.9, 0.96, 0.97, 0.99])
    [found] = findings(certain)
    assert found.kind == "overfitting" and "--augment adaptive" in found.advice
    [found] = findings(certain, TrainingConfig(augment="fixed"))
    assert "--augment-p" in found.advice
    assert findings(certain, TrainingConfig(loss="wgan-gp")) == []
    assert findings(certain, TrainingConfig(ema_kimg=20.0)) == []  # still the beginning
    assert findings(ticks(5, real_signs=[0.99, 0.99, 0.9, 0.99, 0.99])) == []

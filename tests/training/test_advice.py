"""Advice: silent about presets as they are, a sentence where a choice looks wrong."""

from typing import Any

import pytest

from stylecli.settings import ByResolution
from stylecli.training.advice import advise
from stylecli.training.presets import plan_training


@pytest.mark.parametrize(
    ("preset", "config", "resolution"),
    [
        ("paper", "f", 1024), ("paper", "a", 1024), ("paper", "f", 256), ("celebahq", "f", 1024),
        ("lsun-bedroom", "f", 256), ("lsun-car", "f", 512), ("photos", "f", 128),
        ("photos", "a", 256), ("small", "f", 32), ("small", "a", 32),
    ],
)  # fmt: skip
def test_presets_need_no_advice(preset: str, config: str, resolution: int) -> None:
    plan = plan_training(preset, config=config, resolution=resolution, device="cuda")
    assert advise(plan) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"training": {"loss": "wgan-gp", "r1_gamma": 10.0}}, "--gamma 10 has no effect"),
        ({"training": {"r1_gamma": 0.0}}, "without R1 or R2 rarely converges"),
        ({"training": {"r1_gamma": 900.0}}, "gamma 900 is far from what is usual"),
        ({"training": {"total_kimg": 500.0}}, "end before the network is grown to 256 px"),
        ({"config": "b", "network": {"style_mixing_prob": 0.9}}, "no styles to mix"),
        ({"training": {"loss": "wgan-gp", "lr": ByResolution(0.01)}}, "above 0.002"),
    ],
)
def test_what_looks_wrong_is_said(settings: dict[str, Any], words: str) -> None:
    plan = plan_training("paper", resolution=256, device="cuda", **settings)
    assert [sentence for sentence in advise(plan) if words in sentence]


def test_advice_looks_at_the_dataset_too() -> None:
    plan = plan_training("lsun-car", resolution=128, device="cuda")
    sentences = " ".join(advise(plan, pictures=900, classes=3, transform="center-crop"))
    assert "published at 512 px, these pictures have 128" in sentences
    assert "--transform wide" in sentences
    assert "--preset photos" in sentences
    assert "3 classes are not used" in sentences

"""Plans: what is asked for wins; advice is silent about presets, else it is a sentence."""

from typing import Any

import pytest

from stylecli.errors import UsageError
from stylecli.settings import ByResolution, parse_by_resolution
from stylecli.training.plan import advise, describe_plan, plan_training


def test_given_values_win_and_are_not_called_derived() -> None:
    plan = plan_training(
        "small",
        resolution=32,
        network={"z_dim": 7},
        training={"r1_gamma": 3.0, "batch": ByResolution(24)},
    )
    assert (plan.network.z_dim, plan.training.r1_gamma, plan.training.batch_base) == (7, 3.0, 24)
    assert not {"z_dim", "r1_gamma", "batch_base"} & {item.name for item in plan.derived}
    assert all(item.reason for item in plan.derived)


def test_numbers_by_resolution_go_over_the_presets_table() -> None:
    plan = plan_training(
        "paper",
        resolution=256,
        training={
            "batch": parse_by_resolution("8:64,16:32", "--batch", whole=True),
            "lr": parse_by_resolution("0.0005,256:0.001", "--lr"),
        },
    )
    assert (plan.training.batch[8], plan.training.batch[16], plan.training.batch[32]) == (
        64,
        32,
        64,
    )
    assert (plan.training.lr, plan.training.lr_base) == ({256: 0.001}, 0.0005)


def test_processes_do_not_share_a_batch_on_mps() -> None:
    with pytest.raises(UsageError, match="CPUs or CUDA GPUs"):
        plan_training(resolution=32, device="mps", ranks=2)


@pytest.mark.parametrize(
    ("preset", "config", "resolution"),
    [
        ("paper", "f", 1024), ("paper", "a", 1024), ("paper", "f", 256), ("celebahq", "f", 1024),
        ("lsun-bedroom", "f", 256), ("lsun-car", "f", 512), ("photos", "f", 128),
        ("photos", "a", 256), ("small", "f", 32), ("small", "a", 32), ("small", "f", 128),
        ("small", "f", 512), ("small", "f", 1024),
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
        ({"training": {"r1_gamma": 900.0}}, "gamma 900 is far from"),
        ({"training": {"total_kimg": 500.0}}, "before the network is grown to 256 px"),
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
    assert "3 classes of the dataset" in sentences


@pytest.mark.parametrize(
    ("pictures", "training", "wanted"),
    [
        (19_999, {}, "adaptive"),
        (20_000, {}, "none"),
        (None, {}, "none"),
        (300, {"augment": "none"}, "none"),
        (300, {"loss": "wgan-gp"}, "none"),
        (300, {"augment_p": 0.5}, "fixed"),
        (None, {"augment_target": 0.5}, "adaptive"),
        (300, {"augment_pipe": "diffaugment"}, "fixed"),
    ],
)
def test_few_pictures_are_augmented_unless_asked_otherwise(
    pictures: int | None, training: dict[str, Any], wanted: str
) -> None:
    for preset, device in (("small", "cpu"), ("photos", "cuda"), ("paper", "cuda")):
        plan = plan_training(preset, resolution=64, device=device, pictures=pictures,
                             training=training)  # fmt: skip
        assert plan.training.augment == wanted
        chosen = [item for item in plan.derived if item.name == "augment"]
        assert bool(chosen) == (wanted != "none" and "augment" not in training)
        if wanted == "adaptive" and pictures:
            assert f"{pictures:,}" in chosen[0].reason


def test_diffaugment_is_always_on_unless_asked_otherwise() -> None:
    training: dict[str, Any] = {"augment_pipe": "diffaugment"}
    assert plan_training("small", resolution=32, training=training).training.augment_p == 1
    training["augment_p"] = 0.5
    assert plan_training("small", resolution=32, training=training).training.augment_p == 0.5
    training |= {"augment": "none"}
    said = " ".join(advise(plan_training("small", resolution=32, training=training)))
    assert "--augment-p has no effect" in said and "--augment-pipe has no effect" in said
    with pytest.raises(UsageError, match="augment_pipe 'bcg'"):
        plan_training("small", resolution=32, training={"augment_pipe": "bcg"})


def test_a_value_that_is_not_given_reads_as_it_is_declared() -> None:
    plan = plan_training("paper", config="f", resolution=16, channels=3, device="cpu", cpus=1)
    shown = {row.name: row.value for row in describe_plan(plan).training}
    assert shown["tick_kimg"] == "by resolution"
    assert {shown[name] for name in ("lr_D", "ema_rampup", "gamma_final")} == {"-"}

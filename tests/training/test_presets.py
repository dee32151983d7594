"""Plans: what a preset derives never changes what a paper configuration is."""

from typing import Any

import pytest

from stylecli.errors import UsageError
from stylecli.networks.registry import make_config
from stylecli.networks.stylegan1_config import PRESETS
from stylecli.training.plan import advise, describe_plan, plan_training


@pytest.mark.parametrize("config", PRESETS)
def test_small_networks_keep_what_defines_their_configuration(config: str) -> None:
    plan = plan_training("small", config=config, resolution=32)
    wanted = make_config(config)
    for field in PRESETS[config].fields:
        assert getattr(plan.network, field) == getattr(wanted, field), field


def test_gpus_take_the_papers_table_for_their_number() -> None:
    eight = plan_training("paper", resolution=1024, device="cuda", ranks=8).training
    assert (eight.batch[8], eight.batch[64], eight.batch_base) == (256, 32, 32)
    three = plan_training("paper", resolution=1024, device="cuda", ranks=3)
    sizes = {*three.training.batch.values(), three.training.batch_base}
    assert all(size % (3 * 4) == 0 for size in sizes)
    assert any("our own for 3 GPUs" in item.reason for item in three.derived)
    processes = plan_training("paper", resolution=1024, device="cpu", ranks=2)
    assert processes.training.batch[8] == 128  # they share what one GPU has


@pytest.mark.parametrize(
    ("preset", "config", "kimg", "mirror", "loss", "gamma", "top_lr"),
    [
        ("ffhq", "f", 25_000, True, "logistic", 10, 0.003),
        ("paper", "a", 12_000, True, "wgan-gp", 0, 0.002),
        ("celebahq", "f", 12_000, True, "wgan-gp", 0, 0.002),
        ("lsun-bedroom", "f", 70_000, False, "logistic", 10, 0.003),
        ("lsun-car", "f", 46_000, False, "logistic", 10, 0.003),
        ("lsun-cat", "f", 70_000, False, "logistic", 10, 0.003),
    ],
)
def test_published_sets_have_their_published_values(
    preset: str, config: str, kimg: float, mirror: bool, loss: str, gamma: float, top_lr: float
) -> None:
    training = plan_training(preset, config=config, resolution=1024, device="cuda").training
    assert (training.total_kimg, training.mirror, training.loss) == (kimg, mirror, loss)
    assert (training.r1_gamma, training.lr[1024], training.lr_base) == (gamma, top_lr, 0.001)
    assert (training.hold_kimg, training.fade_kimg, training.initial_resolution) == (600, 600, 8)


def test_the_default_preset_follows_device_and_pictures() -> None:
    chosen = [
        plan_training(resolution=128, device=device, pictures=pictures).preset
        for device, pictures in (("cpu", 70_000), ("cuda", 70_000), ("cuda", 800), ("cuda", None))
    ]
    assert chosen == ["small", "paper", "photos", "paper"]


@pytest.mark.parametrize(
    ("preset", "config", "side", "gpus", "training", "network"),
    [
        ("auto", "stylegan2", 256, 2,
         {"batch_base": 32, "r1_gamma": 0.0002 * 256**2 / 32, "lr_base": 0.0025, "ema_kimg": 10,
          "ema_rampup": 0.05, "pl_weight": 2, "pl_interval": 4, "r1_interval": 16},
         {"fmap_base": 16_384, "mapping_layers": 2, "mbstd_group_size": 4}),
        ("auto", "stylegan2", 1024, 8, {"batch_base": 32, "lr_base": 0.002},
         {"fmap_base": 32_768, "mbstd_group_size": 4}),
        ("stylegan2", "stylegan2", 1024, 8,
         {"batch_base": 32, "r1_gamma": 10, "lr_base": 0.002, "ema_kimg": 10, "ema_rampup": None},
         {"fmap_base": 32_768, "mapping_layers": 8}),
        ("paper256", "stylegan2", 256, 8,
         {"batch_base": 64, "r1_gamma": 1, "lr_base": 0.0025, "ema_kimg": 20},
         {"fmap_base": 16_384, "mapping_layers": 8, "mbstd_group_size": 8}),
        ("paper512", "stylegan2", 512, 8, {"batch_base": 64, "r1_gamma": 0.5}, {}),
        ("paper1024", "stylegan2", 1024, 8, {"batch_base": 32, "r1_gamma": 2}, {}),
        ("cifar", "stylegan2", 32, 2,
         {"total_kimg": 100_000, "batch_base": 64, "r1_gamma": 0.01, "ema_kimg": 500,
          "pl_weight": 0, "pl_interval": 4},
         {"mbstd_group_size": 32, "style_mixing_prob": 0, "D_architecture": "orig"}),
        ("stylegan3-t", "stylegan3-t", 512, 8,
         {"lr_base": 0.0025, "lr_D": 0.002, "r1_gamma": 8, "pl_interval": 0, "blur_sigma": 0}, {}),
        ("stylegan3-r", "stylegan3-r", 256, 8,
         {"r1_gamma": 2, "blur_sigma": 10, "blur_kimg": 200, "ema_kimg": 10},
         {"fmap_base": 65_536, "magnitude_beta": 0.5 ** (32 / 20_000)}),
        ("r3gan-cifar10", "r3gan", 32, 8,
         {"batch_base": 512, "lr_base": 2e-4, "lr_final": 5e-5, "adam_beta2": 0.9,
          "beta2_final": 0.99, "r1_gamma": 0.05, "r2_gamma": 0.05, "gamma_final": 0.005,
          "augment": "fixed", "augment_pipe": "halfcolor", "augment_p": 0.55, "ema_kimg": 5000,
          "anneal_kimg": 20_000, "loss": "relativistic", "phases": "paired"}, {}),
        ("r3gan-ffhq256", "r3gan", 256, 8,
         {"batch_base": 256, "r1_gamma": 150, "gamma_final": 15, "augment_p": 0.3,
          "ema_kimg": 500}, {"fmap_base": 24_576}),
        ("r3gan-imagenet64", "r3gan", 64, 8, {"batch_base": 4096, "anneal_kimg": 200_000},
         {"fmap_max": 1536, "group_fmaps": 16}),
    ],
)  # fmt: skip
def test_presets_of_other_families_have_their_published_values(
    preset: str, config: str, side: int, gpus: int, training: dict[str, Any],
    network: dict[str, Any],
) -> None:  # fmt: skip
    plan = plan_training(
        preset, config=config, resolution=side, device="cuda", ranks=gpus, pictures=70_000
    )
    found = {name: getattr(plan.training, name) for name in training}
    assert found == pytest.approx(training)
    assert {name: getattr(plan.network, name) for name in network} == network
    reasons = describe_plan(plan)
    assert all(item.reason for item in (*reasons.network, *reasons.training))


@pytest.mark.parametrize(
    ("preset", "config"),
    [("paper256", "f"), ("paper", "stylegan2"), ("auto", "stylegan3-t"), ("cifar", "r3gan"),
     ("stylegan3-t", "stylegan3-r"), ("r3gan-ffhq64", "stylegan2"), ("stylegan3-r", "f")],
)  # fmt: skip
def test_a_preset_of_one_family_refuses_another(preset: str, config: str) -> None:
    with pytest.raises(UsageError, match=f"'{preset}'.*'{config}'.*small.*--config") as caught:
        plan_training(preset, config=config, resolution=64)
    assert str(caught.value).count(": ") == 1


@pytest.mark.parametrize(
    ("config", "side", "pictures", "gpu", "cpu"),
    [("stylegan2", 256, 70_000, "auto", "small"), ("stylegan2", 256, 900, "photos", "small"),
     ("stylegan3-r", 256, 70_000, "stylegan3-r", "small"), ("r3gan", 32, 70_000, "r3gan-cifar10",
     "small"), ("r3gan", 128, 70_000, "r3gan-ffhq256", "small"), ("r3gan-imagenet64", 64, 10**6,
     "r3gan-imagenet64", "small")],
)  # fmt: skip
def test_every_family_has_a_preset_for_every_machine(
    config: str, side: int, pictures: int, gpu: str, cpu: str
) -> None:
    for device, wanted in (("cuda", gpu), ("cpu", cpu)):
        plan = plan_training(config=config, resolution=side, device=device, pictures=pictures)
        assert plan.preset == wanted
        assert advise(plan, pictures=pictures) == []


def test_a_family_without_presets_is_refused():
    with pytest.raises(UsageError, match=r"'lucidrains' are drawn and measured.*stylegan2"):
        plan_training(config="lucidrains", resolution=32)

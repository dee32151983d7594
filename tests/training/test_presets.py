"""Plans: what a preset derives never changes what a paper configuration is."""

import pytest

from stylecli.errors import UsageError
from stylecli.networks.registry import make_config
from stylecli.networks.stylegan1_config import PRESETS
from stylecli.training.plan import plan_training


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


@pytest.mark.parametrize("config", ["stylegan2", "stylegan3-r", "r3gan"])
def test_a_family_without_its_losses_is_not_trained_with_those_of_another(config):
    with pytest.raises(UsageError, match=f"'{config}' yet.*--config f"):
        plan_training(config=config, resolution=32)

"""Plans: what a preset derives never changes what a paper configuration is."""

import pytest

from stylecli.errors import UsageError
from stylecli.networks.config import PRESETS, make_config
from stylecli.training.presets import plan_training


@pytest.mark.parametrize("config", PRESETS)
def test_small_networks_keep_what_defines_their_configuration(config: str) -> None:
    plan = plan_training("small", config=config, resolution=32)
    wanted = make_config(config)
    for field in PRESETS[config]:
        assert getattr(plan.network, field) == getattr(wanted, field), field


def test_given_values_win_and_are_not_called_derived() -> None:
    plan = plan_training(
        "small", resolution=32, network={"z_dim": 7}, training={"r1_gamma": 3.0}, batch=24
    )
    assert (plan.network.z_dim, plan.training.r1_gamma, plan.training.batch_base) == (7, 3.0, 24)
    assert not {"z_dim", "r1_gamma", "batch_base"} & {item.name for item in plan.derived}
    assert all(item.reason for item in plan.derived)


def test_several_processes_are_for_processors() -> None:
    with pytest.raises(UsageError, match="CPUs only"):
        plan_training(resolution=32, device="cuda", ranks=2)

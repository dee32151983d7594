"""Configurations: presets, validation, and the trip through JSON."""

import json

import pytest

from stylecli.errors import UsageError
from stylecli.networks.model import new_network
from stylecli.networks.registry import config_from_dict, make_config
from stylecli.networks.stylegan1_config import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_json_round_trip(preset: str) -> None:
    config = make_config(preset, resolution=64, label_dim=2)
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"resolution": 48}, "resolution 48"),
        ({"resolution": 2048}, "resolution 2048"),
        ({"channels": 2}, "channels 2"),
        ({"z_dim": 0}, "z_dim 0"),
        ({"fused_scale": "maybe"}, "fused_scale 'maybe'"),
        ({"colour": 1}, "'colour' is not a field"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_config("f", **fields)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown configuration 'g'"):
        make_config("g")
    with pytest.raises(UsageError, match="family 'stylegan9'"):
        config_from_dict({"family": "stylegan9"})


@pytest.mark.parametrize("preset", PRESETS)
def test_weights_counted_without_building_are_a_close_lower_bound(preset: str) -> None:
    sizes = {"fmap_base": 128, "fmap_max": 16, "z_dim": 12}
    net = new_network(preset, resolution=32, label_dim=3, **sizes)
    for name in ("G", "D"):
        whole = sum(p.numel() for p in getattr(net, name).parameters() if p.ndim > 1)
        assert 0.9 * whole < net.config.count_weights(name) <= whole


def test_switches_of_other_programs_need_adaptive_normalisation() -> None:
    with pytest.raises(UsageError, match="need styles and instance norm"):
        make_config("b", norm_epsilon=1e-5)
    with pytest.raises(UsageError, match="norm_epsilon"):
        make_config("f", norm_epsilon=0.0)


def test_a_field_of_another_type_is_refused() -> None:
    with pytest.raises(UsageError, match="mapping_lrmul 'x'"):
        config_from_dict({"family": "stylegan1", "mapping_lrmul": "x"})
    for name in ("fmap_max", "mapping_lrmul", "resolution"):  # Python counts with truth values
        with pytest.raises(UsageError, match=f"{name} 'True'"):
            config_from_dict({"family": "stylegan1", name: True})

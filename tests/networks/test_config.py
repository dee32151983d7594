"""Configurations: presets, validation, and the trip through JSON."""

import json

import pytest

from stylecli.errors import UsageError
from stylecli.networks.config import PRESETS, config_from_dict, make_config


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
    with pytest.raises(UsageError, match="'g' is unknown"):
        make_config("g")
    with pytest.raises(UsageError, match="family 'stylegan9'"):
        config_from_dict({"family": "stylegan9"})

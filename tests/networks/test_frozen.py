"""The form that draws on a CPU against the network it was made from."""

from typing import Any

import pytest
import torch

import stylecli
from stylecli.networks.frozen import FrozenSynthesis

SMALL = {"fmap_base": 64, "fmap_max": 8, "z_dim": 8, "w_dim": 8, "mapping_layers": 2,
         "mapping_fmaps": 8}  # fmt: skip
# Planes of 2^16 values and more take another way through the normalisation.
LARGE = {**SMALL, "fmap_base": 1024, "fmap_max": 16}


def _generator(preset: str, **fields: Any) -> Any:
    G = stylecli.new_network(preset, **fields).G_ema
    with torch.no_grad():
        for index, layer in enumerate(G.synthesis.layers):
            layer.bias.copy_(torch.linspace(-0.3, 0.4, len(layer.bias)))
            if layer.noise_strength is not None:
                layer.noise_strength.fill_(0.1 * (index + 1))
    return G


@torch.no_grad()
def _deviation(G: Any, dtype: torch.dtype = torch.float32, **options: Any) -> float:
    """Return the largest difference to the plain form, as a fraction of its range."""
    z = torch.randn(3, G.config.z_dim, generator=torch.Generator().manual_seed(1))
    ws = G.mapping(z)
    plain = G.synthesis(ws, **options)
    frozen = FrozenSynthesis(G.synthesis, dtype)(ws, **options)
    assert frozen.dtype == torch.float32 and frozen.shape == plain.shape
    return float((frozen - plain).abs().max() / (plain.max() - plain.min()))


@pytest.mark.parametrize("preset", ["a", "b", "c", "d", "e", "f"])
def test_every_configuration_draws_the_same(preset: str) -> None:
    assert _deviation(_generator(preset, resolution=16, **SMALL)) < 2e-5


@pytest.mark.parametrize("fused_scale", [False, True])
def test_large_planes_draw_the_same(fused_scale: bool) -> None:
    G = _generator("f", resolution=64, fused_scale=fused_scale, **LARGE)

    assert _deviation(G) < 2e-5


@pytest.mark.parametrize(
    "options",
    [
        {"noise_mode": "none"},
        {"noise_scale": [0.0, 2.0, 0.5, 1.0, 1.0, 3.0]},
        {"noise": [torch.full((1, 1, 4 << i // 2, 4 << i // 2), 0.3) for i in range(6)]},
        {"lod": 0.4},
        {"lod": 1.0, "native": True},
    ],
    ids=["none", "scales", "given", "fading", "native"],
)
def test_options_mean_the_same(options: dict[str, Any]) -> None:
    assert _deviation(_generator("f", resolution=16, **SMALL), **options) < 2e-5


def test_bfloat16_stays_near() -> None:
    deviation = _deviation(_generator("f", resolution=64, **LARGE), torch.bfloat16)

    assert 1e-5 < deviation < 0.06


def test_the_source_is_left_as_it_was() -> None:
    G = _generator("f", resolution=16, **SMALL)
    before = {name: value.clone() for name, value in G.state_dict().items()}

    FrozenSynthesis(G.synthesis)

    assert all(torch.equal(value, before[name]) for name, value in G.state_dict().items())
    assert all(parameter.requires_grad for parameter in G.parameters())


@pytest.mark.parametrize("blur", [True, False])
def test_deviations_of_other_programs_draw_the_same(blur: bool) -> None:
    switches = {"norm_epsilon": 1e-3, "bias_before_blur": True, "blur": blur}

    assert _deviation(_generator("f", resolution=16, **switches, **SMALL)) < 2e-5

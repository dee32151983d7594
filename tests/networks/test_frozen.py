"""The forms that draw on a CPU against the networks they were made from."""

from typing import Any

import pytest
import torch

import stylecli
from stylecli.networks.frozen import FrozenStyleGAN2, FrozenStyleGAN3, FrozenSynthesis
from stylecli.networks.registry import freeze_synthesis

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


# ---- StyleGAN2 and StyleGAN3

SMALL_MODULATED = {"fmap_base": 512, "fmap_max": 40, "z_dim": 16, "w_dim": 16, "mapping_layers": 2}


def _modulated(preset: str, **fields: Any) -> Any:
    """Return a generator in which everything that a fresh one leaves at zero or one acts."""
    G = stylecli.new_network(preset, **{**SMALL_MODULATED, **fields}).G_ema
    source = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in [*G.synthesis.named_parameters(), *G.synthesis.named_buffers()]:
            if name.endswith("noise_strength"):
                value.fill_(0.2)
            elif name.endswith("magnitude_ema"):
                value.fill_(0.7)
            elif name.endswith(".bias") and "affine" not in name:
                value.normal_(0, 0.3, generator=source)
            elif name.endswith("input.affine.weight"):
                value.normal_(0, 1, generator=source)
    return G


@torch.no_grad()
def _modulated_deviation(G: Any, **options: Any) -> float:
    """Return the largest difference to the plain form, as a fraction of its range."""
    ws = G.mapping(torch.randn(3, G.config.z_dim, generator=torch.Generator().manual_seed(1)))
    plain = G.synthesis(ws, **options)
    frozen = freeze_synthesis(G, torch.float32)
    assert isinstance(frozen, FrozenStyleGAN2 | FrozenStyleGAN3)
    found = frozen(ws, **options)
    assert found.dtype == torch.float32 and found.shape == plain.shape
    return float((found - plain).abs().max() / (plain.max() - plain.min()))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"G_architecture": "resnet"},
        {"G_architecture": "orig", "resample_filter": (1, 2, 3, 3, 2, 1)},
        {"resample_filter": (1, 4, 6, 4, 1), "conv_clamp": None},
        {"resample_filter": (1, 2, 3, 4, 4, 3, 2, 1)},
        {"use_noise": False, "channels": 4},
        {"conv_clamp": 0.5},
    ],
    ids=["skip", "resnet", "orig", "odd", "separable", "no noise", "clamped"],
)
def test_stylegan2_draws_the_same(fields: dict[str, Any]) -> None:
    # 64 px: both convolutions by kernels of each picture and by scaled features
    assert _modulated_deviation(_modulated("stylegan2", resolution=64, **fields)) < 1e-5


@pytest.mark.parametrize(
    ("preset", "fields"),
    [
        ("stylegan3-t", {}),
        ("stylegan3-r", {"fmap_base": 512, "fmap_max": 40}),
        ("stylegan3-t", {"conv_clamp": 0.5, "margin": 5}),
        ("stylegan3-t", {"filter_size": 5, "channels": 1}),
        ("stylegan3-t", {"lrelu_upsampling": 1}),
        ("stylegan3-t", {"lrelu_upsampling": 4}),
    ],
    ids=["t", "r", "clamped", "odd", "same rate", "higher rate"],
)
def test_stylegan3_draws_the_same(preset: str, fields: dict[str, Any]) -> None:
    assert _modulated_deviation(_modulated(preset, resolution=32, **fields)) < 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {"noise_mode": "none"},
        {"noise_scale": [0.0, 2.0, 0.5, 1.0, 3.0]},
        {"noise": [torch.full((1, 1, side, side), 0.3) for side in (4, 8, 8, 16, 16)]},
    ],
    ids=["none", "scales", "given"],
)  # fmt: skip
def test_options_mean_the_same_without_growing(options: dict[str, Any]) -> None:
    assert _modulated_deviation(_modulated("stylegan2", resolution=16), **options) < 1e-5


@pytest.mark.parametrize("preset", ["stylegan2", "stylegan3-t"])
def test_the_source_of_a_family_without_growing_is_left_as_it_was(preset: str) -> None:
    G = _modulated(preset, resolution=16)
    before = {name: value.clone() for name, value in G.state_dict().items()}

    with torch.inference_mode():
        freeze_synthesis(G, torch.float32)(G.mapping(torch.ones(1, 16)))

    assert all(torch.equal(value, before[name]) for name, value in G.state_dict().items())


def test_wide_features_run_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylecli.ops.filtered_lrelu._BLOCK_VALUES", 1)

    assert _modulated_deviation(_modulated("stylegan3-t", resolution=32)) < 1e-5


@pytest.mark.parametrize("preset", ["stylegan2", "stylegan3-t"])
def test_bytes_do_not_depend_on_the_batch(preset: str) -> None:
    from stylecli.rendering import Drawing, render

    G = _modulated(preset, resolution=32)
    with torch.no_grad():
        ws = G.mapping(torch.randn(5, 16, generator=torch.Generator().manual_seed(2)))
    together = list(render(G, ws, Drawing(batch=4)))
    for index in (0, 3, 4):
        (alone,) = render(G, ws[index : index + 1], Drawing(batch=1))
        assert alone.tobytes() == together[index].tobytes()

"""The forms of StyleGAN2 and StyleGAN3 that draw on a CPU, against their networks."""

from typing import Any

import pytest
import torch

import stylecli
from stylecli.networks.frozen_modulated import FrozenStyleGAN2, FrozenStyleGAN3
from stylecli.networks.registry import freeze_synthesis

SMALL = {"fmap_base": 512, "fmap_max": 40, "z_dim": 16, "w_dim": 16, "mapping_layers": 2}


def _generator(preset: str, **fields: Any) -> Any:
    """Return a generator in which everything that a fresh one leaves at zero or one acts."""
    G = stylecli.new_network(preset, **{**SMALL, **fields}).G_ema
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
def _deviation(G: Any, **options: Any) -> float:
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
    assert _deviation(_generator("stylegan2", resolution=64, **fields)) < 1e-5


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
    assert _deviation(_generator(preset, resolution=32, **fields)) < 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {"noise_mode": "none"},
        {"noise_scale": [0.0, 2.0, 0.5, 1.0, 3.0]},
        {"noise": [torch.full((1, 1, side, side), 0.3) for side in (4, 8, 8, 16, 16)]},
    ],
    ids=["none", "scales", "given"],
)  # fmt: skip
def test_options_mean_the_same(options: dict[str, Any]) -> None:
    assert _deviation(_generator("stylegan2", resolution=16), **options) < 1e-5


@pytest.mark.parametrize("preset", ["stylegan2", "stylegan3-t"])
def test_the_source_is_left_as_it_was(preset: str) -> None:
    G = _generator(preset, resolution=16)
    before = {name: value.clone() for name, value in G.state_dict().items()}

    with torch.inference_mode():
        freeze_synthesis(G, torch.float32)(G.mapping(torch.ones(1, 16)))

    assert all(torch.equal(value, before[name]) for name, value in G.state_dict().items())


def test_wide_features_run_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylecli.ops.polyphase._BLOCK_VALUES", 1)

    assert _deviation(_generator("stylegan3-t", resolution=32)) < 1e-5


@pytest.mark.parametrize("preset", ["stylegan2", "stylegan3-t"])
def test_bytes_do_not_depend_on_the_batch(preset: str) -> None:
    from stylecli.sampling import Drawing, render

    G = _generator(preset, resolution=32)
    with torch.no_grad():
        ws = G.mapping(torch.randn(5, 16, generator=torch.Generator().manual_seed(2)))
    together = list(render(G, ws, Drawing(batch=4)))
    for index in (0, 3, 4):
        (alone,) = render(G, ws[index : index + 1], Drawing(batch=1))
        assert alone.tobytes() == together[index].tobytes()

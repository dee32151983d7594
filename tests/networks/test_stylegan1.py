"""Behaviour of the generator that the official numbers do not cover."""

from typing import Any

import pytest
import torch

from stylecli.errors import UsageError
from stylecli.networks.bundle import new_network
from stylecli.networks.config import PRESETS


def test_same_seed_same_weights_and_untouched_global_state(tiny_config_fields: Any) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    first = new_network(seed=1, **tiny_config_fields)
    assert torch.equal(torch.rand(1), wanted)
    again, other = (new_network(seed=seed, **tiny_config_fields) for seed in (1, 2))
    z = torch.randn(2, 8)
    assert torch.equal(first.G(z), again.G(z))
    assert not torch.equal(first.G(z), other.G(z))


def test_fresh_bundle_is_in_eval_mode_with_an_equal_average(tiny_network: Any) -> None:
    z = torch.randn(2, 8)
    assert torch.equal(tiny_network.G(z), tiny_network.G_ema(z))
    assert not any(net.training for net in (tiny_network.G, tiny_network.D, tiny_network.G_ema))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_configuration_draws_and_judges(
    preset: str, channels: int, tiny_config_fields: Any
) -> None:
    fields = {**tiny_config_fields, "mapping_layers": make_layers(preset)}
    net = new_network(preset, channels=channels, label_dim=3, **fields)
    c = torch.eye(3)[[0, 1, 2, 0]]
    images = net.G(torch.randn(4, 8), c, lod=0.5)
    assert images.shape == (4, channels, 16, 16)
    assert net.D(images, c, lod=0.5).shape == (4, 1)


def make_layers(preset: str) -> int:
    return min(PRESETS[preset].get("mapping_layers", 8), 2)


def test_noise_modes_differ_and_none_equals_scale_zero(tiny_network: Any) -> None:
    G = tiny_network.G
    ws = G.mapping(torch.randn(2, 8))
    const, none = (G.synthesis(ws, noise_mode=mode) for mode in ("const", "none"))
    random = [G.synthesis(ws, noise_mode="random") for _ in range(2)]
    assert not torch.equal(const, none)
    assert not torch.equal(*random)
    assert torch.equal(none, G.synthesis(ws, noise_scale=0.0))
    stored = [layer.noise_const for layer in G.synthesis.layers]
    assert torch.equal(const, G.synthesis(ws, noise_mode="none", noise=stored))


def test_noise_scale_per_layer_acts_on_its_layer_alone(tiny_network: Any) -> None:
    ws = tiny_network.G.mapping(torch.randn(1, 8))
    maps = [torch.zeros(shape) for shape in tiny_network.G.synthesis.noise_shapes()]
    maps[3] = torch.randn(maps[3].shape)
    scaled = tiny_network.G.synthesis(ws, noise=maps, noise_scale=[0, 0, 0, 0.5, 0, 0])
    maps[3] = maps[3] * 0.5
    assert torch.allclose(scaled, tiny_network.G.synthesis(ws, noise=maps), atol=1e-6)


def test_training_mode_moves_w_avg_and_eval_mode_does_not(tiny_network: Any) -> None:
    G = tiny_network.G
    z = torch.randn(4, 8)
    G.mapping(z)
    assert G.mapping.w_avg.abs().sum() == 0
    G.train().mapping(z)
    assert torch.allclose(G.mapping.w_avg, 0.005 * G.mapping.embed(z).mean(0), atol=1e-7)


def test_stored_lod_is_the_default(tiny_network: Any) -> None:
    G = tiny_network.G
    ws = G.mapping(torch.randn(1, 8))
    wanted = G.synthesis(ws, lod=1.5)
    G.lod = 1.5
    assert torch.equal(G.synthesis(ws), wanted)


def test_native_output_is_the_full_one_before_upscaling(tiny_network: Any) -> None:
    ws = tiny_network.G.mapping(torch.randn(1, 8))
    native = tiny_network.G.synthesis(ws, lod=1, native=True)
    assert native.shape[-1] == 8
    full = tiny_network.G.synthesis(ws, lod=1)
    assert torch.equal(full[..., ::2, ::2], native)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda G: G.mapping(torch.randn(2, 5)), "latents have shape"),
        (lambda G: G.synthesis(torch.randn(2, 3, 8)), "ws have shape"),
        (lambda G: G(torch.randn(2, 8), lod=2.5), "lod 2.5 is out of range"),
        (lambda G: G(torch.randn(2, 8), noise_mode="loud"), "noise mode 'loud'"),
        (lambda G: G(torch.randn(2, 8), noise=[torch.zeros(1, 1, 4, 4)]), "noise does not fit"),
        (lambda G: G(torch.randn(2, 8), torch.eye(2)), "takes no labels"),
    ],
)
def test_wrong_arguments_are_named(tiny_network: Any, call: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call(tiny_network.G)


def test_networks_without_w_refuse_truncation(tiny_config_fields: Any) -> None:
    net = new_network("a", **tiny_config_fields | {"mapping_layers": 0})
    assert net.G.mapping(torch.randn(2, 8)).shape == (2, 1, 8)
    with pytest.raises(UsageError, match="no intermediate latent space"):
        net.G(torch.randn(2, 8), truncation_psi=0.7)

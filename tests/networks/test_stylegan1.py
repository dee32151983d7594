"""The StyleGAN family: behaviour, parameter counts of the paper, and the official numbers.

The networks reproduce images and scores of the official programs to 1e-4 of their range.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stylecli.checkpoint import load_network
from stylecli.errors import UsageError
from stylecli.images import to_uint8
from stylecli.networks.model import Bundle, new_network
from stylecli.networks.registry import make_config
from stylecli.networks.stylegan1 import Discriminator, Generator
from stylecli.networks.stylegan1_config import PRESETS
from tests.conftest import FIXTURES

# ---- The generator


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
    return min(PRESETS[preset].fields.get("mapping_layers", 8), 2)


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
    maps = [torch.zeros(shape) for shape in tiny_network.G.config.noise_shapes()]
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


# ---- The discriminator


def test_native_images_score_as_their_upscaled_selves(tiny_network: Any) -> None:
    small = torch.randn(4, 3, 8, 8)
    full = torch.nn.functional.interpolate(small, scale_factor=2, mode="nearest")
    D = tiny_network.D
    assert torch.allclose(D(small, lod=1.3), D(full, lod=1.3), atol=1e-6)


def test_labels_select_their_own_output(tiny_config_fields: Any) -> None:
    D = new_network(label_dim=3, **tiny_config_fields).D
    images = torch.randn(4, 3, 16, 16)
    outputs = D.outputs(images)
    c = torch.eye(3)[[2, 0, 1, 1]]
    assert torch.allclose(D(images, c)[:, 0], outputs[range(4), [2, 0, 1, 1]])
    with pytest.raises(UsageError, match="needs labels"):
        D(images)


def test_wrong_image_shapes_are_named(tiny_network: Any) -> None:
    with pytest.raises(UsageError, match=r"images have shape \[2, 3, 8, 8\]"):
        tiny_network.D(torch.zeros(2, 3, 8, 8))


def test_second_derivative_of_the_whole_network() -> None:
    """R1 differentiates a gradient: checked against finite differences in float64."""
    D = new_network(resolution=8, fmap_base=8, fmap_max=2, z_dim=2, w_dim=2,
                    mapping_layers=1, mapping_fmaps=2).D.double()  # fmt: skip
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: D(x, lod=0.5), [images], fast_mode=True)


# ---- Parameter counts of the paper's networks (StyleGAN Tables 1, 2, 4)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("resolution", "generator", "discriminator"),
    [
        (4, 5_522_947, 6_561_793),
        (8, 11_295_750, 11_283_457),
        (16, 17_068_553, 16_005_121),
        (32, 22_841_356, 20_726_785),
        (64, 25_137_935, 22_498_049),
        (128, 25_843_858, 22_941_313),
        (256, 26_086_229, 23_052_353),
        (512, 26_179_768, 23_080_225),
        (1024, 26_219_627, 23_087_249),
    ],
)
def test_by_resolution(resolution: int, generator: int, discriminator: int) -> None:
    config = make_config("f", resolution=resolution)
    with torch.device("meta"):
        assert count(Generator(config)) == generator
        assert count(Discriminator(config)) == discriminator


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("a", 23_079_115),
        ("b", 23_079_115),
        ("traditional-8", 25_180_363),
        ("c", 30_400_651),
        ("d", 26_214_539),
        ("e", 26_219_627),
        ("f", 26_219_627),
        ("mapping-0", 24_118_379),
        ("mapping-1", 24_381_035),
        ("mapping-2", 24_643_691),
    ],
)
def test_by_configuration(preset: str, parameters: int) -> None:
    with torch.device("meta"):
        assert count(Generator(make_config(preset))) == parameters


# ---- Images and scores of the official programs


OFFICIAL = FIXTURES / "official"
PSI, CUTOFF, MIX_LAYER = 0.6, 3, 2  # of the labels case
GRADIENT_NAMES = {
    "G_mapping/Dense0/weight": "mapping.layers.0.weight",
    "G_mapping/Dense2/bias": "mapping.layers.2.bias",
    "G_mapping/LabelConcat/weight": "mapping.label_embedding",
    "G_synthesis/4x4/Const/const": "synthesis.layers.0.const",
    "G_synthesis/4x4/Conv/StyleMod/weight": "synthesis.layers.1.style.weight",
    "G_synthesis/16x16/Conv0_up/weight": "synthesis.layers.4.conv.weight",
    "G_synthesis/16x16/Conv1/Noise/weight": "synthesis.layers.5.noise_strength",
    "G_synthesis/ToRGB_lod0/weight": "synthesis.to_rgb.2.weight",
}


def official(name: str) -> tuple[Bundle, dict[str, torch.Tensor]]:
    parts = ["_G_io", "_D_io"] if name == "stylegan1_labels" else ["_io"]
    arrays: dict[str, torch.Tensor] = {}
    for part in parts:
        with np.load(OFFICIAL / f"{name}{part}.npz") as file:
            arrays.update({key: torch.from_numpy(file[key]) for key in file})
    return load_network(OFFICIAL / f"{name}_G_D_Gs.pkl"), arrays


def assert_close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-4) -> None:
    error = (found.detach() - wanted).abs().max() / wanted.abs().max()
    assert error <= tolerance, f"relative error {error:.2e}"


def lod_of(key: str) -> float:
    return float(key.rsplit("lod", 1)[1].replace("p", "."))


@pytest.fixture(scope="module")
def labels() -> tuple[Bundle, dict[str, torch.Tensor]]:
    return official("stylegan1_labels")


@torch.no_grad()
def test_labelled_mapping(labels: Any) -> None:
    net, io = labels
    assert_close(net.G_ema.mapping.embed(io["z"], io["labels"]), io["w"])


@torch.no_grad()
def test_images_at_every_lod(labels: Any) -> None:
    net, io = labels
    ws = net.G_ema.mapping(io["z"], io["labels"])
    keys = [key for key in io if key.startswith("img_lod")]
    assert len(keys) >= 4
    for key in keys:
        assert_close(net.G_ema.synthesis(ws, lod=lod_of(key)), io[key])


@torch.no_grad()
def test_truncation_of_some_and_of_all_layers(labels: Any) -> None:
    net, io = labels
    G, z, c = net.G_ema, io["z"], io["labels"]
    assert_close(G(z, c, truncation_psi=PSI, truncation_cutoff=CUTOFF), io["img_trunc"])
    assert_close(G(z, c, truncation_psi=PSI), io["img_trunc_all_layers"])


@torch.no_grad()
def test_style_mixing(labels: Any) -> None:
    net, io = labels
    ws, ws2 = (net.G_ema.mapping(io[z], io["labels"]) for z in ("z", "z2"))
    mixed = torch.cat([ws[:, :MIX_LAYER], ws2[:, MIX_LAYER:]], dim=1)
    assert_close(net.G_ema.synthesis(mixed), io["img_mix"])


@torch.no_grad()
def test_same_weights_with_fused_up_layers(labels: Any) -> None:
    net, io = labels
    for layer in net.G_ema.synthesis.layers:
        layer.fused = True
    try:
        assert_close(net.G_ema(io["z"], io["labels"]), io["img_fused_up"])
    finally:
        for layer in net.G_ema.synthesis.layers:
            layer.fused = False


@torch.no_grad()
def test_scores_at_every_lod_and_of_a_batch_of_three(labels: Any) -> None:
    net, io = labels
    for key in [key for key in io if key.startswith("d_scores_lod")]:
        assert_close(net.D(io["d_images"], io["labels8"], lod=lod_of(key)), io[key])
    assert_close(net.D(io["d_images"][:3], io["labels8"][:3]), io["d_scores_batch3"])
    assert_close(net.D(io["d_images"], io["labels8"]), io["d_scores_fused_down"])


@torch.no_grad()
def test_automatic_fused_switch_at_128_px() -> None:
    net, io = official("stylegan1_auto128")
    ws = net.G_ema.mapping(io["z"])
    assert_close(net.G_ema.synthesis(ws), io["img_lod0"])
    assert_close(net.G_ema.synthesis(ws, lod=1.4), io["img_lod1p4"])
    reals = io["d_images_uint8"].float() / 127.5 - 1
    assert_close(net.D(reals), io["d_scores_lod0"])
    assert_close(net.D(reals, lod=1.4), io["d_scores_lod1p4"])


@torch.no_grad()
@pytest.mark.parametrize("repository", ["original", "stylegan"])
def test_progressive_gan(repository: str) -> None:
    net, io = official(f"progan_{repository}_repo")
    assert not net.config.has_w
    for key in io:
        if key.startswith("img_lod"):
            assert_close(net.G_ema(io["z"], lod=lod_of(key)), io[key])
        if key.startswith("d_scores_lod"):
            assert_close(net.D(io["d_images"], lod=lod_of(key)), io[key])


def test_uint8_pictures(labels: Any) -> None:
    net, io = labels
    with torch.no_grad():
        found = to_uint8(net.G_ema(io["z"], io["labels"])).astype(int)
    difference = np.abs(found - io["img_uint8"].numpy().astype(int))
    # A float that lies on a rounding edge may fall to the other side: one grey level, rarely.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_generator_gradients(labels: Any) -> None:
    """d mean(softplus(-D(G(z)))) / d(raw variable), to 1e-3 of each variable's largest."""
    net, io = labels
    c = io["labels"]
    loss = torch.nn.functional.softplus(-net.D(net.G_ema(io["z"], c), c))
    assert_close(loss[:, 0], io["loss_G_logistic_nonsaturating_on_Gs_images"].flatten())
    net.G_ema.zero_grad()
    loss.mean().backward()
    found = {name: parameter.grad for name, parameter in net.G_ema.named_parameters()}
    checked = 0
    for key in [key for key in io if key.startswith("gradG_nonsat:")]:
        wanted = io[key]
        if key.endswith("weight") and "LabelConcat" not in key:
            wanted = wanted.permute({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[wanted.ndim])
        assert_close(found[GRADIENT_NAMES[key.split(":")[1]]], wanted, 1e-3)
        checked += 1
    assert checked >= 4

"""The StyleGAN2 family: the official numbers, parameter counts, and how it behaves.

The networks reproduce images and scores of the official programs to 1e-5 of their range.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stylecli
from stylecli.errors import UsageError
from stylecli.networks import stylegan2
from stylecli.networks.model import Bundle, new_network
from stylecli.networks.registry import (
    build_discriminator,
    build_generator,
    config_from_dict,
    make_config,
)
from stylecli.networks.stylegan2_config import StyleGAN2Config
from stylecli.ops import modulation
from stylecli.rendering import Drawing, render
from stylecli.styles import style_bands
from tests.conftest import FIXTURES

VARIANTS = json.loads((FIXTURES / "official" / "stylegan2_variants.json").read_text())
SMALL: dict[str, Any] = {"resolution": 16, "fmap_base": 128, "fmap_max": 16, "z_dim": 8,
                         "w_dim": 8, "mapping_layers": 2}  # fmt: skip


def official(name: str) -> tuple[Bundle, dict[str, Tensor]]:
    """Return the networks of a variant of the official program, and what they gave."""
    given, judged = VARIANTS[name]["G_kwargs"], VARIANTS[name]["D_kwargs"]
    synthesis, mapping = given["synthesis_kwargs"], given["mapping_kwargs"]
    config = StyleGAN2Config(
        resolution=given["img_resolution"], channels=given["img_channels"],
        label_dim=given["c_dim"], z_dim=given["z_dim"], w_dim=given["w_dim"],
        mapping_layers=mapping["num_layers"], mapping_fmaps=mapping["layer_features"],
        embed_dim=mapping["embed_features"], mapping_lrmul=mapping["lr_multiplier"],
        fmap_base=synthesis["channel_base"], fmap_max=synthesis["channel_max"], conv_clamp=None,
        G_architecture=synthesis["architecture"], D_architecture=judged["architecture"],
        resample_filter=synthesis["resample_filter"], cmap_dim=judged["cmap_dim"],
        D_mapping_layers=judged["mapping_kwargs"]["num_layers"],
        mbstd_group_size=judged["epilogue_kwargs"]["mbstd_group_size"],
        mbstd_features=judged["epilogue_kwargs"]["mbstd_num_channels"],
    )  # fmt: skip
    net = Bundle(config, G_ema=build_generator(config), D=build_discriminator(config))
    with np.load(FIXTURES / "official" / f"stylegan2_{name}.npz") as arrays:
        values = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    for prefix, network in (("G:", net.G_ema), ("D:", net.D)):
        assert network is not None
        network.load_state_dict({
            key[2:].replace("mapping.embed", "mapping.label"): value
            for key, value in values.items() if key.startswith(prefix)
        })  # fmt: skip
        network.eval()
    return net, values


def assert_close(found: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    error = (found - wanted).abs().max() / (wanted.max() - wanted.min())
    assert error <= tolerance


# ---- The official program


@pytest.mark.parametrize("name", VARIANTS)
def test_every_architecture_draws_and_judges_as_the_official_one(name: str) -> None:
    net, values = official(name)
    G, D, classes = net.generator, net.D, net.config.label_dim
    assert D is not None
    c, judged = (values["c"], values["d_c"]) if classes else (None, None)
    with torch.no_grad():
        ws = G.mapping(values["z"], c)
        assert_close(ws[:, 0], values["ws"])
        assert_close(G.synthesis(ws), values["img"])
        cut = G(values["z"], c, truncation_psi=0.6, truncation_cutoff=2, noise_mode="none")
        assert_close(cut, values["img_psi"])
        assert_close(D(values["d_images"], judged), values["d_logits"])


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("preset", "resolution", "generator", "discriminator"),
    [
        ("stylegan2", 1024, 30_370_060, 29_012_513),
        ("stylegan2", 512, 30_276_583, 28_982_849),
        ("stylegan2", 256, 30_034_338, 28_864_129),
        ("stylegan2-e", 1024, 24_900_764, 24_038_161),
        ("stylegan2-e", 256, 24_767_458, 24_001_089),
        ("stylegan2", 32, 21_523_475, 21_507_073),
        ("stylegan2-cifar", 32, 19_947_539, 20_720_641),
    ],
)
def test_parameters_of_the_papers(
    preset: str, resolution: int, generator: int, discriminator: int
) -> None:
    config = make_config(preset, resolution=resolution)
    with torch.device("meta"):
        G, D = build_generator(config), build_discriminator(config)
    assert (count(G), count(D)) == (generator, discriminator)
    assert 0.9 * generator < config.count_weights("G") <= generator
    assert 0.9 * discriminator < config.count_weights("D") <= discriminator


# ---- Gradients


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_against_float64(name: str) -> None:
    """Losses of both networks, with the gradient penalties of training: to 1e-4 of the largest."""
    net, values = official(name)
    found = [gradients(net, values, dtype) for dtype in (torch.float32, torch.float64)]
    assert found[0].keys() == found[1].keys()
    for key, wanted in found[1].items():
        # A bias before an activation of straight pieces has no part in the penalty's gradient.
        torch.testing.assert_close(
            found[0][key].double(), wanted, rtol=0, atol=1e-4 * max(float(wanted.abs().max()), 1e-3)
        )


def gradients(net: Bundle, values: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the gradients of a path length, and of a score with R1, by every parameter."""
    G, D = net.generator.to(dtype), net.D.to(dtype)  # type: ignore[union-attr]
    labelled = bool(net.config.label_dim)
    c = values["c"].to(dtype) if labelled else None
    ws = G.mapping(values["z"].to(dtype), c)
    images = G.synthesis(ws)
    (slope,) = torch.autograd.grad((images * images.detach()).sum(), ws, create_graph=True)
    real = values["d_images"][:3].to(dtype).requires_grad_()
    logits = D(real, values["d_c"][:3].to(dtype) if labelled else None)
    (by_pixel,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    (slope.square().sum() + logits.mean() + by_pixel.square().sum()).backward()
    kept = {
        f"{name}.{key}": parameter.grad.clone()
        for name, network in (("G", G), ("D", D))
        for key, parameter in network.named_parameters()
        if parameter.grad is not None
    }
    assert len(kept) > 20
    for network in (G, D):
        network.zero_grad()
    return kept


# ---- Behaviour


def varied(**fields: Any) -> Bundle:
    """Return a small network in which noise and biases count."""
    net = new_network("stylegan2", **{**SMALL, **fields})
    generator = torch.Generator().manual_seed(3)
    for network in (net.G_ema, net.D):
        assert network is not None
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                if key.endswith(("noise_strength", "bias")):
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return net


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("resolution", [4, 8, 64])
def test_every_size_draws_and_judges(channels: int, architecture: str, resolution: int) -> None:
    net = new_network(
        "stylegan2", **{**SMALL, "resolution": resolution}, channels=channels, label_dim=3,
        G_architecture=architecture, D_architecture=architecture,
    )  # fmt: skip
    c = torch.eye(3)[[0, 1, 2, 0]]
    with torch.no_grad():
        images = net.generator(torch.randn(4, 8), c)
        assert images.shape == (4, channels, resolution, resolution)
        assert net.D is not None and net.D(images, c).shape == (4, 1)
    assert net.config.num_ws == 2 * net.config.resolution_log2 - 2


def test_a_picture_does_not_depend_on_its_batch() -> None:
    net = varied()
    ws = net.generator.mapping(torch.randn(9, 8)).detach()
    alone = list(render(net.generator, ws, Drawing(batch=1)))
    assert all(
        np.array_equal(one, other)
        for batch in (2, 3, 9)
        for one, other in zip(alone, render(net.generator, ws, Drawing(batch=batch)), strict=True)
    )


def test_noise_modes_differ_and_none_equals_scale_zero() -> None:
    G = varied().generator
    ws = G.mapping(torch.randn(2, 8))
    const, none = (G.synthesis(ws, noise_mode=mode) for mode in ("const", "none"))
    random = [G.synthesis(ws, noise_mode="random") for _ in range(2)]
    assert not torch.equal(const, none)
    assert not torch.equal(*random)
    assert torch.equal(none, G.synthesis(ws, noise_scale=0.0))
    stored = [G.synthesis.stored_noise(layer) for layer in range(G.config.num_layers)]
    assert [tuple(one.shape) for one in stored] == G.config.noise_shapes()
    assert torch.equal(const, G.synthesis(ws, noise_mode="none", noise=stored))


def test_a_network_without_noise_has_none() -> None:
    net = varied(use_noise=False)
    ws = net.generator.mapping(torch.randn(2, 8))
    assert not any("noise" in key for key in net.generator.state_dict())
    assert torch.equal(net.generator.synthesis(ws), net.generator.synthesis(ws, noise_mode="none"))


def test_colours_share_the_next_convolutions_latent() -> None:
    """A change of w 1 moves the colours of 4×4 and the first convolution of 8×8."""
    G = varied(resolution=8, G_architecture="skip").generator
    ws = G.mapping(torch.randn(1, 8)).detach()
    other = ws.clone()
    other[:, 1] = torch.randn(8)
    moved: list[str] = []
    for key, module in G.synthesis.named_modules():
        if key.endswith("affine"):
            module.register_forward_hook(
                lambda _, inputs, __, key=key: moved.append(key)
                if torch.equal(inputs[0], other[:, 1]) else None
            )  # fmt: skip
    G.synthesis(other)
    assert moved == ["b4.torgb.affine", "b8.conv0.affine"]


def test_every_latent_is_of_one_band() -> None:
    """The last one, for colours alone, is fine; noise has a map less."""
    config = make_config("stylegan2", resolution=128)
    bands = style_bands(config.style_sides)
    assert bands == {"coarse": [0, 1, 2], "middle": [3, 4, 5, 6], "fine": [7, 8, 9, 10, 11]}
    assert config.num_ws == 12 and len(config.noise_shapes()) == 11


def test_the_clamp_limits_layers() -> None:
    net = varied(conv_clamp=0.25)
    seen: list[float] = []
    for key, module in net.generator.synthesis.named_modules():
        if key.endswith(("conv0", "conv1")):
            module.register_forward_hook(lambda _, __, y: seen.append(y.abs().max().item()))
    with torch.no_grad():
        net.generator(torch.randn(2, 8))
    assert len(seen) == net.config.num_layers and max(seen) == 0.25


def test_training_mode_moves_w_avg_and_eval_mode_does_not() -> None:
    G = varied(w_avg_beta=0.5).generator
    before = G.mapping.w_avg.clone()
    w = G.mapping(torch.randn(4, 8))[:, 0]
    assert torch.equal(before, G.mapping.w_avg)
    w = G.train().mapping(torch.randn(4, 8))[:, 0]
    torch.testing.assert_close(G.mapping.w_avg, (before + w.mean(0)) / 2)


def test_labels_project_or_select() -> None:
    images, c = torch.randn(4, 3, 16, 16), torch.eye(3)[[0, 1, 2, 0]]
    for mode, width in (("project", 16), ("select", 3)):
        D = varied(label_dim=3, D_label_mode=mode).D
        assert D is not None
        outputs = D.outputs(images)
        assert outputs.shape == (4, width)
        label = c if D.mapping is None else D.mapping(c) / 4
        torch.testing.assert_close(D(images, c), (outputs * label).sum(1, keepdim=True))


def test_labels_may_be_normalised_with_z() -> None:
    G = varied(label_dim=2, label_mode="joint", mapping_layers=1).generator
    z, c = torch.randn(2, 8), torch.eye(2)
    layer = G.mapping.get_submodule("fc0")
    seen: list[Tensor] = []
    layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    G.mapping(z, c)
    torch.testing.assert_close(seen[0].square().mean(1), torch.ones(2))
    assert seen[0].shape == (2, 16)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("architecture", ["skip", "resnet"])
def test_a_gpus_ways_draw_and_judge_the_same(
    grouped: bool, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float16 in the highest blocks, and kernels per picture: on a CPU that is told to do so."""
    net = varied(G_architecture=architecture, D_architecture=architecture, num_fp16_res=1)
    assert net.D is not None
    z, seen = torch.randn(4, 8), []
    with torch.no_grad():
        images = net.generator(z)
        logits = net.D(images)

    def as_on_a_gpu(x: Tensor, config: Any, side: int) -> torch.dtype:
        return torch.float16 if side >= config.lowest_fp16_side else torch.float32

    monkeypatch.setattr(stylegan2, "compute_dtype", as_on_a_gpu)
    monkeypatch.setattr(stylegan2, "prefers_grouped", lambda _: grouped)
    monkeypatch.setattr(modulation, "prefers_grouped", lambda _: grouped)
    for module in (net.generator.synthesis.b16.conv1, net.D.b16.conv1, net.D.b8.conv1):
        module.register_forward_hook(lambda _, __, y: seen.append(y.dtype))
    with torch.no_grad():
        found = net.generator(z)
        assert_close(found, images, 5e-3)
        assert_close(net.D(images), logits, 2e-2)
    assert found.dtype == torch.float32
    assert seen == [torch.float16, torch.float16, torch.float32]


def test_float16_begins_where_the_configuration_says() -> None:
    assert make_config("stylegan2").lowest_fp16_side == 128
    assert make_config("stylegan2", resolution=32).lowest_fp16_side == 8
    assert make_config("stylegan2", num_fp16_res=0).lowest_fp16_side > 1024
    images = new_network("stylegan2", **SMALL).generator(torch.randn(1, 8))
    assert images.dtype == torch.float32  # on a CPU nothing is in float16


def test_files_keep_the_configuration(tmp_path: Path) -> None:
    net = new_network("stylegan2", **SMALL, resample_filter=(1, 2, 1), conv_clamp=None)
    stylecli.save_network(tmp_path / "net.safetensors", net)
    again = stylecli.load_network(tmp_path / "net.safetensors")
    assert again.config == net.config
    assert again.G_ema is not None and net.G_ema is not None
    z = torch.randn(2, 8)
    assert torch.equal(again.G_ema(z), net.G_ema(z))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resample_filter", [1, -1]), ("resample_filter", "1331"), ("resample_filter", []),
        ("conv_clamp", 0), ("G_architecture", "deep"), ("D_architecture", "deep"),
        ("mapping_layers", 0), ("cmap_dim", 0), ("label_mode", "apart"), ("mapping_lrmul", 0.0),
        ("num_fp16_res", -1), ("style_mixing_prob", 2.0), ("w_avg_beta", float("nan")),
    ],
)  # fmt: skip
def test_a_field_that_makes_no_sense_is_named(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=field):
        config_from_dict({**make_config("stylegan2").to_dict(), field: value})


def test_wrong_image_shapes_and_lods_are_named() -> None:
    D = new_network("stylegan2", **SMALL).D
    assert D is not None
    with pytest.raises(UsageError, match=r"\[1, 3, 8, 8\]"):
        D(torch.zeros(1, 3, 8, 8))
    with pytest.raises(UsageError, match="grow"):
        D(torch.zeros(1, 3, 16, 16), lod=1.0)

"""The R3GAN family: the official numbers, parameter counts, how it begins and behaves.

The networks reproduce images and logits of the official program to 1e-5 of their range, gradients
to 1e-4 of the largest.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import stylecli
from stylecli.cli.app import app
from stylecli.errors import UsageError
from stylecli.networks.model import Bundle, new_network
from stylecli.networks.r3gan import ResolutionBlocks
from stylecli.networks.r3gan_config import R3GANConfig
from stylecli.networks.registry import (
    build_discriminator,
    build_generator,
    config_from_dict,
    make_config,
)
from stylecli.rendering import Drawing, render
from stylecli.sampling import map_latents, truncate_ws
from stylecli.styles import style_bands
from tests.conftest import FIXTURES

CASES = json.loads((FIXTURES / "official" / "r3gan.json").read_text())
SMALL: dict[str, Any] = {"resolution": 16, "fmap_base": 128, "fmap_max": 16, "group_fmaps": 4,
                         "z_dim": 8, "embed_dim": 6}  # fmt: skip


def our_name(name: str, network: str, stages: int) -> str:
    """Return our name of a parameter of the official program."""
    words = name.removeprefix("Model.").split(".")
    if words[0] == "EmbeddingLayer":
        return "mapping.label.weight" if network == "G" else "label.weight"
    if words[0] in ("AggregationLayer", "ExtractionLayer"):
        return "synthesis.torgb.weight" if network == "G" else "fromrgb.weight"
    stage, layer, kind = int(words[1]), int(words[3]), ".".join(words[4:])
    ends = {"Basis": "basis", "Basis.weight": "basis", "LinearLayer.weight": "dense.weight"}
    top = "synthesis." if network == "G" else ""
    if kind in ends:
        return f"{top}{'start' if network == 'G' else 'head'}.{ends[kind]}"
    side = 4 << (stage if network == "G" else stages - 1 - stage)
    if kind == "LinearLayer.Layer.weight":
        return f"{top}b{side}.change.weight"
    block = layer - 1 if network == "G" else layer
    number = int(kind.split(".")[0][-1]) - 1
    part = f"conv{number}.weight" if kind.startswith("Linear") else f"bias{number}"
    return f"{top}b{side}.blocks.{block}.{part}"


def official(case: str) -> tuple[Bundle, dict[str, Tensor]]:
    """Return the networks of a case of the official program, and what they gave."""
    given = CASES[case]["G_kwargs"]
    config = R3GANConfig(
        resolution=given["img_resolution"], label_dim=given["c_dim"],
        z_dim=given["NoiseDimension"], embed_dim=given.get("ConditionEmbeddingDimension", 64),
        widths=given["WidthPerStage"], groups=given["CardinalityPerStage"],
        blocks=given["BlocksPerStage"][0], expansion=given["ExpansionFactor"],
        D_embed_dim=CASES[case]["D_kwargs"].get("ConditionEmbeddingDimension"),
    )  # fmt: skip
    with np.load(FIXTURES / "official" / f"r3gan_{case}.npz") as arrays:
        values = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    if case == "labels":  # whose weights are kept in a snapshot
        read = stylecli.load_network(FIXTURES / "official" / "r3gan_labels_snapshot.pkl")
        return Bundle(config, G_ema=read.G, D=read.D), values
    net = Bundle(config, G_ema=build_generator(config), D=build_discriminator(config))
    for letter, network in (("G", net.G_ema), ("D", net.D)):
        assert network is not None
        names = {
            our_name(key[2:], letter, len(config.sides)): value
            for key, value in values.items() if key.startswith(f"{letter}:")
        }  # fmt: skip
        shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
        network.load_state_dict(
            {name: value.reshape(shapes[name]) for name, value in names.items()}
        )
        network.eval()
    return net, values


def assert_close(found: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == wanted.shape
    error = (found - wanted).abs().max() / (wanted.max() - wanted.min())
    assert error <= tolerance


# ---- The official program


@pytest.mark.parametrize("case", CASES)
def test_images_and_logits_are_the_official_ones(case: str) -> None:
    net, values = official(case)
    D, c = net.D, values.get("c")
    assert D is not None
    with torch.no_grad():
        assert_close(net.generator(values["z"], c), values["img"])
        assert_close(D(values["reals"], c)[:, 0], values["d_reals"])
        assert_close(D(values["img"], c)[:, 0], values["d_fakes"])


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_the_discriminator_are_the_official_ones(case: str) -> None:
    """The relativistic loss with both penalties, R1 and R2: gradients of gradients."""
    net, values = official(case)
    D, c = net.D, values.get("c")
    assert D is not None
    fakes = net.generator(values["z"], c).detach().requires_grad_()
    reals = values["reals"].requires_grad_()
    real_logits, fake_logits = D(reals, c)[:, 0], D(fakes, c)[:, 0]
    penalties = []
    for logits, images, name in ((real_logits, reals, "r1"), (fake_logits, fakes, "r2")):
        (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        penalties.append(slope.square().sum(dim=(1, 2, 3)))
        assert_close(penalties[-1], values[name])
    loss = F.softplus(fake_logits - real_logits) + CASES[case]["gamma"] / 2 * sum(penalties)
    (CASES[case]["gradient_scale"] * loss.mean()).backward()
    assert_gradients(D, values, "D", net.config)


def test_gradients_of_the_generator_are_the_official_ones() -> None:
    net, values = official("labels")
    D, c = net.D, values["c"]
    assert D is not None
    fakes = net.generator(values["z_for_G"], c)
    loss = F.softplus(D(values["reals_for_G"], c) - D(fakes, c)).mean()
    (CASES["labels"]["gradient_scale"] * loss).backward()
    assert_gradients(net.generator, values, "G", net.config)


def assert_gradients(
    network: nn.Module, values: dict[str, Tensor], letter: str, config: Any
) -> None:
    wanted = {
        our_name(key.split(":", 1)[1], letter, len(config.sides)): value
        for key, value in values.items() if key.startswith(f"grad_{letter}:")
    }  # fmt: skip
    parameters = dict(network.named_parameters())
    assert wanted.keys() == parameters.keys()
    for name, value in wanted.items():
        found = parameters[name].grad
        assert found is not None
        atol = 1e-4 * max(float(value.abs().max()), 1e-6)
        torch.testing.assert_close(found, value.reshape(found.shape), rtol=0, atol=atol)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("preset", "fields", "generator", "discriminator"),
    [
        ("r3gan", {"resolution": 32, "label_dim": 10}, 20_781_952, 21_280_512),
        ("r3gan", {"resolution": 64}, 22_429_824, 22_381_440),
        ("r3gan", {}, 23_057_952, 23_009_568),
        ("r3gan-imagenet32", {"label_dim": 1000}, 82_914_304, 86_548_992),
        ("r3gan-imagenet64", {"label_dim": 1000}, 103_570_432, 107_205_120),
    ],
)
def test_parameters_of_the_published_configurations(
    preset: str, fields: dict[str, int], generator: int, discriminator: int
) -> None:
    config = make_config(preset, **fields)
    with torch.device("meta"):
        G, D = build_generator(config), build_discriminator(config)
    assert (count(G), count(D)) == (generator, discriminator)
    assert 0.99 * generator < config.count_weights("G") <= generator
    assert 0.99 * discriminator < config.count_weights("D") <= discriminator


# ---- The beginning


def test_initialisation_is_fixed_up() -> None:
    """The last kernel of a block is zero, the others √(2/1.04)·L^(-1/4)/√fan_in, biases 0."""
    net = new_network("r3gan", resolution=16, fmap_max=128, label_dim=500)
    G, D = net.generator, net.D
    assert D is not None
    gain = math.sqrt(2 / 1.04) * 6**-0.25  # two blocks at each of 4, 8 and 16 px
    deviations = {"blocks.0.conv0.weight": gain / math.sqrt(128), "blocks.0.bias0": 0.0,
                  "blocks.0.conv1.weight": gain / math.sqrt(9 * 16), "blocks.0.bias1": 0.0,
                  "blocks.0.conv2.weight": 0.0}  # fmt: skip
    for stage in (*(getattr(G.synthesis, f"b{side}") for side in (4, 16)), D.b16, D.b4):
        assert isinstance(stage, ResolutionBlocks)
        found = dict(stage.named_parameters())
        for name, wanted in deviations.items():
            assert found[name].std().item() == pytest.approx(wanted, rel=0.03)
    expected = {
        (G, "synthesis.start.basis"): 1.0, (G, "synthesis.start.dense.weight"): 128**-0.5,
        (G, "mapping.label.weight"): 500**-0.5, (G, "synthesis.torgb.weight"): 128**-0.5,
        (D, "fromrgb.weight"): 3**-0.5, (D, "head.basis"): 0.25,
        (D, "head.dense.weight"): 128**-0.5, (D, "label.weight"): (500 * 128) ** -0.5,
    }  # fmt: skip
    for (network, name), wanted in expected.items():
        assert network.get_parameter(name).std().item() == pytest.approx(wanted, rel=0.1)


def test_blocks_begin_as_the_identity() -> None:
    x = torch.randn(2, 16, 4, 4)
    stage = ResolutionBlocks(R3GANConfig(**SMALL), 4, up=True)
    assert torch.equal(stage(x), x)


def test_a_change_of_width_is_a_kernel_of_its_own() -> None:
    stages = {
        side: ResolutionBlocks(R3GANConfig(**{**SMALL, "widths": [8, 8, 4]}), side, up=True)
        for side in (8, 16)
    }
    assert stages[8].change is None
    change = stages[16].change
    assert change is not None and change.weight.shape == (4, 8, 1, 1)


# ---- Behaviour


def varied(**fields: Any) -> Bundle:
    """Return a small network whose blocks are not the identity."""
    net = new_network("r3gan", **{**SMALL, **fields})
    generator = torch.Generator().manual_seed(3)
    for network in (net.G_ema, net.D):
        assert network is not None
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                if ".blocks." in key:
                    parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return net


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("resolution", [4, 8, 64])
def test_every_size_draws_and_judges(channels: int, resolution: int) -> None:
    net = new_network(
        "r3gan", **{**SMALL, "resolution": resolution}, channels=channels, label_dim=3
    )
    c = torch.eye(3)[[0, 1, 2]]
    with torch.no_grad():
        images = net.generator(torch.randn(3, 8), c)
        assert images.shape == (3, channels, resolution, resolution)
        assert net.D is not None and net.D(images, c).shape == (3, 1)


def test_a_picture_does_not_depend_on_its_batch() -> None:
    net = varied()
    ws = net.generator.mapping(torch.randn(9, 8)).detach()
    alone = list(render(net.generator, ws, Drawing(batch=1)))
    assert all(
        np.array_equal(one, other)
        for batch in (2, 3, 9)
        for one, other in zip(alone, render(net.generator, ws, Drawing(batch=batch)), strict=True)
    )


def test_z_goes_in_as_it_is_with_the_label_beside_it() -> None:
    G = varied(label_dim=3).generator
    z, c = 5 * torch.randn(2, 8), torch.eye(3)[:2]
    ws = G.mapping(z, c)
    assert ws.shape == (2, 1, 14) and torch.equal(ws[:, 0, :8], z)
    label = G.mapping.get_submodule("label").get_parameter("weight")
    assert torch.equal(ws[:, 0, 8:], label.T[:2])


def test_what_needs_a_w_is_refused() -> None:
    net = varied()
    assert not (net.config.has_w or net.config.has_noise or net.config.grows)
    assert net.config.num_ws == 1 and net.config.truncation_psi == 1.0
    with pytest.raises(UsageError, match="grow"):
        net.generator(torch.randn(2, 8), lod=1.0)


def test_psi_shrinks_z_and_leaves_the_label_where_it_is_asked_for() -> None:
    net = varied(label_dim=3)
    G, z, c = net.generator, torch.randn(2, 8), torch.eye(3)[:2]
    with torch.no_grad():
        ws = G.mapping(z, c)
        for short in (
            G.mapping(z, c, truncation_psi=0.5),
            map_latents(G, z, [0, 1], psi=0.5),
            truncate_ws(G, ws, [0.5]),
        ):
            assert torch.equal(short[..., :8], ws[..., :8] * 0.5)
            assert torch.equal(short[..., 8:], ws[..., 8:])
        assert torch.equal(map_latents(G, z, [0, 1]), ws)  # unasked nothing is shrunk


def test_the_commands_draw_it_and_refuse_what_needs_a_w(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stylecli.save_network("net.safetensors", varied())
    network, run = ["--network", "net.safetensors"], CliRunner().invoke
    drawn = run(app, ["generate", "--seeds", "1,2", *network])
    assert drawn.exit_code == 0, drawn.output
    assert len(drawn.stdout.splitlines()) == 2
    refused = {
        "--psi-layers": ["generate", "--seeds", "1", "--psi-layers", "0:1"],
        "styles to mix": ["mix", "--rows", "2"], "ppl_zfull": ["metrics", "ppl_wfull"],
    }  # fmt: skip
    for word, arguments in refused.items():
        result = run(app, [*arguments, *network])
        assert result.exit_code != 0 and word in f"{result.output} {result.exception}"


def test_bfloat16_begins_where_the_configuration_says() -> None:
    sides = [make_config("r3gan", resolution=side).lowest_bf16_side for side in (32, 64, 256)]
    assert sides == [8, 8, 32]
    assert make_config("r3gan", num_bf16_res=0).lowest_bf16_side > 256
    images = new_network("r3gan", **SMALL).generator(torch.randn(1, 8))
    assert images.dtype == torch.float32  # on a CPU nothing is in bfloat16


def test_bands_are_of_blocks() -> None:
    config = make_config("r3gan", resolution=128)
    bands = style_bands(config.layer_sides)
    assert bands == {"coarse": [0, 1, 2, 3], "middle": [4, 5, 6, 7], "fine": [8, 9, 10, 11]}


def test_frozen_layers_are_names_of_modules() -> None:
    net = new_network("r3gan", **SMALL, widths=[16, 8, 8])
    layers = net.config.discriminator_layers(16)
    assert net.D is not None and len(layers) == len(set(layers)) == 9
    names = {name for name, _ in net.D.named_modules()} | {
        name for name, _ in net.D.named_parameters()
    }
    assert set(layers) <= names


def test_files_keep_the_configuration(tmp_path: Path) -> None:
    net = varied(widths=[16, 12, 8], groups=[4, 3, 2])
    stylecli.save_network(tmp_path / "net.safetensors", net)
    again = stylecli.load_network(tmp_path / "net.safetensors")
    assert again.config == net.config
    assert again.G_ema is not None and net.G_ema is not None
    z = torch.randn(2, 8)
    assert torch.equal(again.G_ema(z), net.G_ema(z))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("widths", [8, 8]), ("widths", [8, 8, 0]), ("widths", "888"), ("groups", [4, 4, 5]),
        ("groups", [1.0, 1.0, 1.0]), ("blocks", 0), ("expansion", 0), ("group_fmaps", 0),
        ("embed_dim", 0), ("D_embed_dim", 0), ("num_bf16_res", -1), ("channels", 2),
    ],
)  # fmt: skip
def test_a_field_that_makes_no_sense_is_named(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=field):
        config_from_dict({**make_config("r3gan", **SMALL).to_dict(), field: value})


def test_wrong_image_shapes_are_named() -> None:
    D = new_network("r3gan", **SMALL).D
    assert D is not None
    with pytest.raises(UsageError, match=r"\[1, 3, 8, 8\]"):
        D(torch.zeros(1, 3, 8, 8))

"""The StyleGAN3 family: official numbers, layer tables, filters, gradients, and how it behaves.

The networks reproduce the images of the official program to 1e-5 of their range, T and R.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stylecli
from stylecli.errors import UsageError
from stylecli.networks.model import new_network
from stylecli.networks.registry import build_generator, config_from_dict, make_config
from stylecli.networks.stylegan3 import Generator
from stylecli.networks.stylegan3_config import StyleGAN3Config
from stylecli.networks.stylegan3_filters import bessel_j1, layer_filters
from stylecli.ops import filtered_lrelu as operator
from stylecli.rendering import Drawing, render
from stylecli.sheets.paper import FIGURES, describe_lack, draw_layer_styles
from stylecli.styles import style_bands
from tests.conftest import FIXTURES

OFFICIAL = FIXTURES / "official"
FACTS = json.loads((OFFICIAL / "stylegan3.json").read_text("utf-8"))
SMALL: dict[str, Any] = {"resolution": 16, "num_layers": 3, "fmap_base": 128, "fmap_max": 8,
                         "z_dim": 8, "w_dim": 8, "D_fmap_base": 64, "D_fmap_max": 8}  # fmt: skip
PRESETS = ("stylegan3-t", "stylegan3-r")


@cache
def values_of(kind: str) -> dict[str, Tensor]:
    with np.load(OFFICIAL / f"stylegan3_{kind}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def official(kind: str) -> tuple[Generator, dict[str, Tensor]]:
    """Return the generator of the official program, and what it gave."""
    given = FACTS["networks"][kind]["G_kwargs"]
    config = StyleGAN3Config.named(
        f"stylegan3-{kind}", resolution=32, z_dim=given["z_dim"], w_dim=given["w_dim"],
        fmap_base=given["channel_base"], fmap_max=given["channel_max"],
        num_layers=given["num_layers"], magnitude_beta=given["magnitude_ema_beta"],
    )  # fmt: skip
    G, values = Generator(config), values_of(kind)
    wanted = G.state_dict().keys()
    G.load_state_dict({key: values[f"G:{key}"].clone() for key in wanted})
    return G.eval(), values


def assert_close(found: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    error = (found - wanted).abs().max() / (wanted.max() - wanted.min())
    assert error <= tolerance


# ---- The official program


@pytest.mark.parametrize("kind", ["t", "r"])
def test_images_are_the_official_ones(kind: str) -> None:
    G, values = official(kind)
    cutoff = FACTS["networks"][kind]["cutoff"]
    with torch.no_grad():
        ws = G.mapping(values["z"])
        assert_close(ws[:, 0], values["ws"])
        assert_close(G.synthesis(ws), values["img"])
        assert_close(G(values["z"][:1], truncation_psi=0.7), values["img_trunc"])
        cut = G.mapping(values["z"], truncation_psi=0.5, truncation_cutoff=cutoff)
        assert_close(cut, values["ws_trunc_psi0p5_cut"])
        mixed = ws.clone()
        mixed[:, cutoff:] = values["ws_flipz"][:, None]
        assert_close(G.synthesis(mixed)[:1], values["img_mix"])
        for name in ("xf0", "xf1", "xf_zoom"):
            G.synthesis.input.transform.copy_(values[f"{name}_stored_inverse"])
            assert_close(G.synthesis(ws[:1]), values[f"{name}_img"])


@pytest.mark.parametrize("kind", ["t", "r"])
def test_gradients_are_the_official_ones(kind: str) -> None:
    G, values = official(kind)
    (G(values["z"]) * values["grad_noise"]).sum().backward()
    names = [key.removeprefix("grad:") for key in values if key.startswith("grad:")]
    assert len(names) == 6
    for name in names:
        # Where a value is next to zero, rounding decides its slope: weights changed by 1e-6 of
        # themselves move these gradients as much.
        assert_close(G.get_parameter(name).grad, values[f"grad:{name}"], 1e-3)


@pytest.mark.parametrize("kind", ["t", "r"])
def test_averages_move_as_the_official_ones(kind: str) -> None:
    G, values = official(kind)
    before = {key: value.clone() for key, value in G.state_dict().items()}
    with torch.no_grad():
        G.synthesis(G.mapping(values["z"]))
    assert all(torch.equal(value, before[key]) for key, value in G.state_dict().items())
    G.mapping.train()
    G.synthesis(G.mapping(values["z"]), update_emas=True)
    moved = {key.split(":")[1] for key in values if key.startswith("after_ema_update:")}
    assert moved == {key for key in before if key.endswith(("w_avg", "magnitude_ema"))}
    for name in moved:
        torch.testing.assert_close(G.get_buffer(name), values[f"after_ema_update:{name}"])


@pytest.mark.parametrize("table", ["t256", "t1024", "r256"])
def test_layers_are_those_of_the_official_table(table: str) -> None:
    config = make_config(f"stylegan3-{table[0]}", resolution=int(table[1:]))
    found = [
        {"name": plan.name, "padding": list(plan.padding), "up": plan.up, "down": plan.down,
         "in_sr": plan.in_rate, "out_sr": plan.out_rate,
         "in_cutoff": pytest.approx(plan.in_cutoff, rel=1e-12),
         "out_cutoff": pytest.approx(plan.out_cutoff, rel=1e-12)}
        for plan in config.layers()
    ]  # fmt: skip
    assert found == FACTS["layers"][table]


@pytest.mark.parametrize("kind", ["t", "r"])
def test_filters_are_the_official_ones(kind: str) -> None:
    G, values = official(kind)
    for plan in G.config.layers():
        for name, f in zip(("up_filter", "down_filter"), layer_filters(plan), strict=True):
            wanted = values.get(f"G:synthesis.{plan.name}.{name}")
            assert (f is None) == (wanted is None)
            if f is not None:
                assert f.shape == wanted.shape and np.abs(f - wanted.numpy()).max() < 1e-7


def test_the_bessel_function_has_its_values() -> None:
    x = np.array([0.0, 1.0, 10.0, 100.0, -1.0])
    wanted = [0, 0.44005058574493352, 0.04347274616886144, -0.07714535201411216,
              -0.44005058574493352]  # fmt: skip
    assert np.abs(bessel_j1(x) - wanted).max() < 1e-13


@pytest.mark.parametrize(
    ("preset", "resolution", "wanted"),
    [
        ("stylegan3-t", 1024, 22_313_167), ("stylegan3-t", 512, 24_873_519),
        ("stylegan3-t", 256, 28_472_133), ("stylegan3-r", 1024, 15_093_151),
        ("stylegan3-r", 512, 16_665_594), ("stylegan3-r", 256, 18_816_387),
    ],
)  # fmt: skip
def test_parameters_of_the_papers(preset: str, resolution: int, wanted: int) -> None:
    config = make_config(preset, resolution=resolution)
    with torch.device("meta"):
        G = build_generator(config)
    assert sum(parameter.numel() for parameter in G.parameters()) == wanted
    assert 0.9 * wanted < config.count_weights("G") <= wanted


@pytest.mark.parametrize(
    ("resolution", "middle", "fine"), [(1024, 3, 7), (256, 4, 9), (64, 5, 13), (32, 6, 13)]
)
def test_bands_follow_the_frequencies(resolution: int, middle: int, fine: int) -> None:
    sides = make_config("stylegan3-t", resolution=resolution).style_sides
    bands = {"coarse": (0, middle), "middle": (middle, fine), "fine": (fine, 16)}
    assert style_bands(sides) == {name: list(range(*ends)) for name, ends in bands.items()}


# ---- Derivatives


@pytest.mark.parametrize("preset", PRESETS)
def test_a_path_length_has_the_gradients_of_float64(preset: str) -> None:
    found = [path_length_gradients(preset, dtype) for dtype in (torch.float32, torch.float64)]
    assert len(found[1]) > 20
    for key, wanted in found[1].items():
        scale = max(float(wanted.abs().max()), 1e-3)
        torch.testing.assert_close(found[0][key].double(), wanted, rtol=0, atol=1e-4 * scale)


def test_second_derivatives_are_those_of_the_plain_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    found = path_length_gradients("stylegan3-r", torch.float64)
    monkeypatch.setattr(operator, "_in_tiles", lambda *_: False)
    plain = path_length_gradients("stylegan3-r", torch.float64)
    assert len(found) > 20
    for key, wanted in plain.items():
        if key not in found:  # the plain steps return zeros where the tiles know that there is none
            assert not wanted.any()
            continue
        torch.testing.assert_close(found[key], wanted, rtol=1e-6, atol=1e-9)


def path_length_gradients(preset: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the gradients of |∇_w Σ(img·y)|² by every parameter."""
    G = new_network(preset, **SMALL, seed=1).G.to(dtype)
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    ws = G.mapping(z)
    images = G.synthesis(ws)
    (slope,) = torch.autograd.grad((images * images.detach()).sum(), ws, create_graph=True)
    slope.square().sum().backward()
    return {
        key: parameter.grad
        for key, parameter in G.named_parameters() if parameter.grad is not None
    }  # fmt: skip


# ---- How it behaves


@pytest.mark.parametrize("preset", PRESETS)
def test_a_picture_does_not_depend_on_its_company(preset: str) -> None:
    G = new_network(preset, **SMALL).generator
    nn.init.normal_(G.synthesis.input.affine.weight)
    z = torch.randn(5, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ws = G.mapping(z)
        alone, together = G.synthesis(ws[:1]), G.synthesis(ws)[:1]
    assert_close(alone, together, 1e-5)
    pictures = [list(render(G, ws, Drawing(batch=batch))) for batch in (1, 5)]
    assert all((a == b).all() for a, b in zip(*pictures, strict=True))


def test_a_shift_of_the_transform_shifts_the_picture() -> None:
    """What it is made for: moved by whole pixels, the inside is the same picture."""
    G, values = official("t")
    with torch.no_grad():
        G.synthesis.input.affine.weight.zero_()
        ws = G.mapping(values["z"][:1])
        before = G.synthesis(ws)
        G.synthesis.input.transform[0, 2] = -4 / 32
        after = G.synthesis(ws)
    error = (after[..., 6:] - before[..., 2:-4]).abs().mean() / before.std()
    assert error < 0.2 < (after - before).abs().mean() / before.std()


@pytest.mark.parametrize("preset", PRESETS)
def test_it_is_saved_and_loaded(preset: str, tmp_path: Path) -> None:
    net = new_network(preset, **SMALL, label_dim=3)
    stylecli.save_network(tmp_path / "a.safetensors", net)
    again = stylecli.load_network(tmp_path / "a.safetensors")
    assert again.config == net.config == config_from_dict(net.config.to_dict())
    z, c = torch.ones(2, 8), torch.eye(3)[:2]
    with torch.no_grad():
        images = again.generator(z, c)
        assert images.shape == (2, 3, 16, 16)
        assert torch.equal(images, net.generator(z, c))
        assert again.D(images, c).shape == (2, 1)


def test_a_fresh_network_starts_at_unit_size() -> None:
    config = make_config("stylegan3-t", resolution=64, fmap_base=4096, fmap_max=64)
    torch.manual_seed(0)
    G = Generator(config)
    assert G.synthesis.input.freqs.norm(dim=1).max() <= config.first_cutoff
    with torch.no_grad():
        images = G(torch.randn(4, 512)) / config.output_scale
    assert 0.3 < images.std() < 3


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("resolution", 8, "resolution 8"), ("num_layers", 0, "num_layers 0"),
        ("num_critical", 14, "num_critical 14"), ("first_cutoff", -1.0, "first_cutoff"),
        ("first_cutoff", 9.0, "first_cutoff 9"), ("magnitude_beta", 2.0, "magnitude_beta"),
        ("conv_kernel", 9, "conv_kernel 9"), ("first_stopband", 0.1, "first_stopband 0.1"),
        ("last_stopband_rel", 1e-9, "last_stopband_rel"), ("lrelu_upsampling", 8, "96 taps"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(field: str, value: Any, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        make_config("stylegan3-t", **{field: value})


def test_sheets_show_every_latent() -> None:
    G = new_network("stylegan3-r", **SMALL).generator
    sheet = draw_layer_styles(G, [1], [2], Drawing(scale=1))
    assert sheet.shape[1] > 16 * (G.config.num_ws + 2)
    assert [bool(describe_lack(figure, G.config)) for figure in FIGURES if figure.needs] == [
        figure.needs == "noise" for figure in FIGURES if figure.needs
    ]


@pytest.mark.parametrize(
    ("translate", "degrees", "stored"),
    [  # of the official program
        ((0.11, -0.07), 25.0, [[0.9063078, -0.42261827, -0.12927714],
                               [0.42261827, 0.9063078, 0.01695354], [0, 0, 1]]),
        ((-0.3, 0.2), -70.0, [[0.34202015, 0.9396926, -0.08533248],
                              [-0.9396926, 0.34202015, -0.35031182], [0, 0, 1]]),
    ],
)  # fmt: skip
def test_pictures_move_as_the_official_program_moves_them(
    translate: tuple[float, float], degrees: float, stored: list[list[float]]
) -> None:
    G = stylecli.new_network("stylegan3-t", resolution=16, fmap_base=64, fmap_max=4).G_ema
    assert G is not None
    G.move_pictures((0.5, 0.5), 10)

    G.move_pictures(translate, degrees)

    torch.testing.assert_close(G.synthesis.input.transform, torch.tensor(stored))

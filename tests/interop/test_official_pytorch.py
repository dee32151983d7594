"""Snapshots of NVIDIA's PyTorch programs: read without running anything, drawn as they draw.

The pickles' source text ends the process: a test that survives has executed nothing.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stylecli
from stylecli.checkpoint import convert_network, load_network
from stylecli.errors import NetworkError
from stylecli.interop.families import describe_foreign
from stylecli.interop.official_pytorch import convert_stylegan3
from stylecli.interop.trees import PersistentModule
from stylecli.networks.registry import build_generator
from tests.conftest import FIXTURES
from tests.interop import foreign_files
from tests.networks import test_stylegan3 as stylegan3

OFFICIAL = FIXTURES / "official"
SNAPSHOTS = {
    "labels": "StyleGAN2 (NVIDIA, stylegan2-ada-pytorch)",
    "stylegan3": "StyleGAN2 (NVIDIA, stylegan3)",
}


def values_of(case: str) -> dict[str, torch.Tensor]:
    with np.load(OFFICIAL / f"stylegan2_{case}_io.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def assert_close(found: torch.Tensor, wanted: torch.Tensor, span: Any = None) -> None:
    reach = wanted if span is None else span
    assert (found - wanted).abs().max() <= 1e-5 * (reach.max() - reach.min())


def test_an_ada_snapshot_with_labels_draws_and_judges_as_there() -> None:
    net, values = (
        stylecli.load_network(OFFICIAL / "stylegan2_labels_snapshot.pkl"),
        values_of("labels"),
    )
    G, D, z, c = net.G_ema, net.D, values["z"], values["c"]
    assert G is not None and D is not None and net.G is not None
    assert (net.config.label_dim, net.config.conv_clamp, net.info["augment_p"]) == (4, 2.0, 0.375)
    with torch.no_grad():
        ws = G.mapping(z, c)
        assert_close(ws[:, 0], values["ws"])
        assert_close(G.synthesis(ws), values["img"])
        assert_close(G.synthesis(ws, noise_mode="none"), values["img_nonoise"])
        assert_close(G(z, c, truncation_psi=0.7), values["img_trunc"])
        assert_close(G(z, c, truncation_psi=0.5, truncation_cutoff=3), values["img_trunc_cut"])
        mixed = torch.cat([ws[:, :3], G.mapping(values["z2"], c)[:, 3:]], dim=1)
        assert_close(G.synthesis(mixed), values["img_mix"])
        judged, c = values["d_images"], values["d_c"]
        assert_close(D(judged, c), values["d_logits"])
        assert_close(D(judged[:3], c[:3]), values["d_logits_batch3"], values["d_logits"])


def assert_gradients(network: Any, values: dict[str, torch.Tensor], phase: str) -> None:
    """Gradients are the official program's, to 1e-5 of each one's largest."""
    own = {
        name.replace("mapping.label", "mapping.embed"): parameter.grad
        for name, parameter in network.named_parameters()
    }
    start = f"{phase}:grad:"
    wanted = {key.removeprefix(start): values[key] for key in values if key.startswith(start)}
    assert len(wanted) >= 7
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for key, gradient in wanted.items():
        found = next(own[name] for name in own if key.endswith(name))
        found = torch.zeros_like(gradient) if found is None else found
        reach = max(float(gradient.abs().max()), 1e-3 * largest)
        assert (found - gradient).abs().max() <= 1e-5 * reach, key


def test_gradients_of_training_are_the_official_ones() -> None:
    """Of R1, of the generator's loss and of the path length; w_avg moves as there."""
    net, values = (
        stylecli.load_network(OFFICIAL / "stylegan2_labels_snapshot.pkl"),
        values_of("labels"),
    )
    G, D, z, c = net.G_ema, net.D, values["z"], values["c"]
    assert G is not None and D is not None
    real = values["d_images"][:4].requires_grad_()
    logits = D(real, values["d_c"][:4])
    (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    penalty = slope.square().sum(dim=(1, 2, 3))
    assert_close(penalty.detach(), values["Dreg:r1_penalty"].flatten())
    (penalty * 3.0 / 2).mean().mul(16).backward()  # γ 3, once in 16 steps
    assert_gradients(D, values, "Dreg")

    G.train()
    torch.nn.functional.softplus(-D(G(z, c), c)).mean().backward()
    assert_gradients(G, values, "Gmain")
    torch.testing.assert_close(G.mapping.w_avg, values["Gmain:w_avg_after"])
    G.zero_grad()

    ws = G.mapping(z[:2], c[:2])
    images = G.synthesis(ws)
    probe = values["pl_noise_standard_normal"] / 16  # √(height·width)
    (slope,) = torch.autograd.grad((images * probe).sum(), ws, create_graph=True)
    lengths = slope.square().sum(dim=2).mean(dim=1).sqrt()
    mean = 1 + 0.01 * (lengths.mean() - 1)  # gradients flow through the mean as it is updated
    penalty = (lengths - mean).square()
    wanted = values["Greg:pl_penalty"].flatten()
    torch.testing.assert_close(penalty.detach(), wanted, rtol=1e-5, atol=0)
    (penalty * 1.5).mean().backward()
    assert_gradients(G, values, "Greg")


def test_a_snapshot_of_the_stylegan3_repository_has_its_defaults() -> None:
    net = stylecli.load_network(OFFICIAL / "stylegan2_stylegan3_snapshot.pkl")
    values, config = values_of("stylegan3"), net.config
    assert (config.conv_clamp, config.num_fp16_res, config.w_avg_beta) == (256, 4, 0.998)
    assert net.G_ema is not None and net.D is not None
    with torch.no_grad():
        assert_close(net.G_ema.mapping(values["z"])[:, 0], values["w_ema"])
        assert_close(net.G_ema(values["z"]), values["img_ema"])
        cut = net.G_ema(values["z"], truncation_psi=0.5, truncation_cutoff=3)
        assert_close(cut, values["img_ema_psi"])
        assert_close(net.D(values["d_images"]), values["d_logits"])


@pytest.mark.parametrize("case", SNAPSHOTS)
def test_a_converted_snapshot_is_named_and_keeps_its_licence(case: str, tmp_path: Path) -> None:
    source, target = OFFICIAL / f"stylegan2_{case}_snapshot.pkl", tmp_path / "net.safetensors"
    before, after = stylecli.load_network(source), convert_network(source, target)
    facts = describe_foreign(source)

    assert facts["family"] == after.info["source_family"] == SNAPSHOTS[case]
    assert "NVIDIA" in after.info["source_licence"]
    assert after.config == before.config
    for name in ("G", "D", "G_ema"):
        one, other = getattr(before, name).state_dict(), getattr(after, name).state_dict()
        assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def load(tmp_path: Path, **fields: Any) -> Any:
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(foreign_files.ada_snapshot(**fields))
    return stylecli.load_network(path)


def test_a_snapshot_made_by_code_loads_with_its_strides_and_half_precision(tmp_path: Path) -> None:
    net = load(tmp_path)
    assert net.G_ema(torch.zeros(1, foreign_files.FEATURES)).shape == (1, 3, 4, 4)
    assert net.D(torch.zeros(1, 3, 4, 4)).shape == (1, 1)


def test_squares_of_forks_for_other_shapes_are_ordinary_networks(tmp_path: Path) -> None:
    plain = load(tmp_path)
    fork = load(tmp_path, init_res=[4, 4], resolution_h=4, D_settings={"init_res": [4, 4]})
    assert fork.config == plain.config and fork.D is not None


def test_an_unlabelled_discriminator_may_say_anything_of_its_labels(tmp_path: Path) -> None:
    """The official converter writes arguments of a network that it never makes."""
    unused = {"embed_features": 512, "lr_multiplier": 0.1}
    net = load(tmp_path, D_settings={"cmap_dim": 7, "mapping_kwargs": unused})
    assert net.config.cmap_dim is None and net.D is not None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"resolution_h": 8, "resolution_w": 4}, "4 x 8 px"),  # of forks
        ({"init_res": [4, 6]}, "6 x 4 px"),
        ({"resolution_h": 8}, "img_resolution"),
        ({"init_res": [5, 5]}, "init_res"),
        ({"init_res": "4"}, "init_res"),
        ({"countHW": [1, 2]}, "countHW"),
        ({"activation": "swish"}, "activation='swish'"),
        ({"resample_filter": [1, 2, 1]}, "resample_filter"),  # D has another
        ({"taps": 2.0}, "filter"),
        ({"conv_clamp": "much"}, "conv_clamp"),
        ({"channel_base": 4}, "does not fit its own configuration"),
        ({"architecture": "resnet2"}, "resnet2"),
        ({"use_noise": False}, "noise_const"),
        ({"D_settings": {"channel_base": [8]}}, "discriminator's feature maps"),
        ({"D_settings": {"epilogue_kwargs": {"sync_bn": True}}}, "sync_bn"),
        ({"D_settings": {"c_dim": 2}}, "label_dim"),
    ],
)
def test_what_no_network_here_has_is_refused_by_name(
    fields: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(NetworkError) as error:
        load(tmp_path, **fields)
    assert words in str(error.value)


SNAPSHOT = OFFICIAL / "stylegan3_r_snapshot.pkl"


def snapshot(kind: str = "t", arrays: Any = None, **settings: Any) -> dict[str, Any]:
    """Return what a snapshot's reader makes of one, with further ``settings`` of the generator."""

    def module(prefix: str, **state: Any) -> PersistentModule:
        inside = {key.removeprefix(prefix): value for key, value in values.items()
                  if key.startswith(prefix)}  # fmt: skip
        own = {key: value for key, value in inside.items() if "." not in key}
        children = dict.fromkeys(key.split(".")[0] for key in inside if "." in key)
        state |= {"_parameters": own, "_buffers": {"up_filter": None} if "weight" in own else {},
                  "_modules": {key: module(f"{prefix}{key}.") for key in children}}  # fmt: skip
        state["_buffers"] = {k: v for k, v in state["_buffers"].items() if k not in own}
        return PersistentModule({"class_name": "Module", "version": 6, "state": state})

    values = {
        key: array.numpy() for key, array in stylegan3.values_of(kind).items() if key[:2] == "G:"
    }
    values |= arrays or {}
    given = {**stylegan3.FACTS["networks"][kind]["G_kwargs"], **settings}
    return {"G_ema": module("G:", _init_args=(), _init_kwargs=given)}


def test_an_official_snapshot_draws_the_same(tmp_path: Path) -> None:
    values = stylegan3.values_of("r")
    for net in (load_network(SNAPSHOT), convert_network(SNAPSHOT, tmp_path / "r.safetensors")):
        assert net.config.preset == "stylegan3-r" and net.G is not None and net.D is not None
        with torch.no_grad():
            stylegan3.assert_close(net.generator(values["z"]), values["img"])
            logits = net.D(values["img"])
        assert logits.shape == (3, 1) and torch.isfinite(logits).all()
        assert (
            net.info["source_family"] == "StyleGAN3-R (NVIDIA, stylegan3)"
            and net.info["augment_p"] == 0.25
        )
        assert net.info["source_licence"].startswith("NVIDIA")


def test_it_is_described() -> None:
    facts = describe_foreign(SNAPSHOT)
    assert facts["family"] == "StyleGAN3-R (NVIDIA, stylegan3)"
    assert facts["settings"]["G_ema"]["conv_kernel"] == 1


def test_a_generator_alone_draws_the_same() -> None:
    foreign = convert_stylegan3(snapshot(), "")
    G, values = build_generator(foreign.config), stylegan3.values_of("t")
    arrays = foreign.networks["G_ema"]
    G.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    with torch.no_grad():
        stylegan3.assert_close(G.eval()(values["z"]), values["img"])


def test_a_fork_that_passes_by_position_is_understood() -> None:
    tree = snapshot()
    state = tree["G_ema"].state
    names = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
    state["_init_args"] = tuple(state["_init_kwargs"].pop(name) for name in names)
    assert convert_stylegan3(tree, "").config == convert_stylegan3(snapshot(), "").config


@pytest.mark.parametrize(
    ("tree", "word"),
    [
        ({"resolution_h": 8}, "resolution_h"),
        ({"mapping_kwargs": {"layer_features": 7}}, "layer_features"),
        ({"num_layers": 2.5}, "num_layers"),
        ({"first_cutoff": 4.0}, "filter at synthesis"),
        ({"filter_size": 4}, "filter at synthesis"),
        ({"arrays": {"G:synthesis.L0_36_24.up_filter": np.ones(12, np.float32)}},
         "filter at synthesis.L0_36_24.up_filter"),
        ({"arrays": {"G:synthesis.L8_32_3.up_filter": np.ones(1, np.float32)}}, "L8_32_3"),
    ],
    ids=str,
)  # fmt: skip
def test_what_no_network_here_has_is_refused(tree: dict[str, Any], word: str) -> None:
    with pytest.raises(NetworkError, match=word):
        convert_stylegan3(snapshot(**tree), "")

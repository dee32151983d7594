"""NVIDIA's TensorFlow StyleGAN2: read without running anything, drawn as it draws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stylecli
from stylecli.errors import NetworkError
from stylecli.interop.families import describe_foreign
from stylecli.networks.model import Bundle, new_network
from tests.conftest import FIXTURES
from tests.interop import foreign_files

OFFICIAL = FIXTURES / "official"


def assert_close(found: torch.Tensor, wanted: torch.Tensor, span: torch.Tensor) -> None:
    assert (found - wanted).abs().max() <= 1e-5 * (span.max() - span.min())


def test_an_official_triple_draws_and_judges_as_there() -> None:
    path = OFFICIAL / "stylegan2_tf_G_D_Gs.pkl"
    net = stylecli.load_network(path)
    with np.load(OFFICIAL / "stylegan2_tf_io.npz") as arrays:
        values = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    G, D, config = net.G_ema, net.D, net.config
    assert G is not None and D is not None and net.G is not None

    assert (config.truncation_psi, config.truncation_cutoff, config.mbstd_group_size) == (
        0.5,
        None,
        4,
    )
    with torch.no_grad():
        ws = G.mapping(values["z"])
        assert_close(ws[:, 0], values["w"], values["w"])
        assert_close(G.synthesis(ws), values["img"], values["img"])
        by_default = G(values["z"], truncation_psi=config.truncation_psi)
        assert_close(by_default, values["img_default_args"], values["img"])
        cut = G(values["z"], truncation_psi=0.6, truncation_cutoff=4)
        assert_close(cut, values["img_trunc_psi0p6_cutoff4"], values["img"])
        assert_close(D(values["d_images"]), values["d_scores"], values["d_scores"])
        three = D(values["d_images"][:3])
        assert_close(three, values["d_scores_batch3"], values["d_scores"])
    facts = describe_foreign(path)
    assert facts["family"] == net.info["source_family"] == "StyleGAN2 (NVIDIA, TensorFlow)"


# ---- Other architectures, and labels: files made by code from networks of ours

_SCOPES = {"conv0": "Conv0_up", "conv1": "Conv1", "torgb": "ToRGB", "skip": "Skip",
           "fromrgb": "FromRGB"}  # fmt: skip


def as_tensorflow(state: dict[str, torch.Tensor], of_D: bool) -> dict[str, Any]:
    """Return a state dict of ours under TensorFlow's names, in its layout."""
    found: dict[str, Any] = {}
    for key, tensor in state.items():
        array, words = tensor.numpy(), key.split(".")
        part = words[-1]
        if words[0] == "mapping":
            if part == "w_avg":
                found["dlatent_avg"] = array
            else:
                found[f"Dense{words[1].removeprefix('fc')}/{part}"] = array.T
            continue
        block = next(word for word in words if word.startswith("b") and word[1:].isdecimal())
        scope = f"{block[1:]}x{block[1:]}"
        layer = words[-2]
        if part == "const":
            found[f"{scope}/Const/const"] = array[None]
        elif of_D and layer in ("conv", "fc", "out"):
            name = {"conv": "4x4/Conv", "fc": "4x4/Dense0", "out": "Output"}[layer]
            found[f"{name}/{part}"] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        elif layer == "affine":
            name = f"{scope}/{_name(words[-3], scope, of_D)}/mod_{part}"
            found[name] = array.T if part == "weight" else array - 1
        elif part == "noise_const":
            index = (
                0 if scope == "4x4" else 2 * int(block[1:]).bit_length() - 7 + (layer == "conv1")
            )
            found[f"noise{index}"] = array[None, None]
        elif part == "weight":
            turned = array[:, :, ::-1, ::-1] if layer == "conv0" and not of_D else array
            found[f"{scope}/{_name(layer, scope, of_D)}/weight"] = turned.transpose(2, 3, 1, 0)
        else:
            found[f"{scope}/{_name(layer, scope, of_D)}/{part}"] = array
    return found


def _name(layer: str, scope: str, of_D: bool) -> str:
    if of_D and layer in ("conv0", "conv1"):
        return {"conv0": "Conv0", "conv1": "Conv1_down"}[layer]
    return "Conv" if scope == "4x4" and layer == "conv1" else _SCOPES[layer]


def small(**fields: Any) -> tuple[Bundle, dict[str, Any]]:
    """Return a network of ours and the arguments that TensorFlow's program has for it."""
    net = new_network("stylegan2", resolution=16, fmap_base=128, fmap_max=16, z_dim=6, w_dim=5,
                      mapping_fmaps=7, mapping_layers=2, **fields)  # fmt: skip
    given = {"num_channels": 3, "resolution": 16, "label_size": 0, "fmap_base": 64, "fmap_max": 16,
             "latent_size": 6, "dlatent_size": 5, "mapping_fmaps": 7,
             "mapping_layers": 2}  # fmt: skip
    return net, given


def state_of(network: Any) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


@pytest.mark.parametrize("G", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("D", ["skip", "resnet", "orig"])
def test_every_architecture_is_read(G: str, D: str, tmp_path: Path) -> None:
    net, given = small(G_architecture=G, D_architecture=D)
    path = tmp_path / "net.pkl"
    path.write_bytes(foreign_files.tf_stylegan2(
        as_tensorflow(state_of(net.G), False), as_tensorflow(state_of(net.D), True), **given,
        architecture=G, D_architecture=D,
    ))  # fmt: skip
    again = stylecli.load_network(path)
    for one, other in ((net.G, again.G_ema), (net.D, again.D)):
        wanted, found = state_of(one), state_of(other)
        assert wanted.keys() == found.keys()
        for key in wanted:  # a style's bias had 1 taken off and added
            torch.testing.assert_close(found[key], wanted[key], rtol=0, atol=1e-6, msg=key)


def test_squares_of_a_fork_for_other_shapes_are_ordinary_networks(tmp_path: Path) -> None:
    net, given = small()
    del given["resolution"]
    sides = {f"{D}resolution_{axis}": 16 for D in ("", "D_") for axis in "hw"}
    path = tmp_path / "net.pkl"
    path.write_bytes(foreign_files.tf_stylegan2(
        as_tensorflow(state_of(net.G), False), as_tensorflow(state_of(net.D), True),
        **given, **sides))  # fmt: skip
    again = stylecli.load_network(path)
    assert again.config.resolution == 16 and again.D is not None


def test_labels_stand_beside_z_before_it_is_normalised(tmp_path: Path) -> None:
    """StyleGAN2's own labels: a matrix for G, an output per class for D."""
    net, given = small(label_dim=3, label_mode="joint", D_label_mode="select")
    G, D = state_of(net.G), state_of(net.D)
    label = G.pop("mapping.label.weight")  # [z, classes]
    matrix = (label / 3**0.5).T.numpy()
    variables = {**as_tensorflow(G, False), "LabelConcat/weight": matrix}
    path = tmp_path / "net.pkl"
    path.write_bytes(foreign_files.tf_stylegan2(
        variables, as_tensorflow(D, True), **{**given, "label_size": 3}))  # fmt: skip
    again = stylecli.load_network(path)
    assert again.G_ema is not None and again.D is not None

    z, c = torch.randn(3, 6), torch.eye(3)
    x = torch.cat([z, c @ torch.from_numpy(matrix)], dim=1).double()
    x = x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for index in range(2):
        weight = G[f"mapping.fc{index}.weight"].double() * 0.01 / x.shape[1] ** 0.5
        x = torch.nn.functional.leaky_relu(x @ weight.T, 0.2) * 2**0.5  # biases are zeros
    with torch.no_grad():
        torch.testing.assert_close(
            again.G_ema.mapping(z, c)[:, 0].double(), x, rtol=1e-4, atol=1e-5
        )
        images = torch.randn(3, 3, 16, 16)
        scores = again.D.outputs(images)
        torch.testing.assert_close(again.D(images, c)[:, 0], scores.diagonal())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fmap_decay": 0.5}, "fmap_decay"), ({"truncation_psi_val": 0.5}, "truncation_psi_val"),
        ({"min_h": 4}, "min_h"), ({"resolution_h": 24, "resolution_w": 16}, "16 x 24 px"),
        ({"resolution_h": 16}, "resolution_h"), ({"fmap_base": "many"}, "fmap_base"),
        ({"resample_kernel": [1, -1]}, "resample_filter"), ({"fmap_max": 8}, "does not fit"),
    ],
)  # fmt: skip
def test_what_no_network_here_has_is_refused_by_name(
    settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    net, given = small()
    path = tmp_path / "net.pkl"
    path.write_bytes(foreign_files.tf_stylegan2(
        as_tensorflow(state_of(net.G), False), as_tensorflow(state_of(net.D), True),
        **{**given, **settings}))  # fmt: skip
    with pytest.raises(NetworkError) as error:
        stylecli.load_network(path)
    assert words in str(error.value)

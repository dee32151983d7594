"""Networks written for other programs: their names and shapes, and the same bits when read back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import stylecli
from stylecli.checkpoint import NETWORK_NAMES, write_state_dict_file
from stylecli.errors import NetworkError, UsageError
from stylecli.interop.official_pytorch import (
    discriminator_fields,
    from_nvidia_names,
    generator_fields,
    generator_filters,
    low_pass_taps,
    module_arrays,
)
from stylecli.interop.rosinality_stylegan2 import convert_rosinality2
from stylecli.interop.state_dicts import write_state_dict
from stylecli.interop.trees import PersistentModule, read_foreign_tree
from stylecli.networks.registry import make_config
from tests.conftest import FIXTURES

OFFICIAL = FIXTURES / "official"
SNAPSHOTS = (
    "stylegan2_labels_snapshot.pkl",
    "stylegan2_stylegan3_snapshot.pkl",
    "stylegan3_r_snapshot.pkl",
)


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        assert found[key].shape == array.shape, key
        assert np.array_equal(found[key], array), key


@pytest.mark.parametrize("name", NETWORK_NAMES)
@pytest.mark.parametrize("snapshot", SNAPSHOTS)
def test_an_official_snapshot_comes_back_out_as_it_was(
    snapshot: str, name: str, tmp_path: Path
) -> None:
    """Every name, shape and bit of the official module's state, filters included."""
    target = tmp_path / "out.safetensors"
    told = write_state_dict_file(OFFICIAL / snapshot, target, which=name)
    module = read_foreign_tree(OFFICIAL / snapshot)[name]
    assert_same(load_file(target), module_arrays(module))
    given = module.state["_init_kwargs"]
    for key in ("img_resolution", "img_channels", "c_dim", "z_dim", "channel_base"):
        if key in given:
            assert told["arguments"][key] == given[key]


def fresh(config: str, **fields: Any) -> Any:
    """Return a small network with every number drawn, so that no zero hides another."""
    sizes = {"resolution": 16, "z_dim": 5, "w_dim": 6, "fmap_base": 128, "fmap_max": 12}
    net = stylecli.new_network(config, **{**sizes, **fields})
    for module in (net.G_ema, net.D):
        assert module is not None
        for key, value in module.state_dict().items():
            value.copy_(torch.randn_like(value) if "filter" not in key else value)
    return net


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "skip": ("stylegan2", {}),
    "resnet, orig, labels": ("stylegan2", {
        "G_architecture": "resnet", "D_architecture": "orig", "label_dim": 3, "embed_dim": 4,
        "cmap_dim": 7, "D_mapping_layers": 2, "mapping_fmaps": 9, "channels": 1}),
    "orig, skip, long filter": ("stylegan2", {
        "G_architecture": "orig", "D_architecture": "skip", "use_noise": False, "channels": 4,
        "resample_filter": (1, 2, 3, 4, 4, 3, 2, 1), "mbstd_group_size": 0,
        "conv_clamp": None, "D_fmap_base": 64}),
    "3-t": ("stylegan3-t", {"label_dim": 2}),
    "3-r": ("stylegan3-r", {"num_layers": 6, "D_fmap_max": 9, "D_fmap_base": 64}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_our_networks_come_back_through_the_readers_names(case: str) -> None:
    """Ours -> theirs -> ours: equal bits; the arguments give the configuration again."""
    net = fresh(CASES[case][0], **CASES[case][1])
    config: Any = net.config
    for name, module in (("G_ema", net.G_ema), ("D", net.D)):
        own = {key: value.numpy() for key, value in module.state_dict().items()}
        written, told = write_state_dict(name, own, config, "nvidia")
        filters = (
            generator_filters(config)
            if config.family == "stylegan3" and name != "D"
            else lambda key, name=name: low_pass_taps(config, name, key)
        )
        assert_same(from_nvidia_names(dict(written), name, config, filters), own)
        assert told["class_name"].startswith("training.networks_stylegan")
        if config.family == "stylegan2":
            check_arguments(name, told, config)


def check_arguments(name: str, told: dict[str, Any], config: Any) -> None:
    for arguments, flat in ((told["arguments"], True), (told["ada_arguments"], False)):
        state = {"_init_kwargs": arguments, "_init_args": ()}
        module = PersistentModule({"class_name": "x", "version": 6, "state": state})
        shared = ("label_dim", "resolution", "channels", "conv_clamp", "fmap_base", "fmap_max")
        G = {key: getattr(config, key) for key in shared}
        G["resample_filter"] = list(config.resample_filter)
        fields = (
            discriminator_fields(module, flat, G) if name == "D" else generator_fields(module, flat)
        )
        for key, value in fields.items():
            wanted = getattr(config, key)
            assert value == (list(wanted) if isinstance(wanted, tuple) else wanted), key


def test_rosinalitys_layout_comes_back(tmp_path: Path) -> None:
    net = fresh("stylegan2", conv_clamp=None, num_fp16_res=0)
    parts = {"G_ema": "g_running", "D": "discriminator"}
    tree: dict[str, Any] = {}
    for name, part in parts.items():
        own = {key: value.numpy() for key, value in getattr(net, name).state_dict().items()}
        tree[part], _ = write_state_dict(name, own, net.config, "rosinality")
    assert tree["g_running"]["convs.0.conv.blur.kernel"].sum() == 4
    assert tree["discriminator"]["convs.1.skip.0.kernel"].sum() == 1
    foreign = convert_rosinality2(tree, "")
    for name in parts:
        own = {key: value.numpy() for key, value in getattr(net, name).state_dict().items()}
        assert_same(foreign.networks[name], own)
    assert foreign.config.resolution == 16 and "w_avg" not in foreign.info


def test_a_checkpoint_of_rosinality_comes_back_out_as_it_was(tmp_path: Path) -> None:
    source, target = OFFICIAL / "rosinality_stylegan2.pt", tmp_path / "out.safetensors"
    for name, theirs in {"G_ema": "g_ema", "G": "g", "D": "d"}.items():
        told = write_state_dict_file(source, target, which=name, layout="rosinality")
        found = load_file(target)
        assert (found.pop("latent_avg", None) is None) == (name == "D")
        assert_same(found, read_foreign_tree(source)[theirs])
        assert told["arguments"] is None  # of widths that its class does not make


def test_arguments_of_rosinalitys_class_are_those_of_published_sizes() -> None:
    for preset, multiplier in {"stylegan2": 2, "stylegan2-e": 1}.items():
        config = make_config(preset, resolution=64, conv_clamp=None)
        from stylecli.interop.state_dicts import _rosinality_arguments

        told = _rosinality_arguments("G", config)  # type: ignore[arg-type]
        assert told["arguments"] == {"size": 64, "channel_multiplier": multiplier,
                                     "style_dim": 512, "n_mlp": 8}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "fields", "layout", "words"),
    [
        ("f", {}, "nvidia", "stylecli convert"), ("r3gan", {}, "nvidia", "'r3gan'"),
        ("stylegan3-t", {}, "rosinality", "'stylegan3-t'"),
        ("stylegan2", {"label_dim": 2}, "rosinality", "label_dim"),
        ("stylegan2", {"G_architecture": "orig"}, "rosinality", "G_architecture"),
        ("stylegan2", {"label_dim": 2, "label_mode": "joint"}, "nvidia", "TensorFlow"),
        ("stylegan2", {}, "lucidrains", "'lucidrains'"),
    ],
)  # fmt: skip
def test_what_the_other_program_lacks_is_refused(
    config: str, fields: dict[str, Any], layout: str, words: str
) -> None:
    made = make_config(config, resolution=16, **fields)
    with pytest.raises(UsageError, match=words):
        write_state_dict("G_ema", {}, made, layout)


def test_a_written_file_is_called_what_it_is(tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    write_state_dict_file(OFFICIAL / SNAPSHOTS[0], target)
    with pytest.raises(NetworkError, match="for another program"):
        stylecli.load_network(target)

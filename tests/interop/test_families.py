"""Networks of other programs: recognised, described, and drawing here what they draw there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import stylecli
from stylecli.checkpoint import load_network, write_state_dict_file
from stylecli.errors import NetworkError, UsageError
from stylecli.interop.families import describe_foreign, write_state_dict
from stylecli.interop.official_pytorch import (
    discriminator_fields,
    from_nvidia_names,
    generator_fields,
    generator_filters,
    low_pass_taps,
    module_arrays,
)
from stylecli.interop.rosinality_stylegan2 import convert_rosinality2, rosinality2_arguments
from stylecli.interop.trees import PersistentModule, read_foreign_tree
from stylecli.networks.config import NETWORK_NAMES
from stylecli.networks.frozen import FrozenSynthesis
from stylecli.networks.registry import make_config
from tests.conftest import FIXTURES
from tests.interop import foreign_files, peer_arithmetic

Z = torch.randn(4, foreign_files.FEATURES, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 2, 1, 2])


def load(tmp_path: Path, content: bytes, name: str = "network.model") -> Any:
    path = tmp_path / name
    path.write_bytes(content)
    return load_network(path)


def noise(layers: int, *, shared: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    maps = [torch.randn(4, 1, 4 << i // 2, 4 << i // 2, generator=generator) for i in range(layers)]
    return [maps[i // 2 * 2] for i in range(layers)] if shared else maps


def assert_draws(G: Any, wanted: torch.Tensor, maps: Any, c: Any = None) -> None:
    """Both forms of our network draw the wanted images, to 1e-5 of their range."""
    with torch.no_grad():
        ws = G.mapping(Z, c)
        for synthesis in (G.synthesis, FrozenSynthesis(G.synthesis)):
            error = (synthesis(ws, noise=maps) - wanted).abs().max() / wanted.abs().max()
            assert error < 1e-5


def fused_arrays() -> dict[str, Any]:
    """Return rosinality's generator with fused up-convolutions: one array of another name."""
    arrays = foreign_files.rosinality_arrays()["g_running"]
    for block in (1, 2):
        name = f"generator.progression.{block}.conv1"
        for part in ("weight", "weight_flip"):
            arrays[f"{name}.1.{part}"] = arrays.pop(f"{name}.2.{part}")
        arrays[f"{name}.0.weight"] = arrays.pop(f"{name}.1.conv.weight_orig")
        arrays[f"{name}.0.bias"] = arrays.pop(f"{name}.1.conv.bias")
    return arrays


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_rosinality_checkpoint(tmp_path: Path, zipped: bool) -> None:
    arrays = foreign_files.rosinality_arrays()
    net = load(tmp_path, foreign_files.torch_file(arrays, zipped=zipped))
    maps = noise(4, shared=True)
    w = peer_arithmetic.tensors(arrays["g_running"])
    image = peer_arithmetic.rosinality_image(w, Z, maps[::2])

    assert net.config.resolution == 8  # the block of 16 px was never trained
    assert_draws(net.G_ema, image, maps)
    critic = peer_arithmetic.tensors(arrays["discriminator"])
    scores = peer_arithmetic.rosinality_scores(critic, image, blocks=2, last=2)
    with torch.no_grad():
        torch.testing.assert_close(net.D(image), scores, rtol=1e-5, atol=1e-5)


def test_rosinality_fused_up_convolutions(tmp_path: Path) -> None:
    arrays = fused_arrays()
    net = load(tmp_path, foreign_files.torch_file(arrays))  # a bare state dict
    maps = noise(4, shared=True)

    assert net.config.fused_scale is True and net.G is None and net.D is None
    w = peer_arithmetic.tensors(arrays)
    assert_draws(net.G_ema, peer_arithmetic.rosinality_image(w, Z, maps[::2]), maps)


def test_rosinality_mean_style_is_estimated(tmp_path: Path) -> None:
    net = load(tmp_path, foreign_files.torch_file(foreign_files.rosinality_arrays()))
    z = torch.randn(20_000, foreign_files.FEATURES, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        mean = net.G_ema.mapping.embed(z).mean(0)

    torch.testing.assert_close(net.G_ema.mapping.w_avg, mean, rtol=0.05, atol=0.05)
    assert net.info["w_avg"].startswith("estimated")


@pytest.mark.parametrize("classes", [0, 3])
def test_huangzh13_generator(tmp_path: Path, classes: int) -> None:
    arrays = foreign_files.huangzh13_generator(classes)
    net = load(tmp_path, foreign_files.torch_file(arrays), "GAN_GEN_SHADOW_1_2.pth")
    maps = noise(4, shared=False)
    labels = LABELS if classes else None
    w = peer_arithmetic.tensors(arrays)
    c = torch.nn.functional.one_hot(LABELS, 3).float() if classes else None

    assert_draws(net.G_ema, peer_arithmetic.huangzh13_image(w, Z, labels, maps), maps, c)
    assert np.array_equal(net.G_ema.mapping.w_avg, arrays["truncation.avg_latent"])


def test_huangzh13_discriminator(tmp_path: Path) -> None:
    arrays = foreign_files.huangzh13_discriminator()
    net = load(tmp_path, foreign_files.torch_file(arrays))
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(4))

    wanted = peer_arithmetic.huangzh13_scores(peer_arithmetic.tensors(arrays), images)
    with torch.no_grad():
        torch.testing.assert_close(net.D(images), wanted, rtol=1e-5, atol=1e-5)
    assert net.G_ema is None


def test_what_cannot_be_mapped_is_refused_or_left_out(tmp_path: Path) -> None:
    arrays = foreign_files.huangzh13_discriminator()
    arrays["embeddings.0.weight"] = np.zeros((3, 192), np.float32)
    with pytest.raises(NetworkError, match="draws labels as planes"):
        load(tmp_path, foreign_files.torch_file(arrays))

    wide = foreign_files.rosinality_arrays()
    c = foreign_files.FEATURES
    wide["discriminator"]["progression.1.conv1.0.conv.weight_orig"] = np.zeros((2 * c, c, 3, 3))
    net = load(tmp_path, foreign_files.torch_file(wide))
    assert net.D is None and net.info["left_out"].startswith("the discriminator")


def test_a_persistent_snapshot_is_described(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(foreign_files.ada_snapshot())
    facts = describe_foreign(path)

    assert facts["family"] == "StyleGAN2 (NVIDIA, stylegan2-ada-pytorch)"
    assert (facts["resolution"], facts["G_ema parameters"], facts["D parameters"]) == (4, 98, 133)
    assert facts["settings"]["D"]["channel_max"] == foreign_files.FEATURES
    assert facts["dataset"]["resolution"] == 4


def test_an_r3gan_snapshot_is_named(tmp_path: Path) -> None:
    import pickle

    with foreign_files.named_class("training.networks", "Generator") as Generator:  # noqa: N806
        G: Any = Generator()
        G.__dict__ = {"_modules": {}, "_parameters": {}}
        (tmp_path / "r3.pkl").write_bytes(pickle.dumps({"G": G, "G_ema": G, "cur_nimg": 7}, 4))

    facts = describe_foreign(tmp_path / "r3.pkl")
    assert (facts["family"], facts["cur_nimg"]) == ("R3GAN (brownvc/R3GAN)", 7)


def test_every_protocol_reads_the_same(tmp_path: Path) -> None:
    nets = [load(tmp_path, foreign_files.tf_triple(protocol)) for protocol in (2, 3, 4, 5)]
    first = nets[0].G_ema.state_dict()
    for net in nets[1:]:
        assert all(torch.equal(value, first[key]) for key, value in net.G_ema.state_dict().items())


def test_an_official_triple_names_its_source_and_licence() -> None:
    info = load_network(FIXTURES / "official" / "stylegan1_labels_G_D_Gs.pkl").info

    assert info["source_family"] == "StyleGAN (NVIDIA, TensorFlow)"
    assert info["source_licence"].startswith("CC BY-NC 4.0")


def test_half_precision_and_strides_are_honoured() -> None:
    from stylecli.interop.trees import parse_foreign

    values = torch.randn(3, 4, 5)
    saved = {"half": values.half(), "brain": values.bfloat16(), "turned": values.permute(2, 0, 1),
             "part": values[1:, ::2], "flags": values > 0, "one": torch.tensor(7)}  # fmt: skip
    import io

    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save(saved, buffer, _use_new_zipfile_serialization=zipped)
        tree = parse_foreign(buffer.getvalue(), Path("x"))
        for name, value in saved.items():
            assert np.array_equal(tree[name], value.float().numpy()), name


def test_settings_that_repeat_without_end_are_described_in_part(tmp_path: Path) -> None:
    from tests.interop.hostile_files import laughing_settings

    (tmp_path / "laughs.pkl").write_bytes(laughing_settings())
    facts = describe_foreign(tmp_path / "laughs.pkl")

    assert len(repr(facts["settings"])) < 100_000


def _prefixed(prefix: str, arrays: dict[str, Any], **beside: Any) -> dict[str, Any]:
    return beside | {prefix + name: value for name, value in arrays.items()}


def _inside(arrays: dict[str, Any], wrapper: str) -> dict[str, Any]:
    """Return the names as they are where a submodule alone was wrapped."""
    return {name.replace(".", f".{wrapper}.", 1): value for name, value in arrays.items()}


# How people save one and the same state dict.
WRAPPINGS: dict[str, Any] = {
    "bare": lambda w: w,
    "DataParallel": lambda w: _prefixed("module.", w),
    "compiled": lambda w: _prefixed("_orig_mod.", w),
    "compiled, then parallel": lambda w: _prefixed("module._orig_mod.", w),
    "parallel, then compiled": lambda w: _prefixed("_orig_mod.module.", w),
    "twice": lambda w: _prefixed("module.module._orig_mod.", w),
    "a part compiled": lambda w: _inside(w, "_orig_mod"),
    "averaged": lambda w: _prefixed("module.", w, n_averaged=np.array(7)),
    "counters": lambda w: _prefixed("", w, step=5, decay=np.array(0.999, np.float32), note="x"),
    "a float counter of one": lambda w: _prefixed("", w, num_updates=np.array([3.0])),
    "state_dict": lambda w: {"state_dict": w, "epoch": 3},
    "model": lambda w: {"model": _prefixed("module.", w), "optimizer": {"state": {0: 1}}},
    "ema": lambda w: {"ema": w, "iteration": 9},
    "g_ema": lambda w: {"g_ema": w},
    "generator": lambda w: {"generator": _prefixed("_orig_mod.", w)},
    "G": lambda w: {"G": w},
    "params_ema": lambda w: {"params_ema": w},
    "two levels": lambda w: {"checkpoint": {"state_dict": w}},
    "Lightning": lambda w: {
        "state_dict": _prefixed("generator.", w, **{"loss.weight": np.zeros((2, 2), np.float32)}),
        "epoch": 1, "global_step": 2,
    },
    "ema-pytorch": lambda w: _prefixed("ema_model.", w, initted=np.array([True])),
    "the same twice": lambda w: {"model": w, "state_dict": dict(w)},
}  # fmt: skip


@pytest.mark.parametrize("family", ["rosinality", "huangzh13"])
@pytest.mark.parametrize("wrapping", list(WRAPPINGS))
def test_a_wrapping_changes_no_network(tmp_path: Path, family: str, wrapping: str) -> None:
    arrays = (
        foreign_files.rosinality_arrays()["g_running"]
        if family == "rosinality"
        else foreign_files.huangzh13_generator()
    )
    plain = load(tmp_path, foreign_files.torch_file(arrays)).generator.state_dict()
    wrapped = foreign_files.torch_file(WRAPPINGS[wrapping](arrays))

    again = load(tmp_path, wrapped).generator.state_dict()

    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    family_name = describe_foreign(tmp_path / "network.model")["family"]
    assert family in family_name


def test_an_average_is_told_from_what_is_trained(tmp_path: Path) -> None:
    whole = foreign_files.rosinality_arrays()
    state = _prefixed("G.", whole["generator"])
    state |= _prefixed("G_ema.module.", whole["g_running"])
    state |= _prefixed("D._orig_mod.", whole["discriminator"])

    plain = load(tmp_path, foreign_files.torch_file(whole))
    net = load(tmp_path, foreign_files.torch_file({"state_dict": state}))

    for name in ("G_ema", "G", "D"):
        wanted, found = getattr(plain, name).state_dict(), getattr(net, name).state_dict()
        assert all(torch.equal(wanted[key], found[key]) for key in wanted)


def test_a_discriminator_alone_is_found_in_its_wrapping_or_told(tmp_path: Path) -> None:
    huang = _prefixed("module.", foreign_files.huangzh13_discriminator())
    rosinality = foreign_files.rosinality_arrays()["discriminator"]

    net = load(tmp_path, foreign_files.torch_file({"state_dict": huang}))
    assert net.D is not None and net.G_ema is None
    for tree in (rosinality, {"model": _prefixed("_orig_mod.", rosinality)}):
        with pytest.raises(NetworkError, match=r"rosinality.*holds only the discriminator"):
            load(tmp_path, foreign_files.torch_file(tree))


def test_two_networks_of_one_kind_are_named_rather_than_guessed(tmp_path: Path) -> None:
    first = foreign_files.rosinality_arrays()["generator"]
    second = {name: value + 1 for name, value in first.items()}

    with pytest.raises(NetworkError, match="two networks, at 'first' and 'second'"):
        load(tmp_path, foreign_files.torch_file({"first": first, "second": second}))
    with pytest.raises(NetworkError, match=r"names the tensor '.*' twice"):
        load(tmp_path, foreign_files.torch_file(_prefixed("module.", first, **second)))


def test_settings_that_do_nothing_are_no_reason_to_refuse(tmp_path: Path) -> None:
    import collections
    import datetime
    import decimal
    import pathlib
    import types
    import uuid

    settings = {
        "posix": pathlib.PurePosixPath("/data/faces"), "here": Path("x/y"),
        "windows": pathlib.PureWindowsPath("C:/data"),
        "milestones": collections.Counter({3: 1}), "deque": collections.deque([1, 2]),
        "table": collections.defaultdict(list, {"a": [1]}), "kinds": frozenset((1, 2)),
        "begun": datetime.datetime(2024, 2, 29, 23, 59, 1), "day": datetime.date(2024, 2, 29),
        "took": datetime.timedelta(seconds=5), "zone": datetime.UTC,
        "clock": datetime.time(1, 2, 3), "price": decimal.Decimal("0.1"), "id": uuid.UUID(int=5),
        "more": types.SimpleNamespace(lr=0.1), "kind": torch.int64, "torch": torch.__version__,
        "shape": torch.Size((1, 2)),
    }  # fmt: skip
    arrays = foreign_files.rosinality_arrays()["g_running"]
    weights = {name: torch.from_numpy(value) for name, value in arrays.items()}
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pt"
        torch.save({"g_ema": weights, "args": settings}, path,
                   _use_new_zipfile_serialization=zipped)  # fmt: skip

        assert load_network(path).G_ema is not None
        told = describe_foreign(path)["settings"]
        assert (told["posix"], told["here"], told["day"]) == ("/data/faces", "x/y", "2024-02-29")
        assert told["begun"] == "2024-02-29 23:59:01" and told["clock"] == "01:02:03"
        assert told["milestones"] == {"3": 1} and told["deque"] == [1, 2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Virus scan warning</html>", "is a web page"),
        (b"\n  <HTML lang=en><head>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "git lfs pull"),
    ],
)
@pytest.mark.parametrize("suffix", [".pkl", ".pt", ".model", ".safetensors", ".ckpt"])
def test_what_a_download_left_is_called_what_it_is(
    tmp_path: Path, content: bytes, words: str, suffix: str
) -> None:
    from stylecli.errors import WeightsError
    from stylecli.interop.feature_weights import read_feature_file

    path = tmp_path / f"network{suffix}"
    path.write_bytes(content)

    with pytest.raises(NetworkError, match=words) as told:
        load_network(path)
    assert "safetensors" not in str(told.value).replace(str(path), "")
    with pytest.raises(WeightsError, match=words):
        read_feature_file(path)


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
        told = rosinality2_arguments("G", config)  # type: ignore[arg-type]
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

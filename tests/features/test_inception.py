"""The FID network against another program's outputs, with weights that a formula makes."""

import json
import zlib

import numpy as np
import pytest
import torch

from stylecli.errors import UsageError, WeightsError
from stylecli.features.resizing import resize_like_tensorflow
from stylecli.metrics import InceptionV3
from tests.conftest import REFERENCES


def made_tensor(name, shape, seed):
    key = [zlib.crc32(name.encode()), seed]
    x = np.random.Generator(np.random.Philox(key=key)).standard_normal(shape)
    if name.endswith("running_var"):
        x = 0.5 + 0.5 * np.abs(x)
    elif name.endswith("bn.weight"):
        x = 1 + 0.1 * x
    elif name.endswith(("running_mean", ".bias")):
        x = 0.1 * x
    elif name.endswith("num_batches_tracked"):
        x = np.zeros(shape)
    else:
        x = x * np.sqrt(2 / np.prod(shape[1:]))
    return np.float32(x)


@pytest.fixture(scope="module")
def state():
    made = json.loads((REFERENCES / "inception.json").read_text())
    return {
        name: made_tensor(name, shape, made["seed"]) for name, shape in made["parameters"].items()
    }


@pytest.mark.parametrize("size", ["64x64", "299x299"])
def test_every_output_equals_the_reference(state, size):
    with np.load(REFERENCES / "inception.npz") as stored:
        reference = dict(stored)
    outputs = InceptionV3.from_state_dict(state)(reference[f"images_{size}"])
    assert set(outputs) == {"64", "192", "768", "2048", "logits_unbiased", "logits"}
    for name, found in outputs.items():
        expected = reference[f"{name}_{size}"]
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max(), name


def test_the_resize_has_no_half_pixel_centres():
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    row = resize_like_tensorflow(ramp, 8)[0, 0, 0]
    assert row.tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]


def test_lists_what_is_missing_and_what_has_another_shape(state):
    broken = {name: value for name, value in state.items() if name != "fc.bias"}
    broken["fc.weight"] = np.zeros((1000, 2048), np.float32)
    with pytest.raises(WeightsError, match=r"fc\.bias is missing; fc\.weight is \[1000") as told:
        InceptionV3.from_state_dict(broken)
    assert "expected [1008, 2048]" in str(told.value)


def test_refuses_pictures_that_are_not_uint8(state):
    with pytest.raises(UsageError, match="expected uint8"):
        InceptionV3.from_state_dict(state)(torch.zeros(1, 3, 64, 64))


def test_only_what_is_asked_for_comes_and_is_the_same(state):
    network = InceptionV3.from_state_dict(state)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 50), np.uint8)
    everything, some = network(images), network(images, outputs=["192", "logits_unbiased"])
    assert set(some) == {"192", "logits_unbiased"} and set(network(images, outputs=["64"])) == {
        "64"
    }
    np.testing.assert_array_equal(some["logits_unbiased"], everything["logits_unbiased"])
    np.testing.assert_allclose(
        network.classify(everything["2048"]),
        torch.from_numpy(everything["logits_unbiased"]).softmax(1),
        rtol=1e-5,
    )
    with pytest.raises(UsageError, match="pool"):
        network(images, outputs=["pool"])


def test_pictures_resized_before_are_taken_as_they_are(state):
    network = InceptionV3.from_state_dict(state)
    images = torch.randint(0, 256, (1, 3, 299, 299), generator=torch.Generator().manual_seed(0))
    rounded = network(images.to(torch.uint8), outputs=["64"])["64"]
    torch.testing.assert_close(network(images.float(), outputs=["64"])["64"], rounded)


def test_half_precision_is_near(state):
    network = InceptionV3.from_state_dict(state)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    exact = network(images, outputs=["2048"])["2048"]
    rough = network(images, outputs=["2048"], bfloat16=True)["2048"]
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).norm() <= 0.02 * exact.norm()

"""The FID network against another program's outputs, with weights that a formula makes."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from stylecli.errors import UsageError, WeightsError
from stylecli.metrics import InceptionV3
from stylecli.metrics.inception import resize_like_tensorflow

REFERENCES = Path(__file__).parent / "references"


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

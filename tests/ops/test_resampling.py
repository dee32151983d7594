"""Blur and resampled convolutions equal their step-by-step definitions."""

import pytest
import torch
from torch.nn import functional as F

from stylecli.ops.blurring import blur2d, blur2d_ref
from stylecli.ops.resampled_conv import conv2d_downsample, upsample_conv2d


def test_upsample_is_nearest_then_convolution() -> None:
    x, weight = torch.randn(2, 3, 5, 4), torch.randn(6, 3, 3, 3)
    wanted = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    assert torch.allclose(upsample_conv2d(x, weight), wanted, atol=1e-5)
    turned = upsample_conv2d(x, weight.flip(2, 3), fused=True)
    assert torch.allclose(turned, wanted, atol=1e-5)


def test_downsample_is_convolution_then_mean() -> None:
    x, weight = torch.randn(2, 3, 6, 8), torch.randn(4, 3, 3, 3)
    wanted = F.avg_pool2d(F.conv2d(x, weight, padding=1), 2)
    assert torch.allclose(conv2d_downsample(x, weight), wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 5), (1, 2, 1, 7)])
def test_blur_and_its_derivatives(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.equal(blur2d(x), blur2d_ref(x))
    assert torch.autograd.gradcheck(blur2d, [x])
    assert torch.autograd.gradgradcheck(blur2d, [x])


def test_blur_keeps_brightness_away_from_the_border() -> None:
    assert torch.allclose(blur2d(torch.ones(1, 2, 5, 5))[..., 1:-1, 1:-1], torch.ones(()))

"""Convolutions equal PyTorch's own to second order, and their step-by-step definitions."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from stylecli.ops import convolution
from stylecli.ops.convolution import (
    conv2d_downsample,
    convolve,
    convolve_in_terms_of_itself,
    input_gradients_only,
    planar_gain,
    planar_weight_gradients,
    upsample_conv2d,
)

WAYS = [(1, False, 3), (2, False, 4), (2, True, 4), (1, True, 3)]  # stride, transposed, taps


def _operands(transposed: bool, taps: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = [(2, 3, 6, 6), (3, 2, taps, taps) if transposed else (2, 3, taps, taps), (2,)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize(("stride", "transposed", "taps"), WAYS)
def test_groups_have_both_derivatives(stride: int, transposed: bool, taps: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    shape = (4, 3, taps, taps) if transposed else (6, 2, taps, taps)  # two groups of 2 -> 3 maps
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def function(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return convolve_in_terms_of_itself(x, weight, None, stride, 1, transposed, 2)

    plain = F.conv_transpose2d if transposed else F.conv2d
    expected = plain(x, weight, stride=stride, padding=1, groups=2)  # type: ignore[operator]
    torch.testing.assert_close(function(x, weight), expected)
    assert gradcheck(function, (x, weight))
    assert gradgradcheck(function, (x, weight))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("stride", "transposed", "taps"), WAYS)
def test_both_derivatives_are_right(stride: int, transposed: bool, taps: int, planar: bool) -> None:
    operands = _operands(transposed, taps)

    def function(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return convolve_in_terms_of_itself(x, weight, bias, stride, 1, transposed, planar=planar)

    plain = F.conv_transpose2d if transposed else F.conv2d
    expected = plain(*operands, stride=stride, padding=1)  # type: ignore[operator]
    torch.testing.assert_close(function(*operands), expected)
    assert gradcheck(function, operands)
    assert gradgradcheck(function, operands, fast_mode=True)


def test_a_penalty_can_leave_out_weights_and_their_second_derivative_stays() -> None:
    x, weight, bias = _operands(False, 3)
    y = convolve_in_terms_of_itself(x, weight, bias, 1, 1, False).square().sum()

    with input_gradients_only():
        (gradient,) = torch.autograd.grad(y, x, create_graph=True)
    gradient.square().sum().backward()
    found = weight.grad.clone()  # type: ignore[union-attr]

    weight.grad = None
    y = F.conv2d(x, weight, bias, padding=1).square().sum()
    (gradient,) = torch.autograd.grad(y, x, create_graph=True)
    gradient.square().sum().backward()
    torch.testing.assert_close(found, weight.grad)


FARTHEST = {torch.float32: 1e-4, torch.bfloat16: 4e-3, torch.float16: 1e-3}


def r1_weight_gradient(
    x: torch.Tensor, weight: torch.Tensor, convolve: Callable[..., torch.Tensor]
) -> torch.Tensor:
    """Return what R1 of one layer gives its weight; the penalty is a mean, as in training."""
    x, weight = (one.detach().requires_grad_() for one in (x, weight))
    with input_gradients_only():
        score = F.leaky_relu(convolve(x, weight), 0.2).sum()
        (gradient,) = torch.autograd.grad(score, x, create_graph=True)
    wide = gradient if gradient.dtype == torch.float64 else gradient.float()
    return torch.autograd.grad(wide.square().mean(), weight)[0]


def r1_error(maps: int, side: int, dtype: torch.dtype, device: str) -> float:
    """Return the relative error of that beside float64 and torch, from the same rounded numbers."""
    torch.manual_seed(0)
    x = torch.randn(2, maps, side, side, device=device).to(dtype)
    weight = (torch.randn(maps, maps, 3, 3, device=device) / (9 * maps) ** 0.5).to(dtype)
    exact = r1_weight_gradient(
        x.double(), weight.double(), lambda x, weight: F.conv2d(x, weight, padding=1)
    )
    own = r1_weight_gradient(
        x, weight, lambda *two: convolve_in_terms_of_itself(*two, None, 1, 1, False)
    )
    return float((own.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("dtype", FARTHEST, ids=str)
@pytest.mark.parametrize("side", [8, 128])
def test_r1_s_weight_gradient_loses_only_the_last_bits(side: int, dtype: torch.dtype) -> None:
    """It adds up a term for every pixel of the batch, and is as exact for 32,768 as for 128."""
    assert r1_error(4, side, dtype, "cpu") < FARTHEST[dtype]


def _penalised(side: int, dtype: torch.dtype) -> tuple[list[torch.Tensor], list[str]]:
    """Return the weights' gradients of a small critic with R1, and what made its features."""
    torch.manual_seed(0)
    x = torch.randn(2, 16, side, side, dtype=torch.float64).to(dtype)
    weights = [torch.randn(16, 16, k, k, dtype=torch.float64).to(dtype) / 12 for k in (3, 3, 3)]
    for tensor in (x, *weights):
        tensor.requires_grad_()
    first = convolve(x.contiguous(memory_format=torch.channels_last), weights[0])
    second = conv2d_downsample(first.relu(), weights[1])
    y = upsample_conv2d(second.relu(), weights[2])
    with input_gradients_only():
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    (y.square().sum() + gradient.square().sum()).backward()
    made = [type(each.grad_fn).__name__ for each in (first, second, y)]
    return [weight.grad for weight in weights], made  # type: ignore[misc]


def test_planar_weight_gradients_are_those_of_float64_to_second_order() -> None:
    wanted, _ = _penalised(8, torch.float64)
    usual, plain = _penalised(8, torch.float32)
    with planar_weight_gradients([8]):
        found, own = _penalised(8, torch.float32)
        assert _penalised(16, torch.float32)[1] == plain  # another side
    assert all("_Convolve" in name for name in own) and not set(own) & set(plain)
    for each, other, exact in zip(found, usual, wanted, strict=True):
        scale = exact.abs().max()
        assert (each - exact).abs().max() < 2e-6 * scale
        assert (other - exact).abs().max() < 2e-6 * scale


def test_a_trial_says_what_planar_copies_gain_and_remembers_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whole 4 s; in parts 1 s and the copy of one of two equal tensors 0.25 s."""
    times = itertools.accumulate(itertools.cycle([0.0, 4.0, 0.0, 0.25, 0.0, 1.0]))
    monkeypatch.setattr("stylecli.ops.convolution._seconds", lambda: next(times))
    planar_gain.cache_clear()
    try:
        assert planar_gain(16, 8) == 4 / (1 + 2 * 0.25)
        monkeypatch.setattr("stylecli.ops.convolution._seconds", lambda: pytest.fail("tried again"))
        assert planar_gain(16, 8) == 4 / (1 + 2 * 0.25)
    finally:
        planar_gain.cache_clear()  # of made-up times


def test_reduced_precision_is_what_autocast_asks_for() -> None:
    x, weight, bias = (tensor.float().detach() for tensor in _operands(False, 3))

    with torch.autocast("cpu", torch.bfloat16):
        reduced = convolve(x, weight, bias)

    assert reduced.dtype == torch.bfloat16
    torch.testing.assert_close(reduced.float(), convolve(x, weight, bias), rtol=0.05, atol=0.1)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("grown", [True, False])
def test_kernels_made_in_channels_last_memory_are_the_same_bits(
    grown: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their gradients and those of R1."""
    function, found = upsample_conv2d if grown else conv2d_downsample, []
    for chosen in (convolution._in_last_memory, lambda _: False):
        monkeypatch.setattr(convolution, "_in_last_memory", chosen)
        random = torch.Generator().manual_seed(0)
        x = torch.randn(4, 6, 8, 8, generator=random).contiguous(memory_format=torch.channels_last)
        w = torch.randn(8, 6, 3, 3, generator=random, requires_grad=True)
        x.requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32, cache_enabled=False):
            y = function(x, w * 0.37)
            y = convolve(y, w[:, :1].repeat(1, 8, 1, 1))
        (by_x,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        once = torch.autograd.grad(y.sum(), w, retain_graph=True)[0]
        twice = torch.autograd.grad(by_x.square().sum(), (x, w))
        found.append((y, by_x, once, *twice))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))

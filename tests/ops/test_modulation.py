"""Modulated convolution: its definition, both forms equal, gradients of both orders."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stylecli.ops.modulation import modulated_conv2d, resampled_conv2d
from stylecli.ops.resampling import upfirdn2d

TAPS = {"1331": (1, 3, 3, 1), "121": (1, 2, 1), "uneven": (1, 2, 4, 3, 1)}


def low_pass(name: str) -> Tensor:
    taps = torch.tensor(TAPS[name], dtype=torch.float64)
    f = torch.outer(taps, taps)
    return f / f.sum()


def example(size: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    x = torch.randn(2, 3, 5, 4, **options)
    return x, torch.randn(4, 3, size, size, **options), torch.randn(2, 3, **options) + 1


def by_definition(x: Tensor, weight: Tensor, styles: Tensor, demodulate: bool, up: int,
                  f: Tensor) -> Tensor:  # fmt: skip
    """Draw picture by picture: zeros inserted, filtered, then one plain convolution."""
    pictures = []
    for picture, style in zip(x, styles, strict=True):
        kernel = weight * style[None, :, None, None]
        if demodulate:
            kernel = kernel / (kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        plain = picture[None]
        if up == 2:
            taps = f.shape[-1]
            padding = [(taps + 1) // 2, (taps - 2) // 2] * 2
            plain = upfirdn2d(plain, f, up=2, padding=padding, gain=4)
            kernel = kernel.flip(2, 3)  # the layers that double convolve, the others correlate
        pictures.append(F.conv2d(plain, kernel, padding=kernel.shape[-1] // 2))
    return torch.cat(pictures)


@pytest.mark.parametrize("name", TAPS)
@pytest.mark.parametrize(("up", "size", "demodulate"),
                         list(itertools.product((1, 2), (1, 3), (False, True))))  # fmt: skip
def test_both_forms_are_the_definition(name: str, up: int, size: int, demodulate: bool) -> None:
    x, weight, styles = example(size)
    f = low_pass(name)
    wanted = by_definition(x, weight, styles, demodulate, up, f)
    if up == 2 and size == 3:  # the border is filtered behind the convolution, the inside is equal
        inside = (..., slice(3, -3), slice(3, -3))
    else:
        inside = (...,)
    found = [
        modulated_conv2d(x, weight, styles, demodulate=demodulate, up=up, f=f, grouped=grouped)
        for grouped in (False, True)
    ]
    assert found[0].shape == wanted.shape
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[0][inside], wanted[inside], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("up", [1, 2])
def test_gradients_of_both_orders(grouped: bool, up: int) -> None:
    x, weight, styles = (value.requires_grad_() for value in example())
    f = low_pass("1331")

    def call(x: Tensor, weight: Tensor, styles: Tensor) -> Tensor:
        return modulated_conv2d(x[:, :, :3, :3], weight, styles, up=up, f=f, grouped=grouped)

    assert torch.autograd.gradcheck(call, (x, weight, styles), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x, weight, styles), fast_mode=True)


def test_a_gpu_without_gradients_takes_the_grouped_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the choice asks: no GPU is needed to see it."""
    from stylecli.ops.modulation import prefers_grouped

    class OnGPU:
        is_cuda = True

    assert not prefers_grouped(torch.zeros(1))
    assert not prefers_grouped(OnGPU())  # type: ignore[arg-type]
    with torch.no_grad():
        assert prefers_grouped(OnGPU())  # type: ignore[arg-type]
        assert not prefers_grouped(torch.zeros(1))


@pytest.mark.parametrize("grouped", [False, True])
def test_float16_does_not_overflow(grouped: bool) -> None:
    x, weight, styles = (value.float() for value in example())
    wanted = modulated_conv2d(x, weight, styles)
    found = modulated_conv2d(x.half(), weight * 1e4, styles * 1e4, grouped=grouped)

    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), wanted, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("size", [1, 3])
def test_halving_filters_then_keeps_every_second_pixel(size: int) -> None:
    x, weight, _ = example(size)
    x, f = x[:, :, :4], low_pass("1331")
    blurred = upfirdn2d(x, f, padding=[2, 2, 2, 2] if size == 3 else [1, 1, 1, 1])
    wanted = F.conv2d(blurred, weight, stride=2)

    found = resampled_conv2d(x, weight, down=2, f=f)
    assert found.shape == (2, 4, 2, 2)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)

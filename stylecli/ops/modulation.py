"""Modulated convolution of StyleGAN2: a style per input map, and outputs of unit deviation.

Two forms of the same. Scale, convolve, scale: the style multiplies the features before one shared
convolution, the demodulation its results; on CPUs, and wherever gradients are wanted. Grouped:
every picture gets kernels of its own, and one grouped convolution runs them all; for GPUs, where it
saves two passes over the features.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from stylecli.ops.convolution import convolve
from stylecli.ops.reference import EPSILON, per_plane
from stylecli.ops.resampling import upfirdn2d


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    demodulate: bool = True,
    up: int = 1,
    f: Tensor | None = None,
    padding: int | None = None,
    grouped: bool | None = None,
) -> Tensor:
    """Convolve x with weight·styles, normalised per output map (Karras et al. 2019, Eq. 1 and 3).

    x [N, I, H, W]; weight [O, I, k, k]; styles [N, I]. Returns [N, O, H·up, W·up] in x's dtype.
    ``up`` 1 correlates with ``padding`` (default: k // 2); 2 convolves truly, as the official
    layers do, between inserting zeros and filtering with f [h, w] or [n]. ``grouped`` picks the
    form; None: by where x is and whether gradients are wanted.
    """
    if grouped is None:
        grouped = prefers_grouped(x)
    if grouped:
        return _grouped(x, weight, styles, demodulate, up, f, padding)
    if x.dtype == torch.float16 and demodulate:
        weight, styles = within_half_range(weight, styles)
    y = resampled_conv2d(
        x * per_plane(styles.to(x.dtype), x), weight.to(x.dtype), up=up, f=f, padding=padding
    )
    if not demodulate:
        return y
    return y * per_plane(demodulation(weight, styles).to(y.dtype), y)


def prefers_grouped(x: Tensor) -> bool:
    """Say whether the grouped form is meant for x: on a GPU, where no gradient is wanted."""
    return x.is_cuda and not torch.is_grad_enabled()


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """Return 1 / √(Σ (weight·style)² + 1e-8) for weight [O, I, k, k], styles [N, I]: [N, O]."""
    energy = weight.square().sum(dim=(2, 3))  # [O, I]
    return (styles.square() @ energy.T + EPSILON).rsqrt()


def within_half_range(weight: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """Scale kernels per output map, styles per picture, so that float16 sums do not overflow.

    Demodulation divides by both, so that nothing else changes.
    """
    taps = weight[0].numel()
    peak = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    return weight / (peak * taps**0.5), styles / styles.abs().amax(dim=1, keepdim=True)


def resampled_conv2d(
    x: Tensor,
    weight: Tensor,
    *,
    up: int = 1,
    down: int = 1,
    f: Tensor | None = None,
    padding: int | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolve x [N, I, H, W] with weight [O, I, k, k], doubling or halving the resolution.

    ``up`` 2: zeros inserted, true convolution, then filter f with gain 4; ``down`` 2: filter f,
    then a correlation that keeps every second pixel. ``padding`` defaults to k // 2. ``groups``
    above 1 takes weight [O·groups, I, k, k].
    """
    size = weight.shape[-1]
    pad = size // 2 if padding is None else padding
    taps = 1 if f is None else f.shape[-1]
    if up == 1 and down == 1:
        return _convolved(x, weight, 1, pad, False, groups)
    if size == 1:  # the filter commutes with a 1×1 kernel: convolve where there are fewer pixels
        before, after = filter_padding(taps, up, down)
        around = [pad + before, pad + after]
        if up > 1:
            y = _convolved(x, weight, 1, 0, False, groups)
            return upfirdn2d(y, f, up=up, padding=[*around, *around], gain=up**2)
        y = upfirdn2d(x, f, down=down, padding=[*around, *around])
        return _convolved(y, weight, 1, 0, False, groups)
    before, after = filter_padding(taps, up, down)
    if up > 1:
        turned = weight.view(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
        y = _convolved(x, turned, up, 0, True, groups)  # [N, O, up·(H - 1) + k, ...]
        left, right = pad + before - (size - 1), pad + after - (size - up)
        return upfirdn2d(y, f, padding=[left, right, left, right], gain=up**2)
    y = upfirdn2d(x, f, padding=[pad + before, pad + after, pad + before, pad + after])
    return _convolved(y, weight, down, 0, False, groups)


def filter_padding(taps: int, up: int = 1, down: int = 1) -> tuple[int, int]:
    """Return the zeros before and after with which a filter of ``taps`` keeps pictures centred."""
    if up > 1:
        return (taps + up - 1) // 2, (taps - up) // 2
    return (taps - down + 1) // 2, (taps - down) // 2


def _convolved(
    x: Tensor, weight: Tensor, stride: int, padding: int, transposed: bool, groups: int
) -> Tensor:
    if groups == 1 and weight.shape[-1] == 1 and x.is_cpu and not padding:
        # On CPUs a 1×1 convolution is faster as a matrix product, free in channels-last memory.
        y = F.linear(x.permute(0, 2, 3, 1), weight.flatten(1))
        return y.permute(0, 3, 1, 2)
    return convolve(x, weight, stride=stride, padding=padding, transposed=transposed, groups=groups)


def _grouped(
    x: Tensor, weight: Tensor, styles: Tensor, demodulate: bool, up: int, f: Tensor | None,
    padding: int | None,
) -> Tensor:  # fmt: skip
    """Give every picture kernels of its own: [N, O, I, k, k], as one convolution of N groups."""
    count, channels, height, width = x.shape
    if x.dtype == torch.float16 and demodulate:
        weight, styles = within_half_range(weight, styles)
    kernels = weight * styles.view(count, 1, channels, 1, 1)
    if demodulate:
        kernels = kernels * (kernels.square().sum(dim=(2, 3, 4), keepdim=True) + EPSILON).rsqrt()
    y = resampled_conv2d(
        x.reshape(1, count * channels, height, width), kernels.flatten(0, 1).to(x.dtype),
        up=up, f=f, padding=padding, groups=count,
    )  # fmt: skip
    return y.view(count, -1, *y.shape[2:])

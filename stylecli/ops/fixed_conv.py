"""Convolutions with kernels that never change: reordered once for the CPU library, not every call.

oneDNN wants kernels in a layout of its own and reorders an ordinary tensor whenever it is used,
which for 512 feature maps at 16 px is a third of the convolution. PyTorch's operators for kernels
reordered ahead are not part of its public interface, so each is tried once and left aside when it
is missing, fails, or differs from the public convolution.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_STRIDE = {False: [1, 1], True: [2, 2]}
Convolution = Callable[[Tensor], Tensor]


def fixed_conv2d(
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    side: int,
    groups: int = 1,
    transposed: bool = False,
) -> Convolution:
    """Return a function [N, I, h, w] -> [N, O, h', w'] for channels-last CPU features, no gradient.

    Padding is 1. ``kernel`` [O, I / groups, 3, 3] keeps the size; ``transposed`` [I, O, 4, 4]
    doubles it (stride 2). ``side`` is the input side it will mostly see.
    """
    kernel = kernel.contiguous(memory_format=torch.channels_last)

    def plain(x: Tensor) -> Tensor:
        if transposed:
            return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)
        return F.conv2d(x, kernel, bias, padding=1, groups=groups)

    inputs = kernel.shape[0] if transposed else kernel.shape[1] * groups
    if not _library_agrees(kernel.dtype, transposed, groups > 1):
        return plain
    return _reordered(kernel, bias, [1, inputs, side, side], groups, transposed)


@cache
def _library_agrees(dtype: torch.dtype, transposed: bool, depthwise: bool) -> bool:
    """Tell whether kernels reordered ahead exist in this PyTorch and give the usual result."""
    channels, side = 16, 8
    groups = channels if depthwise else 1
    taps = 4 if transposed else 3
    kernel = torch.linspace(-1, 1, channels * channels // groups * taps * taps, dtype=dtype)
    kernel = kernel.view(channels, channels // groups, taps, taps)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    x = torch.linspace(-1, 1, 2 * channels * side * side, dtype=dtype)
    x = x.view(2, channels, side, side).contiguous(memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            found = _reordered(kernel, None, [1, channels, side, side], groups, transposed)(x)
            if transposed:
                wanted = F.conv_transpose2d(x, kernel, stride=2, padding=1)
            else:
                wanted = F.conv2d(x, kernel, padding=1, groups=groups)
            return bool(torch.allclose(found, wanted, rtol=2e-2, atol=1e-3))
    except (RuntimeError, AttributeError, TypeError):
        return False


def _reordered(
    kernel: Tensor, bias: Tensor | None, shape: list[int], groups: int, transposed: bool
) -> Convolution:
    """Return the same convolution over a kernel in oneDNN's layout."""
    library: Any = torch.ops.mkldnn
    one, stride = [1, 1], _STRIDE[transposed]
    if transposed:
        weight = library._reorder_convolution_transpose_weight(
            kernel, one, [0, 0], stride, one, groups, shape
        )

        def doubling(x: Tensor) -> Tensor:
            y: Tensor = library._convolution_transpose_pointwise(
                x, weight, bias, one, [0, 0], stride, one, groups, "none", [], ""
            )
            return y

        return doubling
    weight = library._reorder_convolution_weight(kernel, one, stride, one, groups, shape)

    def keeping(x: Tensor) -> Tensor:
        y: Tensor = library._convolution_pointwise(
            x, weight, bias, one, stride, one, groups, "none", [], ""
        )
        return y

    return keeping

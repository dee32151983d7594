"""Convolutions with kernels that never change: reordered once for the CPU library, not every call.

oneDNN wants kernels in a layout of its own and reorders an ordinary tensor whenever it is used,
which for 512 feature maps at 16 px is a third of the convolution. PyTorch's operators for kernels
reordered ahead are not part of its public interface, so each is tried once and left aside when it
is missing, fails, or differs from the public convolution.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Convolution = Callable[[Tensor], Tensor]


def fixed_conv2d(
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    side: int,
    groups: int = 1,
    transposed: bool = False,
    stride: int = 1,
    padding: Sequence[int] = (1, 1),
    relu: bool = False,
) -> Convolution:
    """Return a function [N, I, h, w] -> [N, O, h', w'] for channels-last features, no gradient.

    ``kernel`` [O, I / groups, kh, kw] with ``stride`` and ``padding`` (rows, columns), by ReLU if
    asked for; ``transposed`` [I, O, 4, 4] doubles the size (stride 2, padding 1). ``side`` is the
    input side it will mostly see.
    """
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    inputs = kernel.shape[0] if transposed else kernel.shape[1] * groups
    on_cpu = kernel.device.type == "cpu"
    if not (on_cpu and _library_agrees(kernel.dtype, transposed, groups > 1, relu)):
        return _plain(kernel, bias, groups, transposed, stride, padding, relu)
    shape = [1, inputs, side, side]
    if transposed:
        return _reordered_doubling(kernel, bias, shape, groups)
    return _reordered(kernel, bias, shape, groups, stride, padding, relu)


def _plain(
    kernel: Tensor,
    bias: Tensor | None,
    groups: int,
    transposed: bool,
    stride: int,
    padding: Sequence[int],
    relu: bool,
) -> Convolution:
    """Return the same by PyTorch's public convolutions."""

    def convolve(x: Tensor) -> Tensor:
        if transposed:
            return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1, groups=groups)
        y = F.conv2d(x, kernel, bias, stride, tuple(padding), groups=groups)
        return y.relu_() if relu else y

    return convolve


@cache
def _library_agrees(dtype: torch.dtype, transposed: bool, depthwise: bool, relu: bool) -> bool:
    """Tell whether kernels reordered ahead exist in this PyTorch and give the usual result."""
    channels, side = 16, 8
    groups = channels if depthwise else 1
    taps = 4 if transposed else 3
    kernel = torch.linspace(-1, 1, channels * channels // groups * taps * taps, dtype=dtype)
    kernel = kernel.view(channels, channels // groups, taps, taps)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    x = torch.linspace(-1, 1, 2 * channels * side * side, dtype=dtype)
    x = x.view(2, channels, side, side).contiguous(memory_format=torch.channels_last)
    shape, ones = [1, channels, side, side], (1, 1)
    try:
        with torch.inference_mode():
            if transposed:
                found = _reordered_doubling(kernel, None, shape, groups)(x)
            else:
                found = _reordered(kernel, None, shape, groups, 1, ones, relu)(x)
            wanted = _plain(kernel, None, groups, transposed, 1, ones, relu)(x)
            return bool(torch.allclose(found, wanted, rtol=2e-2, atol=1e-3))
    except (RuntimeError, AttributeError, TypeError):
        return False


def _reordered(
    kernel: Tensor,
    bias: Tensor | None,
    shape: list[int],
    groups: int,
    stride: int,
    padding: Sequence[int],
    relu: bool,
) -> Convolution:
    """Return the same convolution over a kernel in oneDNN's layout."""
    library: Any = torch.ops.mkldnn
    pads, strides, dilation = list(padding), [stride, stride], [1, 1]
    weight = library._reorder_convolution_weight(kernel, pads, strides, dilation, groups, shape)
    then = "relu" if relu else "none"

    def convolve(x: Tensor) -> Tensor:
        y: Tensor = library._convolution_pointwise(
            x, weight, bias, pads, strides, dilation, groups, then, [], ""
        )
        return y

    return convolve


def _reordered_doubling(
    kernel: Tensor, bias: Tensor | None, shape: list[int], groups: int
) -> Convolution:
    """Return the transposed convolution over a kernel in oneDNN's layout."""
    library: Any = torch.ops.mkldnn
    one, none, two = [1, 1], [0, 0], [2, 2]
    weight = library._reorder_convolution_transpose_weight(
        kernel, one, none, two, one, groups, shape
    )

    def double(x: Tensor) -> Tensor:
        y: Tensor = library._convolution_transpose_pointwise(
            x, weight, bias, one, none, two, one, groups, "none", [], ""
        )
        return y

    return double

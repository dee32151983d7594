"""The building blocks of both networks: equalised layers, resampling of images, minibatch stddev.

Equalised learning rate: weights are stored as N(0, 1/lrmul) and multiplied at run time by
gain/√fan_in·lrmul (Karras et al. 2017), so that all layers learn at one speed.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylecli.errors import UsageError
from stylecli.networks.config import NetworkConfig
from stylecli.ops.activation import bias_act
from stylecli.ops.convolution import convolve
from stylecli.ops.cuda.calls import TILE
from stylecli.ops.dispatch import Route, route
from stylecli.ops.filtered_kernels import compiled_filtered_lrelu, fused_filtered_lrelu
from stylecli.ops.reference import EPSILON, LEAKY_SLOPE, FilteredActivation
from stylecli.ops.resampling import blur2d, blur_filters

SQRT2 = math.sqrt(2.0)


class EqualLinear(nn.Module):
    """Dense layer with equalised learning rate: [N, in] -> [N, out]; weight [out, in]."""

    def __init__(
        self, fan_in: int, fan_out: int, *, gain: float, lrmul: float = 1.0, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in) / lrmul)
        self.bias = nn.Parameter(torch.zeros(fan_out)) if bias else None
        self.scale = gain / math.sqrt(fan_in) * lrmul
        self.lrmul = lrmul

    def forward(self, x: Tensor) -> Tensor:
        bias: Tensor | None = self.bias
        if bias is not None and self.lrmul != 1.0:
            bias = bias * self.lrmul
        return F.linear(x, self.weight * self.scale, bias)


class EqualConv2d(nn.Module):
    """Weight holder of a convolution with equalised learning rate; weight [out, in, k, k].

    ``scaled_weight`` is what the convolution uses. Calling it is a plain zero-padded convolution.
    The bias, where there is one, is applied by the caller: after blur or downscaling.
    """

    def __init__(
        self, fan_in: int, fan_out: int, kernel: int, *, gain: float, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(fan_out)) if bias else None
        self.scale = gain / math.sqrt(fan_in * kernel * kernel)

    @property
    def scaled_weight(self) -> Tensor:
        return self.weight * self.scale

    def forward(self, x: Tensor) -> Tensor:
        weight = self.scaled_weight
        if weight.shape[-1] == 1 and x.is_cpu:
            # On CPUs a 1×1 convolution with few channels is faster as a matrix product; in
            # channels-last memory both permutations are free.
            y = F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), self.bias)
            return y.permute(0, 3, 1, 2)
        return convolve(x, weight, self.bias, padding=weight.shape[-1] // 2)

    def activated(self, x: Tensor, *, blur: bool = False) -> Tensor:
        """Convolve, add the bias, apply leaky ReLU, blur: on a GPU the rest is one kernel."""
        if self.bias is None or route("bias_act", x) is Route.REFERENCE:
            y = leaky_relu(self(x))
            return blur2d(y) if blur else y
        weight = self.scaled_weight
        y = convolve(x, weight, padding=weight.shape[-1] // 2)
        return blurred_lrelu(y, self.bias) if blur else leaky_relu(y, self.bias)


class ToRGB(EqualConv2d):
    """Features [N, I, h, w] -> colours [N, C, h, w]: called with autocast off, in whole precision.

    Kernels return features in the reduced precision in which they take them; the colours and the
    float32 weights that make them need all their bits.
    """

    def __init__(self, fan_in: int, channels: int) -> None:
        super().__init__(fan_in, channels, 1, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(whole_precision(x))


def leaky_relu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Leaky ReLU of slope 0.2 of x + bias [C], without a gain (the √2 sits in the weights)."""
    if route("bias_act", x) is not Route.REFERENCE:
        return bias_act(x, bias, act="lrelu", alpha=LEAKY_SLOPE, gain=1.0)
    if bias is not None:
        x = x + bias.to(x.dtype).view(1, -1, 1, 1)
    return F.leaky_relu(x, LEAKY_SLOPE)


_BLURRED = FilteredActivation(padding=(1, 1, 1, 1), gain=1.0, slope=LEAKY_SLOPE)


def blurred_lrelu(x: Tensor, bias: Tensor) -> Tensor:
    """Return blur2d(leaky_relu(x, bias)), x [N, C, H, W]: one kernel where planes fill tiles."""
    if (
        min(x.shape[2:]) >= TILE
        and (way := route("filtered_lrelu", x, bias)) is not Route.REFERENCE
    ):
        apply = fused_filtered_lrelu if way is Route.EAGER else compiled_filtered_lrelu
        return apply(x, bias.to(x.dtype), *blur_filters(x.device), _BLURRED)
    return blur2d(leaky_relu(x, bias))


def whole_precision(x: Tensor) -> Tensor:
    """Return half precision numbers as float32; others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def upscale_nearest(images: Tensor, factor: int) -> Tensor:
    """Repeat every pixel ``factor`` times both ways: [N, C, H, W] -> [N, C, H·f, W·f]."""
    if factor == 1:
        return images
    return F.interpolate(images, scale_factor=factor, mode="nearest")


def box_average(images: Tensor, factor: int) -> Tensor:
    """Average ``factor``² blocks: [N, C, H·f, W·f] -> [N, C, H, W]."""
    return images if factor == 1 else F.avg_pool2d(images, factor)


def lerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Return a + (b - a)·t; where ``t`` is a float64 tensor [], the same to the bit."""
    if isinstance(t, Tensor):
        return _HeldLerp.apply(a, b, t)  # type: ignore[no-any-return, no-untyped-call]
    return torch.lerp(a, b, t)


class _HeldLerp(torch.autograd.Function):
    """Rounds where lerp by a number does, in all derivatives; there is none by ``t``."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        ctx.save_for_backward(t)
        wide = torch.promote_types(a.dtype, torch.float32)
        return torch.lerp(a.to(wide), b.to(wide), t.to(wide)).to(a.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (t,) = ctx.saved_tensors
        wide = torch.promote_types(grads[0].dtype, torch.float32)
        by_a, by_b = ((grads[0].to(wide) * by.to(wide)).to(grads[0].dtype) for by in (1 - t, t))
        return by_a, by_b, None


@torch.no_grad()
def move_average(average: Tensor, moved: Tensor) -> None:
    """Set a running average, in place, to ``moved`` where that is finite.

    Adam leaves out an update that is not finite, as fp16 has them while it looks for its scale. An
    average that took such a value in would never be finite again.
    """
    average.copy_(torch.where(moved.isfinite(), moved, average))


def minibatch_stddev(x: Tensor, group_size: int, features: int = 1) -> Tensor:
    """Append channels: the mean standard deviation over groups of samples, and of ``features``.

    x [N, C, H, W] -> [N, C + F, H, W]: one channel for each of F equal parts of the C. Samples n
    and n + M share a group, M = N / group; the variance is biased with 1e-8 under the root (Karras
    et al. 2017). Raises UsageError when N is neither at most ``group_size`` nor a multiple of it.
    """
    count, channels, height, width = x.shape
    group = min(group_size, count)
    if count % group:
        raise UsageError(
            f"batch {count} does not divide into minibatch-stddev groups of {group}: "
            f"use a multiple of {group}"
        )
    if channels % features:
        raise UsageError(
            f"{channels} feature maps do not divide into {features} parts for their deviation"
        )
    groups = x.reshape(group, count // group, features, channels // features, height, width)
    centred = groups - groups.mean(dim=0)  # [G, M, F, C/F, H, W]
    deviation = (centred.square().mean(dim=0) + EPSILON).sqrt()  # [M, F, C/F, H, W]
    mean = deviation.mean(dim=(2, 3, 4))  # [M, F]
    planes = mean.repeat(group, 1)[:, :, None, None].expand(-1, -1, height, width)
    return torch.cat([x, planes], dim=1)


_held_fade: Tensor | None = None


@contextlib.contextmanager
def fading_by(fade: Tensor | None) -> Iterator[None]:
    """Have ``split_lod`` return ``fade`` [], float64, in place of any fraction in here.

    A captured step reads it on its device, where it moves without another capture.
    """
    global _held_fade
    before, _held_fade = _held_fade, fade
    try:
        yield
    finally:
        _held_fade = before


def split_lod(config: NetworkConfig, lod: float) -> tuple[int, float | Tensor | None]:
    """Split a level of detail into whole levels and the fading fraction, None where nothing fades.

    lod 0 is full resolution; ``config.deepest_lod`` shows the 4×4 block alone. Raises UsageError
    for a level out of range.
    """
    config.check_lod(lod)
    level = math.floor(lod)
    if lod == level:
        return level, None
    return level, lod - level if _held_fade is None else _held_fade


def check_labels(c: Tensor | None, label_dim: int, count: int) -> None:
    """Raise UsageError unless ``c`` is [count, label_dim], or None for an unlabelled network."""
    if not label_dim:
        if c is not None and c.shape[-1] != 0:
            raise UsageError("this network takes no labels")
    elif c is None:
        raise UsageError(f"this network needs labels: give c, one-hot [{count}, {label_dim}]")
    elif tuple(c.shape) != (count, label_dim):
        raise UsageError(
            f"labels have shape {list(c.shape)}: this network needs [{count}, {label_dim}]"
        )

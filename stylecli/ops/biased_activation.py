"""Bias, activation, gain and clamp in one pass over the data; with scale and noise, more of it.

On a GPU the forward pass reads x once and writes y once; the gradient reads dy and y (or x) once
and writes dx once, leaving the bias gradient's partial sums on the way.
"""

from typing import Any

import torch
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.ops.activation_derivatives import backward, remember, second_backward
from stylecli.ops.activation_reference import Additions, bias_act_ref
from stylecli.ops.activations import resolved_activation
from stylecli.ops.dispatch import Route, route
from stylecli.ops.registered_activation import NAME, activated, activation_gradient, bias_act_op


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    scale: Tensor | None = None,
    noise: Tensor | None = None,
    noise_strength: Tensor | None = None,
) -> Tensor:
    """Return clamp(act(x·scale + noise·noise_strength + b)·gain) (StyleGAN2, Karras et al. 2019).

    x of any shape; b [x.shape[dim]] is added along ``dim``. ``act``: linear, relu, lrelu, tanh,
    sigmoid, elu, selu, softplus or swish; ``alpha`` is the slope of lrelu (0.2); ``gain`` is √2 for
    relu, lrelu and swish and 1 for the others unless given; ``clamp`` limits to ±clamp. The
    epilogue of a StyleGAN2 layer, for x [N, C, H, W] and dim 1: ``scale`` [N, C] (the
    demodulation), ``noise`` [N or 1, 1, H, W], ``noise_strength`` a scalar or [C] (1 unless given).
    Returns x's shape and dtype; differentiable to any order. Raises UsageError for an unknown
    activation or a shape that does not fit.
    """
    if not x.is_floating_point():
        raise UsageError(f"bias_act needs floating-point x: this one is {x.dtype}")
    activation = resolved_activation(act, alpha, gain, clamp)
    if not -x.ndim <= dim < x.ndim:
        raise UsageError(f"dim {dim} is out of range: x has {x.ndim} dimensions")
    dim %= x.ndim
    if b is not None and (b.ndim != 1 or b.shape[0] != x.shape[dim]):
        raise UsageError(f"bias has shape {list(b.shape)}: expected [{x.shape[dim]}]")
    if scale is not None or noise is not None:
        noise_strength = _checked_layer(x, dim, scale, noise, noise_strength)
    else:
        noise_strength = None
    more = [
        tensor if tensor is None or tensor.dtype == x.dtype else tensor.to(x.dtype)
        for tensor in (b, scale, noise, noise_strength)
    ]
    way = route(NAME, x, *more)
    if way is Route.REFERENCE:
        return bias_act_ref(x, Additions(*more), dim, activation)
    if way is Route.COMPILED:
        numbers = (act, activation.alpha, activation.gain, activation.clamp)
        y: Tensor = bias_act_op(x, *more, dim, *numbers)
        return y
    return _BiasAct.apply(x, *more, dim, activation)  # type: ignore[no-any-return, no-untyped-call]


def _checked_layer(
    x: Tensor, dim: int, scale: Tensor | None, noise: Tensor | None, strength: Tensor | None
) -> Tensor | None:
    """Check the shapes of a layer's epilogue; return the strength as [C]."""
    if x.ndim != 4 or dim != 1:
        raise UsageError(
            f"scale and noise need x [N, C, H, W] and dim 1: x has shape {list(x.shape)}, dim {dim}"
        )
    count, channels, height, width = x.shape
    if scale is not None and scale.shape != (count, channels):
        raise UsageError(f"scale has shape {list(scale.shape)}: expected [{count}, {channels}]")
    if noise is None:
        return None
    if noise.ndim != 4 or noise.shape[0] not in (1, count) or noise.shape[1:] != (1, height, width):
        raise UsageError(
            f"noise has shape {list(noise.shape)}: expected [{count} or 1, 1, {height}, {width}]"
        )
    if strength is None:
        return None
    if strength.numel() not in (1, channels):
        raise UsageError(f"noise_strength has {strength.numel()} values: expected 1 or {channels}")
    return strength.reshape(-1).expand(channels)


class _BiasAct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, bias, scale, noise, strength, dim, activation = inputs
        y = activated(x, Additions(bias, scale, noise, strength), dim, activation)
        remember(ctx, inputs, activation, y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return (*backward(ctx, grads[0], _BiasActGradient.apply), None, None)


class _BiasActGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor | None]:
        dy, reference, bias, scale, noise, strength, dim, activation, from_output, sums = inputs
        ctx.set_materialize_grads(False)
        ctx.dim, ctx.activation, ctx.from_output = dim, activation, from_output
        ctx.save_for_backward(None if from_output else dy, reference, bias, scale, noise, strength)
        more = Additions(bias, scale, noise, strength)
        return activation_gradient(dy, reference, more, dim, activation, from_output, sums)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        found = second_backward(ctx, grads[0], grads[1], _BiasActGradient.apply)
        return (*found, None, None, None, None)

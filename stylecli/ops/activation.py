"""bias_act: bias, activation, gain and clamp in one pass; with scale and noise, more of a layer.

On a GPU the forward pass reads x once and writes y once; the gradient reads dy and y (or x) once
and writes dx once, leaving the bias gradient's partial sums on the way. In eager mode a registered
op would cost three times the call of an autograd.Function, so only compiled code comes to the ops.
First and second derivatives are written once: both hand in the ``gradient`` that they differentiate
with, an autograd.Function or the other op.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.ops.cuda import calls
from stylecli.ops.cuda.selfcheck import check_operator
from stylecli.ops.dispatch import CHECKS, Route, refuse_forward_mode, route, run_fused
from stylecli.ops.reference import (
    Activation,
    Additions,
    along,
    bias_act_gradient_ref,
    bias_act_ref,
    partial_gradients,
    resolved_activation,
)

NAME = "bias_act"
CHECKS[NAME] = check_operator

Gradient = Callable[..., tuple[Tensor, Tensor | None]]


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


def remember(ctx: Any, inputs: tuple[Any, ...], activation: Activation, y: Tensor) -> None:
    """Keep what the gradient needs: the output where it tells all, else the inputs."""
    x, bias, scale, noise, strength, dim = inputs[:6]
    ctx.set_materialize_grads(False)
    ctx.dim, ctx.activation = dim, activation
    ctx.from_output = activation.known_by_output and scale is None and noise is None
    ctx.bias_dtype = None if bias is None else bias.dtype
    if ctx.from_output:
        ctx.save_for_backward(y, None, None, None, None)
    else:
        ctx.save_for_backward(x, bias, scale, noise, strength)


def backward(ctx: Any, dy: Tensor | None, gradient: Gradient) -> list[Tensor | None]:
    """Return the gradients of x, bias, scale, noise and strength."""
    if dy is None:
        return [None] * 5
    reference, bias, scale, noise, strength = ctx.saved_tensors
    _, want_bias, want_scale, want_noise, want_strength = ctx.needs_input_grad[:5]
    more = (bias, scale, noise, strength)
    dx, sums = gradient(
        dy, reference, *more, ctx.dim, ctx.activation, ctx.from_output,
        want_bias or want_scale or want_strength,
    )  # fmt: skip
    found: list[Tensor | None] = [dx, None, None, None, None]
    by_plane = scale is not None or noise is not None
    if sums is not None and want_bias:
        own = sums[:, 0]
        own = own.view(dx.shape[0], -1).sum(0) if by_plane else own
        found[1] = own.to(dx.dtype)
    if sums is not None and want_scale:
        found[2] = sums[:, 1].view(dx.shape[0], -1).to(dx.dtype)
    if want_noise:  # rare (noise maps are constants in training), so in plain steps
        found[3] = _noise_gradient(ctx, dy, reference, Additions(*more))
    if sums is not None and want_strength:
        found[4] = sums[:, 2].view(dx.shape[0], -1).sum(0).to(dx.dtype)
    return found


def _noise_gradient(ctx: Any, dy: Tensor, x: Tensor, more: Additions) -> Tensor:
    """Return the gradient of the noise maps: the sum over channels of du·strength."""
    assert more.noise is not None
    exact = torch.promote_types(dy.dtype, torch.float32)
    dy, x = dy.to(exact), x.to(exact)
    bias, scale, noise, strength = (
        None if one is None else one.to(exact)
        for one in (more.bias, more.scale, more.noise, more.strength)
    )
    additions = Additions(bias, scale, noise, strength)
    _, du = bias_act_gradient_ref(dy, x, additions, ctx.dim, ctx.activation, False)
    du = du if strength is None else du * along(strength, du, 1)
    return du.sum(dim=1, keepdim=True).sum_to_size(more.noise.shape).to(more.noise.dtype)


def gradient_in_steps(
    dy: Tensor, reference: Tensor, more: Additions, dim: int, activation: Activation,
    from_output: bool, want_sums: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Return what the gradient kernel returns, in differentiable steps."""
    dx, du = bias_act_gradient_ref(dy, reference, more, dim, activation, from_output)
    if not want_sums:
        return dx, None
    wide = torch.float64 if du.dtype == torch.float64 else torch.float32
    if more.scale is None and more.noise is None:
        others = [axis for axis in range(du.ndim) if axis != dim]
        sums = du.sum(dim=others, dtype=wide) if others else du.to(wide)
        return dx, sums[:, None]
    products = [du, du * reference, du * (0 if more.noise is None else more.noise)]
    return dx, torch.stack([one.sum(dim=(2, 3), dtype=wide).flatten() for one in products], dim=1)


def second_backward(
    ctx: Any, ddx: Tensor | None, dsums: Tensor | None, gradient: Gradient
) -> list[Tensor | None]:
    """Return the gradients of dy, reference, bias, scale, noise and strength."""
    saved = ctx.saved_tensors
    reference = saved[1]
    if ctx.from_output:
        # dx and the sums are linear in dy, and a straight line has no curvature: the operator is
        # its own derivative, to any order.
        if dsums is not None:
            spread = along(dsums[:, 0].to(reference.dtype), reference, ctx.dim)
            ddx = spread.expand_as(reference) if ddx is None else ddx + spread
        if ddx is None:
            return [None] * 6
        more = (None, None, None, None)
        ddy, _ = gradient(ddx, reference, *more, ctx.dim, ctx.activation, True, False)
        return [ddy, None, None, None, None, None]

    def formula(dy: Tensor, x: Tensor, *more: Tensor | None) -> tuple[Tensor, Tensor | None]:
        additions = Additions(*more)
        return gradient_in_steps(
            dy, x, additions, ctx.dim, ctx.activation, False, dsums is not None
        )

    return partial_gradients(formula, saved, ctx.needs_input_grad[:6], (ddx, dsums))


# ---- by kernels or plain PyTorch, and as registered ops, which torch.compile keeps whole


def activated(x: Tensor, more: Additions, dim: int, activation: Activation) -> Tensor:
    """Return clamp(act(x·scale + noise·strength + bias)·gain) in memory of its own."""

    def plain() -> Tensor:
        return calls.laid_out(bias_act_ref(x, more, dim, activation), x, dim)

    return run_fused(NAME, x, lambda: calls.bias_act_forward(x, more, dim, activation), plain)


def activation_gradient(
    dy: Tensor, reference: Tensor, more: Additions, dim: int, activation: Activation,
    from_output: bool, want_sums: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Return what calls.bias_act_gradient does: dx and, if wanted, sums."""

    def kernel() -> tuple[Tensor, Tensor | None]:
        return calls.bias_act_gradient(
            dy, reference, more, dim, activation, from_output=from_output, want_sums=want_sums
        )

    def plain() -> tuple[Tensor, Tensor | None]:
        dx, sums = gradient_in_steps(dy, reference, more, dim, activation, from_output, want_sums)
        return calls.laid_out(dx, reference, dim), sums

    return run_fused(NAME, reference, kernel, plain)


@torch.library.custom_op("stylecli::bias_act", mutates_args=())
def bias_act_op(
    x: Tensor, bias: Tensor | None, scale: Tensor | None, noise: Tensor | None,
    strength: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float,
) -> Tensor:  # fmt: skip
    refuse_forward_mode(NAME)
    activation = resolved_activation(act, alpha, gain, clamp)
    return activated(x, Additions(bias, scale, noise, strength), dim, activation)


@bias_act_op.register_fake
def _(x: Any, bias: Any, scale: Any, noise: Any, strength: Any, dim: int, *numbers: Any) -> Tensor:
    return calls.empty_output(x, dim)


@torch.library.custom_op("stylecli::bias_act_gradient", mutates_args=())
def bias_act_gradient_op(
    dy: Tensor, reference: Tensor, bias: Tensor | None, scale: Tensor | None,
    noise: Tensor | None, strength: Tensor | None, dim: int, act: str, alpha: float, gain: float,
    clamp: float, from_output: bool, want_sums: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    more = Additions(bias, scale, noise, strength)
    activation = resolved_activation(act, alpha, gain, clamp)
    dx, sums = activation_gradient(dy, reference, more, dim, activation, from_output, want_sums)
    return dx, dx.new_empty(0) if sums is None else sums


@bias_act_gradient_op.register_fake
def _(
    dy: Tensor, reference: Tensor, bias: Any, scale: Any, noise: Any, strength: Any, dim: int,
    act: str, alpha: float, gain: float, clamp: float, from_output: bool, want_sums: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    more = Additions(bias, scale, noise, strength)
    dx = calls.empty_output(reference, dim)
    shape = calls.sums_shape(reference, dim, more) if want_sums else (0,)
    return dx, dx.new_empty(shape, dtype=calls.wide(dx.dtype))


def _gradient(
    dy: Tensor, reference: Tensor, bias: Tensor | None, scale: Tensor | None,
    noise: Tensor | None, strength: Tensor | None, dim: int, activation: Activation,
    from_output: bool, want_sums: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    numbers = (activation.name, activation.alpha, activation.gain, activation.clamp)
    dx, sums = bias_act_gradient_op(
        dy, reference, bias, scale, noise, strength, dim, *numbers, from_output, want_sums
    )
    return dx, sums if want_sums else None


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    remember(ctx, inputs, resolved_activation(*inputs[6:]), output)


def _first(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
    return (*backward(ctx, dy, _gradient), *[None] * 5)


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.dim, ctx.activation = inputs[6], resolved_activation(*inputs[7:11])
    ctx.from_output, ctx.want_sums = inputs[11:]
    ctx.save_for_backward(None if ctx.from_output else inputs[0], *inputs[1:6])


def _second(ctx: Any, ddx: Tensor | None, dsums: Tensor | None) -> tuple[Tensor | None, ...]:
    dsums = dsums if ctx.want_sums else None
    return (*second_backward(ctx, ddx, dsums, _gradient), *[None] * 7)


bias_act_op.register_autograd(_first, setup_context=_keep)
bias_act_gradient_op.register_autograd(_second, setup_context=_keep_gradient)

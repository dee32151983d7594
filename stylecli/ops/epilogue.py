"""What follows every synthesis convolution: noise, bias, leaky ReLU, normalisation, style.

The common case, instance norm with a style, is one autograd node with a hand-written gradient on a
CPU: the plain version spends most of a small network's time in some forty tiny autograd steps. On a
GPU it is kernels, behind an autograd.Function in eager mode and as registered ops in compiled code.
The kernels' first and second derivatives are written once: both hand in the ``gradient`` that they
differentiate with, an autograd.Function or the other op.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylecli.ops.cuda import calls
from stylecli.ops.cuda.selfcheck import check_operator
from stylecli.ops.dispatch import CHECKS, Route, refuse_forward_mode, route, run_fused
from stylecli.ops.reference import (
    EPSILON,
    LEAKY_SLOPE,
    partial_gradients,
    split_style,
    style_epilogue_gradient_ref,
    style_epilogue_ref,
)

NAME = "style_epilogue"
CHECKS[NAME] = check_operator

Gradient = Callable[..., tuple[Tensor, Tensor]]


def style_epilogue(
    x: Tensor,
    bias: Tensor,
    *,
    noise: Tensor | None = None,
    noise_strength: Tensor | None = None,
    style: Tensor | None = None,
    use_pixel_norm: bool = False,
    use_instance_norm: bool = True,
) -> Tensor:
    """Finish a synthesis layer: AdaIN (Karras et al. 2018, Eq. 1) behind noise and activation.

    x [N, C, H, W]; bias and noise_strength [C]; noise [N or 1, 1, H, W]; style [N, 2C], of which
    the first half is the scale (added to one) and the second the shift. Order: noise, bias, leaky
    ReLU 0.2, pixel norm, instance norm, ``x·(scale + 1) + shift``. Differentiable twice.
    """
    if style is not None and use_instance_norm and not use_pixel_norm:
        if noise is None or noise_strength is None:
            noise = noise_strength = None
        way = route(NAME, x, bias, noise, noise_strength, style)
        if way is Route.EAGER:
            return fused_style_epilogue(x, bias, noise, noise_strength, style)
        if way is Route.COMPILED:
            return style_epilogue_op(x, bias, noise, noise_strength, style)
        return _StyleEpilogue.apply(  # type: ignore[no-any-return, no-untyped-call]
            x, bias, noise, noise_strength, style
        )
    return style_epilogue_ref(
        x, bias, noise, noise_strength, style, use_pixel_norm, use_instance_norm
    )


class _StyleEpilogue(torch.autograd.Function):
    """y = h·(scale + 1) + shift, h = instance_norm(lrelu(x + noise·strength + bias))."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor,
        noise: Tensor | None,
        strength: Tensor | None,
        style: Tensor,
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        offset = bias.view(1, -1, 1, 1)
        if noise is not None and strength is not None:
            u = _multiply_add(x, noise, strength.view(1, -1, 1, 1)).add_(offset)
        else:
            u = x + offset
        a = F.leaky_relu_(u, LEAKY_SLOPE)
        centred = a - a.mean(dim=(2, 3), keepdim=True)
        # Two passes on purpose: E[a²] - E[a]² cancels badly on nearly constant planes.
        inverse = (centred.square().mean(dim=(2, 3), keepdim=True) + EPSILON).rsqrt()
        h = centred.mul_(inverse)
        factor, shift = split_style(style, x)
        ctx.save_for_backward(x, bias, noise, strength, style, a, h, inverse)
        return _multiply_add(shift, h, factor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, bias, noise, strength, style, a, h, inverse = ctx.saved_tensors
        if grad is None:
            return None, None, None, None, None
        inputs = (x, bias, noise, strength, style)
        if torch.is_grad_enabled():  # a second derivative is wanted
            return tuple(
                partial_gradients(
                    lambda *own: (style_epilogue_ref(*own),), inputs, ctx.needs_input_grad, (grad,)
                )
            )
        factor, _ = split_style(style, x)
        mean_grad = grad.mean(dim=(2, 3), keepdim=True)
        mean_grad_h = (grad * h).mean(dim=(2, 3), keepdim=True)
        pixels = x.shape[2] * x.shape[3]
        grad_style = torch.cat([mean_grad_h, mean_grad], dim=1).view(len(x), -1) * pixels
        # Through the normalisation: (g - mean g - h·mean(g·h))·factor/σ, then the leaky ReLU.
        grad_a = torch.addcmul(grad - mean_grad, h, mean_grad_h, value=-1).mul_(factor * inverse)
        grad_x = torch.ops.aten.leaky_relu_backward(grad_a, a, LEAKY_SLOPE, True)
        grad_bias = grad_x.sum(dim=(0, 2, 3))
        grad_noise = grad_strength = None
        if noise is not None and strength is not None:
            if ctx.needs_input_grad[3]:
                grad_strength = (grad_x * noise).sum(dim=(0, 2, 3))
            if ctx.needs_input_grad[2]:
                grad_noise = (grad_x * strength.view(1, -1, 1, 1)).sum(dim=1, keepdim=True)
                grad_noise = grad_noise.sum_to_size(noise.shape)
        return grad_x, grad_bias, grad_noise, grad_strength, grad_style


def _multiply_add(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return x + a·b; of several dtypes by operators that promote them on every device."""
    return torch.addcmul(x, a, b) if x.dtype == a.dtype == b.dtype else x + a * b


# ---- by kernels or plain PyTorch; in eager mode, an autograd.Function


def fused_style_epilogue(
    x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None, style: Tensor
) -> Tensor:
    """Do what style_epilogue_ref does with instance norm and a style, by kernels.

    The same shapes; the other tensors are brought to x's dtype. Differentiable twice.
    """
    if noise is None or strength is None:
        noise = strength = None
    return _FusedEpilogue.apply(  # type: ignore[no-any-return, no-untyped-call]
        *in_kernel_form(x, bias, noise, strength, style)
    )


def in_kernel_form(x: Tensor, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return all tensors in x's dtype and in layouts that the kernels read."""
    return (
        calls.dense(x),
        *(tensor if tensor is None else tensor.to(dtype=x.dtype).contiguous() for tensor in others),
    )


def epilogue_with_statistics(
    x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None, style: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the output and the planes' statistics, as calls.epilogue_forward does."""

    def plain() -> tuple[Tensor, Tensor]:
        y = calls.laid_out_as(style_epilogue_ref(x, bias, noise, strength, style), x)
        return y, _statistics(x, bias, noise, strength)

    inputs = (x, bias, noise, strength, style)
    return run_fused(NAME, x, lambda: calls.epilogue_forward(*inputs), plain)


def epilogue_gradient(
    dy: Tensor, x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None,
    style: Tensor, statistics: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return dx and the sums of calls.epilogue_gradient."""
    inputs = (dy, x, bias, noise, strength, style)

    def plain() -> tuple[Tensor, Tensor]:
        dx, sums = style_epilogue_gradient_ref(*inputs)
        return calls.laid_out_as(dx, x), sums

    return run_fused(NAME, x, lambda: calls.epilogue_gradient(*inputs, statistics), plain)


def _statistics(x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None) -> Tensor:
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    u = x.to(wide) + bias.to(wide).view(1, -1, 1, 1)
    if noise is not None and strength is not None:
        u = u + noise.to(wide) * strength.to(wide).view(1, -1, 1, 1)
    a = torch.nn.functional.leaky_relu(u, LEAKY_SLOPE).flatten(2).flatten(0, 1)
    variance, mean = torch.var_mean(a, dim=1, correction=0)
    return torch.stack([mean, (variance + EPSILON).rsqrt()], dim=1)


class _FusedEpilogue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        y, statistics = epilogue_with_statistics(*inputs)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, statistics)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(backward(ctx, grads[0], _FusedEpilogueGradient.apply))


class _FusedEpilogueGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:6])
        return epilogue_gradient(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return (*second_backward(ctx, grads[0], grads[1]), None)


def backward(ctx: Any, dy: Tensor | None, gradient: Gradient) -> list[Tensor | None]:
    """Return the gradients of x, bias, noise, strength and style."""
    if dy is None:
        return [None] * 5
    x, bias, noise, strength, style, statistics = ctx.saved_tensors
    dx, sums = gradient(calls.laid_out_as(dy, x), x, bias, noise, strength, style, statistics)
    planes = sums.view(x.shape[0], x.shape[1], 4)
    found: list[Tensor | None] = [dx, None, None, None, None]
    if ctx.needs_input_grad[1]:
        found[1] = planes[:, :, 2].sum(dim=0).to(x.dtype)
    if ctx.needs_input_grad[2] and strength is not None:
        own = (dx * strength.view(1, -1, 1, 1)).sum(dim=1, keepdim=True)
        found[2] = own.sum_to_size(noise.shape)
    if ctx.needs_input_grad[3]:
        found[3] = planes[:, :, 3].sum(dim=0).to(x.dtype)
    if ctx.needs_input_grad[4]:
        found[4] = planes[:, :, :2].transpose(1, 2).reshape(x.shape[0], -1).to(x.dtype)
    return found


def second_backward(ctx: Any, ddx: Tensor | None, dsums: Tensor | None) -> list[Tensor | None]:
    """Return the gradients of dy, x, bias, noise, strength and style.

    Through the closed form in plain PyTorch: only path-length steps come here.
    """
    return partial_gradients(
        style_epilogue_gradient_ref, ctx.saved_tensors, ctx.needs_input_grad[:6], (ddx, dsums)
    )


# ---- the registered ops, which torch.compile keeps whole and differentiates


@torch.library.custom_op("stylecli::style_epilogue_with_statistics", mutates_args=())
def with_statistics_op(
    x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None, style: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the output and the planes' statistics, as calls.epilogue_forward does."""
    refuse_forward_mode(NAME)
    return epilogue_with_statistics(x, bias, noise, strength, style)


def style_epilogue_op(
    x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None, style: Tensor
) -> Tensor:
    """Finish a synthesis layer by one op; the shapes of style_epilogue_ref."""
    if noise is None or strength is None:
        noise = strength = None
    y: Tensor = with_statistics_op(*in_kernel_form(x, bias, noise, strength, style))[0]
    return y


@with_statistics_op.register_fake
def _(x: Tensor, bias: Any, noise: Any, strength: Any, style: Any) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.empty_like(x), x.new_empty(x.shape[0] * x.shape[1], 2, dtype=wide)


@torch.library.custom_op("stylecli::style_epilogue_gradient", mutates_args=())
def gradient_op(
    dy: Tensor, x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None,
    style: Tensor, statistics: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return dx and the sums of calls.epilogue_gradient."""
    return epilogue_gradient(dy, x, bias, noise, strength, style, statistics)


@gradient_op.register_fake
def _(
    dy: Tensor, x: Tensor, bias: Any, noise: Any, strength: Any, style: Any, statistics: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), statistics.new_empty(x.shape[0] * x.shape[1], 4)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs, output[1])


def _first(ctx: Any, dy: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(backward(ctx, dy, gradient_op))


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:6])


def _second(ctx: Any, ddx: Tensor | None, dsums: Tensor | None) -> tuple[Tensor | None, ...]:
    return (*second_backward(ctx, ddx, dsums), None)


with_statistics_op.register_autograd(_first, setup_context=_keep)
gradient_op.register_autograd(_second, setup_context=_keep_gradient)

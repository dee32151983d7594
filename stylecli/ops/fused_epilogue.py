"""The StyleGAN1 epilogue by kernels or plain PyTorch; for eager mode, an autograd.Function."""

from typing import Any

import torch
from torch import Tensor

from stylecli.ops.cuda import epilogue_calls
from stylecli.ops.dispatch import run_fused
from stylecli.ops.epilogue_derivatives import backward, second_backward
from stylecli.ops.epilogue_reference import (
    EPSILON,
    LEAKY_SLOPE,
    style_epilogue_gradient_ref,
    style_epilogue_ref,
)

NAME = "style_epilogue"


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
    """Return all tensors contiguous and in x's dtype, as the kernels read them."""
    return (
        x.contiguous(),
        *(tensor if tensor is None else tensor.to(dtype=x.dtype).contiguous() for tensor in others),
    )


def epilogue_with_statistics(
    x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None, style: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the output and the planes' statistics, as epilogue_calls.epilogue_forward does."""

    def plain() -> tuple[Tensor, Tensor]:
        y = style_epilogue_ref(x, bias, noise, strength, style).contiguous()
        return y, _statistics(x, bias, noise, strength)

    inputs = (x, bias, noise, strength, style)
    return run_fused(NAME, x, lambda: epilogue_calls.epilogue_forward(*inputs), plain)


def epilogue_gradient(
    dy: Tensor, x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None,
    style: Tensor, statistics: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return dx and the sums of epilogue_calls.epilogue_gradient."""
    inputs = (dy, x, bias, noise, strength, style)

    def plain() -> tuple[Tensor, Tensor]:
        dx, sums = style_epilogue_gradient_ref(*inputs)
        return dx.contiguous(), sums

    return run_fused(NAME, x, lambda: epilogue_calls.epilogue_gradient(*inputs, statistics), plain)


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

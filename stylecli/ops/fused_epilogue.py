"""The StyleGAN1 epilogue as kernels behind an autograd.Function, for eager mode."""

from typing import Any

import torch
from torch import Tensor

from stylecli.ops.cuda import epilogue_calls
from stylecli.ops.epilogue_derivatives import backward, second_backward


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


class _FusedEpilogue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        y, statistics = epilogue_calls.epilogue_forward(*inputs)
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
        return epilogue_calls.epilogue_gradient(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return (*second_backward(ctx, grads[0], grads[1]), None)

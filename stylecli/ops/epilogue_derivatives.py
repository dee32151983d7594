"""First and second derivatives of the epilogue kernels, for the eager function and the op alike.

Both hand in the ``gradient`` that they differentiate with: an autograd.Function, or the other op.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from stylecli.ops.epilogue_reference import style_epilogue_gradient_ref
from stylecli.ops.partial_derivatives import partial_gradients

Gradient = Callable[..., tuple[Tensor, Tensor]]


def backward(ctx: Any, dy: Tensor | None, gradient: Gradient) -> list[Tensor | None]:
    """Return the gradients of x, bias, noise, strength and style."""
    if dy is None:
        return [None] * 5
    x, bias, noise, strength, style, statistics = ctx.saved_tensors
    dx, sums = gradient(dy.contiguous(), x, bias, noise, strength, style, statistics)
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

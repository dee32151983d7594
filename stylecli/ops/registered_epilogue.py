"""The StyleGAN1 epilogue as registered ops, which torch.compile keeps whole and differentiates."""

from typing import Any

import torch
from torch import Tensor

from stylecli.ops.dispatch import refuse_forward_mode
from stylecli.ops.epilogue_derivatives import backward, second_backward
from stylecli.ops.fused_epilogue import (
    NAME,
    epilogue_gradient,
    epilogue_with_statistics,
    in_kernel_form,
)


@torch.library.custom_op("stylecli::style_epilogue_with_statistics", mutates_args=())
def with_statistics_op(
    x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None, style: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the output and the planes' statistics, as epilogue_calls.epilogue_forward does."""
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
    """Return dx and the sums of epilogue_calls.epilogue_gradient."""
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

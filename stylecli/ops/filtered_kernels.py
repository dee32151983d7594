"""filtered_lrelu by kernels: an autograd.Function in eager mode, registered ops in compiled code.

They serve the factors and filters of StyleGAN3, and keep x, not the signs of the picture in
between: two bits for each of 4 to 16 values would be up to 4 bytes for each of x's, which has 2 or
4. So the gradient makes the slopes again.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stylecli.ops.cuda import calls, filtered_calls
from stylecli.ops.cuda.selfcheck import check_operator
from stylecli.ops.dispatch import CHECKS, refuse_forward_mode, run_fused
from stylecli.ops.reference import (
    FilteredActivation,
    filtered_lrelu_ref,
    filtered_lrelu_slopes_ref,
)

NAME = "filtered_lrelu"
CHECKS[NAME] = check_operator


def _laid_out(y: Tensor, x: Tensor, how: FilteredActivation) -> Tensor:
    """Return y in the layout in which the kernels leave it."""
    return calls.laid_out_as(y, x) if filtered_calls.keeps_size(how) else y.contiguous()


def _empty(x: Tensor, size: Sequence[int], how: FilteredActivation) -> Tensor:
    """Return memory for an output in that layout."""
    if filtered_calls.keeps_size(how):
        return calls.empty_resampled(x, *size)
    return x.new_empty(*x.shape[:2], *size)


def _forward(
    x: Tensor, b: Tensor | None, fu: Tensor, fd: Tensor, how: FilteredActivation
) -> Tensor:
    return run_fused(
        NAME,
        x,
        lambda: filtered_calls.filtered_lrelu_forward(x, b, fu, fd, how),
        lambda: _laid_out(filtered_lrelu_ref(x, fu, fd, b, how), x, how),
    )


def _slopes(
    v: Tensor,
    x: Tensor,
    b: Tensor | None,
    fu: Tensor,
    fd: Tensor,
    how: FilteredActivation,
    back: bool,
) -> tuple[Tensor, Tensor]:
    """Return v resampled with x's slopes in between, in x's dtype, and its sums by channel."""

    def plain() -> tuple[Tensor, Tensor]:
        y = _laid_out(filtered_lrelu_slopes_ref(v, x, b, fu, fd, how, back), x, how)
        return y, y.sum(dim=(0, 2, 3), dtype=calls.wide(y.dtype))

    return run_fused(
        NAME,
        x,
        lambda: filtered_calls.filtered_lrelu_slopes(v.to(x.dtype), x, b, fu, fd, how, back=back),
        plain,
    )


def _joined(gradients: Sequence[Tensor | None], x: Tensor, shape: Sequence[int]) -> Tensor | None:
    """Return the gradient of v's resampling [N, C, h, w] and of its sums [C] together."""
    gradient, of_sums = gradients
    if of_sums is None:
        return gradient
    spread = of_sums.to(x.dtype)[:, None, None].expand(*shape)
    return spread if gradient is None else gradient + spread


def fused_filtered_lrelu(
    x: Tensor, b: Tensor | None, fu: Tensor, fd: Tensor, how: FilteredActivation
) -> Tensor:
    """Do what filtered_lrelu does, by kernels in eager mode; differentiable to any order."""
    return _Fused.apply(x, b, fu, fd, how)  # type: ignore[no-any-return, no-untyped-call]


class _Fused(torch.autograd.Function):
    """Its gradient is _FusedSlopes, whose gradient is itself the other way round."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, b: Tensor | None, fu: Tensor, fd: Tensor, how: FilteredActivation
    ) -> Tensor:
        ctx.how = how
        ctx.save_for_backward(x, b, fu, fd)
        return _forward(x, b, fu, fd, how)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, b, fu, fd = ctx.saved_tensors
        dx, sums = _FusedSlopes.apply(grads[0], x, b, fu, fd, ctx.how, True)  # type: ignore[no-untyped-call]
        return dx, None if b is None else sums.to(b.dtype), *[None] * 3


class _FusedSlopes(torch.autograd.Function):
    """Linear in v; straight lines have no curvature, so nothing comes to x and b."""

    @staticmethod
    def forward(
        ctx: Any,
        v: Tensor,
        x: Tensor,
        b: Tensor | None,
        fu: Tensor,
        fd: Tensor,
        how: FilteredActivation,
        back: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.how, ctx.back = how, back
        y, sums = _slopes(v, x, b, fu, fd, how, back)
        ctx.save_for_backward(x, b, fu, fd)
        ctx.shape = y.shape
        return y, sums

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, b, fu, fd = ctx.saved_tensors
        g = _joined(grads, x, ctx.shape)
        if g is None:
            return (None,) * 7
        dv = _FusedSlopes.apply(g, x, b, fu, fd, ctx.how, not ctx.back)[0]  # type: ignore[no-untyped-call]
        return dv, *[None] * 6


# ---- the registered ops, for torch.compile


@torch.library.custom_op("stylecli::filtered_lrelu", mutates_args=())
def filtered_lrelu_op(
    x: Tensor, b: Tensor | None, fu: Tensor, fd: Tensor, up: int, down: int,
    padding: Sequence[int], gain: float, slope: float, clamp: float, flip: bool,
) -> Tensor:  # fmt: skip
    """Do what filtered_lrelu does; opaque to torch.compile."""
    refuse_forward_mode(NAME)
    return _forward(x, b, fu, fd, _named(up, down, padding, gain, slope, clamp, flip))


@torch.library.custom_op("stylecli::filtered_lrelu_slopes", mutates_args=())
def slopes_op(
    v: Tensor, x: Tensor, b: Tensor | None, fu: Tensor, fd: Tensor, up: int, down: int,
    padding: Sequence[int], gain: float, slope: float, clamp: float, flip: bool, back: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return what filtered_lrelu's gradients need; opaque to torch.compile."""
    refuse_forward_mode(NAME)
    how = _named(up, down, padding, gain, slope, clamp, flip)
    return _slopes(v, x, b, fu, fd, how, back)


def _named(*numbers: Any) -> FilteredActivation:
    up, down, padding, *others = numbers
    return FilteredActivation(up, down, tuple(padding), *others)


def _numbers(how: FilteredActivation) -> tuple[Any, ...]:
    """Return the fields in order, as the registered ops take them."""
    return how.up, how.down, how.padding, how.gain, how.slope, how.clamp, how.flip


@filtered_lrelu_op.register_fake
def _(x: Tensor, b: Any, fu: Tensor, fd: Tensor, *numbers: Any) -> Tensor:
    how = _named(*numbers)
    return _empty(x, filtered_calls.filtered_sizes(x, fu, fd, how)[1], how)


@slopes_op.register_fake
def _(v: Tensor, x: Tensor, b: Any, fu: Tensor, fd: Tensor, *more: Any) -> tuple[Tensor, Tensor]:
    *numbers, back = more
    how = _named(*numbers)
    size = x.shape[2:] if back else filtered_calls.filtered_sizes(x, fu, fd, how)[1]
    return _empty(x, size, how), x.new_empty(x.shape[1], dtype=calls.wide(x.dtype))


def compiled_filtered_lrelu(
    x: Tensor, b: Tensor | None, fu: Tensor, fd: Tensor, how: FilteredActivation
) -> Tensor:
    """Do what filtered_lrelu does as the registered op, which torch.compile keeps whole."""
    y: Tensor = filtered_lrelu_op(x, b, fu, fd, *_numbers(how))
    return y


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.numbers = inputs[4:]


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, b, fu, fd = ctx.saved_tensors
    dx, sums = slopes_op(dy, x, b, fu, fd, *ctx.numbers, True)
    return dx, None if b is None else sums.to(b.dtype), *[None] * 9


def _keep_slopes(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[1:5])
    *ctx.numbers, ctx.back = inputs[5:]
    ctx.shape = output[0].shape


def _slopes_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    x, b, fu, fd = ctx.saved_tensors
    g = _joined(grads, x, ctx.shape)
    if g is None:
        return (None,) * 13
    return slopes_op(g, x, b, fu, fd, *ctx.numbers, not ctx.back)[0], *[None] * 12


filtered_lrelu_op.register_autograd(_backward, setup_context=_keep_inputs)
slopes_op.register_autograd(_slopes_backward, setup_context=_keep_slopes)

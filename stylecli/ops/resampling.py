"""Pad, upsample, filter and downsample in one operator; and the [1 2 1] blur of StyleGAN."""

import operator
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from stylecli.errors import UsageError
from stylecli.ops.cuda.calls import empty_resampled, laid_out_as, upfirdn2d_forward
from stylecli.ops.cuda.selfcheck import check_operator
from stylecli.ops.dispatch import CHECKS, Route, refuse_forward_mode, route, run_fused
from stylecli.ops.reference import (
    Resampling,
    blur2d_ref,
    blur_taps,
    checked_output_size,
    filter_size,
    upfirdn2d_ref,
)

NAME = "upfirdn2d"
CHECKS[NAME] = check_operator


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    *,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Insert zeros, pad, filter and keep every n-th pixel (StyleGAN2, Karras et al. 2019).

    x [N, C, H, W]; f [h, w], [n] for n×n by two passes, or None for no filter. In order: ``up``
    - 1 zeros follow every pixel; ``padding`` is added around (negative: cropped); f is convolved
    with it (``flip_filter``: correlated) and multiplied by ``gain``; every ``down``-th pixel stays.
    ``up`` and ``down`` are a number or (x, y); ``padding`` is a number, (x, y) or (left, right,
    top, bottom). Returns [N, C, (H·up + top + bottom - h)//down + 1, ...] in x's dtype;
    differentiable to any order. Raises UsageError for arguments that make no sense or leave no
    pixel.
    """
    if x.ndim != 4 or not x.shape[1]:
        raise UsageError(f"upfirdn2d needs x [N, C, H, W]: x has shape {list(x.shape)}")
    if not x.is_floating_point():
        raise UsageError(f"upfirdn2d needs floating-point x: this one is {x.dtype}")
    if f is None:
        f = torch.ones(1, 1, dtype=torch.float32, device=x.device)
    if f.ndim not in (1, 2) or not f.numel():
        raise UsageError(f"a filter has shape [h, w] or [n]: this one has {list(f.shape)}")
    how = Resampling(
        up=_pair(up, "up"),
        down=_pair(down, "down"),
        padding=padding_sides(padding),
        flip=flip_filter,
        gain=float(gain),
    )
    checked_output_size(x, f, how)
    # The kernels have no gradient for the filter, which nobody trains.
    way = Route.REFERENCE if f.requires_grad else route(NAME, x, f)
    if way is Route.REFERENCE and (f.requires_grad or not _differentiated_by_reverse_mode(x)):
        return upfirdn2d_ref(x, f, how)
    if way is Route.COMPILED:
        y: Tensor = upfirdn2d_op(x, f, how.up, how.down, how.padding, how.flip, how.gain)
        return y
    return _UpFirDn.apply(x, f, how)  # type: ignore[no-any-return, no-untyped-call]


def _differentiated_by_reverse_mode(x: Tensor) -> bool:
    """Say whether plain PyTorch's own second derivative is to be kept out of the way.

    It is a convolution for every channel, with kernels as large as the picture.
    """
    asked = torch.is_grad_enabled() and x.requires_grad
    return asked and forward_ad._current_level < 0 and not torch.compiler.is_compiling()


def _pair(factor: int | Sequence[int], name: str) -> tuple[int, int]:
    values = _whole_numbers(factor, name)
    if len(values) not in (1, 2) or min(values) < 1:
        raise UsageError(f"{name} is {factor}: expected one or two whole numbers of at least 1")
    return values[0], values[-1]


def padding_sides(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """Return (left, right, top, bottom) of one number, (x, y) or all four; raise UsageError."""
    values = _whole_numbers(padding, "padding")
    match values:
        case [every]:
            return every, every, every, every
        case [x, y]:
            return x, x, y, y
        case [left, right, top, bottom]:
            return left, right, top, bottom
    raise UsageError(f"padding has {len(values)} numbers: expected 1, 2 or 4")


def _whole_numbers(given: Any, name: str) -> list[int]:
    """Return one number or several as a list of ints; 1.5 is refused, numpy's ints are taken."""
    try:
        return [operator.index(one) for one in (given if isinstance(given, Sequence) else [given])]
    except TypeError:
        raise UsageError(f"{name} is {given}: expected whole numbers") from None


def _resampled(x: Tensor, f: Tensor, how: Resampling) -> Tensor:
    return run_fused(
        NAME,
        x,
        lambda: upfirdn2d_forward(x, f, how),
        lambda: laid_out_as(upfirdn2d_ref(x, f, how), x),
    )


class _UpFirDn(torch.autograd.Function):
    """Its gradient is itself with up and down exchanged and the filter turned."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Tensor, how: Resampling) -> Tensor:
        y = _resampled(x, f, how)
        ctx.save_for_backward(f)
        ctx.back = how.transposed(*x.shape[2:], *y.shape[2:], *filter_size(f))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (f,) = ctx.saved_tensors
        return _UpFirDn.apply(grads[0], f, ctx.back), None, None  # type: ignore[no-untyped-call]


# ---- the registered op, for torch.compile


@torch.library.custom_op("stylecli::upfirdn2d", mutates_args=())
def upfirdn2d_op(
    x: Tensor, f: Tensor, up: Sequence[int], down: Sequence[int], padding: Sequence[int],
    flip: bool, gain: float,
) -> Tensor:  # fmt: skip
    """Resample as upfirdn2d does; opaque to torch.compile."""
    refuse_forward_mode(NAME)
    return _resampled(x, f, _resampling(up, down, padding, flip, gain))


def _resampling(up: Any, down: Any, padding: Any, flip: bool, gain: float) -> Resampling:
    return Resampling(tuple(up), tuple(down), tuple(padding), flip, gain)


@upfirdn2d_op.register_fake
def _(x: Tensor, f: Tensor, up: Any, down: Any, padding: Any, flip: bool, gain: float) -> Tensor:
    how = _resampling(up, down, padding, flip, gain)
    return empty_resampled(x, *how.output_size(*x.shape[2:], *filter_size(f)))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, f = inputs[:2]
    ctx.save_for_backward(f)
    ctx.back = _resampling(*inputs[2:]).transposed(*x.shape[2:], *output.shape[2:], *filter_size(f))


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    (f,) = ctx.saved_tensors
    back = ctx.back
    dx = upfirdn2d_op(dy, f, back.up, back.down, back.padding, back.flip, back.gain)
    return dx, *[None] * 6


upfirdn2d_op.register_autograd(_backward, setup_context=_keep)


# ---- the blur beside every change of resolution in StyleGAN


@cache
def blur_filters(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return no filter [1], and the blur's [3, 3], for kernels.

    Copied to a device once, because a copy waits for the device.
    """
    with torch.inference_mode(False):
        one = torch.ones(1, dtype=torch.float32, device=device)
        return one, blur_taps(1, torch.float32, device)[0, 0].contiguous()


class _Blur(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return blur2d_ref(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return blur2d(grads[0])


def blur2d(x: Tensor) -> Tensor:
    """Convolve every channel with [1,2,1]⊗[1,2,1]/16, zero padded.

    x [N, C, H, W]; returns the same shape and dtype. Differentiable any number of times: with a
    symmetric kernel and zero padding the operator is its own transpose, so the gradient is one
    more blur, which saves the general depthwise backward (about half of the cost on CPUs).
    """
    if route("upfirdn2d", x) is not Route.REFERENCE:
        return upfirdn2d(x, blur_filters(x.device)[1], padding=1)
    return _Blur.apply(x)  # type: ignore[no-any-return, no-untyped-call]

"""Convolution whose second derivative is made of convolutions again.

R1 differentiates the gradient of every convolution by its weight. PyTorch does that by a
convolution whose kernels are as large as the image; here the gradient by the input is the same
operator transposed, whose own weight gradient is an ordinary one. Measured on a CPU (64 px,
batch 8): a training step in bfloat16 takes 5 % less so, in float32 the same, and small networks
lose by the Python in between. So it serves reduced precision only.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_input_only = False


@contextlib.contextmanager
def input_gradients_only() -> Iterator[None]:
    """Leave out gradients for weights while a gradient penalty asks for those of images only.

    Around ``torch.autograd.grad(..., create_graph=True)``: a Function cannot know what was asked.
    """
    global _input_only
    before, _input_only = _input_only, True
    try:
        yield
    finally:
        _input_only = before


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 1,
    transposed: bool = False,
) -> Tensor:
    """Return conv2d, or conv_transpose2d, of x [N, I, H, W]: the quicker form for where it runs.

    weight is [O, I, k, k], transposed [I, O, k, k]; bias [O]. Any order of derivative.
    """
    if x.is_cpu and torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        bias = None if bias is None else bias.to(dtype)
        return convolve_in_terms_of_itself(
            x.to(dtype), weight.to(dtype), bias, stride, padding, transposed
        )
    function = F.conv_transpose2d if transposed else F.conv2d
    return function(x, weight, bias, stride=stride, padding=padding)


def convolve_in_terms_of_itself(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    transposed: bool,
) -> Tensor:
    """Do what ``convolve`` does, with derivatives of every order made of the same operator.

    Sides must divide by the stride, as they do wherever resolutions double or halve:
    k = 2·padding + stride, or 3 with padding 1.
    """
    return _Convolve.apply(  # type: ignore[no-any-return, no-untyped-call]
        x, weight, bias, stride, padding, transposed
    )


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: int,
        padding: int,
        transposed: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.way = stride, padding, transposed
        ctx.set_materialize_grads(False)
        function = F.conv_transpose2d if transposed else F.conv2d
        with torch.autocast(x.device.type, enabled=False):
            return function(x, weight, bias, stride=stride, padding=padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        stride, padding, transposed = ctx.way
        if grad is None:
            return None, None, None, None, None, None
        wants_x = ctx.needs_input_grad[0]
        wants_weight = ctx.needs_input_grad[1] and not _input_only
        grad = grad.to(x.dtype)
        grad_bias = None
        if ctx.needs_input_grad[2] and not _input_only:
            grad_bias = grad.sum(dim=(0, 2, 3))
        if not torch.is_grad_enabled():
            found = _gradients(grad, x, weight, ctx.way, (wants_x, wants_weight))
            return found[0], found[1], grad_bias, None, None, None
        grad_x = grad_weight = None
        if wants_x:
            grad_x = _Convolve.apply(grad, weight, None, stride, padding, not transposed)  # type: ignore[no-untyped-call]
        if wants_weight:
            grad_weight = _ConvolveWeight.apply(grad, x, weight, *ctx.way)  # type: ignore[no-untyped-call]
        return grad_x, grad_weight, grad_bias, None, None, None


class _ConvolveWeight(torch.autograd.Function):
    """The weight gradient: bilinear in (grad, x), so its derivatives are convolutions with ``v``.

    d<v, G(grad, x)> = <d grad, conv(x, v)> + <conv^T(grad, v), d x>.
    """

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, tr: bool
    ) -> Tensor:
        ctx.save_for_backward(grad, x)
        ctx.way = stride, padding, tr
        found = _gradients(grad, x, weight, ctx.way, (False, True))[1]
        assert found is not None
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (v,) = grads
        grad, x = ctx.saved_tensors
        stride, padding, transposed = ctx.way
        v = v.to(x.dtype)
        by_grad = by_x = None
        if ctx.needs_input_grad[0]:
            by_grad = _Convolve.apply(x, v, None, stride, padding, transposed)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            by_x = _Convolve.apply(grad, v, None, stride, padding, not transposed)  # type: ignore[no-untyped-call]
        return by_grad, by_x, None, None, None, None


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, way: tuple[int, int, bool], wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    stride, padding, transposed = way
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1,
        [*wanted, False],
    )  # fmt: skip
    return found[0], found[1]

"""Convolutions: of any order of derivative, by a factor of two, with kernels that never change."""

import contextlib
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# ---- second derivatives made of convolutions again
#
# R1 differentiates the gradient of every convolution by its weight. PyTorch does that by a
# convolution whose kernels are as large as the image, a shape that GPU libraries are not made for.
# Here the gradient by the input is the same operator transposed, whose own weight gradient is an
# ordinary one. So all training on a GPU takes this form. On a CPU (measured at 64 px, batch 8) it
# saves 5 % of a training step in bfloat16 and nothing in float32, and small networks lose by the
# Python in between: there it serves reduced precision, and weight gradients in another layout.

_input_only = False
_planar_sides: frozenset[int] = frozenset()


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


@contextlib.contextmanager
def planar_weight_gradients(sides: Collection[int]) -> Iterator[None]:
    """Have CPUs compute float32 weight gradients from planar copies where features have a side.

    Features are channels-last on CPUs, in which oneDNN's weight gradients take up to four times as
    long as in planes where it has no AVX-512 (``planar_gain``). For convolutions made in here,
    whenever their derivatives are taken; a change of resolution counts with its larger side.
    """
    global _planar_sides
    before, _planar_sides = _planar_sides, frozenset(sides)
    try:
        yield
    finally:
        _planar_sides = before


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 1,
    transposed: bool = False,
    groups: int = 1,
) -> Tensor:
    """Return conv2d, or conv_transpose2d, of x [N, I, H, W]: the better form for where it runs.

    weight is [O, I / groups, k, k], transposed [I, O / groups, k, k]; bias [O]. Any order of
    derivative.
    """
    if groups == 1 and weight.shape[-1] > 1 and _in_last_memory(x):
        # oneDNN would bring it there in the forward pass, and once more in each backward pass.
        weight = weight.contiguous(memory_format=torch.channels_last)
    kind = x.device.type
    reduced = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    if reduced if x.is_cpu else _differentiated():
        if reduced:
            dtype = torch.get_autocast_dtype(kind)
            x, weight = x.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        return convolve_in_terms_of_itself(x, weight, bias, stride, padding, transposed, groups)
    side = x.shape[-1] * (stride if transposed else 1)
    if side in _planar_sides and x.is_cpu and groups == 1 and _differentiated():
        return convolve_in_terms_of_itself(
            x, weight, bias, stride, padding, transposed, planar=True
        )
    function = F.conv_transpose2d if transposed else F.conv2d
    return function(x, weight, bias, stride=stride, padding=padding, groups=groups)


def _in_last_memory(x: Tensor) -> bool:
    """Say whether kernels for features x should lie as these: channels-last, on CPUs, eagerly."""
    if not x.is_cpu or x.is_contiguous() or torch.compiler.is_compiling():
        return False
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return not tracing and x.is_contiguous(memory_format=torch.channels_last)


def _differentiated() -> bool:
    """Say whether derivatives may be asked for; compiled code has no second ones."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def convolve_in_terms_of_itself(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    transposed: bool,
    groups: int = 1,
    *,
    planar: bool = False,
) -> Tensor:
    """Do what ``convolve`` does, with derivatives of every order made of the same operator.

    The kernel must end at the border, as it does wherever resolutions double or halve: the stride
    divides side + 2·padding - k, or the side where k is 3 and padding 1. ``planar`` takes weight
    gradients from planar copies of features and gradients.
    """
    return _Convolve.apply(  # type: ignore[no-any-return, no-untyped-call]
        x, weight, bias, stride, padding, transposed, groups, planar
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
        groups: int,
        planar: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.way = stride, padding, transposed, groups, planar
        ctx.set_materialize_grads(False)
        function = F.conv_transpose2d if transposed else F.conv2d
        with torch.autocast(x.device.type, enabled=False):
            return function(x, weight, bias, stride=stride, padding=padding, groups=groups)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        stride, padding, transposed, groups, planar = ctx.way
        if grad is None:
            return (None,) * 8
        wants_x = ctx.needs_input_grad[0]
        wants_weight = ctx.needs_input_grad[1] and not _input_only
        grad = grad.to(x.dtype)
        grad_bias = None
        if ctx.needs_input_grad[2] and not _input_only:
            grad_bias = grad.sum(dim=(0, 2, 3))
        if not torch.is_grad_enabled():
            found = _gradients(grad, x, weight, ctx.way, (wants_x, wants_weight))
            return found[0], found[1], grad_bias, None, None, None, None, None
        grad_x = grad_weight = None
        if wants_x:
            grad_x = _Convolve.apply(  # type: ignore[no-untyped-call]
                grad, weight, None, stride, padding, not transposed, groups, planar
            )
        if wants_weight:
            grad_weight = _ConvolveWeight.apply(grad, x, weight, *ctx.way)  # type: ignore[no-untyped-call]
        return grad_x, grad_weight, grad_bias, None, None, None, None, None


class _ConvolveWeight(torch.autograd.Function):
    """The weight gradient: bilinear in (grad, x), so its derivatives are convolutions with ``v``.

    d<v, G(grad, x)> = <d grad, conv(x, v)> + <conv^T(grad, v), d x>.
    """

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, *way: Any) -> Tensor:
        ctx.save_for_backward(grad, x)
        ctx.way = way
        found = _gradients(grad, x, weight, ctx.way, (False, True))[1]
        assert found is not None
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (v,) = grads
        grad, x = ctx.saved_tensors
        stride, padding, transposed, groups, planar = ctx.way
        v = v.to(x.dtype)
        by_grad = by_x = None
        if ctx.needs_input_grad[0]:
            by_grad = _Convolve.apply(  # type: ignore[no-untyped-call]
                x, v, None, stride, padding, transposed, groups, planar
            )
        if ctx.needs_input_grad[1]:
            by_x = _Convolve.apply(  # type: ignore[no-untyped-call]
                grad, v, None, stride, padding, not transposed, groups, planar
            )
        return by_grad, by_x, None, None, None, None, None, None


def _gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    way: tuple[int, int, bool, int, bool],
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    stride, padding, transposed, groups, planar = way

    def gradients(
        grad: Tensor, x: Tensor, by_x: bool, by_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        found = torch.ops.aten.convolution_backward(
            grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], groups,
            [by_x, by_weight, False],
        )  # fmt: skip
        return found[0], found[1]

    if not (planar and wanted[1]):
        return gradients(grad, x, *wanted)
    by_x = gradients(grad, x, True, False)[0] if wanted[0] else None
    weight = weight.new_empty(weight.shape)  # only its shape matters from here on, in planes
    return by_x, gradients(grad.contiguous(), x.contiguous(), False, True)[1]


_TRIAL_OUTPUTS = 64
_TRIAL_FLOPS = 2.4e8  # of one weight gradient: 3 to 10 ms on a core with AVX2
_TRIALS = 2  # after a first one, which prepares
_seconds = time.perf_counter if sys.platform == "win32" else time.process_time  # 16 ms there


@cache
def planar_gain(maps: int, side: int) -> float:
    """Return how many times as quick weight gradients are from planar copies on this processor.

    Tried on a part of a 3×3 convolution of ``maps`` feature maps of ``side`` px, in 20 to 60 ms;
    copies count with the share that they have of all of it. What other programs do hardly counts:
    the clock is that of the processor time of this one, but on Windows.
    """
    outputs = min(maps, _TRIAL_OUTPUTS)
    pixels = _TRIAL_FLOPS / (2 * 9 * maps * outputs)
    rows = min(side, max(1, round(pixels / side)))
    count = max(1, round(pixels / (rows * side)))
    x, grad = (
        torch.ones(count, each, rows, side).contiguous(memory_format=torch.channels_last)
        for each in (maps, outputs)
    )
    weight = torch.ones(outputs, maps, 3, 3)

    def clock(run: Callable[[], Any]) -> tuple[float, Any]:
        started = _seconds()
        result = run()
        return _seconds() - started, result

    def by_weight(grad: Tensor, x: Tensor) -> Callable[[], Any]:
        return lambda: _gradients(grad, x, weight, (1, 1, False, 1, False), (False, True))

    rounds = []
    with torch.inference_mode():
        for _ in range(1 + _TRIALS):
            whole, _ = clock(by_weight(grad, x))
            copying, planar = clock(x.contiguous)
            parted, _ = clock(by_weight(grad.contiguous(), planar))
            rounds.append((whole, copying, parted))
    whole, copying, parted = (min(column) for column in zip(*rounds[1:], strict=True))
    return float(whole / max(parted + 2 * copying * outputs / maps, 1e-9))


# ---- the memory layout of features
#
# On CPUs channels-last filters ten times faster. cuDNN's half-precision kernels take it too, and
# transpose other features on the way in and out.

_last_on_cuda = False


@contextlib.contextmanager
def channels_last_on_cuda(chosen: bool) -> Iterator[None]:
    """Have ``in_quick_layout`` bring features on CUDA to channels-last memory in here, or not."""
    global _last_on_cuda
    before, _last_on_cuda = _last_on_cuda, chosen
    try:
        yield
    finally:
        _last_on_cuda = before


def in_quick_layout(x: Tensor) -> Tensor:
    """Return the first features of a network [N, C, H, W]; all that follow keep their layout."""
    if x.is_cpu or (_last_on_cuda and x.is_cuda):
        return x.contiguous(memory_format=torch.channels_last)
    return x


# ---- doubling and halving the resolution, at a stride of two with 4×4 kernels
#
# Nearest upscaling followed by a 3×3 convolution touches each output pixel nine times, of which
# only four differ; summing the kernel over its four one-pixel shifts gives the same result with
# four. Halving is the mirror image: convolution followed by a 2×2 mean is one 4×4 convolution.


def _spread(weight: Tensor) -> Tensor:
    """Sum a [.., 3, 3] kernel over its four one-pixel shifts into [.., 4, 4]."""
    padded = F.pad(weight, (1, 1, 1, 1))
    rows = padded[..., 1:, :] + padded[..., :-1, :]
    return rows[..., 1:] + rows[..., :-1]


def _spread_last(weight: Tensor, factor: float = 1.0) -> Tensor:
    """Do what ``_spread`` does times ``factor``, a power of two, into channels-last memory.

    Where features are few, a step on a CPU is mostly spent on kernels: padding, shifting and
    bringing them to the layout of the features took a third of it at 8 px and batch 4. The same
    sums in the same order, with derivatives of every order.
    """
    return _Spread.apply(weight, factor)  # type: ignore[no-any-return, no-untyped-call]


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        w = weight.permute(0, 2, 3, 1).contiguous()  # [A, 3, 3, B]
        rows = w.new_empty(w.shape[0], 4, 3, w.shape[3])
        rows[:, ::3] = w[:, ::2]
        torch.add(w[:, 1:], w[:, :-1], out=rows[:, 1:3])
        spread = w.new_empty(w.shape[0], 4, 4, w.shape[3])
        spread[:, :, ::3] = rows[:, :, ::2]
        torch.add(rows[:, :, 1:], rows[:, :, :-1], out=spread[:, :, 1:3])
        if factor != 1:
            spread.mul_(factor)
        return spread.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Gather.apply(grads[0], ctx.factor), None  # type: ignore[no-untyped-call]


class _Gather(torch.autograd.Function):
    """The adjoint of ``_Spread``: sums of 2×2 taps."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        g = grad.permute(0, 2, 3, 1)
        rows = g[:, :, :-1] + g[:, :, 1:]
        gathered = rows[:, :-1] + rows[:, 1:]
        if factor != 1:
            gathered.mul_(factor)
        return gathered.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Spread.apply(grads[0], ctx.factor), None  # type: ignore[no-untyped-call]


def upsample_conv2d(x: Tensor, weight: Tensor, *, fused: bool = False) -> Tensor:
    """Double the resolution and convolve.

    x [N, I, H, W]; weight [O, I, 3, 3]; returns [N, O, 2H, 2W]. Unfused: nearest ×2, then a zero
    padded 3×3 correlation. ``fused`` is the official transposed convolution, which is the same
    with the kernel turned by 180 degrees; published networks use it from 128 px on.
    """
    if _in_last_memory(x):
        turned = weight if fused else weight.flip(2, 3)
        kernel = _spread_last(turned.transpose(0, 1))
    else:
        kernel = upsampling_kernel(weight, fused=fused)
    return convolve(x, kernel, stride=2, transposed=True)


def upsampling_kernel(weight: Tensor, *, fused: bool = False) -> Tensor:
    """Return the [I, O, 4, 4] kernel of the transposed convolution in ``upsample_conv2d``."""
    return _spread(weight if fused else weight.flip(2, 3)).transpose(0, 1)


def conv2d_downsample(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve 3×3 (zero padded) and average 2×2 blocks.

    x [N, I, 2H, 2W]; weight [O, I, 3, 3]; returns [N, O, H, W]. The official fused and unfused
    forms are equal here.
    """
    kernel = _spread_last(weight, 0.25) if _in_last_memory(x) else _spread(weight) * 0.25
    return convolve(x, kernel, stride=2)


# ---- kernels that never change: reordered once for the CPU library, not in every call
#
# oneDNN needs kernels in a layout of its own and reorders an ordinary tensor whenever it is used,
# which for 512 feature maps at 16 px is a third of the convolution. PyTorch's operators for kernels
# reordered ahead are not part of its public interface, so each is tried once and left aside when it
# is missing, fails, or differs from the public convolution.


Convolution = Callable[[Tensor], Tensor]


def fixed_conv2d(
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    side: int,
    groups: int = 1,
    transposed: bool = False,
    stride: int = 1,
    padding: Sequence[int] = (1, 1),
    relu: bool = False,
) -> Convolution:
    """Return a function [N, I, h, w] -> [N, O, h', w'] for channels-last features, no gradient.

    ``kernel`` [O, I / groups, kh, kw] with ``stride`` and ``padding`` (rows, columns), by ReLU if
    asked for; ``transposed`` [I, O / groups, k, k] has stride 2: 4×4 with padding 1 doubles the
    size, 3×3 with none adds a pixel to that. ``side`` is the input side it will mostly see.
    A graph for other programs has PyTorch's public convolution.
    """
    if torch.compiler.is_exporting():
        return _plain(kernel.contiguous(), bias, groups, transposed, stride, padding, relu)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    inputs = kernel.shape[0] if transposed else kernel.shape[1] * groups
    on_cpu = kernel.device.type == "cpu"
    if not (on_cpu and _library_agrees(kernel.dtype, transposed, groups > 1, relu)):
        return _plain(kernel, bias, groups, transposed, stride, padding, relu)
    shape = [1, inputs, side, side]
    if transposed:
        return _reordered_doubling(kernel, bias, shape, groups, padding)
    return _reordered(kernel, bias, shape, groups, stride, padding, relu)


def fixed_relu_conv2d(kernel: Tensor, bias: Tensor, *, side: int) -> Convolution:
    """Return a 3×3 convolution and ReLU, [N, I, h, w] -> [N, O, h, w], with a gradient by x alone.

    The kernel [O, I, 3, 3] never changes, so its gradient is convolved with a reordered kernel too:
    LPIPS at 32 px and its gradient take a third of the time. ``side`` is as in fixed_conv2d.
    """
    turned = kernel.transpose(0, 1).flip(2, 3)
    forth = fixed_conv2d(kernel, bias, side=side, relu=True)
    back = fixed_conv2d(turned, side=side)
    return lambda x: _FixedReLU.apply(x, forth, back)  # type: ignore[no-untyped-call]


class _FixedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forth: Convolution, back: Convolution) -> Tensor:
        y = forth(x)
        ctx.save_for_backward(y)
        ctx.back = back
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        grad = (grads[0] * (y > 0)).contiguous(memory_format=torch.channels_last)
        return ctx.back(grad), None, None


def _plain(
    kernel: Tensor,
    bias: Tensor | None,
    groups: int,
    transposed: bool,
    stride: int,
    padding: Sequence[int],
    relu: bool,
) -> Convolution:
    """Return the same by PyTorch's public convolutions."""

    def convolve(x: Tensor) -> Tensor:
        if transposed:
            return F.conv_transpose2d(x, kernel, bias, 2, tuple(padding), groups=groups)
        y = F.conv2d(x, kernel, bias, stride, tuple(padding), groups=groups)
        return y.relu_() if relu else y

    return convolve


@cache
def _library_agrees(dtype: torch.dtype, transposed: bool, depthwise: bool, relu: bool) -> bool:
    """Tell whether kernels reordered ahead exist in this PyTorch and give the usual result."""
    channels, side = 16, 8
    groups = channels if depthwise else 1
    taps = 4 if transposed else 3
    kernel = torch.linspace(-1, 1, channels * channels // groups * taps * taps, dtype=dtype)
    kernel = kernel.view(channels, channels // groups, taps, taps)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    x = torch.linspace(-1, 1, 2 * channels * side * side, dtype=dtype)
    x = x.view(2, channels, side, side).contiguous(memory_format=torch.channels_last)
    shape, ones = [1, channels, side, side], (1, 1)
    try:
        with torch.inference_mode():
            if transposed:
                found = _reordered_doubling(kernel, None, shape, groups, ones)(x)
            else:
                found = _reordered(kernel, None, shape, groups, 1, ones, relu)(x)
            wanted = _plain(kernel, None, groups, transposed, 1, ones, relu)(x)
            return bool(torch.allclose(found, wanted, rtol=2e-2, atol=1e-3))
    except (RuntimeError, AttributeError, TypeError):
        return False


def _reordered(
    kernel: Tensor,
    bias: Tensor | None,
    shape: list[int],
    groups: int,
    stride: int,
    padding: Sequence[int],
    relu: bool,
) -> Convolution:
    """Return the same convolution over a kernel in oneDNN's layout."""
    library: Any = torch.ops.mkldnn
    pads, strides, dilation = list(padding), [stride, stride], [1, 1]
    weight = library._reorder_convolution_weight(kernel, pads, strides, dilation, groups, shape)
    then = "relu" if relu else "none"

    def convolve(x: Tensor) -> Tensor:
        y: Tensor = library._convolution_pointwise(
            x, weight, bias, pads, strides, dilation, groups, then, [], ""
        )
        return y

    return convolve


def _reordered_doubling(
    kernel: Tensor, bias: Tensor | None, shape: list[int], groups: int, padding: Sequence[int]
) -> Convolution:
    """Return the transposed convolution over a kernel in oneDNN's layout."""
    library: Any = torch.ops.mkldnn
    pads, one, none, two = list(padding), [1, 1], [0, 0], [2, 2]
    weight = library._reorder_convolution_transpose_weight(
        kernel, pads, none, two, one, groups, shape
    )

    def double(x: Tensor) -> Tensor:
        y: Tensor = library._convolution_transpose_pointwise(
            x, weight, bias, pads, none, two, one, groups, "none", [], ""
        )
        return y

    return double

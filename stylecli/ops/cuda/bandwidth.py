"""How fast the kernels are on a device, against plain PyTorch: what `stylecli doctor` measures.

Both are given as GB/s of the bytes that a fused kernel has to move (every tensor read or written
once), so their ratio is that of the times.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stylecli.ops.cuda.activation_calls import bias_act_forward, bias_act_gradient
from stylecli.ops.cuda.epilogue_calls import epilogue_forward, epilogue_gradient
from stylecli.ops.cuda.fir_calls import upfirdn2d_forward
from stylecli.ops.reference import (
    Additions,
    Resampling,
    bias_act_ref,
    resolved_activation,
    style_epilogue_ref,
    upfirdn2d_ref,
)

SIZE = (8, 128, 128, 128)
"""[N, C, H, W] of the input: 67 MB in float32, more than the caches of most cards hold."""

RUNS = 15
WARM_UPS = 3

Work = Callable[[], object]
Timer = Callable[[Work], float]


@dataclass(frozen=True)
class Bandwidth:
    """One pass of one operator."""

    operator: str
    direction: str  # "forward" or "backward"
    dtype: str
    fused_gb_s: float
    plain_gb_s: float


def measure_operator(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    *,
    size: tuple[int, int, int, int] = SIZE,
    timer: Timer | None = None,
) -> list[Bandwidth]:
    """Time the kernels of operator ``name`` and plain PyTorch, forward and backward.

    ``timer`` returns the seconds that a piece of work takes; CUDA events by default. The kernels
    must be usable on the device.
    """
    timer = timer or seconds_on_cuda
    found = []
    for direction, moves, fused, plain in _WORK[name](device, dtype, size):
        gigabytes = moves * dtype.itemsize / 1e9
        seconds = [
            statistics.median([timer(work) for _ in range(WARM_UPS + RUNS)][WARM_UPS:])
            for work in (fused, plain)
        ]
        found.append(
            Bandwidth(
                operator=name,
                direction=direction,
                dtype=str(dtype).removeprefix("torch."),
                fused_gb_s=gigabytes / seconds[0],
                plain_gb_s=gigabytes / seconds[1],
            )
        )
    return found


def seconds_on_cuda(work: Work) -> float:
    """Return the seconds that ``work`` keeps the current CUDA stream busy."""
    begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000


Pieces = Iterator[tuple[str, int, Work, Work]]  # direction, elements moved, fused, plain


def _backward(y: Tensor, inputs: list[Tensor], dy: Tensor) -> Work:
    return lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True)


def _bias_act(device: torch.device, dtype: torch.dtype, size: tuple[int, ...]) -> Pieces:
    activation = resolved_activation("lrelu")
    x, dy = (torch.randn(size, device=device, dtype=dtype) for _ in range(2))
    b = torch.zeros(size[1], device=device, dtype=dtype)
    more = Additions(b)
    y = bias_act_forward(x, more, 1, activation)
    yield (
        "forward",
        2 * x.numel(),
        lambda: bias_act_forward(x, more, 1, activation),
        lambda: bias_act_ref(x, more, 1, activation),
    )
    leaf, leaf_b = x.requires_grad_(), b.requires_grad_()
    plain = bias_act_ref(leaf, Additions(leaf_b), 1, activation)
    yield (
        "backward",
        3 * x.numel(),
        lambda: bias_act_gradient(dy, y, more, 1, activation, from_output=True, want_sums=True),
        _backward(plain, [leaf, leaf_b], dy),
    )


def _upfirdn2d(device: torch.device, dtype: torch.dtype, size: tuple[int, ...]) -> Pieces:
    how = Resampling(up=(2, 2), padding=(2, 1, 2, 1), gain=4.0)
    count, channels, height, width = size
    x = torch.randn(size, device=device, dtype=dtype)
    dy = torch.randn(count, channels, 2 * height, 2 * width, device=device, dtype=dtype)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=device) / 8
    f = torch.outer(taps, taps)
    back = how.transposed(height, width, 2 * height, 2 * width, 4, 4)
    yield (
        "forward",
        x.numel() + dy.numel(),
        lambda: upfirdn2d_forward(x, f, how),
        lambda: upfirdn2d_ref(x, f, how),
    )
    leaf = x.requires_grad_()
    yield (
        "backward",
        x.numel() + dy.numel(),
        lambda: upfirdn2d_forward(dy, f, back),
        _backward(upfirdn2d_ref(leaf, f, how), [leaf], dy),
    )


def _style_epilogue(device: torch.device, dtype: torch.dtype, size: tuple[int, ...]) -> Pieces:
    count, channels = size[:2]
    x, dy = (torch.randn(size, device=device, dtype=dtype) for _ in range(2))
    noise = torch.randn(count, 1, *size[2:], device=device, dtype=dtype)
    b, strength = (torch.randn(channels, device=device, dtype=dtype) for _ in range(2))
    style = torch.randn(count, 2 * channels, device=device, dtype=dtype)
    inputs = (x, b, noise, strength, style)
    statistics_ = epilogue_forward(*inputs)[1]
    yield (
        "forward",
        2 * x.numel(),
        lambda: epilogue_forward(*inputs),
        lambda: style_epilogue_ref(*inputs),
    )
    leaves = [x, b, strength, style]
    for leaf in leaves:
        leaf.requires_grad_()
    plain = style_epilogue_ref(*inputs)
    yield (
        "backward",
        3 * x.numel(),
        lambda: epilogue_gradient(dy, *inputs, statistics_),
        _backward(plain, leaves, dy),
    )


_WORK: dict[str, Callable[[torch.device, torch.dtype, tuple[int, ...]], Pieces]] = {
    "bias_act": _bias_act,
    "upfirdn2d": _upfirdn2d,
    "style_epilogue": _style_epilogue,
}

"""Every kernel against plain PyTorch on the device itself: are its results right, is it quicker.

A card, a driver or a compiler that nobody here has tried may get a kernel wrong. So the first use
of an operator on a device, in a dtype, runs small cases that reach each of its kernels, forward
and backward, and compares with float64. The reference starts from the inputs as the kernel sees
them, rounded to its dtype. Nothing of the user's is touched: no random state, no gradient, no
autocast. ``stylecli doctor`` also asks how fast the kernels are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from stylecli.errors import DeviceError
from stylecli.ops.cuda.calls import (
    bias_act_forward,
    bias_act_gradient,
    epilogue_forward,
    epilogue_gradient,
    upfirdn2d_forward,
    variants,
)
from stylecli.ops.cuda.filtered_calls import filtered_lrelu_forward, filtered_lrelu_slopes
from stylecli.ops.cuda.launches import DTYPE_NAMES
from stylecli.ops.cuda.runtime import ready_backend
from stylecli.ops.reference import (
    Additions,
    FilteredActivation,
    Resampling,
    bias_act_ref,
    filtered_lrelu_ref,
    resolved_activation,
    style_epilogue_ref,
    upfirdn2d_ref,
)

TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-4,
    torch.float16: 5e-3,
    torch.bfloat16: 4e-2,
}
"""Largest error let pass, as a part of the largest value (at least one): ten times or more what the
host build of the same source shows."""

Outcome = tuple[str, Tensor, Tensor]  # what, the kernel's value, the reference's


def check_operator(name: str, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Compile, load and check the kernels of operator ``name``; return the error of each result.

    Errors are relative to the largest reference value, at least one. Raises DeviceError when the
    kernels cannot be had or a result differs by more than TOLERANCES[dtype].
    """
    if dtype not in DTYPE_NAMES:
        raise DeviceError(f"there are no kernels for {dtype}")
    ready_backend(device).prepare(variants((DTYPE_NAMES[dtype],))[name], device)
    errors: dict[str, float] = {}
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        for what, found, expected in _CHECKS[name](_Inputs(device, dtype)):
            error = relative_error(found, expected)
            errors[what] = max(error, errors.get(what, 0.0))
            if not error <= TOLERANCES[dtype]:  # so that "not a number" fails
                raise DeviceError(
                    f"the self-check failed: {what} differs from plain PyTorch by {error:.1e}, "
                    f"more than {TOLERANCES[dtype]:.0e}"
                )
    return errors


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return max |found - expected| / max(1, max |expected|); not a number counts as infinite."""
    expected = expected.detach().double()
    error = (found.detach().double() - expected).abs().max() / expected.abs().max().clamp(min=1)
    return float(error.nan_to_num(nan=torch.inf))


class _Inputs:
    """Draws inputs on the CPU from a seed of its own, rounded to the kernel's dtype."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._random = torch.Generator("cpu").manual_seed(20181212)

    def __call__(
        self, *shape: int, about: float = 0.0, last: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the same normal numbers in the kernel's dtype and as a float64 leaf.

        With ``last`` the former are in channels-last memory.
        """
        drawn = torch.randn(shape, generator=self._random, dtype=torch.float64, device="cpu")
        drawn += about
        mine = drawn.to(self._dtype).to(self._device)
        if last:
            mine = mine.contiguous(memory_format=torch.channels_last)
        return mine, mine.to(torch.float64, copy=True).requires_grad_()


def _check_bias_act(inputs: _Inputs) -> Iterator[Outcome]:
    # Every addition, a clamp, planes that fill 128-bit accesses; then smooth, without, odd planes;
    # then from the output, which keeps neither the input nor a clamp's edge to round onto. Last the
    # same for channels-last features.
    for act, shape, layer, clamp, last in (
        ("lrelu", (2, 3, 16, 24), True, 2.3, False),
        ("swish", (2, 3, 5, 7), False, 1.1, False),
        ("lrelu", (3, 5, 12, 8), False, None, False),
        ("lrelu", (2, 8, 16, 24), True, 2.3, True),
        ("swish", (2, 3, 5, 7), False, 1.1, True),
        ("lrelu", (3, 8, 12, 9), False, None, True),
    ):
        activation = resolved_activation(act, clamp=clamp)
        x, x64 = inputs(*shape, last=last)
        b, b64 = inputs(shape[1])
        mine, exact = Additions(b), Additions(b64)
        if layer:
            scale, scale64 = inputs(*shape[:2], about=1.0)
            noise, noise64 = inputs(shape[0], 1, *shape[2:])
            strength, strength64 = inputs(shape[1])
            mine = Additions(b, scale, noise, strength)
            exact = Additions(b64, scale64, noise64, strength64)
        y = bias_act_forward(x, mine, 1, activation)
        y64 = bias_act_ref(x64, exact, 1, activation)
        yield f"{act} y", y, y64
        dy, dy64 = inputs(*shape)
        from_output = clamp is None
        read = y if from_output else x
        dx, sums = bias_act_gradient(
            dy, read, mine, 1, activation, from_output=from_output, want_sums=True
        )
        dx64, db64 = torch.autograd.grad(y64, (x64, b64), dy64)
        yield f"{act} dx", dx, dx64
        assert sums is not None
        yield f"{act} db", sums[:, 0].view(-1, shape[1]).sum(0), db64


def _check_upfirdn2d(inputs: _Inputs) -> Iterator[Outcome]:
    # Planes of 33 px and more with filters of 4 taps go by tiles, the others one by one.
    for what, maps, height, width, up, down, taps in (
        ("blur", 3, 35, 40, 1, 1, (4, 4)),
        ("up 2", 3, 18, 21, 2, 1, (4, 3)),
        ("down 2", 3, 70, 66, 1, 2, (2, 4)),
        ("up 3 down 2", 3, 9, 7, 3, 2, (5, 6)),
        ("blur, channels last", 8, 9, 12, 1, 1, (4, 4)),
        ("up 3 down 2, channels last", 3, 9, 7, 3, 2, (5, 6)),
    ):
        last = "last" in what
        how = Resampling((up, up), (down, down), (2, 1, 1, 3), gain=1.5)
        x, x64 = inputs(2, maps, height, width, last=last)
        f = inputs(*taps)[0].float()
        y = upfirdn2d_forward(x, f, how)
        y64 = upfirdn2d_ref(x64, f.double(), how)
        yield f"{what} y", y, y64
        dy, dy64 = inputs(*y.shape, last=last)
        back = how.transposed(height, width, y.shape[2], y.shape[3], *taps)
        (dx64,) = torch.autograd.grad(y64, x64, dy64)
        yield f"{what} dx", upfirdn2d_forward(dy, f, back), dx64


def _check_style_epilogue(inputs: _Inputs) -> Iterator[Outcome]:
    # One plane a block in every size that there is, and one that is cut into chunks; the odd width
    # keeps one of them from 128-bit accesses.
    for what, maps, size, with_noise in (
        ("8 px", 2, (8, 8), True),
        ("48 px", 2, (48, 51), True),
        ("128 px", 2, (128, 128), False),
        ("144 px", 2, (144, 136), True),
        ("24 px, channels last", 8, (24, 23), True),
        ("5 px, channels last", 3, (5, 7), False),
    ):
        last = "last" in what
        x, x64 = inputs(2, maps, *size, last=last)
        b, b64 = inputs(maps)
        style, style64 = inputs(2, 2 * maps)
        noise, noise64 = inputs(2, 1, *size) if with_noise else (None, None)
        strength, strength64 = inputs(maps) if with_noise else (None, None)
        y, statistics = epilogue_forward(x, b, noise, strength, style)
        y64 = style_epilogue_ref(x64, b64, noise64, strength64, style64)
        yield f"{what} y", y, y64
        dy, dy64 = inputs(2, maps, *size, last=last)
        dx, sums = epilogue_gradient(dy, x, b, noise, strength, style, statistics)
        wanted = [x64, b64, style64] if strength64 is None else [x64, b64, style64, strength64]
        dx64, db64, dstyle64, *dstrength64 = torch.autograd.grad(y64, wanted, dy64)
        yield f"{what} dx", dx, dx64
        planes = sums.view(2, maps, 4)
        yield f"{what} dstyle", planes[..., :2].transpose(1, 2).flatten(1), dstyle64
        yield f"{what} db", planes[..., 2].sum(0), db64
        if dstrength64:
            yield f"{what} dstrength", planes[..., 3].sum(0), dstrength64[0]


def _check_filtered_lrelu(inputs: _Inputs) -> Iterator[Outcome]:
    # Both factors that StyleGAN3 has, more than a tile; a filter that separates, and one that does
    # not; then no resampling. Then the gradient, and that one's own gradient by dy.
    for what, maps, height, width, up, down, down_taps in (
        ("up 2", 2, 19, 37, 2, 2, (12,)),
        ("up 2 radial", 2, 18, 21, 2, 2, (12, 12)),
        ("up 4", 2, 11, 23, 4, 2, (12,)),
        ("blur", 2, 19, 37, 1, 1, (3,)),
        ("blur, channels last", 8, 12, 9, 1, 1, (4, 3)),
        ("blur, odd maps, channels last", 3, 7, 5, 1, 1, (4,)),
    ):
        last, taps = "last" in what, 6 * up if up > 1 else 1
        x, x64 = inputs(1, maps, height, width, last=last)
        b, b64 = inputs(maps)
        fu, fd = (inputs(*sides)[0].float() / 6**0.5 for sides in ((taps,), down_taps))
        how = FilteredActivation(up, down, (9, 8, 7, 10) if up > 1 else (2, 1, 0, 2), clamp=2.3)
        y = filtered_lrelu_forward(x, b, fu, fd, how)
        y64 = filtered_lrelu_ref(x64, fu.double(), fd.double(), b64, how)
        yield f"{what} y", y, y64
        dy, dy64 = inputs(*y.shape)
        dx, db = filtered_lrelu_slopes(dy, x, b, fu, fd, how, back=True)
        dx64, db64 = torch.autograd.grad(y64, (x64, b64), dy64, create_graph=True)
        yield f"{what} dx", dx, dx64
        yield f"{what} db", db, db64
        v, v64 = inputs(*x.shape)
        again, _ = filtered_lrelu_slopes(v, x, b, fu, fd, how, back=False)
        yield f"{what} ddy", again, torch.autograd.grad(dx64, dy64, v64)[0]


_CHECKS: dict[str, Callable[[_Inputs], Iterator[Outcome]]] = {
    "bias_act": _check_bias_act,
    "upfirdn2d": _check_upfirdn2d,
    "style_epilogue": _check_style_epilogue,
    "filtered_lrelu": _check_filtered_lrelu,
}


# ---- how fast they are, as `stylecli doctor` measures
#
# Both are given as GB/s of the bytes that a fused kernel has to move (every tensor read or written
# once), so their ratio is that of the times.

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
            median([timer(work) for _ in range(WARM_UPS + RUNS)][WARM_UPS:])
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


def _time_bias_act(device: torch.device, dtype: torch.dtype, size: tuple[int, ...]) -> Pieces:
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


def _time_upfirdn2d(device: torch.device, dtype: torch.dtype, size: tuple[int, ...]) -> Pieces:
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


def _time_style_epilogue(device: torch.device, dtype: torch.dtype, size: tuple[int, ...]) -> Pieces:
    count, channels = size[:2]
    x, dy = (torch.randn(size, device=device, dtype=dtype) for _ in range(2))
    noise = torch.randn(count, 1, *size[2:], device=device, dtype=dtype)
    b, strength = (torch.randn(channels, device=device, dtype=dtype) for _ in range(2))
    style = torch.randn(count, 2 * channels, device=device, dtype=dtype)
    inputs = (x, b, noise, strength, style)
    statistics = epilogue_forward(*inputs)[1]
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
        lambda: epilogue_gradient(dy, *inputs, statistics),
        _backward(plain, leaves, dy),
    )


def _time_filtered_lrelu(device: torch.device, dtype: torch.dtype, size: tuple[int, ...]) -> Pieces:
    how = FilteredActivation(2, 2, (11, 10, 11, 10), clamp=256.0)
    x, dy = (torch.randn(size, device=device, dtype=dtype) for _ in range(2))
    b = torch.randn(size[1], device=device, dtype=dtype)
    taps = torch.hann_window(12, periodic=False, device=device)
    f = taps / taps.sum()
    yield (
        "forward",
        2 * x.numel(),
        lambda: filtered_lrelu_forward(x, b, f, f, how),
        lambda: filtered_lrelu_ref(x, f, f, b, how),
    )
    leaves = [x.requires_grad_(), b.requires_grad_()]
    plain = filtered_lrelu_ref(x, f, f, b, how)
    yield (
        "backward",
        3 * x.numel(),
        lambda: filtered_lrelu_slopes(dy, x, b, f, f, how, back=True),
        _backward(plain, leaves, dy),
    )


_WORK: dict[str, Callable[[torch.device, torch.dtype, tuple[int, ...]], Pieces]] = {
    "bias_act": _time_bias_act,
    "upfirdn2d": _time_upfirdn2d,
    "style_epilogue": _time_style_epilogue,
    "filtered_lrelu": _time_filtered_lrelu,
}


def examine_operator(
    name: str, device: torch.device, dtype: str, *, measured: bool = True
) -> dict[str, Any]:
    """Check operator ``name`` on a device in a dtype, and time it if ``measured``.

    Returns plain values. Always: operator, dtype, device, works. Then ``reason`` where it does not
    work; else errors, largest_error, allowed, and gb_s {forward, backward: {fused, plain}} (empty,
    with the ``reason``, where timing failed). Raises nothing for what the kernels do.
    """
    kind: torch.dtype = getattr(torch, dtype)
    row: dict[str, Any] = {"operator": name, "dtype": dtype, "device": str(device), "works": False}
    try:
        errors = check_operator(name, device, kind)
        row.update(
            works=True,
            errors=errors,
            largest_error=max(errors.values()),
            allowed=TOLERANCES[kind],
        )
        if measured:
            row["gb_s"] = {}
            for one in measure_operator(name, device, kind):
                figures = {"fused": round(one.fused_gb_s), "plain": round(one.plain_gb_s)}
                row["gb_s"][one.direction] = figures
    except Exception as error:
        row["reason"] = str(error) or type(error).__name__
    return row

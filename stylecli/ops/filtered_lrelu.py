"""filtered_lrelu: bias, upsample, leaky ReLU, clamp, downsample, without the picture in between.

StyleGAN3 (Karras et al. 2021, §3.2) applies its nonlinearity at a higher sampling rate, so that the
harmonics which it makes can be filtered away. Held whole, that picture is 4 to 16 times its input.
On a CPU the output is therefore made tile by tile. Filters never change, so along each axis both
resamplings of a tile are matrices, the same for every tile:

    y = D · φ(U · x · Uᵀ) · Dᵀ        (a filter [h, w] is a sum of such products, by its SVD)

which runs at the speed of matrix products. The gradient has the same shape, with the transposes of
D and U in each other's place and a factor instead of φ; so has the gradient of that, and so on.

On a GPU kernels do the same in shared memory (``filtered_kernels``).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stylecli.errors import UsageError
from stylecli.ops.activation import bias_act
from stylecli.ops.cuda.filtered_calls import serves_filtered
from stylecli.ops.dispatch import Route, route
from stylecli.ops.filtered_kernels import NAME, compiled_filtered_lrelu, fused_filtered_lrelu
from stylecli.ops.reference import (
    SQRT2,
    Additions,
    FilteredActivation,
    checked_output_size,
    filter_size,
    filtered_lrelu_ref,
    preactivation,
)
from stylecli.ops.resampling import padding_sides

_TILE = 32  # outputs on a side, about: less wastes borders, more leaves the cache
_CHUNK_VALUES = 1 << 18  # upsampled values that are held at a time: 1 MiB
_NEGLIGIBLE = 1e-9  # of the largest singular value: float32 has no digit of it


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    gain: float = SQRT2,
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
) -> Tensor:
    """Return fd ∗ clamp(gain·lrelu(up²·fu ∗ (x + b))), kept at every ``down``-th pixel.

    x [N, C, H, W]; b [C]; fu and fd [h, w], [n] for n×n by two passes, or None for no filter. In
    order: b is added; ``up`` - 1 zeros follow every pixel; ``padding`` (a number, (x, y) or (left,
    right, top, bottom); negative: crops) is added; fu is convolved with it (``flip_filter``:
    correlated) and multiplied by up²; leaky ReLU of ``slope``, times ``gain``, limited to ±clamp;
    fd; every ``down``-th pixel. Returns x's dtype; differentiable to any order. Raises UsageError
    for arguments that make no sense or leave no pixel.
    """
    if x.ndim != 4 or not x.shape[1] or not x.is_floating_point():
        raise UsageError(
            f"filtered_lrelu needs floating-point x [N, C, H, W]: x is {x.dtype} {list(x.shape)}"
        )
    if b is not None and b.shape != (x.shape[1],):
        raise UsageError(f"bias has shape {list(b.shape)}: expected [{x.shape[1]}]")
    if fu is None and fd is None and up == down == 1 and not any(padding_sides(padding)):
        # StyleGAN3's colours: nothing is resampled.
        return bias_act(
            x,
            None if b is None else b.to(x.dtype),
            act="lrelu",
            alpha=slope,
            gain=gain,
            clamp=clamp,
        )
    one = torch.ones(1, dtype=torch.float32, device=x.device)
    fu, fd = one if fu is None else fu, one if fd is None else fd
    for f in (fu, fd):
        if f.ndim not in (1, 2) or not f.numel():
            raise UsageError(f"a filter has shape [h, w] or [n]: this one has {list(f.shape)}")
    if up < 1 or down < 1:
        raise UsageError(f"up is {up}, down is {down}: expected whole numbers of at least 1")
    limit = -1.0 if clamp is None else float(clamp)
    how = FilteredActivation(
        int(up), int(down), padding_sides(padding), float(gain), float(slope), limit, flip_filter
    )
    _upsampled_size(x, fu, fd, how)
    b = None if b is None else b.to(x.dtype)
    way = Route.REFERENCE
    # The kernels have no gradient for the filters, which nobody trains.
    if serves_filtered(fu, fd, how) and not (fu.requires_grad or fd.requires_grad):
        way = route(NAME, x, b, fu, fd)
    if way is Route.EAGER:
        return fused_filtered_lrelu(x, b, fu, fd, how)
    if way is Route.COMPILED:
        return compiled_filtered_lrelu(x, b, fu, fd, how)
    if _in_tiles(x, fu, fd, how):
        x = preactivation(x, Additions(bias=b), 1)
        return _Filtered.apply(x, fu, fd, how)  # type: ignore[no-any-return, no-untyped-call]
    return filtered_lrelu_ref(x, fu, fd, b, how)


def _upsampled_size(
    x: Tensor, fu: Tensor, fd: Tensor, how: FilteredActivation
) -> tuple[int, int, int, int]:
    """Return (height, width) of the picture in between, and those of the output."""
    before, after = how.resamplings()
    height, width = checked_output_size(x, fu, before)
    out = after.output_size(height, width, *filter_size(fd))
    if min(out) < 1:
        raise UsageError(
            f"filtered_lrelu would return {out[0]}×{out[1]} pixels: x has {x.shape[2]}×"
            f"{x.shape[3]}, padding {list(how.padding)}"
        )
    return height, width, *out


def _in_tiles(x: Tensor, fu: Tensor, fd: Tensor, how: FilteredActivation) -> bool:
    """Say whether the tiles serve: on a CPU, with filters that nobody trains."""
    return (
        x.is_cpu
        and fu.is_cpu
        and fd.is_cpu
        and x.dtype in (torch.float32, torch.float64)
        and how.gain > 0
        and not (fu.requires_grad or fd.requires_grad)
        and not torch.compiler.is_compiling()
    )


# ---- one axis: resamplings as matrices


@dataclass(frozen=True)
class _AxisFilter:
    """A resampling from one side of the upsampled signal s, along one axis.

    Before it: s[p] = Σᵢ taps[i·factor + low - p]·source[i]. Behind it: out[o] = Σₚ taps[p -
    (o·factor - low)]·s[p]. Each is the other's transpose with its taps turned.
    """

    factor: int
    low: int
    taps: tuple[tuple[float, ...], ...]  # one row for each product that the filter is a sum of

    def transposed(self) -> "_AxisFilter":
        length = len(self.taps[0])
        turned = tuple(row[::-1] for row in self.taps)
        return _AxisFilter(self.factor, length - 1 - self.low, turned)


@dataclass(frozen=True)
class _Axis:
    """The tiles of one axis: how many, and the matrices that make one of them."""

    count: int
    size: int  # outputs of a tile
    length: int  # upsampled values of a tile
    first: tuple[int, ...]  # of each source: where the first tile begins, and how far it is
    step: tuple[int, ...]
    reach: tuple[int, ...]
    before: tuple[tuple[NDArray[Any], ...], ...]  # per source and product: [length, reach]
    after: tuple[NDArray[Any], ...]  # per product: [size, length]


def _plan_axis(out: int, after: _AxisFilter, sources: tuple[_AxisFilter, ...]) -> _Axis:
    """Cut ``out`` outputs into equal tiles that begin at whole pixels of every source."""
    whole = math.lcm(*(stage.factor for stage in sources))
    rough = math.ceil(out / math.ceil(out / max(_TILE, whole)))
    size = math.ceil(rough / whole) * whole
    count = math.ceil(out / size)
    taps = len(after.taps[0])
    length = (size - 1) * after.factor + taps
    p = np.arange(length) - after.low
    o = np.arange(size)[:, None] * after.factor
    gathered = tuple(_toeplitz(row, np.arange(length) - o) for row in after.taps)
    first, step, reach, before = [], [], [], []
    for stage in sources:
        start = -((stage.low - int(p[0])) // stage.factor)
        end = (int(p[-1]) + len(stage.taps[0]) - 1 - stage.low) // stage.factor
        i = np.arange(start, max(end, start) + 1)
        first.append(start)
        step.append(size * after.factor // stage.factor)
        reach.append(len(i))
        index = i * stage.factor + stage.low - p[:, None]
        before.append(tuple(_toeplitz(row, index) for row in stage.taps))
    return _Axis(
        count, size, length, tuple(first), tuple(step), tuple(reach), tuple(before), gathered
    )


def _toeplitz(row: Sequence[float], index: NDArray[Any]) -> NDArray[Any]:
    """Return taps at their places: row[index], zero where there is none."""
    taps = np.asarray(row)
    inside = (index >= 0) & (index < len(taps))
    return np.where(inside, taps[np.clip(index, 0, len(taps) - 1)], 0.0)


def _products(f: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split a filter into products of a column and a row: [r, h] and [r, w] that sum to it."""
    values = f.detach().double().numpy()
    if values.ndim == 1:
        return values[None], values[None]
    columns, sizes, rows = np.linalg.svd(values, full_matrices=False)
    kept = sizes > sizes[0] * _NEGLIGIBLE
    kept[0] = True
    return (columns * sizes).T[kept], rows[kept]


def _rows(taps: NDArray[Any]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(tap) for tap in row) for row in taps)


_AxisFilters = tuple[_AxisFilter, _AxisFilter]  # along y, along x


def _stages(fu: Tensor, fd: Tensor, how: FilteredActivation) -> tuple[_AxisFilters, _AxisFilters]:
    """Return the stage before and the stage behind the activation; its gain is in the former."""
    left, _, top, _ = how.padding
    found = []
    for f, factor, gain in ((fu, how.up, how.up**2 * how.gain), (fd, how.down, 1.0)):
        columns, rows = _products(f)
        columns = columns * gain
        if not how.flip:
            columns, rows = columns[:, ::-1], rows[:, ::-1]
        lows = (top, left) if f is fu else (0, 0)
        found.append(
            (
                _AxisFilter(factor, lows[0], _rows(columns)),
                _AxisFilter(factor, lows[1], _rows(rows)),
            )
        )
    return found[0], found[1]


@lru_cache(maxsize=256)  # a network has some tens of settings, and calls them thousands of times
def _planned(
    out: tuple[int, int], after: _AxisFilters, sources: tuple[_AxisFilters, ...], dtype: torch.dtype
) -> tuple[_Axis, _Axis, list[list[tuple[Tensor, Tensor]]], list[tuple[Tensor, Tensor]]]:
    """Return the tiles of both axes and their matrices: per source and product, then behind.

    A pair is (the left factor, the right factor already turned).
    """
    y = _plan_axis(out[0], after[0], tuple(source[0] for source in sources))
    x = _plan_axis(out[1], after[1], tuple(source[1] for source in sources))

    def pairs(left: Sequence[Any], right: Sequence[Any]) -> list[tuple[Tensor, Tensor]]:
        with torch.inference_mode(False):
            return [
                (torch.tensor(one, dtype=dtype), torch.tensor(other.T.copy(), dtype=dtype))
                for one, other in zip(left, right, strict=True)
            ]

    before = [pairs(*both) for both in zip(y.before, x.before, strict=True)]
    return y, x, before, pairs(y.after, x.after)


# ---- all tiles


def _run_tiles(
    sources: Sequence[Tensor],
    stages: tuple[_AxisFilters, ...],
    after: _AxisFilters,
    out: tuple[int, int],
    activate: Callable[..., Tensor],
) -> Tensor:
    """Return the stage ``after`` of ``activate`` of every source's own stage: [N, C, *out].

    Never holds more than a chunk of upsampled tiles.
    """
    count, channels = sources[0].shape[:2]
    dtype = sources[0].dtype
    y, x, before, behind = _planned(out, after, stages, dtype)
    tiles = [
        _cut(source.reshape(-1, *source.shape[2:]), y, x, index)
        for index, source in enumerate(sources)
    ]  # of each source [planes, tile rows, tile columns, reach, reach]
    planes = count * channels
    held = x.count * y.length * x.length  # of a row of tiles
    rows = min(y.count, max(1, _CHUNK_VALUES // held))
    several = max(1, _CHUNK_VALUES // (held * y.count)) if rows == y.count else 1
    result = torch.empty(planes, y.count, y.size, x.count, x.size, dtype=dtype)
    for start, row in product(range(0, planes, several), range(0, y.count, rows)):
        where = (slice(start, start + several), slice(row, row + rows))
        parts = [_multiplied(one[where], pairs) for one, pairs in zip(tiles, before, strict=True)]
        made = _multiplied(activate(*parts), behind)
        result[where].copy_(made.transpose(2, 3))
    result = result.view(planes, y.count * y.size, x.count * x.size)
    return result[:, : out[0], : out[1]].reshape(count, channels, *out)


def _cut(planes: Tensor, y: _Axis, x: _Axis, source: int) -> Tensor:
    """Cut planes [P, h, w] into the (overlapping) parts that the tiles need, as a view."""
    sides: list[int] = []
    for axis, side in ((x, planes.shape[2]), (y, planes.shape[1])):
        needed = (axis.count - 1) * axis.step[source] + axis.reach[source]
        sides += [-axis.first[source], axis.first[source] + needed - side]
    padded = F.pad(planes, sides)
    return padded.unfold(1, y.reach[source], y.step[source]).unfold(
        2, x.reach[source], x.step[source]
    )


def _multiplied(tiles: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the sum of left · tile · right over all products."""
    total: Tensor | None = None
    for left, right in pairs:
        one = torch.matmul(left, torch.matmul(tiles, right))
        total = one if total is None else total.add_(one)
    assert total is not None
    return total


def _activated(u: Tensor, how: FilteredActivation) -> Tensor:
    """Apply leaky ReLU and clamp to u, which is at the output's level already, in place."""
    u = F.leaky_relu_(u, how.slope)
    return u.clamp_(-how.clamp, how.clamp) if how.clamp >= 0 else u


def _sloped(v: Tensor, u: Tensor, how: FilteredActivation) -> Tensor:
    """Multiply v by the slope of the activation at u, which is overwritten."""
    v = torch.where(u > 0, v, v * how.slope)
    if how.clamp >= 0:
        v.masked_fill_(_activated(u, how).abs_() >= how.clamp, 0.0)
    return v


class _Filtered(torch.autograd.Function):
    """Its gradient is _Masked, whose gradient is itself the other way round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, fu: Tensor, fd: Tensor, how: FilteredActivation) -> Tensor:
        ctx.how = how
        ctx.save_for_backward(x, fu, fd)
        before, after = _stages(fu, fd, how)
        out = _upsampled_size(x, fu, fd, how)[2:]
        with torch.autocast("cpu", enabled=False):
            return _run_tiles([x], (before,), after, out, lambda u: _activated(u, how))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, fu, fd = ctx.saved_tensors
        return _Masked.apply(grads[0], x, fu, fd, ctx.how, True), *[None] * 3  # type: ignore[no-untyped-call]


class _Masked(torch.autograd.Function):
    """v resampled as filtered_lrelu does, or (``back``) the transposed way, with x's slopes.

    Linear in v; straight lines have no curvature, so nothing comes to x.
    """

    @staticmethod
    def forward(
        ctx: Any, v: Tensor, x: Tensor, fu: Tensor, fd: Tensor, how: FilteredActivation, back: bool
    ) -> Tensor:
        ctx.how, ctx.back = how, back
        ctx.save_for_backward(x, fu, fd)
        before, after = _stages(fu, fd, how)
        out = _upsampled_size(x, fu, fd, how)[2:]
        first, last = before, after
        if back:
            first = (after[0].transposed(), after[1].transposed())
            last = (before[0].transposed(), before[1].transposed())
            out = (x.shape[2], x.shape[3])
        with torch.autocast("cpu", enabled=False):
            return _run_tiles(
                [v.to(x.dtype), x], (first, before), last, out, lambda v, u: _sloped(v, u, how)
            )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, fu, fd = ctx.saved_tensors
        dv = _Masked.apply(grads[0], x, fu, fd, ctx.how, not ctx.back)  # type: ignore[no-untyped-call]
        return dv, *[None] * 5


# ---- in phases, for filters that never change and channels-last features on a CPU; no gradient
#
# Upsampling by a filter is one small filter for each phase of the new pixels, and downsampling the
# sum of one for each (polyphase). So the upsampled picture is never put together: its phases are
# pictures of the old size, which depthwise convolutions make, and make the output of. That is less
# arithmetic than that of the tiles above, and for a factor of 2 on both sides 1.5 to 1.7 times
# quicker; with 4 there are so many phases that the tiles win. Blocks of channels and rows stay in
# the cache.

_BLOCK_CHANNELS = 32
_BLOCK_VALUES = 1 << 18  # values of a block of a phase, about: 1 MiB
_LEAST_ROWS = 8  # of a block: below it the rows that neighbours share cost more than the cache


@dataclass(frozen=True)
class _Phase:
    """A filter that is part of another: out[j] = Σₖ taps[k]·source[j + offset + k]."""

    offset: int
    taps: tuple[float, ...]

    @property
    def end(self) -> int:
        return self.offset + len(self.taps)


def _upsampling(taps: list[float], up: int, low: int) -> list[_Phase]:
    """Split s[p] = Σₜ taps[t]·z[p + t - low], where z[up·i] = x[i], into s[up·j + phase]."""
    phases = []
    for phase in range(up):
        first = (low - phase) % up
        own = taps[first::up] or [0.0]
        phases.append(_Phase((phase + first - low) // up, tuple(own)))
    return phases


def _downsampling(taps: list[float], factor: int) -> list[_Phase]:
    """Split out[o] = Σₜ taps[t]·s[o·factor + t] by the phase of s."""
    return [_Phase(0, tuple(taps[phase::factor] or [0.0])) for phase in range(factor)]


class PhasedActivation:
    """leaky ReLU between a filter that upsamples by ``factor`` and one that downsamples by as much.

    What ``filtered_lrelu`` does with these arguments, for ``padding`` (left, right, top, bottom) of
    which left is top; fu [n] and fd [n] or [n, n].
    """

    def __init__(
        self, fu: Tensor, fd: Tensor, channels: int, *, factor: int,
        padding: tuple[int, int, int, int], gain: float, slope: float, clamp: float | None,
    ) -> None:  # fmt: skip
        self.factor, self.padding = factor, padding
        self.slope, self.clamp, self.channels = slope, clamp, channels
        self.fu_taps, self.fd_taps = len(fu), len(fd)
        blocks = math.ceil(channels / _BLOCK_CHANNELS)
        self.block = min(channels, math.ceil(channels / blocks / 16) * 16)
        taps = (fu.flip(0) * (factor * math.sqrt(gain))).tolist()
        self.before = _upsampling(taps, factor, padding[0])
        one_axis = fd.flip(0) if fd.ndim == 1 else torch.ones(len(fd))
        self.after = _downsampling(one_axis.tolist(), factor)
        self.square = None if fd.ndim == 1 else fd.flip(0, 1)

    def __call__(self, x: Tensor, scale: Tensor | None, bias: Tensor) -> Tensor:
        """Return the output of x·scale + bias: x [N, C, h, w], scale [N, C] or None, bias [C]."""
        left, right, top, bottom = self.padding
        spare = self.fu_taps + self.fd_taps - 2
        out_h = (x.shape[2] * self.factor + top + bottom - spare - 1) // self.factor + 1
        out_w = (x.shape[3] * self.factor + left + right - spare - 1) // self.factor + 1
        y = torch.empty(len(x), self.channels, out_h, out_w, memory_format=torch.channels_last)
        for index, first in product(range(len(x)), range(0, self.channels, self.block)):
            block = slice(first, min(first + self.block, self.channels))
            factor = None if scale is None else scale[index, block]
            self._run_block(x[index : index + 1, block], factor, bias[block], y[index, block])
        return y

    def _reach(self) -> tuple[int, int]:
        """Return the first pixel of x that output 0 looks at, and at how many it looks."""
        first = min(phase.offset for phase in self.before)
        last = max(phase.end for phase in self.before) - 1
        return first, last - first + self._length()

    def _length(self) -> int:
        """Return the most taps of a phase behind the activation."""
        return max(phase.end for phase in self.after)

    def _run_block(self, x: Tensor, scale: Tensor | None, bias: Tensor, y: Tensor) -> None:
        """Write the output of a few maps x [1, c, h, w] to y [c, H, W]."""
        first, reach = self._reach()
        rows, columns = y.shape[1:]
        height, width = rows + reach - 1, columns + reach - 1
        channels = x.shape[1]
        # x between zeros, from its pixel ``first`` on
        padded = torch.zeros(1, channels, height, width).contiguous(
            memory_format=torch.channels_last
        )
        h, w = min(x.shape[2], height + first), min(x.shape[3], width + first)
        inside = padded[:, :, max(-first, 0) : h - first, max(-first, 0) : w - first]
        source = x[:, :, max(first, 0) : h, max(first, 0) : w]
        if scale is None:
            torch.add(source, bias[:, None, None], out=inside)
        else:
            torch.addcmul(bias[:, None, None], source, scale[:, None, None], out=inside)
        size = max(_LEAST_ROWS, _BLOCK_VALUES // (width * channels))
        for start in range(0, rows, size):
            stop = min(start + size, rows)
            strip = padded[:, :, start : stop + reach - 1]
            part = self._outputs(strip, first, stop - start, columns)
            y[:, start:stop].copy_(part[0])

    def _outputs(self, x: Tensor, first: int, rows: int, columns: int) -> Tensor:
        """Return the output [1, c, rows, columns] of x between zeros, which begins at ``first``."""
        tall, wide = rows + self._length() - 1, columns + self._length() - 1
        features = [
            [
                self._activated(_filtered(half, across, first, wide, axis=3))
                for across in self.before
            ]
            for half in (_filtered(x, along, first, tall, axis=2) for along in self.before)
        ]
        if self.square is not None:
            return self._by_squares(features, rows, columns)
        halves = [_summed(parts, self.after, columns, axis=3) for parts in features]
        return _summed(halves, self.after, rows, axis=2)

    def _activated(self, u: Tensor) -> Tensor:
        u = F.leaky_relu_(u, self.slope)
        return u if self.clamp is None else u.clamp_(-self.clamp, self.clamp)

    def _by_squares(self, features: list[list[Tensor]], rows: int, columns: int) -> Tensor:
        """Return the output by a filter [n, n] that is no product of two."""
        assert self.square is not None
        total: Tensor | None = None
        for y, x in product(range(self.factor), range(self.factor)):
            taps = self.square[y :: self.factor, x :: self.factor]
            source = features[y][x][:, :, : taps.shape[0] + rows - 1, : taps.shape[1] + columns - 1]
            one = _depthwise(source, taps)
            total = one if total is None else total.add_(one)
        assert total is not None
        return total


def _filtered(x: Tensor, phase: _Phase, first: int, count: int, *, axis: int) -> Tensor:
    """Return ``count`` pixels along an axis of x, whose own begin at ``first``, by a phase."""
    taps = torch.tensor(phase.taps)
    part = x.narrow(axis, phase.offset - first, count + len(phase.taps) - 1)
    return _depthwise(part, taps[:, None] if axis == 2 else taps[None])


def _summed(parts: list[Tensor], phases: list[_Phase], count: int, *, axis: int) -> Tensor:
    """Return the sum of every part by its own phase."""
    found = [
        _filtered(part, phase, 0, count, axis=axis)
        for part, phase in zip(parts, phases, strict=True)
    ]
    for one in found[1:]:
        found[0].add_(one)
    return found[0]


def _depthwise(x: Tensor, taps: Tensor) -> Tensor:
    """Correlate every map of x [1, c, h, w] with taps [h, w]."""
    channels = x.shape[1]
    return F.conv2d(x, taps.expand(channels, 1, *taps.shape), groups=channels)

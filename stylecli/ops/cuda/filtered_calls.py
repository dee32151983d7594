"""Launches of filtered_lrelu's kernels: tensors in, tensors out, no autograd."""

import math

from torch import Tensor

from stylecli.ops.cuda import calls
from stylecli.ops.cuda.launches import DTYPE_NAMES, Argument
from stylecli.ops.reference import FilteredActivation, filter_size

FILTERED_TAPS = 6
"""Most taps of a filter for every pixel at the lower rate."""

BENT, BACK, FORTH = range(3)
"""What kernels do where nothing changes its size: the activation, its gradient, the one of that."""


def serves_filtered(fu: Tensor, fd: Tensor, how: FilteredActivation) -> bool:
    """Say whether there are kernels for these filters and factors.

    Those of StyleGAN3 have, and small filters behind an activation that is not resampled.
    """
    if keeps_size(how):
        return tuple(fu.shape) == (1,) and max(fd.shape) <= calls.TAPS
    return (
        (how.up, how.down) in calls.FILTERED_FACTORS
        and fu.ndim == 1
        and len(fu) <= FILTERED_TAPS * how.up
        and max(fd.shape) <= FILTERED_TAPS * how.down
    )


def filtered_sizes(
    x: Tensor, fu: Tensor, fd: Tensor, how: FilteredActivation
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (height, width) of the picture in between, and of the output."""
    before, after = how.resamplings()
    middle = before.output_size(*x.shape[2:], *filter_size(fu))
    return middle, after.output_size(*middle, *filter_size(fd))


def keeps_size(how: FilteredActivation) -> bool:
    """Say whether nothing is resampled: then features may be in channels-last memory."""
    return how.up == how.down == 1


def filtered_lrelu_forward(
    x: Tensor, b: Tensor | None, fu: Tensor, fd: Tensor, how: FilteredActivation
) -> Tensor:
    """Return what reference.filtered_lrelu_ref returns; ``serves_filtered`` must hold."""
    if keeps_size(how):
        return _bent(BENT, x, x, b, fu, fd, how)[0]
    y = x.new_empty(*x.shape[:2], *filtered_sizes(x, fu, fd, how)[1])
    if not y.numel():
        return y
    kind = DTYPE_NAMES[x.dtype]
    name = calls.filtered_name("filtered_lrelu", kind, how.up, how.down)
    tiles = _filtered_tiles(kind, how.down, y)
    left, _, top, _ = how.padding
    arguments = (
        x.contiguous(), _dense_bias(b), *_filters(x, fu, fd), y, x.shape[1], *x.shape[2:],
        *y.shape[2:], *tiles, len(fu), *_sides(fd), top, left, *_bend(how),
    )  # fmt: skip
    calls.launch(x, name, len(y) * y.shape[1] * math.prod(tiles), calls.FILTERED_THREADS, arguments)
    return y


def filtered_lrelu_slopes(
    v: Tensor,
    x: Tensor,
    b: Tensor | None,
    fu: Tensor,
    fd: Tensor,
    how: FilteredActivation,
    *,
    back: bool,
) -> tuple[Tensor, Tensor]:
    """Return v resampled with the activation's slopes at x in between, and its sum by channel [C].

    ``back``: v [N, C, h, w] is a gradient of filtered_lrelu's output, and comes to x's size; else
    it has x's size and comes to the output's. Sums are float32 (float64 for float64).
    """
    if keeps_size(how):
        y, sums = _bent(BACK if back else FORTH, v, x, b, fu, fd, how)
        return y, sums.view(len(x), x.shape[1], -1).sum(dim=(0, 2))
    out = filtered_sizes(x, fu, fd, how)[1]
    first, last, factors, size = (fu, fd, (how.up, how.up, how.down), out)
    left, _, top, _ = how.padding
    lows = (top, left, top, left, 0, 0)
    if back:
        first, last, factors, size = (fd, fu, (how.down, how.up, how.up), (x.shape[2], x.shape[3]))
        height, width = filter_size(fd)
        turned = len(fu) - 1
        lows = (height - 1, width - 1, top, left, turned - top, turned - left)
    y = x.new_empty(*x.shape[:2], *size)
    kind = DTYPE_NAMES[x.dtype]
    tiles = _filtered_tiles(kind, factors[2], y)
    sums = x.new_empty(len(x), x.shape[1], math.prod(tiles), dtype=calls.wide(x.dtype))
    if y.numel():
        taps = _filters(x, first, fu, last)
        name = calls.filtered_name("filtered_lrelu_slopes", kind, *factors)
        arguments = (
            v.contiguous(), x.contiguous(), _dense_bias(b), *taps, y, sums, x.shape[1],
            *v.shape[2:], *x.shape[2:], *size, *tiles, *_sides(first), len(fu), *_sides(last),
            *lows, int(back), *_bend(how),
        )  # fmt: skip
        calls.launch(x, name, sums.numel(), calls.FILTERED_THREADS, arguments)
    return y, sums.sum(dim=(0, 2))


def _filtered_tiles(kind: str, down: int, y: Tensor) -> tuple[int, int]:
    """Return how many tiles cover a plane of y, along y and along x."""
    columns, rows = calls.filtered_tile(kind, down)
    return -(-y.shape[2] // rows), -(-y.shape[3] // columns)


def _dense_bias(b: Tensor | None) -> Tensor | None:
    return None if b is None else b.contiguous()


def _filters(x: Tensor, *filters: Tensor) -> tuple[Tensor, ...]:
    return tuple(f.to(calls.wide(x.dtype)).contiguous() for f in filters)


def _sides(f: Tensor) -> tuple[int, int]:
    """Return (height, width); a height of 0 says that the taps are those of either axis."""
    return (0, len(f)) if f.ndim == 1 else (f.shape[0], f.shape[1])


def _bend(how: FilteredActivation) -> tuple[Argument, ...]:
    return int(how.flip), float(how.slope), float(how.gain), float(how.clamp)


def _bent(
    way: int,
    v: Tensor,
    x: Tensor,
    b: Tensor | None,
    fu: Tensor,
    fd: Tensor,
    how: FilteredActivation,
) -> tuple[Tensor, Tensor]:
    """Return y in x's layout, and for each plane sums of its parts; ``v`` is x where not needed."""
    x = calls.dense(x)
    v = x if way == BENT else calls.laid_out_as(v, x)
    kind, size = DTYPE_NAMES[x.dtype], filter_size(fd)
    left, _, top, _ = how.padding
    pads, shape = (top, left), filtered_sizes(x, fu, fd, how)[1]
    if way == BACK:
        pads, shape = (size[0] - 1 - top, size[1] - 1 - left), (x.shape[2], x.shape[3])
    y = calls.empty_resampled(x, *shape)
    ends = (*_sides(fd), *pads, int(how.flip == (way == BACK)), *_bend(how)[1:])
    given = None if way == BENT else v
    inputs = (given, x, _dense_bias(b), *_filters(x, fu, fd), y)
    planes = len(x) * x.shape[1]
    if calls.is_last(x):
        blocks, layout = calls.columns(y, v, x)
        sums = x.new_empty(planes, layout[7], dtype=calls.wide(x.dtype))
        name, threads = "bent_last", calls.LAST_THREADS
        sizes = (*layout, v.shape[2], v.shape[3], shape[1])
    else:
        tiles = (-(-shape[0] // calls.TILE), -(-shape[1] // calls.TILE))
        sums = x.new_empty(planes, math.prod(tiles), dtype=calls.wide(x.dtype))
        name, threads, blocks = "bent_tile", calls.FIR_THREADS, sums.numel()
        sizes = (x.shape[1], *v.shape[2:], *shape)
        ends = (*ends[:4], *tiles, *ends[4:])
    if y.numel():
        wanted = None if way == BENT else sums
        arguments = (*inputs, wanted, *sizes, *ends)
        calls.launch(x, f"{name}<{kind}, {way}, {threads}>", blocks, threads, arguments)
    return y, sums

"""Launches of every operator's kernels: tensors in, tensors out, no autograd."""

import math
from itertools import product

import torch
from torch import Tensor

from stylecli.ops.cuda.launches import DTYPE_NAMES, Argument, Int64, Launch, hand_over
from stylecli.ops.reference import (
    Activation,
    Additions,
    Resampling,
)

# ---- every kernel that can be asked for, and the constants both sides agree on

TYPES = ("float", "f16", "bf16", "double")  # double exists for tests

ACTIVATION_THREADS = 128
FIR_THREADS = 256
CHUNK_THREADS = 256
FILTERED_THREADS = 128
LAST_THREADS = 256  # of the kernels for channels-last features

PLANE_SHAPES = ((32, 8), (256, 16), (512, 32))
"""Threads and values per thread of the one-pass epilogue; their product bounds the plane."""

FIR_FACTORS = ((1, 1), (2, 1), (1, 2))
"""Pairs (up, down) of the tiled FIR kernel, alike in both directions."""

FILTERED_FACTORS = ((2, 2), (4, 2))
"""Pairs (up, down) of filtered_lrelu's kernels: those of StyleGAN3."""

_LAST = (
    "epilogue_last_statistics",
    "epilogue_last_merge",
    "epilogue_last_apply",
    "epilogue_last_gradient_statistics",
    "epilogue_last_gradient_apply",
)
_CHUNKED = (
    "epilogue_statistics",
    "epilogue_apply",
    "epilogue_gradient_statistics",
    "epilogue_gradient_apply",
)


def plane_shapes(type_name: str) -> tuple[tuple[int, int], ...]:
    """Return the one-pass shapes of a type.

    Sixteen doubles a thread spill on sm_100, so these have more threads, and planes up to 4096.
    """
    return ((32, 8), (512, 8)) if type_name == "double" else PLANE_SHAPES


def filtered_tile(type_name: str, down: int) -> tuple[int, int]:
    """Return columns and rows of outputs that a block of filtered_lrelu makes.

    With the upsampled picture under them: 42 kB of shared memory at most, where 48 may be had.
    """
    if type_name == "double":
        return (32, 8) if down == 2 else (8, 4)
    return (32, 16) if down == 2 else (16, 8)


def filtered_name(kernel: str, kind: str, *factors: int) -> str:
    numbers = (*factors, *filtered_tile(kind, factors[-1]), FILTERED_THREADS)
    return f"{kernel}<{kind}, {', '.join(map(str, numbers))}>"


def variants(types: tuple[str, ...] = TYPES) -> dict[str, list[str]]:
    """Return the template-ids of every kernel for ``types``, by operator."""
    activation = [
        f"{name}<{kind}, {smooth}, {ACTIVATION_THREADS}>"
        for name, kind, smooth in product(("bias_act", "bias_act_gradient"), types, (0, 1))
    ] + [
        f"{name}<{kind}, {smooth}, {LAST_THREADS}>"
        for name in ("bias_act_last", "bias_act_last_gradient")
        for kind, smooth in product(types, (0, 1))
    ]
    fir = [
        f"fir_tile<{kind}, {up}, {down}, {FIR_THREADS}>"
        for kind, (up, down) in product(types, FIR_FACTORS)
    ] + [f"{name}<{kind}, {FIR_THREADS}>" for name in ("fir_any", "fir_last") for kind in types]
    epilogue = [
        f"{name}<{kind}, {threads}, {values}>"
        for name in ("epilogue_plane", "epilogue_plane_gradient")
        for kind in types
        for threads, values in plane_shapes(kind)
    ] + [f"{name}<{kind}, {CHUNK_THREADS}>" for name, kind in product(_CHUNKED, types)]
    epilogue += [f"{name}<{kind}, {LAST_THREADS}>" for name, kind in product(_LAST, types)]
    filtered = [
        f"{name}<{kind}, {way}, {threads}>"
        for name, threads in (("bent_tile", FIR_THREADS), ("bent_last", LAST_THREADS))
        for kind, way in product(types, range(3))
    ]
    filtered += [
        filtered_name("filtered_lrelu", kind, *factors)
        for kind, factors in product(types, FILTERED_FACTORS)
    ] + [
        filtered_name("filtered_lrelu_slopes", kind, *factors)
        for kind in types
        for factors in sorted({
            order for up, down in FILTERED_FACTORS for order in ((up, up, down), (down, up, up))
        })
    ]  # fmt: skip
    return {
        "bias_act": activation,
        "upfirdn2d": fir,
        "style_epilogue": epilogue,
        "filtered_lrelu": filtered,
    }


# ---- channels-last features, which half-precision convolutions are quickest with

WIDE_BYTES = 16
ROWS_OF_PIXELS = 32
"""Pixels of a thread at most; fewer where that leaves much of a GPU without work."""
ENOUGH_BLOCKS = 256


def is_last(x: Tensor) -> bool:
    """Say whether x [N, C, H, W] is in channels-last memory, and not also in the usual one."""
    if x.ndim != 4 or x.is_contiguous():
        return False
    return x.is_contiguous(memory_format=torch.channels_last)


def dense(x: Tensor) -> Tensor:
    """Return x in a layout that the kernels read: channels-last as it is, else contiguous."""
    return x if is_last(x) else x.contiguous()


def laid_out_as(x: Tensor, like: Tensor) -> Tensor:
    """Return x in the layout of ``like``, which is ``dense``."""
    if is_last(like):
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous()


def columns(*features: Tensor) -> tuple[int, tuple[int, ...]]:
    """Return how many blocks work on channels-last features of one shape, and the kernels' Layout.

    In the order of its fields: channels, pixels, wide, groups, lanes, rows, run, chunks, tiles.
    """
    x = features[0]
    count, channels, height, width = x.shape
    vector = 4 if x.element_size() < 8 else 1
    aligned = all(one.data_ptr() % (vector * x.element_size()) == 0 for one in features)
    wide = aligned and channels % vector == 0
    groups = channels // vector if wide else channels
    lanes = min(groups, LAST_THREADS)
    rows = 1 << (LAST_THREADS // lanes).bit_length() - 1
    pixels, tiles, each = height * width, -(-groups // lanes), ROWS_OF_PIXELS
    while each > 1 and count * tiles * -(-pixels // (rows * each)) < ENOUGH_BLOCKS:
        each //= 2
    chunks = -(-pixels // (rows * each))
    layout = (channels, pixels, int(wide), groups, lanes, rows, rows * each, chunks, tiles)
    return count * chunks * tiles, layout


# ---- bias_act

VALUES_PER_THREAD = 16
SMALLEST_SUMMED_PLANE = 64  # smaller planes would leave most threads of their block idle


def _dense(x: Tensor, dim: int) -> tuple[Tensor, int, int]:
    """Return x in a layout the kernel reads, its channels and the elements inside one channel."""
    if dim == 1 and is_last(x):
        return x, x.shape[1], 1
    return x.contiguous(), x.shape[dim], math.prod(x.shape[dim + 1 :])


def empty_output(x: Tensor, dim: int) -> Tensor:
    """Return memory for an output, laid out as the kernels lay it out."""
    return torch.empty_like(_dense(x, dim)[0])


def laid_out(values: Tensor, x: Tensor, dim: int) -> Tensor:
    """Return ``values`` in memory laid out as the kernels would."""
    return empty_output(x, dim).copy_(values)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that kernels accumulate in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def sums_shape(x: Tensor, dim: int, more: Additions) -> tuple[int, int]:
    """Return the shape of the gradient's sums."""
    if more.scale is None and more.noise is None:
        return x.shape[dim], 1
    return x.shape[0] * x.shape[1], 3


def _pointers(more: Additions) -> tuple[Tensor | None, ...]:
    return tuple(
        None if tensor is None else tensor.contiguous()
        for tensor in (more.bias, more.scale, more.noise, more.strength)
    )


def _noise_stride(more: Additions, inner: int) -> Int64:
    shared = more.noise is None or more.noise.shape[0] == 1
    return Int64(0 if shared else inner)


def bias_act_forward(x: Tensor, more: Additions, dim: int, activation: Activation) -> Tensor:
    """Return clamp(act(x·scale + noise·strength + bias)·gain) in x's dtype and layout."""
    x, channels, inner = _dense(x, dim)
    y = torch.empty_like(x)
    total = x.numel()
    if not total:
        return y
    kind = DTYPE_NAMES[x.dtype]
    if is_last(x):
        blocks, layout = columns(x, y)
        name = f"bias_act_last<{kind}, {int(activation.smooth)}, {LAST_THREADS}>"
        stride = _noise_stride(more, x.shape[2] * x.shape[3])
        ends = (activation.code, *_numbers(activation))
        arguments = (x, *_pointers(more), y, stride, *layout, *ends)
        launch(x, name, blocks, LAST_THREADS, arguments)
        return y
    name = f"bias_act<{kind}, {int(activation.smooth)}, {ACTIVATION_THREADS}>"
    sizes = (Int64(total), Int64(inner), _noise_stride(more, inner), channels, activation.code)
    arguments = (x, *_pointers(more), y, *sizes, *_numbers(activation))
    blocks = -(-total // (ACTIVATION_THREADS * VALUES_PER_THREAD))
    launch(x, name, blocks, ACTIVATION_THREADS, arguments)
    return y


def bias_act_gradient(
    dy: Tensor,
    reference: Tensor,
    more: Additions,
    dim: int,
    activation: Activation,
    *,
    from_output: bool,
    want_sums: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return dx and, if wanted, sums.

    ``reference`` is the forward input, or its output if ``from_output``. du is dx before the scale.
    Without scale and noise the sums are those of du by channel, [C, 1]; else those of du, du·x and
    du·noise by plane, [N·C, 3]. They are float32 (float64 for float64), the same in every run.
    """
    reference, channels, inner = _dense(reference, dim)
    dy = laid_out_as(dy, reference)
    dx = torch.empty_like(reference)
    total = reference.numel()
    if total and is_last(reference):
        return _channels_last_gradient(
            dy, reference, dx, more, activation, from_output=from_output, want_sums=want_sums
        )
    planes = total // inner if inner else 0
    by_plane = more.scale is not None or more.noise is not None
    by_block = want_sums and (by_plane or inner >= SMALLEST_SUMMED_PLANE)
    span = ACTIVATION_THREADS * VALUES_PER_THREAD
    spans = -(-inner // span)
    sums = None
    if by_block:
        sums = torch.empty(planes, spans, 3, dtype=wide(dx.dtype), device=dx.device)
    if total:
        name = f"bias_act_gradient<{DTYPE_NAMES[dx.dtype]}, {int(activation.smooth)}, "
        name += f"{ACTIVATION_THREADS}>"
        sizes = (Int64(total), Int64(inner), _noise_stride(more, inner), channels, spans)
        ends = (activation.code, int(from_output), *_numbers(activation))
        arguments = (dy, reference, *_pointers(more), dx, sums, *sizes, *ends)
        blocks = planes * spans if by_block else -(-total // span)
        launch(dx, name, blocks, ACTIVATION_THREADS, arguments)
    return dx, _finish_sums(dx, sums, dim, by_plane) if want_sums else None


def _channels_last_gradient(
    dy: Tensor, reference: Tensor, dx: Tensor, more: Additions, activation: Activation, *,
    from_output: bool, want_sums: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    kind = DTYPE_NAMES[dx.dtype]
    blocks, layout = columns(dx, dy, reference)
    planes, chunks = dx.shape[0] * dx.shape[1], layout[7]
    sums = None
    if want_sums:
        sums = torch.empty(planes, chunks, 3, dtype=wide(dx.dtype), device=dx.device)
    name = f"bias_act_last_gradient<{kind}, {int(activation.smooth)}, {LAST_THREADS}>"
    ends = (activation.code, int(from_output), *_numbers(activation))
    stride = _noise_stride(more, dx.shape[2] * dx.shape[3])
    arguments = (dy, reference, *_pointers(more), dx, sums, stride, *layout, *ends)
    launch(dx, name, blocks, LAST_THREADS, arguments)
    by_plane = more.scale is not None or more.noise is not None
    return dx, _finish_sums(dx, sums, 1, by_plane) if want_sums else None


def _numbers(activation: Activation) -> tuple[float, float, float]:
    return float(activation.alpha), float(activation.gain), float(activation.clamp)


def _finish_sums(dx: Tensor, sums: Tensor | None, dim: int, by_plane: bool) -> Tensor:
    """Add up what the blocks left, or dx itself where they left nothing."""
    if by_plane and sums is not None:
        return sums.sum(dim=1)
    if sums is not None:
        return sums[..., 0].view(-1, dx.shape[dim], sums.shape[1]).sum(dim=(0, 2))[:, None]
    others = [axis for axis in range(dx.ndim) if axis != dim]
    total = dx.sum(dim=others, dtype=wide(dx.dtype)) if others else dx.to(wide(dx.dtype))
    return total[:, None]


# ---- upfirdn2d

TAPS = 4
TILE = 32
"""Outputs of a block, both ways; smaller planes would leave most of a tile empty."""


def upfirdn2d_forward(x: Tensor, f: Tensor, how: Resampling) -> Tensor:
    """Return x [N, C, H, W] resampled; f [h, w], or [n] for one pass along each axis."""
    taps = f.to(wide(x.dtype)).contiguous()
    if f.ndim == 2:
        return _one_pass(dense(x), taps, how)
    across, along = how.split()
    return _one_pass(_one_pass(dense(x), taps[None, :], across), taps[:, None], along)


def empty_resampled(x: Tensor, height: int, width: int) -> Tensor:
    """Return memory for x resampled, laid out as the kernels lay it out."""
    order = torch.channels_last if is_last(x) else torch.contiguous_format
    shape = (*x.shape[:2], height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=order)


def _one_pass(x: Tensor, taps: Tensor, how: Resampling) -> Tensor:
    count, channels, in_h, in_w = x.shape
    filter_h, filter_w = taps.shape
    out_h, out_w = how.output_size(in_h, in_w, filter_h, filter_w)
    y = empty_resampled(x, out_h, out_w)
    if not y.numel():
        return y
    factors = (how.up[0], how.down[0])
    tiled = (
        max(filter_h, filter_w) <= TAPS
        and min(out_h, out_w) >= TILE
        and how.up[0] == how.up[1]
        and how.down[0] == how.down[1]
        and factors in FIR_FACTORS
    )
    kind, sizes = DTYPE_NAMES[x.dtype], (in_h, in_w, out_h, out_w, filter_h, filter_w)
    pads = (how.padding[2], how.padding[0])
    ends = (int(how.flip), float(how.gain))
    factors_yx = (how.up[1], how.up[0], how.down[1], how.down[0])
    if is_last(x):
        vector = WIDE_BYTES // x.element_size()
        wide = channels % vector == 0 and not (x.data_ptr() | y.data_ptr()) % WIDE_BYTES
        items = y.numel() // vector if wide else y.numel()
        kernel = f"fir_last<{kind}, {FIR_THREADS}>"
        grid = -(-items // FIR_THREADS)
        numbers = (Int64(items), channels, int(wide), *sizes, *factors_yx, *pads, *ends)
        arguments: tuple[Argument, ...] = (x, taps, y, *numbers)
    elif tiled:
        tiles = (-(-out_h // TILE), -(-out_w // TILE))
        kernel = f"fir_tile<{kind}, {factors[0]}, {factors[1]}, {FIR_THREADS}>"
        grid = count * channels * tiles[0] * tiles[1]
        arguments = (x, taps, y, *sizes, *pads, *tiles, *ends)
    else:
        kernel = f"fir_any<{kind}, {FIR_THREADS}>"
        grid = -(-y.numel() // FIR_THREADS)
        arguments = (x, taps, y, Int64(y.numel()), *sizes, *factors_yx, *pads, *ends)
    launch(x, kernel, grid, FIR_THREADS, arguments)
    return y


# ---- style_epilogue

CHUNK = CHUNK_THREADS * 16
"""Pixels of a block where planes are cut up."""


def plane_shape(kind: str, pixels: int) -> tuple[int, int] | None:
    """Return threads and values per thread for planes of one block; None when they are larger."""
    fitting = [shape for shape in plane_shapes(kind) if pixels <= shape[0] * shape[1]]
    return fitting[0] if fitting else None


def epilogue_forward(
    x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None, style: Tensor
) -> tuple[Tensor, Tensor]:
    """Return y [N, C, H, W] and statistics [N·C, 2]: mean of the activations, 1 / deviation.

    x is ``dense``, the others contiguous, all of one dtype; y has x's layout. Statistics are
    float32 (float64 for float64).
    """
    y = torch.empty_like(x)
    statistics = x.new_empty(x.shape[0] * x.shape[1], 2, dtype=wide(x.dtype))
    if not x.numel():
        return y, statistics
    inputs = (x, bias, noise, strength)
    kind, sizes = _sizes(x, noise)
    if is_last(x):
        blocks, layout = columns(x, y)
        planes, stride, chunks = len(statistics), sizes[3], layout[7]
        partials = statistics.new_empty(planes, chunks, 2)
        threads = LAST_THREADS
        name = f"epilogue_last_statistics<{kind}, {threads}>"
        launch(x, name, blocks, threads, (*inputs, partials, stride, *layout))
        name = f"epilogue_last_merge<{kind}, {threads}>"
        run = (Int64(planes), sizes[1], layout[6], chunks)
        launch(x, name, -(-planes // threads), threads, (partials, statistics, *run))
        name = f"epilogue_last_apply<{kind}, {threads}>"
        launch(x, name, blocks, threads, (*inputs, style, statistics, y, stride, *layout))
        return y, statistics
    if shape := plane_shape(kind, sizes[1]):
        name = f"epilogue_plane<{kind}, {shape[0]}, {shape[1]}>"
        outputs = (y, statistics, *sizes[:2], sizes[3])
        launch(x, name, len(statistics), shape[0], (*inputs, style, *outputs))
        return y, statistics
    blocks = len(statistics) * sizes[2]
    partials = statistics.new_empty(blocks, 2)
    name = f"epilogue_statistics<{kind}, {CHUNK_THREADS}>"
    launch(x, name, blocks, CHUNK_THREADS, (*inputs, partials, *sizes))
    name = f"epilogue_apply<{kind}, {CHUNK_THREADS}>"
    arguments = (*inputs, style, partials, y, statistics, *sizes)
    launch(x, name, blocks, CHUNK_THREADS, arguments)
    return y, statistics


def epilogue_gradient(
    dy: Tensor,
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    style: Tensor,
    statistics: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return dx and sums [N·C, 4]: d scale, d shift, sum of dx, sum of dx·noise."""
    dx = torch.empty_like(x)
    if not x.numel():
        return dx, statistics.new_zeros(len(statistics), 4)
    inputs = (dy, x, bias, noise, strength)
    kind, sizes = _sizes(x, noise)
    if is_last(x):
        blocks, layout = columns(x, dy, dx)
        stride, threads = sizes[3], LAST_THREADS
        of_style = statistics.new_empty(len(statistics), layout[7], 2)
        of_input = torch.empty_like(of_style)
        name = f"epilogue_last_gradient_statistics<{kind}, {threads}>"
        launch(x, name, blocks, threads, (*inputs, statistics, of_style, stride, *layout))
        styled = of_style.sum(dim=1)
        name = f"epilogue_last_gradient_apply<{kind}, {threads}>"
        arguments = (*inputs, style, statistics, styled, dx, of_input, stride, *layout)
        launch(x, name, blocks, threads, arguments)
        return dx, torch.cat([styled, of_input.sum(dim=1)], dim=1)
    if shape := plane_shape(kind, sizes[1]):
        sums = statistics.new_empty(len(statistics), 4)
        name = f"epilogue_plane_gradient<{kind}, {shape[0]}, {shape[1]}>"
        outputs = (dx, sums, *sizes[:2], sizes[3])
        launch(x, name, len(statistics), shape[0], (*inputs, style, statistics, *outputs))
        return dx, sums
    blocks = len(statistics) * sizes[2]
    of_style = statistics.new_empty(len(statistics), sizes[2], 2)
    of_input = torch.empty_like(of_style)
    name = f"epilogue_gradient_statistics<{kind}, {CHUNK_THREADS}>"
    launch(x, name, blocks, CHUNK_THREADS, (*inputs, statistics, of_style, *sizes))
    name = f"epilogue_gradient_apply<{kind}, {CHUNK_THREADS}>"
    arguments = (*inputs, style, statistics, of_style, dx, of_input, *sizes)
    launch(x, name, blocks, CHUNK_THREADS, arguments)
    return dx, torch.cat([of_style.sum(dim=1), of_input.sum(dim=1)], dim=1)


def _sizes(x: Tensor, noise: Tensor | None) -> tuple[str, tuple[int, int, int, Int64]]:
    """Return the kernel's name for the dtype; channels, pixels, chunks, noise stride."""
    pixels = x.shape[2] * x.shape[3]
    shared = noise is None or noise.shape[0] == 1
    sizes = (x.shape[1], pixels, -(-pixels // CHUNK), Int64(0 if shared else pixels))
    return DTYPE_NAMES[x.dtype], sizes


def launch(
    x: Tensor, kernel: str, blocks: int, threads: int, arguments: tuple[Argument, ...]
) -> None:
    hand_over(Launch(kernel, (blocks, 1, 1), threads, 0, arguments, x.device))

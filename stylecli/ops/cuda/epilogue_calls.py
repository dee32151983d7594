"""Launches of the StyleGAN1 epilogue and its gradient: tensors in, tensors out, no autograd."""

import torch
from torch import Tensor

from stylecli.ops.cuda.kernel_names import CHUNK_THREADS, plane_shapes
from stylecli.ops.cuda.launch import DTYPE_NAMES, Argument, Int64, Launch, hand_over

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

    Everything contiguous and of one dtype; statistics are float32 (float64 for float64).
    """
    y = torch.empty_like(x)
    statistics = x.new_empty(x.shape[0] * x.shape[1], 2, dtype=_wide(x))
    if not x.numel():
        return y, statistics
    inputs = (x, bias, noise, strength)
    kind, sizes = _sizes(x, noise)
    if shape := plane_shape(kind, sizes[1]):
        name = f"epilogue_plane<{kind}, {shape[0]}, {shape[1]}>"
        outputs = (y, statistics, *sizes[:2], sizes[3])
        _launch(x, name, len(statistics), shape[0], (*inputs, style, *outputs))
        return y, statistics
    blocks = len(statistics) * sizes[2]
    partials = statistics.new_empty(blocks, 2)
    name = f"epilogue_statistics<{kind}, {CHUNK_THREADS}>"
    _launch(x, name, blocks, CHUNK_THREADS, (*inputs, partials, *sizes))
    name = f"epilogue_apply<{kind}, {CHUNK_THREADS}>"
    arguments = (*inputs, style, partials, y, statistics, *sizes)
    _launch(x, name, blocks, CHUNK_THREADS, arguments)
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
    if shape := plane_shape(kind, sizes[1]):
        sums = statistics.new_empty(len(statistics), 4)
        name = f"epilogue_plane_gradient<{kind}, {shape[0]}, {shape[1]}>"
        outputs = (dx, sums, *sizes[:2], sizes[3])
        _launch(x, name, len(statistics), shape[0], (*inputs, style, statistics, *outputs))
        return dx, sums
    blocks = len(statistics) * sizes[2]
    of_style = statistics.new_empty(len(statistics), sizes[2], 2)
    of_input = torch.empty_like(of_style)
    name = f"epilogue_gradient_statistics<{kind}, {CHUNK_THREADS}>"
    _launch(x, name, blocks, CHUNK_THREADS, (*inputs, statistics, of_style, *sizes))
    name = f"epilogue_gradient_apply<{kind}, {CHUNK_THREADS}>"
    arguments = (*inputs, style, statistics, of_style, dx, of_input, *sizes)
    _launch(x, name, blocks, CHUNK_THREADS, arguments)
    return dx, torch.cat([of_style.sum(dim=1), of_input.sum(dim=1)], dim=1)


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _sizes(x: Tensor, noise: Tensor | None) -> tuple[str, tuple[int, int, int, Int64]]:
    """Return the kernel's name for the dtype; channels, pixels, chunks, noise stride."""
    pixels = x.shape[2] * x.shape[3]
    shared = noise is None or noise.shape[0] == 1
    sizes = (x.shape[1], pixels, -(-pixels // CHUNK), Int64(0 if shared else pixels))
    return DTYPE_NAMES[x.dtype], sizes


def _launch(
    x: Tensor, kernel: str, blocks: int, threads: int, arguments: tuple[Argument, ...]
) -> None:
    hand_over(Launch(kernel, (blocks, 1, 1), threads, 0, arguments, x.device))

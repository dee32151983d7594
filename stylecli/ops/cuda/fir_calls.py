"""Launches of upfirdn2d: tensors in, tensors out, no autograd."""

import torch
from torch import Tensor

from stylecli.ops.cuda.kernel_names import FIR_FACTORS, FIR_THREADS
from stylecli.ops.cuda.launch import DTYPE_NAMES, Argument, Int64, Launch, hand_over
from stylecli.ops.reference import Resampling

TAPS = 4
TILE = 32
"""Outputs of a block, both ways; smaller planes would leave most of a tile empty."""


def upfirdn2d_forward(x: Tensor, f: Tensor, how: Resampling) -> Tensor:
    """Return x [N, C, H, W] resampled; f [h, w], or [n] for one pass along each axis."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    taps = f.to(wide).contiguous()
    if f.ndim == 2:
        return _one_pass(x.contiguous(), taps, how)
    across, along = how.split()
    return _one_pass(_one_pass(x.contiguous(), taps[None, :], across), taps[:, None], along)


def _one_pass(x: Tensor, taps: Tensor, how: Resampling) -> Tensor:
    count, channels, in_h, in_w = x.shape
    filter_h, filter_w = taps.shape
    out_h, out_w = how.output_size(in_h, in_w, filter_h, filter_w)
    y = x.new_empty(count, channels, out_h, out_w)
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
    if tiled:
        tiles = (-(-out_h // TILE), -(-out_w // TILE))
        kernel = f"fir_tile<{kind}, {factors[0]}, {factors[1]}, {FIR_THREADS}>"
        grid = count * channels * tiles[0] * tiles[1]
        arguments: tuple[Argument, ...] = (x, taps, y, *sizes, *pads, *tiles, *ends)
    else:
        kernel = f"fir_any<{kind}, {FIR_THREADS}>"
        grid = -(-y.numel() // FIR_THREADS)
        factors_yx = (how.up[1], how.up[0], how.down[1], how.down[0])
        arguments = (x, taps, y, Int64(y.numel()), *sizes, *factors_yx, *pads, *ends)
    hand_over(
        Launch(
            kernel=kernel,
            grid=(grid, 1, 1),
            block=FIR_THREADS,
            shared_bytes=0,
            arguments=arguments,
            device=x.device,
        )
    )
    return y

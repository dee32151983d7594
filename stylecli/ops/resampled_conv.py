"""3×3 convolutions that double or halve the resolution, done at a stride of two with 4×4 kernels.

Nearest upscaling followed by a 3×3 convolution touches each output pixel nine times, of which only
four differ; summing the kernel over its four one-pixel shifts gives the same result with four.
Halving is the mirror image: convolution followed by a 2×2 mean is one 4×4 convolution.
"""

from torch import Tensor
from torch.nn import functional as F

from stylecli.ops.convolution import convolve


def _spread(weight: Tensor) -> Tensor:
    """Sum a [.., 3, 3] kernel over its four one-pixel shifts into [.., 4, 4]."""
    padded = F.pad(weight, (1, 1, 1, 1))
    rows = padded[..., 1:, :] + padded[..., :-1, :]
    return rows[..., 1:] + rows[..., :-1]


def upsample_conv2d(x: Tensor, weight: Tensor, *, fused: bool = False) -> Tensor:
    """Double the resolution and convolve.

    x [N, I, H, W]; weight [O, I, 3, 3]; returns [N, O, 2H, 2W]. Unfused: nearest ×2, then a zero
    padded 3×3 correlation. ``fused`` is the official transposed convolution, which is the same
    with the kernel turned by 180 degrees; published networks use it from 128 px on.
    """
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
    return convolve(x, _spread(weight) * 0.25, stride=2)

"""Lower resolutions: box means in float, rounded once (the rule of StyleGAN's own pyramid).

The official tool halves the float picture again and again and rounds each level only when it is
written. Means of 8-bit values over at most 256 x 256 pixels are exact in float32, so that chain
equals the plain mean over a 2^level box, computed here from exact integer sums.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from stylecli.errors import UsageError

Pixels = npt.NDArray[np.uint8]


def count_levels(resolution: int) -> int:
    """Return how many levels a picture has, from full resolution down to 4 px."""
    return resolution.bit_length() - 2


def box_mean(pixels: Pixels, level: int) -> Pixels:
    """Shrink uint8 [..., H, W] to [..., H >> level, W >> level] by the mean of each box.

    Halves round to the even neighbour, as rint does. Level 0 returns the pixels themselves.
    Raises UsageError when the sides do not divide.
    """
    if level == 0:
        return pixels
    height, width = pixels.shape[-2:]
    if level < 0 or height % (1 << level) or width % (1 << level):
        raise UsageError(f"level {level} does not exist in pictures of {width} x {height} px")
    sums: npt.NDArray[Any] = pixels
    for step in range(level):
        # The narrowest integer that holds 255 * 4^(step + 1): half the memory traffic.
        dtype = np.uint16 if step < 4 else np.uint32
        sums = np.add(sums[..., ::2, :], sums[..., 1::2, :], dtype=dtype)
        sums = np.add(sums[..., ::2], sums[..., 1::2], dtype=dtype)
    means = sums.astype(np.float32)
    means *= np.float32(0.25**level)
    return np.rint(means, out=means).astype(np.uint8)

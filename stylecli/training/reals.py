"""Real images on their way into the discriminator."""

from torch import Tensor

from stylecli.images import from_uint8
from stylecli.networks.layers import box_average, lerp, upscale_nearest


def process_reals(images: Tensor, fade: float, upscale: int = 1) -> Tensor:
    """Turn uint8 [N, C, h, w] into what D sees: -1..1, faded and upscaled.

    ``fade`` is the fractional part of lod: the share of the picture's own 2×2 averages, so that
    reals lose detail as fakes do. ``upscale`` repeats pixels; training leaves it at 1, because D
    takes images at the level's own size.
    """
    x = from_uint8(images)
    if fade:
        x = lerp(x, upscale_nearest(box_average(x, 2), 2), fade)
    return upscale_nearest(x, upscale)

"""The resize of "clean" FID: PIL's antialiased bicubic on float channels, not quantised again.

Parmar, Zhang, Zhu 2022: a resize that rounds to 8 bits, or that does not low-pass, moves FID by
more than networks differ. Numbers made with this one are named fid-clean; they are compared with
other clean FIDs, not with those of the papers, which resize inside the network.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylecli.errors import UsageError

CLEAN_SIZE = 299
CLEAN_RESIZE = f"PIL bicubic to {CLEAN_SIZE} px, low-passed when shrinking, in float, 0..255"


def resize_clean(pictures: Any, size: int = CLEAN_SIZE) -> NDArray[np.float32]:
    """Return uint8 pictures [N, C, H, W] as float32 [N, C, size, size] in 0..255.

    Every channel is resized alone as 32-bit floats and clipped, never rounded to whole levels. A
    picture that has the size already keeps its values. Raises UsageError for anything but uint8
    [N, C, H, W].
    """
    values = np.asarray(pictures)
    if values.ndim != 4 or values.dtype != np.uint8:
        raise UsageError(
            f"pictures are {values.dtype} {list(values.shape)}: expected uint8 [N, C, H, W]"
        )
    if size < 1:
        raise UsageError(f"size {size} of a resized picture: expected at least 1")
    resized = np.empty((*values.shape[:2], size, size), np.float32)
    for picture, target in zip(values, resized, strict=True):
        for channel, place in zip(picture, target, strict=True):
            image = Image.fromarray(channel.astype(np.float32))  # mode F
            place[:] = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.clip(resized, 0.0, 255.0, out=resized)

"""The resizes that metrics are defined with: TensorFlow 1's, clean FID's, a pyramid's halvings."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stylecli.errors import UsageError

CLEAN_SIZE = 299
COARSEST = 16  # px of the smallest level of a pyramid
CLEAN_RESIZE = f"PIL bicubic to {CLEAN_SIZE} px, low-passed when shrinking, in float, 0..255"


def resize_like_tensorflow(x: Tensor, side: int) -> Tensor:
    """Resize pictures [N, C, H, W], uint8 or float, to float32 [N, C, side, side], channels last.

    The source position is target · in/out (no half-pixel centres, corners not aligned), the upper
    neighbour is clamped, nothing is low-passed; along rows first, then along columns.
    """
    top, bottom, down = _neighbours(x.shape[2], side, x.device)
    left, right, across = _neighbours(x.shape[3], side, x.device)
    if (
        not torch.compiler.is_exporting() and x.shape[2] > 2 * side
    ):  # leave rows that nothing will look at before they cost anything
        x = x.index_select(2, torch.cat([top, bottom]))
        top = torch.arange(side, device=x.device)
        bottom = top + side
    x = x.permute(0, 2, 3, 1).contiguous()  # [N, H, W, C]: gathering copies whole pixels
    x = torch.lerp(
        x.index_select(2, left).float(), x.index_select(2, right).float(), across.view(-1, 1)
    )
    x = torch.lerp(x.index_select(1, top), x.index_select(1, bottom), down.view(-1, 1, 1))
    return x.permute(0, 3, 1, 2)


def _neighbours(size: int, side: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the lower and upper neighbour of each target position, and the upper one's share."""
    position = torch.arange(side, dtype=torch.float32, device=device) * (size / side)
    low = position.floor().long().clamp_(max=size - 1)
    return low, (low + 1).clamp_(max=size - 1), position - low


def resize_clean(pictures: Any, size: int = CLEAN_SIZE) -> NDArray[np.float32]:
    """Return uint8 pictures [N, C, H, W] as float32 [N, C, size, size] in 0..255.

    The resize of "clean" FID: PIL's antialiased bicubic on float channels, not quantised again.
    Parmar, Zhang, Zhu 2022: a resize that rounds to 8 bits, or that does not low-pass, moves FID by
    more than networks differ. Numbers made with this one are named fid-clean; they are compared
    with other clean FIDs, not with those of the papers, which resize inside the network.

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


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return the sizes of a picture's Laplacian pyramid, from its own down to 16 px.

    It is halved for as long as halves are whole and their shorter side has 16 px or more.
    """
    sizes = [(height, width)]
    while height % 2 == width % 2 == 0 and min(height, width) >= 2 * COARSEST:
        height, width = height // 2, width // 2
        sizes.append((height, width))
    return sizes


def laplacian_pyramid(x: Tensor) -> list[Tensor]:
    """Return the levels of pictures [N, C, H, W] in float32, from the finest to the coarsest.

    Each is what its size has more than the next; the last is the smallest picture itself. Burt and
    Adelson 1983, with their weights 1 4 6 4 1; borders are mirrored. A picture's levels have the
    same bits in any batch. Raises UsageError for pictures under 16 px.
    """
    if min(x.shape[2:]) < COARSEST:
        height, width = x.shape[2:]
        raise UsageError(
            f"pictures of {width} x {height} px have no pyramid: expected {COARSEST} px or more"
        )
    levels = [x.float()]
    for _ in level_sizes(x.shape[2], x.shape[3])[1:]:
        finer = levels[-1]
        smaller = _smooth(finer)[:, :, ::2, ::2]
        spread = torch.zeros_like(finer)
        spread[:, :, ::2, ::2] = smaller
        levels[-1] = finer - 4.0 * _smooth(spread)  # three of four pixels are zeros
        levels.append(smaller)
    return levels


def _smooth(x: Tensor) -> Tensor:
    """Weigh neighbours by 1 4 6 4 1, along rows and columns; term by term, as one order of sums."""
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    for dim in (2, 3):
        size = x.shape[dim] - 4
        a, b, c, d, e = (x.narrow(dim, start, size) for start in range(5))
        x = (a + e + 4.0 * (b + d) + 6.0 * c) / 16.0
    return x

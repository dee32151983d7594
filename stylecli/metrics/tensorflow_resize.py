"""TensorFlow 1's bilinear resize, which Inception and VGG16 features are defined with."""

import torch
from torch import Tensor


def resize_like_tensorflow(x: Tensor, side: int) -> Tensor:
    """Resize pictures [N, C, H, W], uint8 or float, to float32 [N, C, side, side], channels last.

    The source position is target · in/out (no half-pixel centres, corners not aligned), the upper
    neighbour is clamped, nothing is low-passed; along rows first, then along columns.
    """
    top, bottom, down = _neighbours(x.shape[2], side, x.device)
    left, right, across = _neighbours(x.shape[3], side, x.device)
    if x.shape[2] > 2 * side:  # leave rows that nothing will look at before they cost anything
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

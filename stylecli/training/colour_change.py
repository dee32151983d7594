"""Networks of grey, RGB or RGBA pictures for pictures of another kind.

A picture x of the new kind and a picture y of the old one are affine functions of each other,
x = M y + o and y = N x + p per pixel. ToRGB of a generator takes on the first, so that it draws
the same in the new kind; FromRGB of a discriminator the second, so that it sees the same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

GREY, RGB, RGBA = 1, 3, 4
# ITU-R 601 luma, which packing to grey uses too.
_LUMA = (0.299, 0.587, 0.114)
OPAQUE = 1.0  # alpha of an opaque picture: 255 in [-1, 1]


@dataclass(frozen=True)
class ColourChange:
    """x = M y + o (drawing), y = N x + p (seeing)."""

    draw: Tensor  # M [new, old]
    draw_offset: Tensor  # o [new]
    see: Tensor  # N [old, new]
    see_offset: Tensor  # p [old]

    def then(self, other: "ColourChange") -> "ColourChange":
        """Return this change followed by another."""
        return ColourChange(
            other.draw @ self.draw,
            other.draw @ self.draw_offset + other.draw_offset,
            self.see @ other.see,
            self.see @ other.see_offset + self.see_offset,
        )


def change_colours(old: int, new: int) -> ColourChange:
    """Return the change from ``old`` to ``new`` channels, each 1, 3 or 4.

    Grey is drawn as equal R, G and B, and seen in RGB as their mean; RGB is drawn in grey as luma.
    Alpha is drawn opaque where it is new and assumed opaque where it goes.
    """
    return _to_rgb(old).then(_from_rgb(new))


def recolour_generator(tensors: dict[str, Tensor], change: ColourChange) -> dict[str, Tensor]:
    """Return a generator's tensors with every ToRGB drawing pictures of the new kind."""
    changed = dict(tensors)
    for name, tensor in tensors.items():
        if name.startswith("synthesis.to_rgb."):
            if name.endswith(".weight"):  # [C, nf, 1, 1]
                changed[name] = torch.einsum("xy,yfhw->xfhw", change.draw, tensor)
            else:
                changed[name] = change.draw @ tensor + change.draw_offset
    return changed


def recolour_discriminator(tensors: dict[str, Tensor], change: ColourChange) -> dict[str, Tensor]:
    """Return a discriminator's tensors with every FromRGB seeing pictures of the new kind.

    Its weights are stored before equalisation, gain/√C: the gain √2 is that of the network.
    """
    changed = dict(tensors)
    old, new = change.see.shape
    for name, tensor in tensors.items():
        if name.startswith("from_rgb.") and name.endswith(".weight"):  # [nf, C, 1, 1]
            changed[name] = torch.einsum("fyhw,yx->fxhw", tensor, change.see) * (new / old) ** 0.5
            bias = name.replace(".weight", ".bias")
            effective = tensor[:, :, 0, 0] * (2 / old) ** 0.5
            changed[bias] = tensors[bias] + effective @ change.see_offset
    return changed


def _to_rgb(channels: int) -> ColourChange:
    if channels == GREY:
        return ColourChange(
            torch.ones(RGB, GREY), torch.zeros(RGB), torch.full((GREY, RGB), 1 / 3),
            torch.zeros(GREY),
        )  # fmt: skip
    if channels == RGBA:
        drop = torch.eye(RGB, RGBA)
        return ColourChange(drop, torch.zeros(RGB), drop.T, torch.tensor([0.0, 0.0, 0.0, OPAQUE]))
    return ColourChange(torch.eye(RGB), torch.zeros(RGB), torch.eye(RGB), torch.zeros(RGB))


def _from_rgb(channels: int) -> ColourChange:
    if channels == GREY:
        return ColourChange(
            torch.tensor([_LUMA]), torch.zeros(GREY), torch.ones(RGB, GREY), torch.zeros(RGB)
        )
    if channels == RGBA:
        add = torch.eye(RGBA, RGB)
        return ColourChange(add, torch.tensor([0.0, 0.0, 0.0, OPAQUE]), add.T, torch.zeros(RGB))
    return _to_rgb(RGB)

"""Distances between pictures that a search can follow downhill: LPIPS, or a stand-in by its name.

A distance here is a list of maps of a picture, scaled so that the sum of squared differences of the
maps of two pictures is the distance. LPIPS (Zhang et al. 2018, Eq. 1) is of this form. The stand-in
``pyramid`` needs no weights: it compares the picture, and its repeated halvings, by mean squared
differences, and knows nothing of what people see.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stylecli import weights
from stylecli.errors import UsageError, unknown_name
from stylecli.features import DISTANCES, DistanceName
from stylecli.features.vgg16 import LPIPS, MIN_SIDE
from stylecli.images import over_white
from stylecli.interop.feature_weights import obtain

LPIPS_NETWORK = "vgg16-lpips"
MAX_SIDE = 256  # px: larger pictures are shrunk to it first, by the mean of areas
_LEAST_LEVEL = 4  # px: the stand-in's smallest halving


@dataclass(frozen=True)
class Distance:
    """A distance between pictures about [-1, 1], as differentiable maps."""

    name: str
    maps: Callable[[Tensor], list[Tensor]]  # [N, 3, H, W] -> maps [N, C, h, w]
    sha256: str | None = None  # of the published weights
    min_side: int = 1  # px

    def features(self, images: Tensor, mask: Tensor | None = None, side: int = MAX_SIDE) -> Tensor:
        """Return features [N, F] whose sum of squared differences is the distance.

        ``images`` [N, 1, 3 or 4, H, W] about [-1, 1] are not clamped; they are shrunk to ``side``
        px where they are longer. ``mask`` [N, 1, H, W] in [0, 1] says how much each place counts;
        the distance is then the mean over what counts. Raises UsageError for pictures too small.
        """
        seen = shrink(over_white(images), side)
        if min(seen.shape[2:]) < self.min_side:
            raise UsageError(
                f"{self.name} needs pictures of at least {self.min_side} px; these have "
                f"{min(seen.shape[2:])} px"
            )
        maps = self.maps(seen)
        if mask is not None:
            maps = [each * _weight(mask, each) for each in maps]
        return torch.cat([each.flatten(1) for each in maps], dim=1)

    def __call__(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the distance of each pair of pictures, float32 [N], without a gradient."""
        with torch.no_grad():
            difference = self.features(a, mask) - self.features(b, mask)
            return difference.square().sum(dim=1)


def shrink(images: Tensor, side: int) -> Tensor:
    """Return images [N, C, H, W] whose longer side is ``side`` px at most, by means of areas."""
    height, width = images.shape[2:]
    if (longest := max(height, width)) <= side:
        return images
    size = [max(1, round(length * side / longest)) for length in (height, width)]
    return F.interpolate(images, size, mode="area")


def _weight(mask: Tensor, like: Tensor) -> Tensor:
    """Return the square roots of a mask's means over the cells of a map; their squares' mean is 1.

    So a map that differs evenly has the same distance under any mask.
    """
    cells = F.interpolate(mask, like.shape[2:], mode="area")
    return (cells / cells.mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-8)).sqrt()


def choose_distance(name: str | None, side: int = MAX_SIDE) -> DistanceName:
    """Return which distance is meant for pictures whose shorter side is ``side`` px.

    None is LPIPS where its weights are here and the pictures large enough, else ``pyramid``.
    Raises UsageError for an unknown name, WeightsError for LPIPS without weights.
    """
    if name not in (None, *DISTANCES):
        raise UsageError(unknown_name("distance", name or "", DISTANCES))
    if name == "pyramid" or (name is None and side < MIN_SIDE):
        return "pyramid"
    if weights.locate(LPIPS_NETWORK) is None:
        if name is None:
            return "pyramid"
        raise weights.missing(LPIPS_NETWORK)
    return "lpips"


def open_distance(name: DistanceName, device: torch.device | str) -> Distance:
    """Return a distance on a device. Raises WeightsError where LPIPS has no weights here."""
    if name == "pyramid":
        return Distance("pyramid", _pyramid, min_side=_LEAST_LEVEL)
    arrays, sha256 = obtain(LPIPS_NETWORK)
    network = LPIPS.from_state_dict(arrays).to(device)
    return Distance("lpips", network.maps, sha256, MIN_SIDE)


def _pyramid(images: Tensor) -> list[Tensor]:
    """Return the picture and its halvings down to 4 px, each worth its mean squared difference."""
    levels = [images]
    while min(levels[-1].shape[2:]) >= 2 * _LEAST_LEVEL:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return [level / math.sqrt(level[0].numel() * len(levels)) for level in levels]

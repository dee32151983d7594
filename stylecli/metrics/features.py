"""Features of pictures: one way to call every feature network."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stylecli.errors import DataError, UsageError
from stylecli.interop.feature_weights import obtain
from stylecli.metrics.fakes import Pictures, PictureSet

Features = NDArray[np.float32]  # [N, d]

INCEPTION = "inception-2015-12-05"
VGG16_FC2 = "vgg16"  # its second fully connected layer, for precision and recall
STAND_IN = "efficientnet-lite0"


@dataclass(frozen=True)
class Extractor:
    """A feature network ready to be called, and what has to be said of it."""

    name: str
    sha256: str  # of the published weight file
    resize: str  # how pictures become its input
    extract: Callable[[Pictures], Features]  # uint8 [N, 3, H, W] -> [N, d]
    # features [N, d] -> class probabilities [N, K], of the last layer without its bias: what
    # Inception Score is defined with; None where the features are not those of a last layer
    classify: Callable[[Features], Features] | None = None


def open_extractor(name: str, device: torch.device) -> Extractor:
    """Load a feature network by its registry name; raise WeightsError when it is not here."""
    if name not in (INCEPTION, VGG16_FC2, STAND_IN):
        raise UsageError(
            f"{name!r} gives no features: expected {INCEPTION}, {VGG16_FC2} or {STAND_IN}"
        )
    arrays, sha256 = obtain(name)
    if name == INCEPTION:
        from stylecli.metrics.inception import RESIZE as INCEPTION_RESIZE
        from stylecli.metrics.inception import InceptionV3

        inception = InceptionV3.from_state_dict(arrays).to(device)
        return Extractor(
            name,
            sha256,
            INCEPTION_RESIZE,
            lambda pictures: inception(pictures, outputs=["2048"])["2048"],
            inception.classify,
        )
    if name == VGG16_FC2:
        from stylecli.metrics.vgg16 import RESIZE as VGG16_RESIZE
        from stylecli.metrics.vgg16 import VGG16

        vgg16 = VGG16.from_state_dict(arrays).to(device)
        return Extractor(
            name, sha256, VGG16_RESIZE, lambda pictures: vgg16.features(pictures).cpu().numpy()
        )
    from stylecli.metrics.efficientnet import RESIZE, EfficientNetLite0

    efficient = EfficientNetLite0.from_state_dict(arrays).to(device)
    return Extractor(
        name, sha256, RESIZE, lambda pictures: efficient.features(pictures).cpu().numpy()
    )


def level_for(dataset: PictureSet, resolution: int) -> int:
    """Return the pyramid level at which the dataset has ``resolution``; DataError if it has not."""
    level = (dataset.resolution // resolution).bit_length() - 1
    if level < 0 or dataset.resolution != resolution << level:
        raise DataError(
            f"the dataset has {dataset.resolution} px and the network {resolution} px: "
            f"run stylecli pack PICTURES/ --resolution {resolution}, or give another --data"
        )
    return level

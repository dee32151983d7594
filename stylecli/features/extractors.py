"""Features of pictures: one way to call every feature network."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stylecli.errors import UsageError
from stylecli.interop.feature_weights import obtain

Pictures = NDArray[np.uint8]  # [N, 3, H, W]
Features = NDArray[np.float32]  # [N, d]
Precision = Literal["float32", "bf16"]  # of convolutions, as those of rendering

INCEPTION = "inception-2015-12-05"
VGG16_FC2 = "vgg16"  # its second fully connected layer, for precision and recall
STAND_IN = "efficientnet-lite0"
PYRAMID = "laplacian-pyramid"  # no network, and without weights


@dataclass(frozen=True)
class View:
    """A feature network and how it looks: what other features than another view's come from."""

    network: str
    clean: bool = False  # pictures are resized before by PIL's rule, for clean FID; Inception only
    precision: Precision = "float32"  # of its convolutions

    @property
    def key(self) -> str:
        """A name for it: the network's, with what is not usual."""
        return self.network + " clean" * self.clean + f" {self.precision}" * self.is_rough

    @property
    def is_rough(self) -> bool:
        """Whether features are those of 16-bit arithmetic."""
        return self.precision != "float32"


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
    precision: Precision = "float32"


def open_extractors(views: Iterable[View], device: torch.device) -> dict[str, Extractor]:
    """Return view key -> extractor; views of one network share its weights.

    Raises WeightsError where weights are not here, UsageError for a network that gives no features
    or is not looked through in this way: clean is Inception's, EfficientNet-Lite0 is float32 alone.
    """
    wanted = list(dict.fromkeys(views))
    opened: dict[str, Extractor] = {}
    for name in dict.fromkeys(view.network for view in wanted):
        known = {INCEPTION: _inception, VGG16_FC2: _vgg16, STAND_IN: _stand_in, PYRAMID: _pyramid}
        if (open_one := known.get(name)) is None:
            raise UsageError(f"{name!r} gives no features: expected one of {', '.join(known)}")
        of_network = open_one(device)
        opened |= {view.key: of_network(view) for view in wanted if view.network == name}
    return opened


def _inception(device: torch.device) -> Callable[[View], Extractor]:
    from stylecli.features.inception import RESIZE, InceptionV3
    from stylecli.features.resizing import CLEAN_RESIZE, resize_clean

    arrays, sha256 = obtain(INCEPTION)
    network = InceptionV3.from_state_dict(arrays).to(device)

    def of_view(view: View) -> Extractor:
        def extract(pictures: Pictures) -> Features:
            seen = resize_clean(pictures) if view.clean else np.ascontiguousarray(pictures)
            found = network(torch.from_numpy(seen), outputs=["2048"], bfloat16=view.is_rough)
            return _on_host(found["2048"])

        resize = f"{CLEAN_RESIZE}, (x - 128)/128" if view.clean else RESIZE
        return Extractor(INCEPTION, sha256, resize, extract, network.classify, view.precision)

    return of_view


def _vgg16(device: torch.device) -> Callable[[View], Extractor]:
    from stylecli.features.vgg16 import RESIZE, VGG16

    arrays, sha256 = obtain(VGG16_FC2)
    network = VGG16.from_state_dict(arrays).to(device)

    def of_view(view: View) -> Extractor:
        _refuse_clean(view)
        return Extractor(
            VGG16_FC2,
            sha256,
            RESIZE,
            lambda pictures: _on_host(network.features(pictures, bfloat16=view.is_rough)),
            precision=view.precision,
        )

    return of_view


def _stand_in(device: torch.device) -> Callable[[View], Extractor]:
    from stylecli.features.efficientnet import RESIZE, EfficientNetLite0

    arrays, sha256 = obtain(STAND_IN)
    network = EfficientNetLite0.from_state_dict(arrays).to(device)

    def of_view(view: View) -> Extractor:
        _refuse_clean(view)
        if view.is_rough:
            raise UsageError(
                f"{STAND_IN} needs float32: {view.precision} changes its numbers too much"
            )
        return Extractor(
            STAND_IN, sha256, RESIZE, lambda pictures: _on_host(network.features(pictures))
        )

    return of_view


def _pyramid(device: torch.device) -> Callable[[View], Extractor]:
    from stylecli.features.resizing import laplacian_pyramid

    sizes: set[tuple[int, ...]] = set()

    def extract(pictures: Pictures) -> Features:
        """Return rows of height, width and every level's values [3, h, w]."""
        shape = pictures.shape[2:]
        sizes.add(shape)
        if len(sizes) > 1:
            shown = " and ".join(f"{width} x {height} px" for height, width in sorted(sizes))
            raise UsageError(f"pictures of {shown} cannot be compared: pack them at one size")
        levels = laplacian_pyramid(torch.from_numpy(np.ascontiguousarray(pictures)).to(device))
        header = torch.tensor(shape, dtype=torch.float32, device=device).expand(len(pictures), 2)
        return _on_host(torch.cat([header, *(level.flatten(1) for level in levels)], dim=1))

    def of_view(view: View) -> Extractor:
        _refuse_clean(view)
        return Extractor(PYRAMID, "", "none", extract)

    return of_view


def _refuse_clean(view: View) -> None:
    if view.clean:
        raise UsageError(
            f"the clean resize is defined only for {INCEPTION}, not for {view.network}"
        )


def _on_host(features: torch.Tensor) -> Features:
    found: Features = features.cpu().numpy()
    return found

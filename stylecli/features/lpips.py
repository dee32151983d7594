"""LPIPS v0.1 with VGG16: the perceptual distance that path length is measured in.

Zhang et al. 2018, Eq. 1: at five depths of VGG16 the activations are normalised to unit length
over channels; squared differences are weighted per channel, averaged over the picture and summed.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.features.folding import check_tensors
from stylecli.ops.convolution import Convolution, fixed_conv2d

MIN_SIDE = 16  # VGG16 halves the picture four times before its last tap
# Convolutions per block; the last of each block is a tap, pools stand between blocks.
_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
# ImageNet statistics on the scale of pictures in [-1, 1], as LPIPS v0.1 states them.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPSILON = 1e-10


class LPIPS:
    """The distance, its kernels laid out for the device once."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        self._layers: dict[str, Convolution] = {}  # made when first used

    @classmethod
    def from_state_dict(cls, arrays: Mapping[str, Any]) -> "LPIPS":
        """Build from ``conv0..12.weight/bias`` [O, I, 3, 3] and ``head0..4.weight`` [C].

        Raises WeightsError listing tensors that are missing, unknown or of another shape.
        """
        tensors = check_tensors("VGG16-LPIPS weights", arrays, tensor_shapes())
        tensors["shift"], tensors["scale"] = torch.tensor(_SHIFT), torch.tensor(_SCALE)
        return cls(tensors)

    def to(self, device: torch.device | str) -> "LPIPS":
        """Return the distance on another device."""
        return LPIPS({name: tensor.to(device) for name, tensor in self._tensors.items()})

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance of each pair, float32 [N].

        ``a`` and ``b`` are float pictures [N, 3, H, W] in [-1, 1], at least 16 px on a side; values
        outside are not clamped. Pictures in [0, 255] go in as x/127.5 - 1. Raises UsageError for
        other shapes.
        """
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3 or min(a.shape[2:]) < MIN_SIDE:
            raise UsageError(
                f"pictures are {list(a.shape)} and {list(b.shape)}: expected equal shapes "
                f"[N, 3, H, W] of at least {MIN_SIDE} px"
            )
        with torch.inference_mode():
            x = torch.cat([a, b]).float()
            shift, scale = self._tensors["shift"], self._tensors["scale"]
            x = (x - shift[:, None, None]) / scale[:, None, None]
            x = x.contiguous(memory_format=torch.channels_last)
            distance = torch.zeros(len(a), device=x.device)
            index = 0
            for block, (_, convs) in enumerate(_BLOCKS):
                x = F.max_pool2d(x, 2) if block else x
                for _ in range(convs):
                    x = self._conv(f"conv{index}", x)
                    index += 1
                distance += self._tap(x, self._tensors[f"head{block}.weight"])
            return distance

    def _conv(self, name: str, x: Tensor) -> Tensor:
        if name not in self._layers:
            kernel, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
            self._layers[name] = fixed_conv2d(kernel, bias, side=x.shape[-1], relu=True)
        return self._layers[name](x)

    def _tap(self, x: Tensor, head: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        a, b = (x / (length + _EPSILON)).chunk(2)  # [N, C, h, w]
        weighted: Tensor = (a - b).square() * head[:, None, None]
        return weighted.sum(1).mean((1, 2))


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every weight."""
    shapes: dict[str, tuple[int, ...]] = {}
    inputs, index = 3, 0
    for block, (width, convs) in enumerate(_BLOCKS):
        for _ in range(convs):
            shapes[f"conv{index}.weight"] = (width, inputs, 3, 3)
            shapes[f"conv{index}.bias"] = (width,)
            inputs, index = width, index + 1
        shapes[f"head{block}.weight"] = (width,)
    return shapes

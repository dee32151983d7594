"""VGG16: the features of precision and recall, and LPIPS, the distance of path lengths.

Kynkäänniemi et al. 2019 compare pictures by the 4096 activations of its second fully connected
layer, after ReLU. Pictures are resized to 224 px by TensorFlow 1's rule and scaled by ImageNet's
mean and spread.

LPIPS v0.1, Zhang et al. 2018, Eq. 1: at five depths the activations are normalised to unit length
over channels; squared differences are weighted per channel, averaged over the picture and summed.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.features.resizing import resize_like_tensorflow
from stylecli.interop.feature_weights import check_tensors
from stylecli.ops.convolution import Convolution, fixed_conv2d, fixed_relu_conv2d

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
            return torch.cat([self.forward(part, dtype) for part in chunks])

    def forward(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Compute ``features`` of few pictures, unchecked and traceable."""
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
    for name, inputs in (("classifier.0", _BLOCKS[-1][0] * 7 * 7), ("classifier.3", FEATURES)):
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


MIN_SIDE = 16  # VGG16 halves the picture four times before its last tap
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
        tensors = check_tensors("VGG16-LPIPS weights", arrays, lpips_shapes())
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
            return self.forward(a, b)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute what the call returns, unchecked and traceable."""
        x = torch.cat([a, b]).float()
        shift, scale = self._tensors["shift"], self._tensors["scale"]
        x = (x - shift[:, None, None]) / scale[:, None, None]
        if not torch.compiler.is_exporting():
            x = x.contiguous(memory_format=torch.channels_last)
        distance = torch.zeros(a.shape[0], device=x.device)
        index = 0
        for block, (_, convs) in enumerate(_BLOCKS):
            x = F.max_pool2d(x, 2) if block else x
            for _ in range(convs):
                x = self._conv(f"conv{index}", x)
                index += 1
            distance += self._tap(x, self._tensors[f"head{block}.weight"])
        return distance

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return maps [N, C, h, w] whose sum of squared differences is the distance (Eq. 1).

        Differentiable, unlike the call. ``images`` are float [N, 3, H, W] about [-1, 1], of at
        least 16 px.
        """
        shift, scale = self._tensors["shift"], self._tensors["scale"]
        x = (images - shift[:, None, None]) / scale[:, None, None]
        x = x.contiguous(memory_format=torch.channels_last)
        maps, index = [], 0
        for block, (_, convs) in enumerate(_BLOCKS):
            x = F.max_pool2d(x, 2) if block else x
            for _ in range(convs):
                x = self._differentiable(f"conv{index}", x)
                index += 1
            length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
            head = self._tensors[f"head{block}.weight"].clamp(min=0).sqrt()  # trained to be >= 0
            places = x.shape[2] * x.shape[3]  # the distance is a mean over them
            maps.append(x / (length + _EPSILON) * (head / places**0.5)[:, None, None])
        return maps

    def _conv(self, name: str, x: Tensor) -> Tensor:
        if name not in self._layers:
            kernel, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
            self._layers[name] = fixed_conv2d(kernel, bias, side=x.shape[-1], relu=True)
        return self._layers[name](x)

    def _differentiable(self, name: str, x: Tensor) -> Tensor:
        key = f"{name} with a gradient"
        if key not in self._layers:
            kernel, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
            self._layers[key] = fixed_relu_conv2d(kernel, bias, side=x.shape[-1])
        return self._layers[key](x)

    def _tap(self, x: Tensor, head: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        x = x / (length + _EPSILON)
        count = x.shape[0] // 2
        a, b = x[:count], x[count:]  # [N, C, h, w]
        weighted: Tensor = (a - b).square() * head[:, None, None]
        return weighted.sum(1).mean((1, 2))


def lpips_shapes() -> dict[str, tuple[int, ...]]:
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

"""Inception-v3 as FID uses it: the 2015-12-05 graph, weights under the names of pytorch-fid files.

It differs from the Inception-v3 of image libraries: the picture is resized by TensorFlow 1's
bilinear rule and scaled by (x - 128)/128; average pools leave the padding out; the last block
pools by maximum; 1008 logits.
"""

from collections.abc import Mapping
from typing import Any, overload

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.metrics.folding import check_tensors, fold_batch_norm

SIDE = 299  # pixels on a side that the network sees
CLASSES = 1008
_BN_EPSILON = 1e-3

# name -> outputs, inputs, kernel height, kernel width
Shapes = dict[str, tuple[int, int, int, int]]


class InceptionV3:
    """The network with its batch normalisation folded into the convolutions, channels last."""

    def __init__(self, convs: dict[str, tuple[Tensor, Tensor]], fc: tuple[Tensor, Tensor]) -> None:
        self._convs, self._fc = convs, fc

    @classmethod
    def from_state_dict(cls, arrays: Mapping[str, Any]) -> "InceptionV3":
        """Build the network from named arrays as in pytorch-fid's weight file.

        Raises WeightsError listing tensors that are missing, unknown or of another shape.
        """
        tensors = check_tensors("Inception-v3 weights", arrays, tensor_shapes())
        convs = {
            name: fold_batch_norm(tensors, f"{name}.conv.weight", f"{name}.bn", _BN_EPSILON)
            for name in conv_shapes()
        }
        return cls(convs, (tensors["fc.weight"].float(), tensors["fc.bias"].float()))

    def to(self, device: torch.device | str) -> "InceptionV3":
        """Return the network on another device."""
        convs = {name: (w.to(device), b.to(device)) for name, (w, b) in self._convs.items()}
        return InceptionV3(convs, (self._fc[0].to(device), self._fc[1].to(device)))

    @overload
    def __call__(self, images: Tensor) -> dict[str, Tensor]: ...
    @overload
    def __call__(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]: ...
    def __call__(
        self, images: Tensor | NDArray[np.uint8]
    ) -> dict[str, Tensor] | dict[str, NDArray[np.float32]]:
        """Return every output for uint8 pictures [N, 3, H, W]: numpy in, numpy out.

        "64", "192", "768", "2048" are features [N, that many] averaged over the picture, "logits"
        [N, 1008], "logits_unbiased" the same without the last bias (what Inception Score uses).
        Raises UsageError for another type or shape.
        """
        if not isinstance(images, Tensor):
            outputs = self(torch.from_numpy(np.ascontiguousarray(images)))
            return {name: value.cpu().numpy() for name, value in outputs.items()}
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(
                f"pictures are {images.dtype} {list(images.shape)}: expected uint8 [N, 3, H, W]"
            )
        with torch.inference_mode():
            x = images.to(self._fc[0].device, torch.float32)
            x = (resize_like_tensorflow(x, SIDE) - 128.0) / 128.0
            return self._forward(x.contiguous(memory_format=torch.channels_last))

    def _forward(self, x: Tensor) -> dict[str, Tensor]:
        outputs = {}
        x = self._conv("Conv2d_1a_3x3", x, stride=2, pad=False)  # [N, 32, 149, 149]
        x = self._conv("Conv2d_2a_3x3", x, pad=False)
        x = F.max_pool2d(self._conv("Conv2d_2b_3x3", x), 3, 2)  # [N, 64, 73, 73]
        outputs["64"] = x.mean((2, 3))
        x = self._conv("Conv2d_3b_1x1", x)
        x = F.max_pool2d(self._conv("Conv2d_4a_3x3", x, pad=False), 3, 2)  # [N, 192, 35, 35]
        outputs["192"] = x.mean((2, 3))
        for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = self._block_5(name, x)  # [N, 256 or 288, 35, 35]
        x = self._block_6a(x)  # [N, 768, 17, 17]
        for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            x = self._block_6(name, x)
        outputs["768"] = x.mean((2, 3))
        x = self._block_7a(x)  # [N, 1280, 8, 8]
        x = self._block_7("Mixed_7b", x, _average(x))
        x = self._block_7("Mixed_7c", x, F.max_pool2d(x, 3, 1, 1))  # [N, 2048, 8, 8]
        pooled = outputs["2048"] = x.mean((2, 3))
        outputs["logits_unbiased"] = pooled @ self._fc[0].T
        outputs["logits"] = outputs["logits_unbiased"] + self._fc[1]
        return outputs

    def _conv(self, name: str, x: Tensor, stride: int = 1, pad: bool = True) -> Tensor:
        weight, bias = self._convs[name]
        padding = (weight.shape[2] // 2, weight.shape[3] // 2) if pad else 0
        return F.conv2d(x, weight, bias, stride, padding).relu_()

    def _chain(self, block: str, branch: str, x: Tensor, steps: str) -> Tensor:
        for step in steps.split():
            x = self._conv(f"{block}.{branch}_{step}", x)
        return x

    def _block_5(self, name: str, x: Tensor) -> Tensor:
        return torch.cat([
            self._conv(f"{name}.branch1x1", x),
            self._chain(name, "branch5x5", x, "1 2"),
            self._chain(name, "branch3x3dbl", x, "1 2 3"),
            self._conv(f"{name}.branch_pool", _average(x)),
        ], 1)  # fmt: skip

    def _block_6a(self, x: Tensor) -> Tensor:
        double = self._chain("Mixed_6a", "branch3x3dbl", x, "1 2")
        return torch.cat([
            self._conv("Mixed_6a.branch3x3", x, stride=2, pad=False),
            self._conv("Mixed_6a.branch3x3dbl_3", double, stride=2, pad=False),
            F.max_pool2d(x, 3, 2),
        ], 1)  # fmt: skip

    def _block_6(self, name: str, x: Tensor) -> Tensor:
        return torch.cat([
            self._conv(f"{name}.branch1x1", x),
            self._chain(name, "branch7x7", x, "1 2 3"),
            self._chain(name, "branch7x7dbl", x, "1 2 3 4 5"),
            self._conv(f"{name}.branch_pool", _average(x)),
        ], 1)  # fmt: skip

    def _block_7a(self, x: Tensor) -> Tensor:
        three = self._conv("Mixed_7a.branch3x3_1", x)
        seven = self._chain("Mixed_7a", "branch7x7x3", x, "1 2 3")
        return torch.cat([
            self._conv("Mixed_7a.branch3x3_2", three, stride=2, pad=False),
            self._conv("Mixed_7a.branch7x7x3_4", seven, stride=2, pad=False),
            F.max_pool2d(x, 3, 2),
        ], 1)  # fmt: skip

    def _block_7(self, name: str, x: Tensor, pooled: Tensor) -> Tensor:
        three = self._conv(f"{name}.branch3x3_1", x)
        double = self._chain(name, "branch3x3dbl", x, "1 2")
        return torch.cat([
            self._conv(f"{name}.branch1x1", x),
            self._conv(f"{name}.branch3x3_2a", three),
            self._conv(f"{name}.branch3x3_2b", three),
            self._conv(f"{name}.branch3x3dbl_3a", double),
            self._conv(f"{name}.branch3x3dbl_3b", double),
            self._conv(f"{name}.branch_pool", pooled),
        ], 1)  # fmt: skip


def resize_like_tensorflow(x: Tensor, side: int) -> Tensor:
    """Resize [N, C, H, W] to side x side by TensorFlow 1's bilinear rule.

    The source position is target · in/out (no half-pixel centres, corners not aligned), the upper
    neighbour is clamped, nothing is low-passed. FID is defined with this rule.
    """
    for axis in (2, 3):
        size = x.shape[axis]
        position = torch.arange(side, dtype=torch.float32, device=x.device) * (size / side)
        low = position.floor().long().clamp_(max=size - 1)
        high = (low + 1).clamp_(max=size - 1)
        share = (position - low).view((-1, 1) if axis == 2 else (1, -1))
        x = torch.lerp(x.index_select(axis, low), x.index_select(axis, high), share)
    return x  # [N, C, side, side]


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every weight, batch norm counters left out."""
    shapes: dict[str, tuple[int, ...]] = {"fc.weight": (CLASSES, 2048), "fc.bias": (CLASSES,)}
    for name, shape in conv_shapes().items():
        shapes[f"{name}.conv.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{part}"] = (shape[0],)
    return shapes


def conv_shapes() -> Shapes:
    """Return name -> [outputs, inputs, kernel height, kernel width] of all 94 convolutions."""
    shapes: Shapes = {}

    def chain(prefix: str, inputs: int, rows: list[tuple[str, int, tuple[int, int]]]) -> None:
        for suffix, outputs, kernel in rows:
            shapes[prefix + suffix] = (outputs, inputs, *kernel)
            inputs = outputs

    one, three, five, wide, tall = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)
    chain("Conv2d_", 3, [("1a_3x3", 32, three), ("2a_3x3", 32, three), ("2b_3x3", 64, three),
                         ("3b_1x1", 80, one), ("4a_3x3", 192, three)])  # fmt: skip
    for name, inputs, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        block = f"Mixed_{name}.branch"
        chain(block, inputs, [("1x1", 64, one)])
        chain(block, inputs, [("5x5_1", 48, one), ("5x5_2", 64, five)])
        chain(block, inputs, [("3x3dbl_1", 64, one), ("3x3dbl_2", 96, three),
                              ("3x3dbl_3", 96, three)])  # fmt: skip
        chain(block, inputs, [("_pool", pool, one)])
    chain("Mixed_6a.branch", 288, [("3x3", 384, three)])
    chain("Mixed_6a.branch3x3dbl", 288, [("_1", 64, one), ("_2", 96, three), ("_3", 96, three)])
    for name, c in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        block = f"Mixed_{name}.branch"
        chain(block, 768, [("1x1", 192, one)])
        chain(block, 768, [("7x7_1", c, one), ("7x7_2", c, wide), ("7x7_3", 192, tall)])
        chain(block, 768, [("7x7dbl_1", c, one), ("7x7dbl_2", c, tall), ("7x7dbl_3", c, wide),
                           ("7x7dbl_4", c, tall), ("7x7dbl_5", 192, wide)])  # fmt: skip
        chain(block, 768, [("_pool", 192, one)])
    chain("Mixed_7a.branch3x3", 768, [("_1", 192, one), ("_2", 320, three)])
    chain("Mixed_7a.branch7x7x3", 768, [("_1", 192, one), ("_2", 192, wide), ("_3", 192, tall),
                                        ("_4", 192, three)])  # fmt: skip
    for name, inputs in (("7b", 1280), ("7c", 2048)):
        block = f"Mixed_{name}.branch"
        chain(block, inputs, [("1x1", 320, one)])
        chain(block, inputs, [("3x3_1", 384, one), ("3x3_2a", 384, (1, 3))])
        chain(block, 384, [("3x3_2b", 384, (3, 1))])
        chain(block, inputs, [("3x3dbl_1", 448, one), ("3x3dbl_2", 384, three),
                              ("3x3dbl_3a", 384, (1, 3))])  # fmt: skip
        chain(block, 384, [("3x3dbl_3b", 384, (3, 1))])
        chain(block, inputs, [("_pool", 192, one)])
    return shapes


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

"""Inception-v3 as FID uses it: the 2015-12-05 graph, weights under the names of pytorch-fid files.

It differs from the Inception-v3 of image libraries: the picture is resized by TensorFlow 1's
bilinear rule and scaled by (x - 128)/128; average pools leave the padding out; the last block
pools by maximum; 1008 logits.

Computed as the graph is, with what cannot change a result left out: batch norm is folded into the
kernels, 1x1 convolutions of the same input are one, and where an average pool stands before a 1x1
convolution it is taken after it, of fewer channels (both are linear, and its weights sum to 1 at
every position). tests/benchmarks/inception.py measures the whole.
"""

from collections.abc import Collection, Mapping
from typing import Any, overload

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.features.resizing import resize_like_tensorflow
from stylecli.interop.feature_weights import check_tensors, fold_batch_norm
from stylecli.ops.convolution import Convolution, fixed_conv2d

CLASSES = 1008
FEATURES = 2048

# name -> outputs, inputs, kernel height, kernel width
Shapes = dict[str, tuple[int, int, int, int]]
SIDE = 299  # pixels on a side that the network sees
RESIZE = f"TensorFlow 1 bilinear to {SIDE} px, (x - 128)/128"
OUTPUTS = ("64", "192", "768", "2048", "logits_unbiased", "logits")
_BN_EPSILON = 1e-3
# side of the features that a layer sees, by the beginning of its name
_SIDES = {"Conv2d_1a": 299, "Conv2d_2a": 149, "Conv2d_2b": 147, "Conv2d_3b": 73, "Conv2d_4a": 73,
          "Mixed_5": 35, "Mixed_6a": 35, "Mixed_6": 17, "Mixed_7a": 17, "Mixed_7": 8}  # fmt: skip
_STRIDED = ("Conv2d_1a_3x3", "Mixed_6a.branch3x3", "Mixed_6a.branch3x3dbl_3",
            "Mixed_7a.branch3x3_2", "Mixed_7a.branch7x7x3_4")  # fmt: skip
_UNPADDED = (*_STRIDED, "Conv2d_2a_3x3", "Conv2d_4a_3x3")
_FIRST_OF_CHAINS = ("branch1x1", "branch5x5_1", "branch7x7_1", "branch7x7x3_1", "branch3x3_1",
                    "branch3x3dbl_1", "branch7x7dbl_1")  # fmt: skip


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every weight, batch norm counters left out."""
    shapes: dict[str, tuple[int, ...]] = {"fc.weight": (CLASSES, FEATURES), "fc.bias": (CLASSES,)}
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


class InceptionV3:
    """The network with its batch normalisation folded into the convolutions, channels last."""

    def __init__(self, convs: dict[str, tuple[Tensor, Tensor]], fc: tuple[Tensor, Tensor]) -> None:
        self._convs, self._fc = convs, fc
        self._layers: dict[str, Convolution] = {}  # made when first used

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
        return cls(convs, (tensors["fc.weight"], tensors["fc.bias"]))

    def to(self, device: torch.device | str) -> "InceptionV3":
        """Return the network on another device."""
        convs = {name: (w.to(device), b.to(device)) for name, (w, b) in self._convs.items()}
        return InceptionV3(convs, (self._fc[0].to(device), self._fc[1].to(device)))

    @overload
    def __call__(
        self, images: Tensor, *, outputs: Collection[str] = ..., bfloat16: bool = ...
    ) -> dict[str, Tensor]: ...
    @overload
    def __call__(
        self, images: NDArray[np.uint8], *, outputs: Collection[str] = ..., bfloat16: bool = ...
    ) -> dict[str, NDArray[np.float32]]: ...
    def __call__(
        self,
        images: Tensor | NDArray[np.uint8],
        *,
        outputs: Collection[str] = OUTPUTS,
        bfloat16: bool = False,
    ) -> dict[str, Tensor] | dict[str, NDArray[np.float32]]:
        """Return ``outputs`` for uint8 pictures [N, 3, H, W]: numpy in, numpy out.

        Float32 pictures in 0..255 are taken too where they have 299 px already (clean resize).
        "64", "192", "768", "2048" are features [N, that many] averaged over the picture, "logits"
        [N, 1008], "logits_unbiased" the same without the last bias (what Inception Score uses);
        layers behind the last one asked for are not computed. ``bfloat16`` computes convolutions
        in 16 bits, which changes features by about a hundredth of their size: no number made so
        is a published metric. Raises UsageError for another type, shape or output.
        """
        if not isinstance(images, Tensor):
            found = self(
                torch.from_numpy(np.ascontiguousarray(images)), outputs=outputs, bfloat16=bfloat16
            )
            return {name: value.cpu().numpy() for name, value in found.items()}
        resized = images.dtype == torch.float32 and images.shape[2:] == (SIDE, SIDE)
        if not (images.dtype == torch.uint8 or resized) or images.shape[1:2] != (3,):
            raise UsageError(
                f"pictures are {images.dtype} {list(images.shape)}: expected uint8 [N, 3, H, W], "
                f"or float32 in 0..255 that are {SIDE} px already"
            )
        if images.ndim != 4:
            raise UsageError(f"pictures have shape {list(images.shape)}: expected [N, 3, H, W]")
        unknown = sorted(set(outputs) - set(OUTPUTS))
        if unknown or not outputs:
            raise UsageError(
                f"unknown outputs {', '.join(unknown)}: expected some of {', '.join(OUTPUTS)}"
            )
        with torch.inference_mode():
            return self.forward(images.to(self._fc[0].device), outputs, bfloat16=bfloat16)

    def forward(
        self, images: Tensor, outputs: Collection[str] = OUTPUTS, *, bfloat16: bool = False
    ) -> dict[str, Tensor]:
        """Compute what the call returns, unchecked and traceable: graphs are made from it."""
        x = resize_like_tensorflow(images, SIDE).sub_(128.0).div_(128.0)
        return self._forward(x.bfloat16() if bfloat16 else x, set(outputs))

    def classify(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return class probabilities [N, 1008] of "2048" features [N, 2048].

        From the logits without the last bias, as Inception Score is defined.
        """
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(features)).to(self._fc[0].device)
            probabilities: NDArray[np.float32] = (x @ self._fc[0].T).softmax(1).cpu().numpy()
            return probabilities

    def _forward(self, x: Tensor, wanted: set[str]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def take(name: str, x: Tensor) -> bool:
            """Keep a tap; tell whether it was the last one."""
            if name in wanted:
                found[name] = x.float().mean((2, 3))
            return len(found) == len(wanted)

        x = self._conv("Conv2d_1a_3x3", x)  # [N, 32, 149, 149]
        x = self._conv("Conv2d_2a_3x3", x)
        x = F.max_pool2d(self._conv("Conv2d_2b_3x3", x), 3, 2)  # [N, 64, 73, 73]
        if take("64", x):
            return found
        x = self._conv("Conv2d_3b_1x1", x)
        x = F.max_pool2d(self._conv("Conv2d_4a_3x3", x), 3, 2)  # [N, 192, 35, 35]
        if take("192", x):
            return found
        for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = self._block_5(name, x)  # [N, 256 or 288, 35, 35]
        x = self._block_6a(x)  # [N, 768, 17, 17]
        for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            x = self._block_6(name, x)
        if take("768", x):
            return found
        x = self._block_7a(x)  # [N, 1280, 8, 8]
        x = self._block_7("Mixed_7b", x, self._pooled("Mixed_7b", x))
        pooled = F.max_pool2d(x, 3, 1, 1)
        x = self._block_7("Mixed_7c", x, self._conv("Mixed_7c.branch_pool", pooled))
        if take("2048", x):  # [N, 2048, 8, 8]
            return found
        features = found["2048"] if "2048" in found else x.float().mean((2, 3))
        logits = features @ self._fc[0].T
        if "logits_unbiased" in wanted:
            found["logits_unbiased"] = logits
        if "logits" in wanted:
            found["logits"] = logits + self._fc[1]
        return found

    def _conv(self, name: str, x: Tensor) -> Tensor:
        return self._run((name,), x)

    def _run(self, names: tuple[str, ...], x: Tensor, relu: bool = True) -> Tensor:
        """Convolve with the kernels of ``names`` at once, which differ in their outputs only."""
        key = f"{'+'.join(names)} {x.dtype}"
        if key not in self._layers:
            kernel = torch.cat([self._convs[name][0] for name in names]).to(x.dtype)
            self._layers[key] = fixed_conv2d(
                kernel,
                torch.cat([self._convs[name][1] for name in names]).to(x.dtype),
                side=next(side for start, side in _SIDES.items() if names[0].startswith(start)),
                stride=2 if names[0] in _STRIDED else 1,
                padding=(0, 0) if names[0] in _UNPADDED else [n // 2 for n in kernel.shape[2:]],
                relu=relu,
            )
        return self._layers[key](x)

    def _first(self, block: str, x: Tensor) -> tuple[Tensor, ...]:
        """Return what the 1x1 convolutions that begin a block's branches make of its input."""
        names = tuple(
            name for name in (f"{block}.{first}" for first in _FIRST_OF_CHAINS)
            if name in self._convs
        )  # fmt: skip
        return torch.split(self._run(names, x), [len(self._convs[name][1]) for name in names], 1)

    def _pooled(self, block: str, x: Tensor) -> Tensor:
        """Return the pool branch: average over 3x3, padding left out, and 1x1 convolution."""
        x = self._run((f"{block}.branch_pool",), x, relu=False)
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False).relu_()

    def _chain(self, branch: str, x: Tensor, steps: str) -> Tensor:
        for step in steps.split():
            x = self._conv(f"{branch}_{step}", x)
        return x

    def _block_5(self, name: str, x: Tensor) -> Tensor:
        one, five, double = self._first(name, x)
        return torch.cat([
            one,
            self._conv(f"{name}.branch5x5_2", five),
            self._chain(f"{name}.branch3x3dbl", double, "2 3"),
            self._pooled(name, x),
        ], 1)  # fmt: skip

    def _block_6a(self, x: Tensor) -> Tensor:
        return torch.cat([
            self._conv("Mixed_6a.branch3x3", x),
            self._chain("Mixed_6a.branch3x3dbl", x, "1 2 3"),
            F.max_pool2d(x, 3, 2),
        ], 1)  # fmt: skip

    def _block_6(self, name: str, x: Tensor) -> Tensor:
        one, seven, double = self._first(name, x)
        return torch.cat([
            one,
            self._chain(f"{name}.branch7x7", seven, "2 3"),
            self._chain(f"{name}.branch7x7dbl", double, "2 3 4 5"),
            self._pooled(name, x),
        ], 1)  # fmt: skip

    def _block_7a(self, x: Tensor) -> Tensor:
        seven, three = self._first("Mixed_7a", x)
        return torch.cat([
            self._conv("Mixed_7a.branch3x3_2", three),
            self._chain("Mixed_7a.branch7x7x3", seven, "2 3 4"),
            F.max_pool2d(x, 3, 2),
        ], 1)  # fmt: skip

    def _block_7(self, name: str, x: Tensor, pooled: Tensor) -> Tensor:
        one, three, double = self._first(name, x)
        double = self._conv(f"{name}.branch3x3dbl_2", double)
        return torch.cat([
            one,
            self._conv(f"{name}.branch3x3_2a", three),
            self._conv(f"{name}.branch3x3_2b", three),
            self._conv(f"{name}.branch3x3dbl_3a", double),
            self._conv(f"{name}.branch3x3dbl_3b", double),
            pooled,
        ], 1)  # fmt: skip

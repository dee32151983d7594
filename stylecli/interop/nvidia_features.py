"""NVIDIA's TorchScript feature networks, under the names of pytorch-fid's and torchvision's files.

The names inside ``inception-2015-12-05.pt`` and ``vgg16.pt`` are those that public conversion
scripts map by; they could not be compared with the files themselves, which no package ships. A
file that is laid out otherwise is refused, never guessed at.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[np.float32]]

_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
# branch of ours -> where NVIDIA's file has it, by the kind of block
_BLOCK_5 = {"1x1": "conv", "5x5_1": "tower.conv", "5x5_2": "tower.conv_1",
            "3x3dbl_1": "tower_1.conv", "3x3dbl_2": "tower_1.conv_1",
            "3x3dbl_3": "tower_1.conv_2", "_pool": "tower_2.conv"}  # fmt: skip
_BLOCK_6A = {"3x3": "conv", "3x3dbl_1": "tower.conv", "3x3dbl_2": "tower.conv_1",
             "3x3dbl_3": "tower.conv_2"}  # fmt: skip
_BLOCK_6 = {"1x1": "conv", "7x7_1": "tower.conv", "7x7_2": "tower.conv_1",
            "7x7_3": "tower.conv_2", "7x7dbl_1": "tower_1.conv", "7x7dbl_2": "tower_1.conv_1",
            "7x7dbl_3": "tower_1.conv_2", "7x7dbl_4": "tower_1.conv_3",
            "7x7dbl_5": "tower_1.conv_4", "_pool": "tower_2.conv"}  # fmt: skip
_BLOCK_7A = {"3x3_1": "tower.conv", "3x3_2": "tower.conv_1", "7x7x3_1": "tower_1.conv",
             "7x7x3_2": "tower_1.conv_1", "7x7x3_3": "tower_1.conv_2",
             "7x7x3_4": "tower_1.conv_3"}  # fmt: skip
_BLOCK_7 = {"1x1": "conv", "3x3_1": "tower_conv", "3x3_2a": "tower_mixed_conv",
            "3x3_2b": "tower_mixed_conv_1", "3x3dbl_1": "tower_1_conv",
            "3x3dbl_2": "tower_1_conv_1", "3x3dbl_3a": "tower_1_mixed_conv",
            "3x3dbl_3b": "tower_1_mixed_conv_1", "_pool": "tower_2_conv"}  # fmt: skip
_NORM = {"bias": "beta", "running_mean": "mean", "running_var": "var"}
# torchvision's numbers of VGG16's convolutions and of the layers behind them
_VGG_CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_VGG_DENSE = {"fc1": 0, "fc2": 3}


def convert_inception(tensors: Mapping[str, NDArray[Any]]) -> Tensors:
    """Return the arrays of ``inception-2015-12-05.pt`` by pytorch-fid's names.

    The graph has no scale of its own in batch norm: it is one. Raises KeyError naming a tensor
    that is not where it should be.
    """
    layers = {ours: f"layers.{theirs}" for ours, theirs in _inception_layers().items()}
    found: Tensors = {}
    for ours, theirs in layers.items():
        found[f"{ours}.conv.weight"] = np.asarray(tensors[f"{theirs}.weight"], np.float32)
        for mine, name in _NORM.items():
            found[f"{ours}.bn.{mine}"] = np.asarray(tensors[f"{theirs}.{name}"], np.float32)
        found[f"{ours}.bn.weight"] = np.ones_like(found[f"{ours}.bn.bias"])
    for part in ("weight", "bias"):
        found[f"fc.{part}"] = np.asarray(tensors[f"output.{part}"], np.float32)
    return found


def _inception_layers() -> dict[str, str]:
    """Return our name of every convolution -> its place among NVIDIA's layers."""
    layers = {name: f"conv_{i}" if i else "conv" for i, name in enumerate(_STEM)}
    for i, block in enumerate(_BLOCKS):
        branches = {"6a": _BLOCK_6A, "7a": _BLOCK_7A}.get(block) or {
            "5": _BLOCK_5, "6": _BLOCK_6, "7": _BLOCK_7
        }[block[0]]  # fmt: skip
        for ours, theirs in branches.items():
            place = f"mixed_{i}" if i else "mixed"
            layers[f"Mixed_{block}.branch{ours}"] = f"{place}.{theirs}"
    return layers


def convert_vgg16(tensors: Mapping[str, NDArray[Any]]) -> Tensors:
    """Return the arrays of ``vgg16.pt`` by torchvision's names, without the last layer.

    Raises KeyError naming a tensor that is not where it should be.
    """
    places = {f"features.{n}": f"layers.conv{i}" for i, n in enumerate(_VGG_CONVS, 1)}
    places |= {f"classifier.{n}": f"layers.{name}" for name, n in _VGG_DENSE.items()}
    return {
        f"{ours}.{part}": np.asarray(tensors[f"{theirs}.{part}"], np.float32)
        for ours, theirs in places.items()
        for part in ("weight", "bias")
    }

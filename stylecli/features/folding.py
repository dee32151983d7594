"""Turn named arrays into the tensors of a feature network: checked, batch norm folded in."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylecli.errors import WeightsError


def check_tensors(
    what: str, arrays: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Return the expected tensors of ``arrays``; raise WeightsError with every difference.

    Counters of training batches may be there or not.
    """
    given = {name: tuple(np.shape(value)) for name, value in arrays.items()}
    given = {name: shape for name, shape in given.items() if not name.endswith("_tracked")}
    problems = [f"{name} is missing" for name in expected if name not in given]
    problems += [f"{name} is unknown" for name in given if name not in expected]
    problems += [
        f"{name} is {list(given[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in given and given[name] != shape
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; {len(problems) - 8} more" * (len(problems) > 8))
        raise WeightsError(f"{what} do not fit the network: {shown}")
    return {name: torch.from_numpy(np.array(arrays[name], dtype=np.float32)) for name in expected}


def fold_batch_norm(
    tensors: Mapping[str, Tensor], weight: str, norm: str, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of a convolution with its batch norm folded in (float32).

    Folded in float64: y = (conv(x) - mean)·scale/√(var + ε) + bias.
    """
    scale = tensors[f"{norm}.weight"].double()
    scale = scale / (tensors[f"{norm}.running_var"].double() + epsilon).sqrt()
    bias = tensors[f"{norm}.bias"].double() - tensors[f"{norm}.running_mean"].double() * scale
    folded = (tensors[weight].double() * scale[:, None, None, None]).float()
    return folded.contiguous(memory_format=torch.channels_last), bias.float()

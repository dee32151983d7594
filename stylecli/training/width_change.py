"""A parameter in another size: what overlaps is taken over, the rest stays as initialised."""

import itertools
import math
import re

from torch import Tensor

from stylecli.networks.config import StyleGAN1Config

_STYLE = re.compile(r"synthesis\.layers\.\d+\.style\.(weight|bias)")


def resize_parameter(
    name: str, old: Tensor, new: Tensor, before: StyleGAN1Config, after: StyleGAN1Config
) -> Tensor:
    """Return ``new``, a fresh parameter of ``after``, with the overlap of ``old`` put in.

    Axes that hold several things in a row overlap thing by thing. Weights are stored before
    equalisation, gain/√fan_in: they are rescaled to act as they did.
    """
    result = new.clone()
    scale = 1.0
    if name.endswith(".weight"):
        scale = math.sqrt(math.prod(new.shape[1:]) / math.prod(old.shape[1:]))
    axes = [
        list(_overlaps(given, wanted))
        for given, wanted in zip(_parts(name, old, before), _parts(name, new, after), strict=True)
    ]
    for place in itertools.product(*axes):
        source = tuple(pair[0] for pair in place)
        target = tuple(pair[1] for pair in place)
        result[target] = old[source] * scale
    return result


def _overlaps(old: list[int], new: list[int]) -> list[tuple[slice, slice]]:
    """Return for every thing along an axis where its overlap lies in the old and the new one."""
    pairs = []
    start = begin = 0
    for given, wanted in itertools.zip_longest(old, new, fillvalue=0):
        both = min(given, wanted)
        pairs.append((slice(start, start + both), slice(begin, begin + both)))
        start, begin = start + given, begin + wanted
    return pairs


def _parts(name: str, tensor: Tensor, config: StyleGAN1Config) -> list[list[int]]:
    """Return the lengths of the things that lie in a row along every axis of a parameter."""
    parts = [[size] for size in tensor.shape]
    if _STYLE.fullmatch(name):  # scales, then shifts
        parts[0] = [tensor.shape[0] // 2] * 2
    if name == "head.conv.weight":  # features, then the minibatch deviation
        features = config.fmaps(1)
        parts[1] = [features, tensor.shape[1] - features]
    takes_z = name == "mapping.layers.0.weight"
    takes_w = name.endswith((".style.weight", ".dense.weight"))
    if takes_z or (takes_w and not config.mapping_layers):  # z, then the label
        parts[1] = [config.z_dim, tensor.shape[1] - config.z_dim]
    if name == "mapping.w_avg" and not config.mapping_layers:
        parts[0] = [config.z_dim, tensor.shape[0] - config.z_dim]
    return parts

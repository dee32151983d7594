"""Networks with classes for data without, without for data with, and for another number of them.

What labels add is zero at first: right after adding them every class draws what the network drew
before. What labels said is averaged over the classes when they go.
"""

import math

import torch
from torch import Tensor

from stylecli.networks.config import StyleGAN1Config
from stylecli.networks.layers import SQRT2

EMBEDDING = "mapping.label_embedding"
FIRST = "mapping.layers.0"
W_AVG = "mapping.w_avg"
LOGITS = "head.dense1"


def relabel_generator(
    tensors: dict[str, Tensor], config: StyleGAN1Config, classes: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the tensors of a generator of ``config`` for another number of classes.

    Labels reach the layers behind the normalisation of (z, label): mapping layer 0, else every
    layer that takes w. There a weight w acts as w·gain/√(z_dim + e), where e is the mean squared
    length of the label part; keeping that product keeps the picture. New labels begin with an
    embedding of zeros (e = 0), or with zero weights for one-hot labels (e = 1).
    """
    if config.label_dim and classes:
        return _recount(tensors, config, classes)
    if config.label_dim:
        return _drop(tensors, config)
    return _add(tensors, config, classes, generator)


def relabel_discriminator(
    tensors: dict[str, Tensor], config: StyleGAN1Config, classes: int
) -> dict[str, Tensor]:
    """Return the tensors of a discriminator of ``config`` for another number of classes.

    With one output per class, a new class gets the mean of the outputs that were there, and
    without classes the mean stays. Class logits of the original Progressive GAN begin at zero.
    """
    if config.D_label_mode == "ignore":
        return tensors
    changed = dict(tensors)
    first = 1 if config.D_label_mode == "auxiliary" else 0
    for name in (f"{LOGITS}.weight", f"{LOGITS}.bias"):
        rows = tensors[name]
        score, logits = rows[:first], rows[first:]
        if first:
            new = logits.new_zeros(max(classes - len(logits), 0), *logits.shape[1:])
            changed[name] = torch.cat([score, logits[:classes], new])
        elif classes and config.label_dim:
            changed[name] = _counted(logits, classes)
        else:
            changed[name] = _mean(logits).expand(max(classes, 1), *logits.shape[1:])
    return changed


def _drop(tensors: dict[str, Tensor], config: StyleGAN1Config) -> dict[str, Tensor]:
    changed = dict(tensors)
    embedding = changed.pop(EMBEDDING, None)
    mean, length = _label_part(embedding, config)  # [label width], e
    z = config.z_dim
    for layer, gain in _takers(tensors, config):
        weight = tensors[f"{layer}.weight"]
        changed[f"{layer}.weight"] = weight[:, :z] * math.sqrt(z / (z + length))
        if f"{layer}.bias" in tensors:
            shift = weight[:, z:] @ mean * (gain / math.sqrt(z + length))
            changed[f"{layer}.bias"] = tensors[f"{layer}.bias"] + shift
    if not config.mapping_layers:
        width = len(tensors[W_AVG])
        changed[W_AVG] = tensors[W_AVG][:z] * math.sqrt((z + length) / width)
    return changed


def _add(
    tensors: dict[str, Tensor], config: StyleGAN1Config, classes: int, generator: torch.Generator
) -> dict[str, Tensor]:
    changed = dict(tensors)
    z = config.z_dim
    embeds = config.label_mode == "embed"
    width, length = (z, 0.0) if embeds else (classes, 1.0)
    if embeds:
        changed[EMBEDDING] = torch.zeros(classes, z)
    for layer, _ in _takers(tensors, config):
        weight = tensors[f"{layer}.weight"]
        new = torch.zeros(len(weight), width)
        if embeds:  # with zeros on both sides nothing would ever learn
            lrmul = config.mapping_lrmul if layer == FIRST else 1.0
            new = torch.randn(new.shape, generator=generator) / lrmul
        kept = weight * math.sqrt((z + length) / z) if length else weight
        changed[f"{layer}.weight"] = torch.cat([kept, new], dim=1)
    if not config.mapping_layers:
        kept = tensors[W_AVG] * math.sqrt((z + width) / (z + length))
        changed[W_AVG] = torch.cat([kept, torch.zeros(width)])
    return changed


def _recount(
    tensors: dict[str, Tensor], config: StyleGAN1Config, classes: int
) -> dict[str, Tensor]:
    """Keep classes by number; a new one begins as the mean of all."""
    changed = dict(tensors)
    if EMBEDDING in tensors:
        changed[EMBEDDING] = _counted(tensors[EMBEDDING], classes)
        return changed
    z = config.z_dim
    for layer, _ in _takers(tensors, config):
        weight = tensors[f"{layer}.weight"]
        labels = _counted(weight[:, z:].T, classes).T
        changed[f"{layer}.weight"] = torch.cat([weight[:, :z], labels], dim=1)
    if not config.mapping_layers:
        kept = tensors[W_AVG] * math.sqrt((z + classes) / (z + config.label_dim))
        changed[W_AVG] = torch.cat([kept[:z], _counted(kept[z:, None], classes)[:, 0]])
    return changed


def _takers(tensors: dict[str, Tensor], config: StyleGAN1Config) -> list[tuple[str, float]]:
    """Return the dense layers that take (z, label), each with its gain."""
    if config.mapping_layers:
        return [(FIRST, SQRT2)]
    ends = {".style.weight": 1.0, ".dense.weight": SQRT2 / 4}
    return [
        (name.removesuffix(".weight"), gain)
        for name in tensors
        for end, gain in ends.items()
        if name.endswith(end)
    ]


def _label_part(embedding: Tensor | None, config: StyleGAN1Config) -> tuple[Tensor, float]:
    """Return the mean label part of (z, label) and its mean squared length."""
    if embedding is None:
        return torch.full((config.label_dim,), 1 / config.label_dim), 1.0
    return embedding.mean(dim=0), float(embedding.square().sum(dim=1).mean())


def _counted(rows: Tensor, count: int) -> Tensor:
    """Return ``count`` rows: the first ones, and the mean of all for what is missing."""
    missing = max(count - len(rows), 0)
    return torch.cat([rows[:count], _mean(rows).expand(missing, *rows.shape[1:])])


def _mean(rows: Tensor) -> Tensor:
    return rows if len(rows) == 1 else rows.mean(dim=0, keepdim=True)

"""Networks that start from another network's weights, in another size, colour or with classes.

Layers are numbered from 4 px up in every network, so a larger one has the same first layers, and
at the source's resolution it draws what the source draws.
"""

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylecli.errors import UsageError
from stylecli.networks.config import NetworkConfig
from stylecli.networks.layers import SQRT2
from stylecli.networks.model import Bundle, new_network
from stylecli.networks.stylegan1_config import StyleGAN1Config
from stylecli.shapes import Size

Outcome = Literal["taken over", "resized", "in part", "initialised", "left out"]
Outcomes = dict[str, dict[str, Outcome]]  # network name -> parameter name -> outcome
# Fields that change no weight: settings of training and drawing.
FREE_FIELDS = ("preset", "style_mixing_prob", "truncation_psi", "truncation_cutoff", "w_avg_beta")
GREY, RGB, RGBA = 1, 3, 4
# ITU-R 601 luma, which packing to grey uses too.
_LUMA = (0.299, 0.587, 0.114)
OPAQUE = 1.0  # alpha of an opaque picture: 255 in [-1, 1]
# Parameters that labels reach, by what they are.
EMBEDDING = "mapping.label_embedding"
FIRST = "mapping.layers.0"
W_AVG = "mapping.w_avg"
LOGITS = "head.dense1"
_STYLE = re.compile(r"synthesis\.layers\.\d+\.style\.(weight|bias)")
# Parameters that have a place in the picture.
_NOISE = re.compile(r"\bnoise_const$")
_CONSTANT = re.compile(r"\b(const|basis)$")
_FROM_GRID = re.compile(r"head\.dense0\.weight|b4\.fc\.weight")
_TO_GRID = re.compile(r"synthesis\.layers\.0\.dense\.weight")


@dataclass(frozen=True)
class Transfer:
    """Networks ready to train, and what became of every parameter."""

    bundle: Bundle
    outcomes: Outcomes


def same_architecture(one: NetworkConfig, other: NetworkConfig) -> bool:
    """Whether the weights of one network fit the other as they are."""
    if one.family != other.family:
        return False
    names = {field.name for field in fields(one)} & set(FREE_FIELDS)
    return replace(one, **{name: getattr(other, name) for name in names}) == other


def grown_resolution(net: Bundle) -> int:
    """Return the side in pixels up to which a network is trained and faded in."""
    lod = net.generator.lod
    return net.config.resolution >> -int(-lod // 1)


def transfer_networks(source: Bundle, config: NetworkConfig, *, seed: int) -> Transfer:
    """Return networks of ``config`` with all weights of ``source`` that fit or can be made to.

    Between networks of StyleGAN's own layers much can be made to fit, in other families only equal
    shapes do. Raises UsageError for a source of another family.

    What is new is initialised as ``new_network`` does with ``seed``, equally in G and G_ema. A
    generator that the source lacks is its other one. The networks' lod is where the source's are
    trained: new resolutions are still to grow.
    """
    if source.config.family != config.family:
        raise UsageError(
            f"the source is a {source.config.family} network and configuration {config.preset!r} "
            f"is {config.family}: weights fit only networks of the same family: give a --config "
            f"of that family"
        )
    values = config.to_dict()
    values.pop("family")
    fresh = new_network(values.pop("preset"), seed=seed, **values)
    fresh.info = {**source.info}
    outcomes: Outcomes = {}
    given = {
        "G": source.G or source.G_ema, "D": source.D, "G_ema": source.G_ema or source.G
    }  # fmt: skip
    lod = max(config.resolution.bit_length() - grown_resolution(source).bit_length(), 0)
    lod = lod if config.grows else 0
    for name, network in given.items():
        target = getattr(fresh, name)
        outcomes[name] = _fill(target, network, source.config, config, seed)
        target.lod = float(lod)
    return Transfer(fresh, outcomes)


def _fill(
    target: nn.Module,
    network: nn.Module | None,
    before: NetworkConfig,
    after: NetworkConfig,
    seed: int,
) -> dict[str, Outcome]:
    """Put a network's weights into a fresh one; return what became of each parameter."""
    state = target.state_dict()
    if network is None:
        return dict.fromkeys(state, "initialised")
    given: Mapping[str, Tensor] = {
        name: tensor.detach().float() for name, tensor in network.state_dict().items()
    }
    given = _numbered_alike(given, state)
    adapted, resized = reshape_tensors(given, before, after), None
    if isinstance(before, StyleGAN1Config) and isinstance(after, StyleGAN1Config):
        adapted, now = _adapt(adapted, before, after, seed)
        resized = partial(resize_parameter, before=now, after=after)
    filled: dict[str, Tensor] = {}
    outcomes: dict[str, Outcome] = {}
    for name, fresh in state.items():
        if name not in adapted or (resized is None and adapted[name].shape != fresh.shape):
            filled[name], outcomes[name] = fresh, "initialised"
            continue
        tensor = adapted[name]
        if resized is not None and tensor.shape != fresh.shape:
            tensor = resized(name, tensor, fresh)
        filled[name] = tensor
        unchanged = name in given and tensor is given[name]
        outcomes[name] = "taken over" if unchanged else "resized"
        if name not in given:  # a label embedding of zeros
            outcomes[name] = "initialised"
    target.load_state_dict(filled)
    return outcomes | {name: "left out" for name in given if name not in state}


def _numbered_alike(given: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a source's tensors by the names of the target's layers of the same number.

    StyleGAN3 has the size of a layer in its name (``L3_52_512``), and other sizes at another
    resolution.
    """
    numbers = {match[0]: name.split(".")[1] for name in state
               if (match := re.match(r"synthesis\.L\d+(?=_)", name))}  # fmt: skip
    named = {}
    for name, tensor in given.items():
        match = re.match(r"synthesis\.L\d+(?=_)", name)
        if match and match[0] in numbers:
            name = ".".join(["synthesis", numbers[match[0]], *name.split(".")[2:]])
        named[name] = tensor
    return named


def reshape_tensors(
    tensors: Mapping[str, Tensor], before: NetworkConfig, after: NetworkConfig
) -> dict[str, Tensor]:
    """Return a network's tensors for pictures of another shape, at the same levels.

    What has a place in the picture is interpolated: constants, stored noise (which keeps its
    deviation), and the dense layers before and behind the grid, which are rescaled to add up to
    the same over more or fewer pixels.
    """
    found = dict(tensors)
    if before.grid == after.grid:
        return found
    old, new = before.size_at(4), after.size_at(4)
    ratio = old.pixels / new.pixels
    for name, tensor in tensors.items():
        if _NOISE.search(name):
            side = next(
                side for side in (1 << r for r in range(2, before.resolution_log2 + 1))
                if tuple(before.size_at(side)) == tuple(tensor.shape[-2:])
            )  # fmt: skip
            moved = _interpolated(tensor, after.size_at(side))
            spread = moved.std()  # none in a network that was stored with constant noise
            found[name] = moved * (tensor.std() / spread) if spread > 0 else moved
        elif _CONSTANT.search(name):
            found[name] = _interpolated(tensor, new)
            if name == "head.basis":  # a weighted sum of each map
                found[name] = found[name] * ratio
        elif _FROM_GRID.fullmatch(name):  # [out, C·h·w], equalised by √(C·h·w)
            planes = tensor.view(len(tensor), -1, *old)
            found[name] = (_interpolated(planes, new) * math.sqrt(ratio)).flatten(1)
        elif _TO_GRID.fullmatch(name):  # [C·h·w, w], gained by 1/√(h·w)
            planes = tensor.view(-1, *old, tensor.shape[1]).permute(0, 3, 1, 2)
            planes = _interpolated(planes, new) / math.sqrt(ratio)
            found[name] = planes.permute(0, 2, 3, 1).flatten(0, 2)
    return found


def _interpolated(planes: Tensor, size: Size) -> Tensor:
    """Return [..., h, w] at another size, bilinearly; downwards every pixel counts."""
    flat = planes.reshape(1, -1, *planes.shape[-2:])
    moved = F.interpolate(flat, tuple(size), mode="bilinear", antialias=True)
    return moved.reshape(*planes.shape[:-2], *size)


def _adapt(
    tensors: dict[str, Tensor], before: StyleGAN1Config, after: StyleGAN1Config, seed: int
) -> tuple[dict[str, Tensor], StyleGAN1Config]:
    """Change labels and colours of a network's tensors; return them and their configuration."""
    is_generator = any(name.startswith("mapping.") for name in tensors)
    if before.label_dim != after.label_dim:
        if is_generator:
            generator = torch.Generator().manual_seed(seed)
            tensors = relabel_generator(tensors, before, after.label_dim, generator)
        else:
            tensors = relabel_discriminator(tensors, before, after.label_dim)
    if before.channels != after.channels:
        change = change_colours(before.channels, after.channels)
        recolour = recolour_generator if is_generator else recolour_discriminator
        tensors = recolour(tensors, change)
    return tensors, replace(before, label_dim=after.label_dim, channels=after.channels)


@dataclass(frozen=True)
class ColourChange:
    """How pictures of a new kind (grey, RGB, RGBA) and an old one follow from each other.

    A picture x of the new kind and a picture y of the old one are affine functions of each other
    per pixel: x = M y + o (drawing), y = N x + p (seeing). ToRGB of a generator takes on the first,
    so that it draws the same in the new kind; FromRGB of a discriminator the second, so that it
    sees the same.
    """

    draw: Tensor  # M [new, old]
    draw_offset: Tensor  # o [new]
    see: Tensor  # N [old, new]
    see_offset: Tensor  # p [old]

    def then(self, other: "ColourChange") -> "ColourChange":
        """Return this change followed by another."""
        return ColourChange(
            other.draw @ self.draw,
            other.draw @ self.draw_offset + other.draw_offset,
            self.see @ other.see,
            self.see @ other.see_offset + self.see_offset,
        )


def change_colours(old: int, new: int) -> ColourChange:
    """Return the change from ``old`` to ``new`` channels, each 1, 3 or 4.

    Grey is drawn as equal R, G and B, and seen in RGB as their mean; RGB is drawn in grey as luma.
    Alpha is drawn opaque where it is new and assumed opaque where it goes.
    """
    return _to_rgb(old).then(_from_rgb(new))


def recolour_generator(tensors: dict[str, Tensor], change: ColourChange) -> dict[str, Tensor]:
    """Return a generator's tensors with every ToRGB drawing pictures of the new kind."""
    changed = dict(tensors)
    for name, tensor in tensors.items():
        if name.startswith("synthesis.to_rgb."):
            if name.endswith(".weight"):  # [C, nf, 1, 1]
                changed[name] = torch.einsum("xy,yfhw->xfhw", change.draw, tensor)
            else:
                changed[name] = change.draw @ tensor + change.draw_offset
    return changed


def recolour_discriminator(tensors: dict[str, Tensor], change: ColourChange) -> dict[str, Tensor]:
    """Return a discriminator's tensors with every FromRGB seeing pictures of the new kind.

    Its weights are stored before equalisation, gain/√C: the gain √2 is that of the network.
    """
    changed = dict(tensors)
    old, new = change.see.shape
    for name, tensor in tensors.items():
        if name.startswith("from_rgb.") and name.endswith(".weight"):  # [nf, C, 1, 1]
            changed[name] = torch.einsum("fyhw,yx->fxhw", tensor, change.see) * (new / old) ** 0.5
            bias = name.replace(".weight", ".bias")
            effective = tensor[:, :, 0, 0] * (2 / old) ** 0.5
            changed[bias] = tensors[bias] + effective @ change.see_offset
    return changed


def _to_rgb(channels: int) -> ColourChange:
    if channels == GREY:
        return ColourChange(
            torch.ones(RGB, GREY), torch.zeros(RGB), torch.full((GREY, RGB), 1 / 3),
            torch.zeros(GREY),
        )  # fmt: skip
    if channels == RGBA:
        drop = torch.eye(RGB, RGBA)
        return ColourChange(drop, torch.zeros(RGB), drop.T, torch.tensor([0.0, 0.0, 0.0, OPAQUE]))
    return ColourChange(torch.eye(RGB), torch.zeros(RGB), torch.eye(RGB), torch.zeros(RGB))


def _from_rgb(channels: int) -> ColourChange:
    if channels == GREY:
        return ColourChange(
            torch.tensor([_LUMA]), torch.zeros(GREY), torch.ones(RGB, GREY), torch.zeros(RGB)
        )
    if channels == RGBA:
        add = torch.eye(RGBA, RGB)
        return ColourChange(add, torch.tensor([0.0, 0.0, 0.0, OPAQUE]), add.T, torch.zeros(RGB))
    return _to_rgb(RGB)


def relabel_generator(
    tensors: dict[str, Tensor], config: StyleGAN1Config, classes: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the tensors of a generator of ``config`` for another number of classes, also 0.

    What labels add is zero at first: right after adding them every class draws what the network
    drew before. What labels said is averaged over the classes when they go.

    Labels reach the layers behind the normalisation of (z, label): mapping layer 0, else every
    layer that takes w. There a weight w acts as w·gain/√(z_dim + e), where e is the mean squared
    length of the label part; keeping that product keeps the picture. New labels start with an
    embedding of zeros (e = 0), or with zero weights for one-hot labels (e = 1).
    """
    if config.label_dim and classes:
        return _recount_labels(tensors, config, classes)
    if config.label_dim:
        return _drop_labels(tensors, config)
    return _add_labels(tensors, config, classes, generator)


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
            changed[name] = _mean_row(logits).expand(max(classes, 1), *logits.shape[1:])
    return changed


def _drop_labels(tensors: dict[str, Tensor], config: StyleGAN1Config) -> dict[str, Tensor]:
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


def _add_labels(
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


def _recount_labels(
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
    return torch.cat([rows[:count], _mean_row(rows).expand(missing, *rows.shape[1:])])


def _mean_row(rows: Tensor) -> Tensor:
    return rows if len(rows) == 1 else rows.mean(dim=0, keepdim=True)


def resize_parameter(
    name: str, old: Tensor, new: Tensor, before: StyleGAN1Config, after: StyleGAN1Config
) -> Tensor:
    """Return ``new``, a fresh parameter of ``after``, with the overlap of ``old`` put in.

    What overlaps is taken over, the rest stays as initialised.
    Axes that hold several things in a row overlap thing by thing. Weights are stored before
    equalisation, gain/√fan_in: they are rescaled to act as they did.
    """
    result = new.clone()
    scale = 1.0
    if name.endswith(".weight"):
        scale = math.sqrt(math.prod(new.shape[1:]) / math.prod(old.shape[1:]))
    axes = [
        list(_overlaps(given, wanted))
        for given, wanted in zip(
            _axis_parts(name, old, before), _axis_parts(name, new, after), strict=True
        )
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


def _axis_parts(name: str, tensor: Tensor, config: StyleGAN1Config) -> list[list[int]]:
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

"""Networks that begin with another network's weights, in another size, colour or with classes.

Layers are numbered from 4 px up in every network, so a larger one has the same first layers, and
at the source's resolution it draws what the source draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from stylecli.networks.bundle import Bundle, new_network
from stylecli.networks.config import StyleGAN1Config
from stylecli.training.colour_change import (
    change_colours,
    recolour_discriminator,
    recolour_generator,
)
from stylecli.training.label_change import relabel_discriminator, relabel_generator
from stylecli.training.width_change import resize_parameter

Outcome = Literal["taken over", "resized", "initialised", "left out"]
Outcomes = dict[str, dict[str, Outcome]]  # network name -> parameter name -> outcome
# Fields that change no weight: settings of training and drawing.
FREE_FIELDS = ("preset", "style_mixing_prob", "truncation_psi", "truncation_cutoff", "w_avg_beta")


@dataclass(frozen=True)
class Transfer:
    """Networks ready to train, and what became of every parameter."""

    bundle: Bundle
    outcomes: Outcomes


def same_architecture(one: StyleGAN1Config, other: StyleGAN1Config) -> bool:
    """Whether the weights of one network fit the other as they are."""
    free = {name: getattr(other, name) for name in FREE_FIELDS}
    return replace(one, **free) == other


def grown_resolution(net: Bundle) -> int:
    """Return the side in pixels up to which a network is trained and faded in."""
    lod = net.generator.lod
    return net.config.resolution >> -int(-lod // 1)


def transfer_networks(source: Bundle, config: StyleGAN1Config, *, seed: int) -> Transfer:
    """Return networks of ``config`` with all weights of ``source`` that fit or can be made to.

    What is new is initialised as ``new_network`` does with ``seed``, equally in G and G_ema. A
    generator that the source lacks is its other one. The networks' lod is where the source's are
    trained: new resolutions are still to grow.
    """
    values = config.to_dict()
    values.pop("family")
    fresh = new_network(values.pop("preset"), seed=seed, **values)
    fresh.info = {**source.info}
    outcomes: Outcomes = {}
    given = {
        "G": source.G or source.G_ema, "D": source.D, "G_ema": source.G_ema or source.G
    }  # fmt: skip
    lod = max(config.resolution.bit_length() - grown_resolution(source).bit_length(), 0)
    for name, network in given.items():
        target = getattr(fresh, name)
        outcomes[name] = _fill(target, network, source.config, config, seed)
        target.lod = float(lod)
    return Transfer(fresh, outcomes)


def _fill(
    target: nn.Module,
    network: nn.Module | None,
    before: StyleGAN1Config,
    after: StyleGAN1Config,
    seed: int,
) -> dict[str, Outcome]:
    """Put a network's weights into a fresh one; return what became of each parameter."""
    state = target.state_dict()
    if network is None:
        return dict.fromkeys(state, "initialised")
    given: Mapping[str, Tensor] = {
        name: tensor.detach().float() for name, tensor in network.state_dict().items()
    }
    adapted, now = _adapt(dict(given), before, after, seed)
    filled: dict[str, Tensor] = {}
    outcomes: dict[str, Outcome] = {}
    for name, fresh in state.items():
        if name not in adapted:
            filled[name], outcomes[name] = fresh, "initialised"
            continue
        tensor = adapted[name]
        if tensor.shape != fresh.shape:
            tensor = resize_parameter(name, tensor, fresh, now, after)
        filled[name] = tensor
        unchanged = name in given and tensor is given[name]
        outcomes[name] = "taken over" if unchanged else "resized"
        if name not in given:  # a label embedding of zeros
            outcomes[name] = "initialised"
    target.load_state_dict(filled)
    return outcomes | {name: "left out" for name in given if name not in state}


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

"""Which families of networks there are, and which configuration belongs to which.

A row is one family; everything that must know a family by name asks here. Standard library only:
networks are named as ``module:Class`` and loaded when the first one is built.
"""

import copy
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stylecli.errors import UsageError, unknown_name
from stylecli.networks.config import NetworkConfig
from stylecli.networks.lucidrains_config import LucidrainsConfig
from stylecli.networks.r3gan_config import R3GANConfig
from stylecli.networks.stylegan1_config import StyleGAN1Config
from stylecli.networks.stylegan2_config import StyleGAN2Config
from stylecli.networks.stylegan3_config import StyleGAN3Config

if TYPE_CHECKING:
    import torch

    from stylecli.networks.model import Discriminator, Generator, SynthesisNetwork


@dataclass(frozen=True)
class Family:
    """A row of the registry."""

    config: type[NetworkConfig]
    generator: str  # module:Class, called with a configuration
    discriminator: str
    frozen: str | None = None  # a quicker synthesis on a CPU, called with (synthesis, dtype)


FAMILIES: dict[str, Family] = {
    "stylegan1": Family(
        config=StyleGAN1Config,
        generator="stylecli.networks.stylegan1:Generator",
        discriminator="stylecli.networks.stylegan1:Discriminator",
        frozen="stylecli.networks.frozen:FrozenSynthesis",
    ),
    "stylegan2": Family(
        config=StyleGAN2Config,
        generator="stylecli.networks.stylegan2:Generator",
        discriminator="stylecli.networks.stylegan2:Discriminator",
        frozen="stylecli.networks.frozen:FrozenStyleGAN2",
    ),
    "stylegan3": Family(
        config=StyleGAN3Config,
        generator="stylecli.networks.stylegan3:Generator",
        discriminator="stylecli.networks.stylegan2:Discriminator",
        frozen="stylecli.networks.frozen:FrozenStyleGAN3",
    ),
    "r3gan": Family(
        config=R3GANConfig,
        generator="stylecli.networks.r3gan:Generator",
        discriminator="stylecli.networks.r3gan:Discriminator",
    ),
    "lucidrains": Family(
        config=LucidrainsConfig,
        generator="stylecli.networks.lucidrains:Generator",
        discriminator="stylecli.networks.lucidrains:Discriminator",
    ),
}

USUAL_CONFIG = "f"  # what is trained when nothing is asked for


def list_presets(*, trainable: bool | None = None) -> list[str]:
    """Return the words that name a configuration: all, or those that are trained here, or not."""
    return [
        name
        for family in FAMILIES.values()
        if trainable in (None, family.config.trainable)
        for name in family.config.presets
    ]


def require_trainable(config: NetworkConfig) -> None:
    """Raise UsageError for a network that is drawn and measured only."""
    if not config.trainable:
        raise UsageError(
            f"networks of configuration {config.preset!r} are drawn and measured, but not trained "
            "here: give another --config, such as stylegan2"
        )


def make_config(name: str, **overrides: Any) -> NetworkConfig:
    """Return the named configuration with fields replaced; raise UsageError for unknown names."""
    for family in FAMILIES.values():
        if name.lower() in family.config.presets:
            return family.config.named(name, **overrides)
    raise UsageError(unknown_name("configuration", name, list_presets()))


def config_from_dict(values: Mapping[str, Any]) -> NetworkConfig:
    """Rebuild a configuration written by ``to_dict``; raise UsageError when it is not one."""
    values = dict(values)
    name = values.pop("family", None)
    family = FAMILIES.get(name) if isinstance(name, str) else None
    if family is None:
        raise UsageError(
            f"unknown network family {name!r}: this version knows {', '.join(FAMILIES)}"
        )
    family.config.check_types(values)
    return family.config(**values)


def build_generator(config: NetworkConfig) -> "Generator":
    """Return a freshly initialised generator."""
    generator: Generator = _load(FAMILIES[config.family].generator)(config)
    return generator


def build_discriminator(config: NetworkConfig) -> "Discriminator":
    """Return a freshly initialised discriminator."""
    discriminator: Discriminator = _load(FAMILIES[config.family].discriminator)(config)
    return discriminator


def freeze_synthesis(G: "Generator", dtype: "torch.dtype") -> "SynthesisNetwork":
    """Return a copy of a generator's synthesis for drawing on a CPU, the quickest that there is.

    ``dtype`` bfloat16 computes the large layers in it where the family's copy can.
    """
    name = FAMILIES[G.config.family].frozen
    synthesis: SynthesisNetwork
    synthesis = copy.deepcopy(G.synthesis) if name is None else _load(name)(G.synthesis, dtype)
    return synthesis


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)

"""The trio that everything passes around: G_ema, G, D and their configuration."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch

from stylecli.networks.config import NetworkConfig
from stylecli.networks.model import Discriminator, Generator
from stylecli.networks.registry import build_discriminator, build_generator, make_config


@dataclass
class Bundle:
    """Networks and what is known of them. Networks the source did not have are None."""

    config: NetworkConfig
    G_ema: Generator | None = None  # the averaged generator: what pictures are made with
    G: Generator | None = None
    D: Discriminator | None = None
    info: dict[str, Any] = field(default_factory=dict)  # provenance: kimg, data digest, licence

    @property
    def generator(self) -> Generator:
        """The generator that makes pictures: G_ema, else G."""
        generator = self.G_ema if self.G_ema is not None else self.G
        if generator is None:
            from stylecli.errors import NetworkError

            raise NetworkError("this network file holds no generator: give another --network")
        return generator


def new_network(preset: str = "f", *, seed: int = 0, **fields: Any) -> Bundle:
    """Make freshly initialised networks of a configuration: ``a`` to ``f``, ``traditional-8``, ...

    ``fields`` replace fields of its family: resolution, channels, z_dim, w_dim, label_dim,
    mapping_layers, mapping_fmaps, fmap_base, fmap_max, fused_scale, mbstd_group_size, ... The same
    seed gives the same weights; the global random state is left alone. G_ema is an equal copy of
    G; all are in eval mode, on the CPU, in float32. Raises UsageError for bad names or values.
    """
    config = make_config(preset, **fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        G = build_generator(config)
        D = build_discriminator(config)
    G_ema = copy.deepcopy(G)
    for network in (G, D, G_ema):
        network.eval()
    return Bundle(config, G_ema=G_ema, G=G, D=D, info={"seed": seed})

"""The random numbers of a run: latents, labels, noise, mixing, of each step and purpose.

They are a function of a run's seed, a purpose and the step: nothing carries over, so that
resuming needs no saved random state. Every rank draws the same numbers for the whole batch and
keeps its own, every so-many-th; so a sample means the same whatever the number of ranks and passes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from stylecli.distributed.ranks import Ranks
from stylecli.networks.config import NetworkConfig
from stylecli.training.schedule import Stage


class Purpose(IntEnum):
    """What a stream is for; the values are part of what a seed means."""

    LATENTS = 1
    NOISE = 2
    MIXING = 3
    LABELS = 4
    INTERPOLATES = 5
    AUGMENTATION = 6
    PATHS = 7


def stream_seed(seed: int, purpose: Purpose, step: int) -> int:
    """Return a 63-bit seed that differs for every (seed, purpose, step)."""
    words = np.random.SeedSequence((seed, int(purpose), step)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def seed_after(seed: int, rollbacks: int) -> int:
    """Return the seed that streams and data order follow after so many rollbacks.

    A run that went wrong and is rolled back would otherwise go wrong again in the same way.
    """
    return seed + (rollbacks << 32)


class Streams:
    """One torch generator on the device, re-seeded for every draw."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed, self.device = seed, device
        self._generator = torch.Generator(device)

    def at(self, purpose: Purpose, step: int) -> torch.Generator:
        """Return the generator of a purpose at a step; valid until the next call."""
        return self._generator.manual_seed(stream_seed(self.seed, purpose, step))


_STREAMS_PER_POSITION = 64  # more than a network has layers


@dataclass(frozen=True)
class Draws:
    """The latents, labels and noise of n fakes."""

    z: Tensor  # [n, z_dim]
    second_z: Tensor | None  # [n, z_dim] where styles are mixed
    crossover: int | Tensor  # the first layer that takes the second latent
    noise: list[Tensor | None] | None  # [n, 1, h, w] per layer, None above the current resolution
    labels: Tensor | None  # [n, label_dim]
    path_noise: Tensor | None = None  # [n, C, H, W], for path lengths alone

    def part(self, index: int, count: int) -> "Draws":
        """Return every ``count``-th sample from number ``index`` on."""
        if count == 1:
            return self
        noise = self.noise and [None if map is None else map[index::count] for map in self.noise]
        return Draws(
            self.z[index::count],
            None if self.second_z is None else self.second_z[index::count],
            self.crossover,
            noise,
            None if self.labels is None else self.labels[index::count],
            None if self.path_noise is None else self.path_noise[index::count],
        )

    def first_half(self) -> "Draws":
        """Return the first half of the samples, at least one."""
        count = max(1, len(self.z) // 2)
        noise = self.noise and [None if map is None else map[:count] for map in self.noise]
        second, labels, paths = (
            None if whole is None else whole[:count]
            for whole in (self.second_z, self.labels, self.path_noise)
        )
        return Draws(self.z[:count], second, self.crossover, noise, labels, paths)


@dataclass
class HeldDraws:
    """Where random numbers stay in memory for a captured update, which reads them there.

    They are the same numbers as without it: drawn beforehand, in the order in which an update asks.
    """

    fakes: dict[tuple[Purpose, int], Tensor] = field(default_factory=dict)
    # by what they are for, each (how it is drawn, the numbers)
    streams: dict[tuple[Purpose, str], list[tuple[str, Tensor]]] = field(default_factory=dict)

    def draw_again(self, streams: "Streams", position: Callable[[str], int]) -> None:
        """Draw what the update asked for, for the step whose positions these are."""
        for key, asked in self.streams.items():
            generator = streams.at(key[0], position(key[1]))
            for how, numbers in asked:
                getattr(numbers, how)(generator=generator)


class DrawSource:
    """Draws from the streams of a run."""

    def __init__(
        self, config: NetworkConfig, streams: Streams, ranks: Ranks, label_table: Tensor | None
    ) -> None:
        """``label_table`` [N, label_dim] holds the dataset's labels, which G draws from."""
        self.config, self.streams, self.ranks = config, streams, ranks
        self.label_table = label_table

    def fakes(
        self,
        stage: Stage,
        position: int,
        noise_shapes: list[tuple[int, int, int, int]],
        labels: Tensor | None = None,
        *,
        path_noise: bool = False,
        into: dict[tuple[Purpose, int], Tensor] | None = None,
    ) -> Draws:
        """Draw this rank's share of a batch of fakes; without ``labels`` also draw those.

        ``position`` counts the batches of fakes of a run. ``path_noise`` also draws what path
        lengths are measured along. ``into`` is the memory that numbers are drawn into, as far as
        it has some. Then the crossover is a number there, too, and there are always two latents.
        """
        config = self.config
        if config.label_dim and labels is None:
            labels = self._labels(stage.batch, position, into)
        latents = (stage.batch, config.z_dim)
        active = config.layers_at(stage.level)
        styles = config.num_ws - (config.num_layers - active)  # in use
        crossover: int | Tensor = styles
        second_z = None
        if config.has_w and config.style_mixing_prob:
            first = crossover = self._crossover(styles, position)
            if first < styles:
                second_z = self._normal(latents, Purpose.LATENTS, position, 1, into)
            if into is not None:
                crossover, second_z = self._held_mixing(first, latents, into)
        noise: list[Tensor | None] | None = None
        if config.has_noise:
            noise = [
                self._normal((stage.batch, *shape[1:]), Purpose.NOISE, position, index, into)
                if index < active
                else None
                for index, shape in enumerate(noise_shapes)
            ]
        z = self._normal(latents, Purpose.LATENTS, position, 0, into)
        along = None
        if path_noise:
            picture = (stage.batch, config.channels, *config.size_at(stage.resolution))
            along = self._normal(picture, Purpose.PATHS, position, 0, into)
        return Draws(z, second_z, crossover, noise, labels, along)

    def _normal(
        self,
        shape: tuple[int, ...],
        purpose: Purpose,
        position: int,
        index: int,
        into: dict[tuple[Purpose, int], Tensor] | None,
    ) -> Tensor:
        generator = self.streams.at(purpose, position * _STREAMS_PER_POSITION + index)
        if into is not None and (purpose, index) in into:
            whole = into[purpose, index].normal_(generator=generator)
        else:
            whole = torch.randn(shape, generator=generator, device=self.streams.device)
        if into is None:
            return self._mine(whole)
        into[purpose, index] = whole
        return whole[self.ranks.rank :: self.ranks.count]

    def _held_mixing(
        self, first: int, latents: tuple[int, int], into: dict[tuple[Purpose, int], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the crossover and the second latents in memory, whether styles are mixed or not.

        Where they are not, the first latents are those of all layers.
        """
        device = self.streams.device
        if (Purpose.MIXING, 0) not in into:
            into[Purpose.MIXING, 0] = torch.zeros((), dtype=torch.int64, device=device)
        if (Purpose.LATENTS, 1) not in into:
            into[Purpose.LATENTS, 1] = torch.zeros(latents, device=device)
        second = into[Purpose.LATENTS, 1][self.ranks.rank :: self.ranks.count]
        return into[Purpose.MIXING, 0].fill_(first), second

    def _mine(self, whole: Tensor) -> Tensor:
        """Return this rank's samples, and let go of the others'."""
        if self.ranks.count == 1:
            return whole
        return whole[self.ranks.rank :: self.ranks.count].clone()

    def _crossover(self, layers: int, position: int) -> int:
        """Return the first layer that takes the second latent: one draw per batch."""
        generator = torch.Generator().manual_seed(
            self.streams.at(Purpose.MIXING, position).initial_seed()
        )
        chance = float(torch.rand((), generator=generator))
        crossover = int(torch.randint(1, max(layers, 2), (), generator=generator))
        return crossover if chance < self.config.style_mixing_prob else layers

    def _labels(
        self, count: int, position: int, into: dict[tuple[Purpose, int], Tensor] | None
    ) -> Tensor:
        assert self.label_table is not None
        generator = self.streams.at(Purpose.LABELS, position)
        picks = torch.randint(
            len(self.label_table), (count,), generator=generator, device=self.streams.device
        )
        labels = self._mine(self.label_table[picks])
        if into is None:
            return labels
        return into.setdefault((Purpose.LABELS, 0), labels).copy_(labels)

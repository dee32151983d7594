"""Random numbers of a run as a function of its seed, a purpose and the step.

Nothing carries over from step to step, so that resuming needs no saved random state, and every
rank can draw for the whole batch and keep its share.
"""

from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What a stream is for; the values are part of what a seed means."""

    LATENTS = 1
    NOISE = 2
    MIXING = 3
    LABELS = 4
    INTERPOLATES = 5
    DIRECTIONS = 6


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

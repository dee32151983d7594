"""An endless, seeded stream of training batches whose whole state is one number.

The stream is the concatenation of one permutation per epoch. Position p of it holds the same
picture, mirrored or not, whatever the batch size and the number of ranks; a rank takes every
world_size-th position. So a run can stop, continue, and continue with more processes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stylecli.data.reader import Dataset, Pixels
from stylecli.errors import NetworkError, UsageError, plural

HELD_BYTES = 256 << 20  # datasets up to this size, decoded, are held in memory
_CHUNK = 1024  # pictures decoded at a time while a level is being filled


class BatchLoader:
    """Draws batches of a dataset: ``next(batch, level)``; seed and position decide everything."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        mirror: bool = False,
    ) -> None:
        if not 0 <= rank < world_size:
            raise UsageError(
                f"rank {rank} is not one of {plural(world_size, 'process', 'processes')}"
            )
        if seed < 0:
            raise UsageError(f"seed {seed} is negative: give 0 or more")
        self.dataset = dataset
        self.position = 0  # pictures drawn so far by all ranks together
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._mirror = mirror
        self._orders: dict[int, npt.NDArray[np.int64]] = {}  # epoch -> permutation
        self._levels: dict[int, Pixels] = {}  # level -> all pictures, for small datasets

    def next(self, batch: int, level: int = 0) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return this rank's part of the next global batch and move on by the whole of it.

        Pictures are uint8 [batch / world_size, C, R >> level, R >> level]; labels float32, one-hot
        or the stored vectors, [batch / world_size, label_dim], or None when unlabelled. Raises
        UsageError when the batch does not divide by the ranks.
        """
        pixels, mirrored, labels = self.read(self.position, batch, level)
        if mirrored is not None:
            pixels[mirrored] = pixels[mirrored][..., ::-1]
        self.position += batch
        return torch.from_numpy(pixels), labels

    def read(
        self, position: int, batch: int, level: int = 0
    ) -> tuple[Pixels, npt.NDArray[np.bool_] | None, torch.Tensor | None]:
        """Return this rank's part of the batch at a position of the stream, and stay where we are.

        As ``next``, but the pixels are not mirrored yet: which are to be is the second of the three
        [n], None for none.
        """
        if batch < 1 or batch % self._world_size:
            raise UsageError(
                f"batch {batch} does not divide by "
                f"{plural(self._world_size, 'process', 'processes')}: "
                "give a multiple of them"
            )
        positions = np.arange(
            position + self._rank, position + batch, self._world_size, dtype=np.int64
        )
        indices = self._indices(positions)
        mirrored = _coin(self._seed, positions) if self._mirror else None
        return self._read(indices, level), mirrored, self._labels(indices)

    def state_dict(self) -> dict[str, int]:
        """Return what a checkpoint keeps: the position in the stream."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a kept position."""
        position = state.get("position")
        if type(position) is not int or position < 0:
            raise NetworkError(
                f"data position {position!r} of the checkpoint is not a whole number"
            )
        self.position = position

    def _indices(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return which picture stands at each position of the stream."""
        epochs, places = np.divmod(positions, len(self.dataset))
        wanted = range(int(epochs[0]), int(epochs[-1]) + 1)
        self._orders = {epoch: self._order(epoch) for epoch in wanted}
        if len(wanted) == 1:
            return self._orders[wanted[0]][places]
        indices = np.empty_like(positions)
        for epoch in wanted:
            here = epochs == epoch
            indices[here] = self._orders[epoch][places[here]]
        return indices

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch in self._orders:
            return self._orders[epoch]
        return np.random.default_rng([self._seed, epoch]).permutation(len(self.dataset))

    def _read(self, indices: npt.NDArray[np.int64], level: int) -> Pixels:
        """Return the pictures as an array of our own."""
        dataset = self.dataset
        if len(dataset) * dataset.channels * dataset.resolution**2 > HELD_BYTES:
            return dataset.read(indices, level)
        if level not in self._levels:
            chunks = np.array_split(np.arange(len(dataset)), -(-len(dataset) // _CHUNK))
            self._levels[level] = np.concatenate([dataset.read(part, level) for part in chunks])
        return np.take(self._levels[level], indices, axis=0)  # quicker than indexing by a list

    def _labels(self, indices: npt.NDArray[np.int64]) -> torch.Tensor | None:
        labels = self.dataset.labels
        if labels is None:
            return None
        if labels.ndim == 2:
            return torch.from_numpy(labels[indices].astype(np.float32))
        one_hot = torch.zeros(len(indices), self.dataset.label_dim)
        one_hot[torch.arange(len(indices)), torch.from_numpy(labels[indices])] = 1
        return one_hot


def _coin(seed: int, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Toss a coin per position: the top bit of splitmix64, a full-avalanche 64-bit hash."""
    x = positions.astype(np.uint64) + np.uint64(1)
    x = x * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed * 0xD1342543DE82EF95 % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = (x ^ (x >> np.uint64(31))) >> np.uint64(63)
    return x.astype(np.bool_)

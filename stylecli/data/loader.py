"""An endless, seeded stream of training batches whose whole state is one number; read ahead.

The stream is the concatenation of one permutation per epoch. Position p of it holds the same
picture, mirrored or not, whatever the batch size and the number of ranks; a rank takes every
world_size-th position. So a run can stop, continue, and continue with more processes.

On a GPU a thread reads the next batch while the device works: the host queues work and is free
until the device has done it. From pinned memory the batch is copied while the device computes. On
other devices a batch is read when it is asked for, as there is nothing to overlap with.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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

        Pictures are uint8 [batch / world_size, C, H >> level, W >> level]; labels float32, one-hot
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
        if len(dataset) * dataset.channels * dataset.size.pixels > HELD_BYTES:
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


@dataclass
class Batch:
    """A rank's share of a batch, where it was read."""

    images: Tensor  # uint8 [n, C, h, w]
    labels: Tensor | None  # float32 [n, label_dim]
    mirrored: Tensor | None = None  # bool [n]: what is still to be turned; None: nothing
    buffer: "_Buffer | None" = None  # that it lies in


class _Buffer:
    """Pinned memory that a batch is written to, once the device has copied the last one."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}
        self._copied: torch.cuda.Event | None = None

    def take(self, name: str, value: Tensor) -> Tensor:
        """Return a copy of ``value`` in this buffer."""
        held = self._held.get(name)
        if held is None or held.shape != value.shape or held.dtype != value.dtype:
            held = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
            self._held[name] = held
        return held.copy_(value)

    def wait(self) -> None:
        """Wait until the device has copied what is in here; called by the reading thread."""
        if self._copied is not None:
            self._copied.synchronize()

    def mark(self, device: torch.device) -> None:
        """Note that all copies are queued, on the device's current stream."""
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record(torch.cuda.current_stream(device))


class Prefetcher:
    """The batches of a loader for a device; ``loader.position`` counts those handed out."""

    def __init__(self, loader: BatchLoader, device: torch.device) -> None:
        self.loader, self.device = loader, device
        self._thread: ThreadPoolExecutor | None = None
        if device.type == "cuda":
            # Each thread has a current device of its own, at first GPU 0: pinning memory there
            # would take up hundreds of MB of a GPU that this process does not use.
            index = torch.cuda.current_device() if device.index is None else device.index
            self._thread = ThreadPoolExecutor(
                1, "stylecli-loader", initializer=torch.cuda.set_device, initargs=(index,)
            )
        self._buffers = (_Buffer(), _Buffer())
        self._turn = 0
        self._ahead: tuple[tuple[int, int, int], Future[Batch]] | None = None

    def next(self, batch: int, level: int) -> Batch:
        """Return the next batch as ``BatchLoader.next`` has it; begin to read the one after.

        That one is of the same size and level, which is a guess: another is read again when it is
        asked for.
        """
        if self._thread is None:
            images, labels = self.loader.next(batch, level)
            return Batch(images, labels)
        wanted = (self.loader.position, batch, level)
        if self._ahead is None or self._ahead[0] != wanted:
            self._let_go()
            self._ahead = (wanted, self._thread.submit(self._read, *wanted))
        found = self._ahead[1].result()
        self.loader.position += batch
        wanted = (self.loader.position, batch, level)
        self._ahead = (wanted, self._thread.submit(self._read, *wanted))
        return found

    def on_device(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return images and labels of a batch on the device; on a GPU their copying is queued."""
        if batch.buffer is None:
            return batch.images, batch.labels  # a step brings them where it computes
        images, labels, mirrored = (
            None if one is None else one.to(self.device, non_blocking=True)
            for one in (batch.images, batch.labels, batch.mirrored)
        )
        batch.buffer.mark(self.device)
        assert images is not None
        if mirrored is not None:
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
        return images, labels

    def close(self) -> None:
        """End the thread; what it read ahead is forgotten."""
        self._let_go()
        if self._thread is not None:
            self._thread.shutdown()

    def _let_go(self) -> None:
        """Forget what was read ahead, its failure too, when the thread is done with it."""
        if self._ahead is not None:
            with suppress(Exception):
                self._ahead[1].result()
        self._ahead = None

    def _read(self, position: int, batch: int, level: int) -> Batch:
        """Read a batch into pinned memory: in the thread."""
        pixels, mirrored, labels = self.loader.read(position, batch, level)
        self._turn = 1 - self._turn
        buffer = self._buffers[self._turn]
        buffer.wait()
        return Batch(
            buffer.take("images", torch.from_numpy(pixels)),
            None if labels is None else buffer.take("labels", labels),
            None if mirrored is None else buffer.take("mirrored", torch.from_numpy(mirrored)),
            buffer,
        )

"""Batches read ahead by a thread and copied to a GPU from pinned memory, so that neither waits.

On a GPU the host queues work and is free until the device has done it; in that time the next batch
is read. From pinned memory it is copied while the device computes. On other devices a batch is read
when it is asked for, as there is nothing to overlap with.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from stylecli.data.loader import BatchLoader


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
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="stylecli-loader")
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

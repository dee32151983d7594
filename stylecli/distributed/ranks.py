"""Ranks: who am I, add up over all, agree. One process is rank 0 of 1 and needs nothing else.

Numbers that decide travel by gloo in main memory, whatever carries the gradients.
"""

import contextlib
import datetime
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from stylecli.files import parse_json, to_json

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store  # type: ignore[attr-defined]

Result = TypeVar("Result")

# Of single exchanges. Lost and stuck ranks are found by the watch, long before; a limit here would
# only end runs whose main rank is busy by itself, or that were suspended as a whole.
TIMEOUT_DAYS = 30


class Watch(Protocol):
    """What sees to it that nobody waits for a rank that is lost."""

    def exchange(self) -> contextlib.AbstractContextManager[None]:
        """Surround an exchange; raise an error that names the lost rank if one is lost in it."""

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Let the others wait without limit."""

    def explain(self, error: BaseException) -> None:
        """Raise an error that names the lost rank, if one is lost."""


@dataclass(frozen=True)
class Ranks:
    """The processes that train together; a plain ``Ranks()`` is a single one."""

    rank: int = 0
    count: int = 1
    watch: Watch | None = field(default=None, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def mean_(self, tensor: "torch.Tensor") -> None:
        """Replace ``tensor`` by its mean over all ranks."""
        if self.count > 1:
            import torch.distributed as dist

            with self._exchange():
                dist.all_reduce(tensor)
            tensor.div_(self.count)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank."""
        if self.count == 1:
            return flag
        import torch
        import torch.distributed as dist

        value = torch.tensor([int(flag)])
        with self._exchange():
            dist.all_reduce(value)
        return bool(value.item())

    def main_alone(self, function: Callable[[], Result]) -> Result | None:
        """Run ``function`` on rank 0, however long it takes, while the others wait.

        Returns its result on rank 0, None on the others. They end within a minute when rank 0 dies.
        """
        if self.count == 1:
            return function()
        result = None
        if self.is_main:
            with self.watch.alone() if self.watch else contextlib.nullcontext():
                result = function()
        self.any(False)
        return result

    def from_main(self, value: Any = None) -> Any:
        """Return rank 0's ``value`` on every rank: plain JSON."""
        if self.count == 1:
            return value
        import torch
        import torch.distributed as dist

        data = bytearray(to_json(value)) if self.is_main else bytearray()
        size = torch.tensor([len(data)])
        with self._exchange():
            dist.broadcast(size, 0)
        letters = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0).byte()
        letters = letters if self.is_main else torch.empty(int(size.item()), dtype=torch.uint8)
        with self._exchange():
            dist.broadcast(letters, 0)
        return parse_json(bytes(letters.tolist()), "what the main process sent", of=object)

    def _exchange(self) -> contextlib.AbstractContextManager[None]:
        return self.watch.exchange() if self.watch else contextlib.nullcontext()


def join(
    rank: int,
    count: int,
    store: "Store",
    *,
    cuda: bool = False,
    one_machine: bool = True,
    watch: Watch | None = None,
) -> Ranks:
    """Join ``count`` ranks as number ``rank``; they meet at ``store``.

    With ``cuda`` tensors on GPUs travel by NCCL.
    """
    if count == 1:
        return Ranks()
    import torch.distributed as dist

    if one_machine and sys.platform == "linux":
        # Keep the traffic on the loopback interface.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    ranks = Ranks(rank, count, watch)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=store,
            rank=rank,
            world_size=count,
            timeout=datetime.timedelta(days=TIMEOUT_DAYS),
        )
    except RuntimeError as error:
        if watch is not None:
            watch.explain(error)
        raise
    return ranks


def leave(ranks: Ranks) -> None:
    """Leave the group of ``join``."""
    if ranks.count > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()

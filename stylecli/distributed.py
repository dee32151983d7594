"""Ranks: who am I, add up over all, agree. One process is rank 0 of 1 and needs nothing else."""

import datetime
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Ranks:
    """The processes that train together; a plain ``Ranks()`` is a single one."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def mean_(self, tensor: "torch.Tensor") -> None:
        """Replace ``tensor`` by its mean over all ranks."""
        if self.count > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)
            tensor.div_(self.count)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank."""
        if self.count == 1:
            return flag
        import torch
        import torch.distributed as dist

        value = torch.tensor([int(flag)])
        dist.all_reduce(value)
        return bool(value.item())


def join(rank: int, count: int, init_method: str, backend: str = "gloo") -> Ranks:
    """Join ``count`` ranks as number ``rank``; ``init_method`` is where they meet."""
    if count == 1:
        return Ranks()
    import torch.distributed as dist

    if backend == "gloo" and sys.platform == "linux":
        # All ranks are on this machine: keep the traffic on the loopback interface.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        backend,
        init_method=init_method,
        rank=rank,
        world_size=count,
        timeout=datetime.timedelta(seconds=TIMEOUT_SECONDS),
    )
    return Ranks(rank, count)


def leave(ranks: Ranks) -> None:
    """Leave the group of ``join``."""
    if ranks.count > 1:
        import torch.distributed as dist

        dist.destroy_process_group()

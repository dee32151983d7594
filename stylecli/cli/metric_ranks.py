"""``stylecli metrics --ranks N``: the same command in several processes that share the pictures.

Every process runs the same command line, as under torchrun; the main one adds up and prints.
"""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from stylecli.distributed.processes import start_python
from stylecli.errors import ExitCode, StyleCLIError, UsageError
from stylecli.lazy import holding_back_interrupts

if TYPE_CHECKING:
    from stylecli.distributed.places import World
    from stylecli.distributed.ranks import Ranks
    from stylecli.training.peers import Peers

_HOST = "127.0.0.1"
_END_SECONDS = 20.0


@contextlib.contextmanager
def sharing_ranks(count: int | None, device: str) -> Iterator["Ranks"]:
    """Yield this process's place among ``count``; the main one starts and ends the others.

    Under torchrun or Slurm those are what they started. Raises UsageError when --ranks says
    something else, StyleCLIError naming the rank when one is lost.
    """
    from stylecli.distributed.places import World, find_world
    from stylecli.distributed.ranks import Ranks

    world = find_world(os.environ)
    workers: list[subprocess.Popen[bytes]] = []
    started = 1
    if world is not None and count not in (None, world.count):
        raise UsageError(
            f"--ranks {count} is not what {world.launcher} started, which is {world.count} "
            "processes: leave it out"
        )
    if world is None:
        if count is None or count == 1:
            yield Ranks()
            return
        world = World(0, count, 0, 1, _HOST, _free_port(), "stylecli metrics")
        # Here too, before numpy loads: how many threads a product is split over shows in its
        # last digits.
        os.environ["OMP_NUM_THREADS"] = str(_threads(world))
        started = count
    met: list[Peers] = []
    try:
        with holding_back_interrupts():  # or a process would be left that nobody ends
            workers += [_start(rank, world) for rank in range(1, started)]
            from stylecli.hardware import resolve_device
            from stylecli.training.launch import launched_ranks
        with (
            _speaking_once(world.rank, met),
            launched_ranks(world, lambda: resolve_device(device), met.append, workers) as ranks,
        ):
            yield ranks
            if not ranks.is_main:
                ranks.from_main()  # which has added up, and says that there is nothing more
        for worker in workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(_END_SECONDS)
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()


@contextlib.contextmanager
def _speaking_once(rank: int, met: "list[Peers]") -> Iterator[None]:
    """Leave it to the main rank to say what ended the command, where it can."""
    from stylecli.training.peers import speaks_for

    try:
        yield
    except KeyboardInterrupt:
        if rank:
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        raise
    except StyleCLIError as error:
        loss = met[0].loss if met else None
        if rank and met and not (loss is not None and speaks_for(rank, loss)):
            raise typer.Exit(error.exit_code) from None
        raise


def _start(rank: int, world: "World") -> "subprocess.Popen[bytes]":
    place = {
        "RANK": rank, "WORLD_SIZE": world.count, "LOCAL_RANK": rank,
        "LOCAL_WORLD_SIZE": world.count, "MASTER_ADDR": world.host, "MASTER_PORT": world.port,
        "OMP_NUM_THREADS": _threads(world),
    }  # fmt: skip
    # A session of its own: Ctrl-C is for the main rank, which then ends the others.
    return start_python(
        "stylecli",
        *sys.argv[1:],
        environment={name: str(value) for name, value in place.items()},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _threads(world: "World") -> int:
    return max(1, (os.cpu_count() or 1) // world.count)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((_HOST, 0))
        port: int = found.getsockname()[1]
        return port

"""One command, many processes: what torchrun or Slurm start acts as one.

Every process runs the same command line. Rank 0 carries it out; the others wait for what it says is
to be trained, print nothing, and end with the same exit code.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import typer

from stylecli.errors import UsageError


def on_main_rank(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command with options ``ranks``, ``gpus`` and ``device`` so that rank 0 runs it."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        from stylecli.distributed.places import find_world

        world = find_world(os.environ)
        if world is None:
            command(**options)
            return
        from stylecli.hardware import resolve_device
        from stylecli.training import launch

        def device() -> Any:
            return resolve_device(options["device"])

        if world.rank:
            code = launch.follow(world, device)
            raise typer.Exit(code)
        with launch.launched_ranks(world, device):
            for name in ("ranks", "gpus"):
                if options[name] not in (None, world.count):
                    raise UsageError(
                        f"--{name} {options[name]} is not what {world.launcher} started, which is "
                        f"{world.count} processes: leave it out"
                    )
            command(**{**options, "ranks": world.count, "gpus": None})

    return run


def count_ranks(ranks: int | None, gpus: int | None, device: str) -> int | None:
    """Return the number of processes asked for by --ranks or --gpus.

    Raises UsageError where --gpus meets another device, DeviceError where there are fewer.
    """
    if gpus is None:
        return ranks
    if ranks not in (None, gpus):
        raise UsageError(f"--gpus {gpus} and --ranks {ranks} differ: give one of them")
    from stylecli.errors import DeviceError
    from stylecli.hardware import resolve_device

    found = 0
    if resolve_device(device).type == "cuda":
        import torch

        found = torch.cuda.device_count()
    if found < gpus:
        raise DeviceError(
            f"--gpus {gpus} asks for more CUDA GPUs than the {found} that {device} has here: "
            "on CPUs, --ranks is the number of processes"
        )
    return gpus

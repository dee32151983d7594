"""What a tick says: rates, waiting and memory beside the step's statistics."""

import time
from typing import Any

import torch

from stylecli.training.checkpoints import Counters
from stylecli.training.monitor import LoaderClock, memory_figures
from stylecli.training.schedule import Stage
from stylecli.training.watchdog import LOADER_BOUND


class TickMeter:
    """Measures from one tick to the next; time between ``row`` and ``start`` does not count."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.loader = LoaderClock(device)
        self._since = (0.0, 0, 0)

    def start(self, counters: Counters) -> None:
        """Begin a tick."""
        self.loader.take()
        self._since = (time.monotonic(), counters.nimg, counters.step)

    def row(self, counters: Counters, stage: Stage, statistics: dict[str, float]) -> dict[str, Any]:
        """Return a line of ``stats.jsonl``; ``statistics`` are the step's means over the tick."""
        waited = self.loader.take()  # on CUDA also waits until the tick's work is done
        started, nimg, step = self._since
        seconds = time.monotonic() - started
        shown = counters.nimg - nimg
        return {
            "tick": counters.tick,
            "nimg": counters.nimg,
            "kimg": counters.nimg / 1000,
            "lod": stage.lod,
            "resolution": stage.resolution,
            "batch": stage.batch,
            "lr": stage.lr,
            "steps": counters.step - step,
            "seconds": round(counters.seconds, 3),
            "sec_per_kimg": round(seconds / (max(shown, 1) / 1000), 3),
            "loader_share": round(min(waited / max(seconds, 1e-9), 1.0), 4),
            **memory_figures(self.device),
            **statistics,
        }


def describe_row(row: dict[str, Any]) -> str:
    """Say the figures of a tick in a few words, for the live progress."""
    bound = "loader" if row["loader_share"] >= LOADER_BOUND else "compute"
    memory = f"{row['memory_mib']:.0f} MiB"
    if "gpu_reserved_mib" in row:
        memory = f"{row['gpu_reserved_mib']:.0f} MiB on the GPU"
    return (
        f"{row['sec_per_kimg']:.1f} sec/kimg, loss G {row['loss_G']:.2f} "
        f"D {row['loss_D']:.2f}, {bound}-bound (loader {row['loader_share']:.0%}), {memory}"
    )


def describe_stage(stage: Stage) -> str:
    """Say which resolution is trained, and how far it is faded in."""
    fading = f" fading in {1 - stage.fade:.0%}" if stage.fade else ""
    return f"{stage.resolution} px{fading}"

"""A long run of a tiny network: does memory grow, do files or threads stay behind?

    PYTHONPATH=. python tests/campaigns/soak.py [TICKS]

Trains through a growth, with the watchdog, snapshots that replace each other, a metric and one
resumption half-way, and prints what the process holds after each tenth. Ends with exit code 1 when
the second half holds more than the first.
"""

import gc
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from stylecli.data.reader import Dataset, open_dataset
from stylecli.data.writer import DatasetWriter
from stylecli.errors import Interrupted
from stylecli.networks.model import Bundle
from stylecli.networks.registry import make_config
from stylecli.training.config import Session, TrainingConfig
from stylecli.training.loop import TrainingLoop
from stylecli.training.run_folder import RunSettings, create_run, read_statistics

BATCH, SNAPSHOT_TICKS = 8, 20
GROWTH_MIB = 4.0  # of medians; a leak of one 16 px batch a tick would come to 24 MiB


HELD = ("files", "threads", "tensors")


def make_dataset(path: Path) -> None:
    """Pack 200 pictures of 16 px: ramps with noise."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 180, 16)
    with DatasetWriter(path, resolution=16, channels=3) as writer:
        for index in range(200):
            picture = rng.uniform(0.2, 1.0, (3, 1, 1)) * (ramp if index % 2 else ramp[:, None])
            writer.add((picture + rng.uniform(0, 60, (3, 16, 16))).astype(np.uint8))


def measure(bundle: Bundle, dataset: Dataset) -> list[dict[str, Any]]:
    """Stand in for a metric: the data's own mean."""
    return [{"name": "kid", "value": float(dataset.read(range(64)).mean())}]


def soak(folder: Path, ticks: int) -> list[dict[str, float]]:
    """Train ``ticks`` ticks in two sessions; return what the process held at each of them."""
    data, run = folder / "data.lmdb", folder / "run"
    make_dataset(data)
    kimg = ticks * BATCH / 1000
    config = make_config("f", resolution=16, fmap_base=64, fmap_max=8, z_dim=8, w_dim=8,
                         mapping_layers=2, mapping_fmaps=8)  # fmt: skip
    training = TrainingConfig(
        total_kimg=kimg, hold_kimg=kimg / 20, fade_kimg=kimg / 20, batch={}, batch_base=BATCH,
        lr={}, minibatch_repeats=1, tick_kimg=BATCH / 1000, snapshot_ticks=SNAPSHOT_TICKS,
    )  # fmt: skip
    create_run(run, RunSettings(config, training, data, open_dataset(data).digest))
    held: list[dict[str, float]] = []

    def note(done: float, total: float, text: str = "") -> None:
        held.append(
            {
                "files": float(len(os.listdir("/proc/self/fd"))),
                "threads": float(len(os.listdir("/proc/self/task"))),
                "tensors": float(
                    sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
                ),
            }
        )
        if len(held) == ticks // 2:
            os.kill(os.getpid(), 15)  # a session ends, the next goes on

    for _ in range(2):
        try:
            TrainingLoop(run, session=Session(keep=3), evaluate=measure).train(progress=note)
        except Interrupted:
            continue
    rows = read_statistics(run)
    return [{**row, **here} for row, here in zip(rows, held, strict=True)]


def grows(rows: list[dict[str, float]]) -> list[str]:
    """Return what the last quarter of the rows holds more of than the second quarter."""
    quarter = len(rows) // 4
    early, late = rows[quarter : 2 * quarter], rows[-quarter:]
    found = []
    for name, allowed in (("memory_now_mib", GROWTH_MIB), *((held, 0.0) for held in HELD)):
        before, after = (median(row[name] for row in part) for part in (early, late))
        if after - before > allowed:
            found.append(f"{name} grew from {before:g} to {after:g}")
    return found


def main() -> int:
    """Soak, print, judge."""
    ticks = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    torch.set_num_threads(1)  # small convolutions gain nothing from more
    with tempfile.TemporaryDirectory() as folder:
        rows = soak(Path(folder), ticks)
    print("tick   resident MiB   peak MiB   files   threads   tensors")
    for row in rows[:: max(ticks // 10, 1)] + rows[-1:]:
        print(
            f"{row['tick']:4.0f}   {row['memory_now_mib']:12.1f}   {row['memory_mib']:8.1f}"
            f"   {row['files']:5.0f}   {row['threads']:7.0f}   {row['tensors']:7.0f}"
        )
    problems = grows(rows)
    print("\n".join(problems) or "flat")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

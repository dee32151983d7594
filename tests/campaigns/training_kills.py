"""Kill a training run again and again, and prove that nothing is lost.

    python tests/campaigns/training_kills.py --kills 100 --seed 0
    python tests/campaigns/training_kills.py --kills 100 --seed 0 --ranks 2

A tiny run is ended by SIGKILL, at random moments or at a random file operation while it saves, and
started again until it is finished; then the next one begins. With two ranks either process is the
one killed. After every kill all files must be whole; at the end everything must equal, bit for bit,
a run that was never stopped. Sessions are forked from this process, which has loaded torch once.
"""

import argparse
import collections
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from stylecli.checkpoint import load_network, read_tensors
from stylecli.data.reader import open_dataset
from stylecli.data.writer import DatasetWriter
from stylecli.distributed.processes import launch
from stylecli.distributed.ranks import Ranks
from stylecli.networks.registry import make_config
from stylecli.training.config import Session, TrainingConfig
from stylecli.training.loop import TrainingLoop
from stylecli.training.run_folder import RunSettings, create_run, is_finished
from stylecli.workspace import list_snapshots

NETWORK = {"resolution": 16, "fmap_base": 64, "fmap_max": 8, "z_dim": 8, "w_dim": 8,
           "mapping_layers": 2, "mapping_fmaps": 8}  # fmt: skip
# 8 px, fade, 16 px: two optimizer resets; a save every second tick of 16 images.
TRAINING = {
    "total_kimg": 0.192, "hold_kimg": 0.064, "fade_kimg": 0.064, "batch": {}, "batch_base": 8,
    "lr": {}, "lr_base": 0.003, "r1_interval": 2, "minibatch_repeats": 2, "tick_kimg": 0.016,
    "snapshot_ticks": 2, "mirror": True, "augment": "adaptive", "augment_kimg": 0.2,
}  # fmt: skip
KEEP = 3  # retention is at work too
TIMING = {"seconds", "sec_per_kimg", "memory_mib", "memory_now_mib", "loader_share"}
PATIENCE = 90.0  # seconds for the ranks that are left to notice


def make_dataset(path: Path) -> None:
    """Write 24 pictures of 16 px."""
    rng = np.random.default_rng(0)
    with DatasetWriter(path, resolution=16, channels=3) as writer:
        for _ in range(24):
            writer.add(rng.integers(0, 255, size=(3, 16, 16)).astype(np.uint8))


def make_run(run: Path, data: Path, ranks: int) -> None:
    """Make a run that is not begun yet."""
    config = make_config("f", **NETWORK)
    digest = open_dataset(data).digest
    create_run(run, RunSettings(config, TrainingConfig(**TRAINING), data, digest, ranks))


def train(run: Path, ranks: int) -> None:
    """Train to the end: one session."""
    session = Session(keep=KEEP, watch="off")
    if ranks == 1:
        TrainingLoop(run, Ranks(), session).train()
        return
    rank = Path(__file__).parents[1] / "training" / "one_rank.py"
    code = launch(ranks, [str(rank), str(run), "--keep", str(KEEP), "--watch", "off"])
    assert code == 0, code


def die_at_operation(count: int) -> None:
    """Make this process kill itself at its so-manieth operation on files."""
    left = count

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def operate(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return operate

    for name in ("fsync", "replace", "unlink", "link", "close"):
        setattr(os, name, counted(getattr(os, name)))


def start_session(run: Path, ranks: int, die_at: int | None = None) -> int:
    """Fork a process that trains; return its id. It leads a process group of its own."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 2)  # what a rank says of its dead fellow
        if die_at is not None:
            die_at_operation(die_at)
        train(run, ranks)
        code = 0
    finally:
        os._exit(code)


def workers_of(process: int) -> list[int]:
    """Return the further ranks that a session has started."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(number) for number in text.split()]


def end_session(process: int, delay: float, victim: str) -> str:
    """Wait, then kill one process of a session; return what happened once all of it has ended."""
    deadline = time.monotonic() + delay
    while time.monotonic() < deadline:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return "finished" if status == 0 else f"ended by itself with status {status}"
        time.sleep(0.002)
    workers = workers_of(process)
    target = random.choice(workers) if victim == "worker" and workers else process
    os.kill(target, signal.SIGKILL)
    until = time.monotonic() + PATIENCE
    while os.waitpid(process, os.WNOHANG)[0] == 0:
        if time.monotonic() > until:
            os.killpg(process, signal.SIGKILL)
            raise AssertionError(f"the ranks that were left hang for {PATIENCE:g} seconds")
        time.sleep(0.01)
    for worker in workers:  # orphans end by themselves; the next session must not wait for them
        while Path(f"/proc/{worker}").exists() and time.monotonic() < until:
            time.sleep(0.01)
    return "killed worker" if target != process else "killed main"


def check_files(run: Path, reached: int) -> int:
    """Raise AssertionError for any file that is not whole; return the images of the checkpoint."""
    json.loads((run / "run.json").read_text())
    for name in ("stats.jsonl", "events.jsonl"):
        rows = read_whole_rows(run / name)
        if name == "stats.jsonl":
            images = [row["nimg"] for row in rows]
            assert images == sorted(set(images)), f"doubled lines: {images}"
    for path in run.glob("[!.]*.png"):
        with Image.open(path) as picture:
            picture.load()
    for path in list_snapshots(run):
        load_network(path)
    path = run / "checkpoint.safetensors"
    if not path.exists():
        assert reached == 0, "the checkpoint is gone"
        return 0
    header, _ = read_tensors(path)
    nimg = int(header["training"]["counters"]["nimg"])
    assert nimg >= reached, f"the checkpoint fell back from {reached} to {nimg} images"
    return nimg


def read_whole_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file; raise AssertionError for a torn line."""
    text = path.read_text() if path.exists() else ""
    assert not text or text.endswith("\n"), f"{path.name} ends in a torn line"
    return [json.loads(line) for line in text.splitlines()]


def check_equal(run: Path, whole: Path) -> None:
    """Raise AssertionError unless a run ended as the one that was never stopped."""
    (header, found), (wanted_header, wanted) = (
        read_tensors(folder / "checkpoint.safetensors") for folder in (run, whole)
    )
    assert found.keys() == wanted.keys()
    different = [name for name in wanted if not torch.equal(found[name], wanted[name])]
    assert not different, f"{len(different)} tensors differ, such as {different[0]}"
    counters = header["training"]["counters"] | {"seconds": 0}
    assert counters == wanted_header["training"]["counters"] | {"seconds": 0}
    rows, wanted_rows = (
        [
            {key: value for key, value in row.items() if key not in TIMING}
            for row in read_whole_rows(folder / "stats.jsonl")
        ]
        for folder in (run, whole)
    )
    assert rows == wanted_rows, "stats.jsonl differs"
    names, wanted_names = ({path.name for path in folder.iterdir()} for folder in (run, whole))
    assert names == wanted_names, f"files differ: {sorted(names ^ wanted_names)}"


def campaign(folder: Path, kills: int, ranks: int) -> collections.Counter[str]:
    """Kill sessions until ``kills`` were; return what was counted."""
    data, whole = folder / "data.lmdb", folder / "whole"
    make_dataset(data)
    make_run(whole, data, ranks)
    started = time.monotonic()
    _, status = os.waitpid(start_session(whole, ranks), 0)
    assert status == 0, f"the run that is left alone ended with status {status}"
    length = time.monotonic() - started
    counts: collections.Counter[str] = collections.Counter()
    while counts["kills"] < kills or counts["unfinished"]:
        run = folder / f"run{counts['runs']}"
        if not run.exists():
            make_run(run, data, ranks)
            counts["unfinished"], reached = 1, 0
        by_operation = ranks == 1 and random.random() < 0.5
        if counts["kills"] >= kills:
            process, delay = start_session(run, ranks), 10 * length + PATIENCE
        elif by_operation:
            process, delay = start_session(run, ranks, random.randrange(1, 120)), PATIENCE
        else:
            process, delay = start_session(run, ranks), random.uniform(0, length)
        outcome = end_session(process, delay, random.choice(["main", "worker"]))
        if outcome == "ended by itself with status 9" and by_operation:
            outcome = "killed at a file operation"
        left = [path for path in run.iterdir() if path.name.startswith(".")]
        counts["unfinished files left by kills"] += len(left)
        reached = check_files(run, reached)
        if outcome.startswith("killed"):
            counts["kills"] += 1
            counts[outcome] += 1
            counts["with a checkpoint" if reached else "before the first checkpoint"] += 1
        else:
            assert outcome == "finished", outcome
            assert is_finished(run)
            check_equal(run, whole)
            counts["runs"] += 1
            counts["unfinished"] = 0
    return counts


def main() -> int:
    """Run the campaign and print its summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=1)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stylecli-kills-") as folder:
        counts = campaign(Path(folder), arguments.kills, arguments.ranks)
    counts.pop("unfinished")
    print(f"ranks: {arguments.ranks}, seed: {arguments.seed}")
    for name, count in sorted(counts.items()):
        print(f"{name}: {count}")
    print(f"every run equals the one never stopped; took {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

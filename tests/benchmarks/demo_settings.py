"""What other settings would make of the demo's faces in the same CPU time: docs/demo.md.

    python tests/benchmarks/demo_settings.py FOLDER [--cpu-minutes 5] [--seeds 1] [--only NAME ...]
        [--page docs/demo.md]

Every variant of ``VARIANTS`` trains on the demo's 2,000 faces, 32 px, in one process of one thread.
Two short runs show what a picture costs, from which follows how many a run of ``--cpu-minutes``
shows, so that its schedule ends then. 1,000 fakes of the last network are compared with 1,700 other
faces: KID x 1000 of EfficientNet's features, and sliced Wasserstein distance. "today, twice as
long" is what the demo does, with twice the time: what a change has to come to. All there is stands
in FOLDER; the same command continues with the next run.
"""

import argparse
import os
import resource
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch
from held_out import HeldOut, Results, stylecli_command
from pages import write_block

from stylecli.checkpoint import load_network
from stylecli.data.demo_faces import make_demo_dataset
from stylecli.metrics.picture_sets import draw_samples
from stylecli.workspace import newest_snapshot

FACES, HELD_OUT, FAKES, BATCH = 2000, 1700, 1000, 50
FIRST_HELD_OUT = 50_000
PILOT_KIMG = (1, 5)
TODAY = "today, twice as long"
VARIANTS = {
    "today": "",
    TODAY: "",
    "R1 every 16 steps": "--r1-interval 16",
    "learning rate 0.005": "--lr 0.005",
    "learning rate 0.002": "--lr 0.002",
    "batch 8": "--batch 8",
    "batch 8, early 32": "--batch 8:32,16:16,32:8",
    "bf16": "--precision bf16",
    "R1 weight 0.3": "--gamma 0.3",
    "R1 weight 3": "--gamma 3",
    "no style mixing": "--mixing 0",
    "from 16 px": "--initial-resolution 16",
    "not growing": "--initial-resolution 32",
    "own fakes for G": "--own-fakes",
    "average of 0.5 kimg": "--ema-kimg 0.5",
    "twice as wide at most": "--fmap-max 128",
    "StyleGAN2": "--config stylegan2",
    "R3GAN": "--config r3gan",
}  # the options of ``train --preset small``


def train(data, run, kimg, seed, words):
    """Train a run from its beginning; return its CPU seconds."""
    shutil.rmtree(run, ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = stylecli_command(
        "train", str(data), "--preset", "small", "--ranks", "1", "--device", "cpu", "--augment",
        "none", "--watch", "off", "--seed", str(seed), "--kimg", f"{kimg:g}", "--out", str(run),
        "--quiet", *words,
    )  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(folder, data, held, name, seed, seconds):
    """Train a variant for so many CPU seconds; return what came out."""
    words = VARIANTS[name].split()
    run = folder / "runs" / f"{list(VARIANTS).index(name):02}-{seed}"
    short, long = (train(data, run, kimg, seed, words) for kimg in PILOT_KIMG)
    kimg = round(seconds * (PILOT_KIMG[1] - PILOT_KIMG[0]) / (long - short), 2)
    spent = train(data, run, kimg, seed, words)
    G = load_network(newest_snapshot(run), drawing=True).generator
    samples = draw_samples(G, FAKES, seed=0, batch=BATCH, labels=None)
    fakes = np.concatenate([sample.pictures for sample in samples])
    return {"kimg": kimg, "cpu": spent, "kid": held.kid(held.features(fakes)),
            "swd": held.swd(fakes)}  # fmt: skip


def table(results, minutes):
    """Return what was measured as Markdown."""
    found = {}
    for key, row in results["runs"].items():
        found.setdefault(key.rpartition("/")[0], []).append(row)
    lines = [
        f"{FACES:,} demo faces, 32 px, one process of one thread, {minutes:g} CPU-minutes. KID × "
        f"1000 and SWD of {FAKES:,} fakes to {HELD_OUT:,} other faces; medians of the seeds.",
        "", "| | `train --preset small` | runs | kimg | KID | SWD |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in VARIANTS:
        if rows := found.get(name):
            kimg, kid, swd = (
                np.median([row[what] for row in rows]) for what in ("kimg", "kid", "swd")
            )
            options = f"`{VARIANTS[name]}`" if VARIANTS[name] else ""
            lines.append(
                f"| {name} | {options} | {len(rows)} | {kimg:.0f} | {kid:.0f} | {swd:.1f} |"
            )
    return "\n".join([*lines, ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cpu-minutes", type=float, default=5.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results = Results(folder / "results.json", {"cpu_minutes": options.cpu_minutes})
    runs = results.setdefault("runs", {})
    data = make_demo_dataset(folder / "faces.lmdb", count=FACES)
    held = HeldOut(folder, FIRST_HELD_OUT, HELD_OUT, all_styles=False)
    for seed in range(options.seeds):
        for name in options.only:
            if f"{name}/{seed}" not in runs:
                seconds = 60 * options.cpu_minutes * (2 if name == TODAY else 1)
                runs[f"{name}/{seed}"] = measure(folder, data, held, name, seed, seconds)
                results.keep()
                print(name, seed, runs[f"{name}/{seed}"], flush=True)
    text = table(results, options.cpu_minutes)
    print(text)
    if options.page:
        write_block(options.page, "demo-settings", text)


if __name__ == "__main__":
    main()

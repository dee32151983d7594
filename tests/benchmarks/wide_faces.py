"""Compare native training on wide faces with letterboxed training at equal CPU time.

The same drawn faces of 4:3, once as they are and once on squares with black bars above and below,
train the same configuration with equal seeds. A letterboxed picture costs more, so that fewer are
shown: two short trials of each tell what a picture costs, and every run gets as many as
``--cpu-minutes`` allow. Fakes of the letterboxed networks lose their bars; both are then compared
with faces that no network saw, by KID of the stand-in network (lower is better). Everything is kept
in ``--out``: run the same command to continue. Writes ``results.json``, of the best native network
``grid.png``, and with ``--page`` the table between the marks of a page.

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/benchmarks/wide_faces.py --page docs/any-shape.md

The smoke test takes minutes: --cpu-minutes 0.3 --count 64 --held-out 32 --fakes 32 --seeds 1
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pages import write_block

import stylecli
from stylecli.data.demo_faces import FaceArtist, make_demo_dataset
from stylecli.data.reader import open_dataset
from stylecli.data.writer import DatasetWriter
from stylecli.files import read_json, write_json
from stylecli.images import make_grid, save_png, visible_scale
from stylecli.shapes import Grid, parse_shape

HELD_OUT_FIRST = 1_000_000  # seeds of faces that no network sees
STYLECLI = [sys.executable, "-m", "stylecli"]
TRIALS = 0.5, 2.0  # kimg; their difference leaves out what every run costs once
SAME = "--augment none --planar-gradients none --watch off --ranks 1 --device cpu"


def main() -> None:
    """Train what is missing, measure what is new, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("wide-faces"))
    parser.add_argument("--shape", default="4:3")
    parser.add_argument("--level", type=int, default=16, help="16 is 16x12 px")
    parser.add_argument("--cpu-minutes", type=float, default=6.0, help="of a run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--count", type=int, default=2000, help="faces to train on")
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--fakes", type=int, default=500)
    parser.add_argument("--page", type=Path, help="page with the marks of the table")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    grid = parse_shape(chosen.shape)
    wide = make_demo_dataset(chosen.out / "wide.lmdb", count=chosen.count,
                             resolution=chosen.level, grid=grid)  # fmt: skip
    data = {"native": wide, "letterboxed": letterbox(wide, chosen.out / "boxed.lmdb")}
    held = draw_held_out(chosen.out / "held-out.lmdb", chosen.held_out, chosen.level, grid)
    shown = pictures_allowed(chosen.out, data, 60 * chosen.cpu_minutes)

    results: dict[str, dict[str, Any]] = {}
    for seed in range(chosen.seeds):
        for name, kimg in shown.items():
            run = chosen.out / f"{name}-{seed}"
            seconds = train(run, data[name], kimg, seed)
            kid = measure(run, held, grid.at(chosen.level), chosen.fakes)
            results[f"{name} {seed}"] = {"kimg": kimg, "cpu_seconds": seconds, "kid": kid}
            write_json(chosen.out / "results.json", results)
            print(f"{name:12} seed {seed}  {kimg:g} kimg  {seconds:,.0f} CPU s  KID {kid:.5f}",
                  flush=True)  # fmt: skip
    best = min((key for key in results if key.startswith("native")),
               key=lambda key: float(results[key]["kid"]))  # fmt: skip
    show(chosen.out / best.replace(" ", "-"), chosen.out / "grid.png")
    text = table(results, {name: str(open_dataset(path).size) for name, path in data.items()})
    print(text, end="")
    if chosen.page:
        write_block(chosen.page, "wide-faces", text)


def table(results: dict[str, dict[str, Any]], sizes: dict[str, str]) -> str:
    """Return the table of the page: a row for each way to train."""
    seeds = sorted({key.split()[1] for key in results})
    rows = ["| trained | px | pictures shown | CPU-seconds a run | "
            + " | ".join(f"KID, seed {seed}" for seed in seeds) + " | mean |",
            "|---|---|---|---|" + "---|" * (len(seeds) + 1)]  # fmt: skip
    for name, size in sizes.items():
        own = [results[f"{name} {seed}"] for seed in seeds]
        kids = [float(row["kid"]) for row in own]
        spent = np.mean([row["cpu_seconds"] for row in own])
        cells = [name, size, f"{1000 * own[0]['kimg']:,.0f}", f"{spent:,.0f}",
                 *(f"{kid:.4f}" for kid in kids), f"{np.mean(kids):.4f}"]  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def pictures_allowed(out: Path, data: dict[str, Path], seconds: float) -> dict[str, float]:
    """Return how many kimg of each dataset cost so many CPU seconds, by short trials."""
    known = out / "shown.json"
    if not known.exists():
        shown = {}
        for name, path in data.items():
            few, many = (train(out / f"trial-{name}-{kimg:g}", path, kimg, 0) for kimg in TRIALS)
            each = (many - few) / (TRIALS[1] - TRIALS[0])
            shown[name] = round((seconds - few) / each + TRIALS[0], 1)
            print(f"{name}: {each:.2f} CPU s a kimg, {shown[name]:g} kimg", flush=True)
        write_json(known, {"seconds": seconds, "shown": shown})
    found = read_json(known)
    if found["seconds"] != seconds:
        raise SystemExit(f"{out} is of another --cpu-minutes: give another --out")
    allowed: dict[str, float] = found["shown"]
    return allowed


def letterbox(wide: Path, path: Path) -> Path:
    """Lay the pictures of a dataset on black squares of a power of two."""
    if path.exists():
        return path
    dataset = open_dataset(wide)
    side = 1 << (max(dataset.size) - 1).bit_length()
    top, left = bars(dataset.size, side)
    with DatasetWriter(path, resolution=side, channels=3) as writer:
        for index in range(len(dataset)):
            square = np.zeros((3, side, side), np.uint8)
            square[:, top : top + dataset.height, left : left + dataset.width] = dataset[index][0]
            writer.add(square)
    return path


def bars(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return where a picture begins on its square: down, across."""
    return (side - size[0]) // 2, (side - size[1]) // 2


def draw_held_out(path: Path, count: int, level: int, grid: Grid) -> Path:
    """Draw faces of other seeds."""
    if not path.exists():
        draw = FaceArtist(level, grid=grid)
        with DatasetWriter(path, resolution=level, channels=3, grid=grid) as writer:
            for seed in range(HELD_OUT_FIRST, HELD_OUT_FIRST + count):
                writer.add(draw(seed)[0])
    return path


def train(run: Path, data: Path, kimg: float, seed: int) -> float:
    """Train a run, or what is left of it; return the CPU seconds of all its sessions."""
    spent = run.with_suffix(".cpu.json")
    before: float = json.loads(spent.read_text()) if spent.exists() else 0.0
    settings = json.loads((run / "run.json").read_text()) if (run / "run.json").exists() else {}
    if settings.get("finished"):
        return before
    stage = kimg / 12  # growth takes about half of the time
    words = ["train", str(data), "--out", str(run), "--kimg", f"{kimg:g}", "--seed", str(seed),
             "--hold-kimg", f"{stage:g}", "--fade-kimg", f"{stage:g}", "--quiet",
             *SAME.split()]  # fmt: skip
    start = cpu_of_children()
    try:
        subprocess.run([*STYLECLI, *words], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    finally:
        before += cpu_of_children() - start
        spent.write_text(json.dumps(before))
    return before


def cpu_of_children() -> float:
    """Return the CPU seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(run: Path, held: Path, size: tuple[int, int], count: int) -> float:
    """Return the KID of a run's fakes, without bars, against faces that it did not see."""
    folder = run.with_suffix(".fakes")
    if not folder.exists():
        net = newest(run)
        folder.mkdir()
        for seed, picture in stylecli.generate(net, range(count), psi=1.0):
            top, left = bars(size, max(net.config.size)) if net.config.grid.is_usual else (0, 0)
            cell: NDArray[np.uint8] = picture[top : top + size[0], left : left + size[1]]
            save_png(folder / f"{seed:05}.png", np.ascontiguousarray(cell), {})
    words = ["metrics", "kid@efficientnet-lite0", "--data", str(folder), "--against", str(held),
             "--json", "--device", "cpu"]  # fmt: skip
    done = subprocess.run([*STYLECLI, *words], check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["results"][0]["value"])


def newest(run: Path) -> Any:
    """Return a run's newest network."""
    return stylecli.load_network(sorted(run.glob("network-snapshot-*.safetensors"))[-1])


def show(run: Path, path: Path) -> None:
    """Write 32 pictures of a run's newest network."""
    pictures = [picture for _, picture in stylecli.generate(newest(run), range(32), psi=0.7)]
    scale = visible_scale(max(pictures[0].shape))
    save_png(path, make_grid(pictures, 8, scale=scale), {})


if __name__ == "__main__":
    main()

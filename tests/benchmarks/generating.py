"""Time ``stylecli generate`` at 1024 px beside an older tree of this project: CPU and wall time.

    git archive abb7766 | tar x -C ../old
    python tests/benchmarks/generating.py ../old --seeds 0-7 --rounds 3

A new network of configuration f is drawn by both trees in turn, each time by a process of its own
into an empty folder. A first call of each does not count. Printed are medians of CPU-seconds (user
and system, with children) and of wall time with the smallest and largest, and the
range of the ratios of a round. One call with a single seed is subtracted for the
figures of a picture, so that starting does not count in them.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import stylecli
from stylecli.health import describe_processor
from stylecli.seeds import parse_seeds

HERE = Path(__file__).resolve().parents[2]


def generate(tree: Path, network: Path, seeds: str) -> tuple[float, float]:
    """Return the CPU-seconds and the wall time of one command."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["generate", "--network", str(network), "--seeds", seeds, "--quiet"]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "stylecli", *words], cwd=folder, check=True,
            env={**os.environ, "PYTHONPATH": str(tree)}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wall = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall


def spread(values: list[float]) -> str:
    """Write median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("--seeds", default="0-7")
    parser.add_argument("--resolution", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    trees = {"older": asked.old.resolve(), "this": HERE}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in trees}
    first: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / "network.safetensors"
        stylecli.save_network(network, stylecli.new_network("f", resolution=asked.resolution))
        for name, tree in trees.items():
            generate(tree, network, "0")  # reads everything once
            first[name] = generate(tree, network, "0")
        for _ in range(asked.rounds):
            for name, tree in trees.items():
                taken[name].append(generate(tree, network, asked.seeds))
    count = len(parse_seeds(asked.seeds))
    print(describe_processor())
    print(f"| {count} pictures of {asked.resolution} px | CPU-s | wall s | CPU-s a picture more |")
    print("|---|---|---|---|")
    for name, rows in taken.items():
        cpu, wall = ([row[which] for row in rows] for which in (0, 1))
        each = (statistics.median(cpu) - first[name][0]) / max(count - 1, 1)
        print(f"| {name} tree | {spread(cpu)} | {spread(wall)} | {each:.3f} |")
    pairs = list(zip(taken["older"], taken["this"], strict=True))
    print(
        f"this / older, CPU: {spread([new[0] / old[0] for old, new in pairs])}; "
        f"older / this, wall: {spread([old[1] / new[1] for old, new in pairs])}"
    )


if __name__ == "__main__":
    main()

"""Time drawing beside rosinality's style-based-gan-pytorch, as a row of docs/bench.md for this CPU.

    git clone https://github.com/rosinality/style-based-gan-pytorch peer
    OMP_NUM_THREADS=1 python tests/benchmarks/drawing_peers.py peer --resolutions 64,256 --rounds 7

The peer's ``model.py`` is used as it is. Configuration f with random weights, from latent to image,
one picture at a time, in one process and in turn, so that load falls on both alike. Printed are
medians of CPU-seconds with the smallest and the largest, and the range of the ratios of a round.
``--tuned`` keeps freed memory for both, which stylecli's commands do for themselves.
"""

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import stylecli
from stylecli.hardware import bf16_gain, has_bf16_units, tune_memory
from stylecli.health import cpu_name
from stylecli.sampling import prepare_synthesis

WARM_UP = 2


def kind_of_processor() -> str:
    """Name what decides: the widest instructions that torch uses, and bf16."""
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{kind} with bf16, {bf16_gain():.1f}x" if has_bf16_units() else kind


def drawers(peer: Path, resolution: int) -> dict[str, Callable[[], object]]:
    """Return what draws one picture, by the program's name."""
    sys.path.insert(0, str(peer))
    theirs = importlib.import_module("model").StyledGenerator(512).eval()
    G = stylecli.new_network("f", resolution=resolution).generator
    step = resolution.bit_length() - 3  # the peer counts doublings of 4 px
    latent = torch.randn(1, 512)

    def ours(precision: str) -> Callable[[], object]:
        synthesis = prepare_synthesis(G, precision)  # type: ignore[arg-type]
        return lambda: synthesis(G.mapping(latent))

    found = {
        "rosinality": lambda: theirs(latent, step=step, alpha=1),
        "stylecli": ours("float32"),
    }
    return found | ({"stylecli, bf16": ours("bf16")} if has_bf16_units() else {})


def main() -> None:
    """Print a table for the peer in the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", type=Path)
    parser.add_argument("--resolutions", default="64,256")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tuned", action="store_true")
    asked = parser.parse_args()
    if asked.tuned:
        tune_memory()
    threads = torch.get_num_threads()
    print(f"{cpu_name()} ({kind_of_processor()}), {threads} threads, torch {torch.__version__}")
    print("| px | program | CPU-s a picture | times as quick |\n|---|---|---|---|")
    for resolution in map(int, asked.resolutions.split(",")):
        programs = drawers(asked.peer, resolution)
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        for turn in range(WARM_UP + asked.rounds):
            for name, draw in programs.items():
                started = time.process_time()
                with torch.inference_mode():
                    draw()
                if turn >= WARM_UP:
                    seconds[name].append(time.process_time() - started)
        for name, own in seconds.items():
            ratios = [a / b for a, b in zip(seconds["rosinality"], own, strict=True)]
            print(
                f"| {resolution} | {name} | {statistics.median(own):.3f} "
                f"({min(own):.3f}-{max(own):.3f}) | {statistics.median(ratios):.1f} "
                f"({min(ratios):.1f}-{max(ratios):.1f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()

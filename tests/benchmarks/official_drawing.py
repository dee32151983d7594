"""CPU seconds and memory of a picture beside NVIDIA's program, and beside its convolutions alone.

    git clone https://github.com/NVlabs/stylegan3 official
    python tests/benchmarks/official_drawing.py official [--only stylegan2] [--rounds 5]

Official widths, random weights, float32, from latent to picture, one at a time. Each program has a
process of its own, on one thread; they draw in turn, after one picture to warm up. Printed are
medians with the smallest and the largest, how many times as quick stylecli is in a round, and each
process's peak memory. The official code runs as it is, by the reference operators that it takes
without CUDA; once as anybody runs it, once with freed memory kept as stylecli keeps it.
"Convolutions alone" are those of the same sizes by the same library with nothing between them.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from frozen_synthesis import convolutions

import stylecli
from stylecli.hardware import tune_memory
from stylecli.health import cpu_name
from stylecli.rendering import prepare_synthesis

# preset, side, rounds
CASES: dict[str, tuple[str, int, int]] = {
    "stylegan2 256 px": ("stylegan2", 256, 7),
    "stylegan2 1024 px": ("stylegan2", 1024, 5),
    "stylegan3-t 256 px": ("stylegan3-t", 256, 3),
}
OURS, OFFICIAL, TUNED, ALONE = "stylecli", "official", "official, memory kept", "convolutions alone"
ROOT = Path(__file__).resolve().parents[2]


def official_draw(checkout: Path, preset: str, side: int) -> Callable[[], Any]:
    """Return what draws a picture by the official code."""
    sys.path.insert(0, str(checkout))
    # What the code looks for beside torch and a machine may lack: a comparison of versions, and
    # the download of networks, which is not used.
    versions: Any = types.ModuleType("pkg_resources")
    versions.parse_version = torch.torch_version.TorchVersion
    sys.modules.setdefault("pkg_resources", versions)
    sys.modules.setdefault("requests", types.ModuleType("requests"))
    second = preset == "stylegan2"
    name = "training.networks_stylegan2" if second else "training.networks_stylegan3"
    more = {"mapping_kwargs": {"num_layers": 8}} if second else {}
    G = importlib.import_module(name).Generator(
        z_dim=512, c_dim=0, w_dim=512, img_resolution=side, img_channels=3, **more
    )
    G.eval().requires_grad_(False)
    z, c = torch.randn(1, 512), torch.zeros(1, 0)
    if second:
        return lambda: G(z, c, noise_mode="const")
    return lambda: G(z, c)


def our_draw(preset: str, side: int) -> Callable[[], Any]:
    """Return what draws a picture as stylecli's commands do."""
    G = stylecli.new_network(preset, resolution=side).generator
    z = torch.randn(1, 512)
    synthesis = prepare_synthesis(G)
    return lambda: synthesis(G.mapping(z))


def work(program: str, checkout: Path, case: str) -> None:
    """Be one program: draw whenever a line comes in, answer with CPU seconds and peak memory."""
    import resource

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a program prints is not an answer
    torch.set_num_threads(1)
    preset, side, _ = CASES[case]
    if program != OFFICIAL:
        tune_memory()
    if program == OURS:
        draw = our_draw(preset, side)
    elif program == ALONE:
        calls = convolutions(stylecli.new_network(preset, resolution=side).config)

        def draw() -> Any:
            return [call() for call in calls]
    else:
        draw = official_draw(checkout, preset, side)
    for _ in sys.stdin:
        started = time.process_time()
        with torch.inference_mode():
            draw()
        seconds = time.process_time() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        answers.write(json.dumps([seconds, peak]) + "\n")
        answers.flush()


class Worker:
    """A program in its process."""

    def __init__(self, program: str, checkout: Path, case: str) -> None:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, str(checkout), "--work", program,
             "--only", case],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.seconds: list[float] = []
        self.peak = 0

    def draw(self) -> float:
        """Have one picture drawn; return its CPU seconds."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("draw\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the process ended with {self.process.wait()}")
        seconds, self.peak = json.loads(answer)
        return float(seconds)

    def end(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(case: str, checkout: Path, rounds: int) -> list[str]:
    """Return the rows of a case."""
    workers = {name: Worker(name, checkout, case) for name in (OFFICIAL, TUNED, OURS, ALONE)}
    for turn in range(rounds + 1):
        for worker in workers.values():
            seconds = worker.draw()
            if turn:
                worker.seconds.append(seconds)
    for worker in workers.values():
        worker.end()
    rows, ours = [], workers[OURS].seconds
    for name, worker in workers.items():
        ratios = [a / b for a, b in zip(worker.seconds, ours, strict=True)]
        spread = f"{min(worker.seconds):.3f}-{max(worker.seconds):.3f}"
        rows.append(
            f"| {case} | {name} | {statistics.median(worker.seconds):.3f} ({spread}) | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) | "
            f"{worker.peak} |"
        )
    return rows


def main() -> None:
    """Measure the cases that the command line names, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="folder with NVlabs/stylegan3")
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--rounds", type=int, help="default: 7, 5 and 3")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(asked.work, asked.checkout, asked.only)
        return
    print(f"{cpu_name()}, one thread, torch {torch.__version__}\n")
    print("| network | program | CPU-s a picture | beside stylecli | peak MiB |")
    print("|---|---|---|---|---|")
    for case, (*_, rounds) in CASES.items():
        if case.startswith(asked.only):
            print("\n".join(measure(case, asked.checkout, asked.rounds or rounds)), flush=True)


if __name__ == "__main__":
    main()

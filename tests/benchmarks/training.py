"""Time training steps on this CPU beside its convolution ceiling: planar weight gradients or not.

    OMP_NUM_THREADS=1 python tests/benchmarks/training.py --cases 64:8,128:4 --rounds 3
    ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 python tests/benchmarks/training.py --cases 64:4

A case is a resolution and a batch of configuration f (logistic loss, R1 in every step). The forms
take turns in one process, with one large convolution after each; a first round does not count.
Medians of CPU-seconds, user and system, with the smallest and the largest. The share of
the ceiling is the operations of the convolutions of a step, counted, over the time, over the rate
of the large convolution. The third form is what a trial chooses here.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import stylecli
from stylecli.bench import ceiling_case
from stylecli.hardware import tune_memory
from stylecli.health import describe_processor
from stylecli.networks.registry import make_config
from stylecli.training.config import ALL_SIDES, NO_SIDES, TrainingConfig
from stylecli.training.costs import count_step
from stylecli.training.run_setup import faster_planar_sides
from stylecli.training.schedule import stage_at
from stylecli.training.step import TrainingStep


def clock(run: Callable[[], object]) -> float:
    """Return the CPU-seconds of a call."""
    started = time.process_time()
    run()
    return time.process_time() - started


def spread(values: list[float]) -> str:
    """Write median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def time_case(side: int, batch: int, rounds: int) -> None:
    """Print the rows of one resolution and batch."""
    config = make_config("f", resolution=side)
    started = time.process_time()
    tried = faster_planar_sides(config)
    trial = time.process_time() - started
    fields = {"batch": {}, "batch_base": batch, "lr": {}, "hold_kimg": 0, "fade_kimg": 1e-3}
    reals = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    forms = {}
    for name in dict.fromkeys((NO_SIDES, ALL_SIDES, tried)):
        training = TrainingConfig(**fields, planar_gradients=name)
        stage = stage_at(training, side, 10**9)
        step = TrainingStep(stylecli.new_network("f", resolution=side, seed=0), training)
        step.set_stage(stage, reset=True)
        forms[name] = step
    numbers = iter(range(10**9))
    ceiling = ceiling_case(torch.device("cpu"), "float32")
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    rates = []
    for turn in range(1 + rounds):
        for name, step in forms.items():
            took = clock(lambda step=step: step(reals, None, stage, next(numbers)))  # type: ignore[misc]
            rate = ceiling.flops / clock(ceiling.run)
            if turn:
                seconds[name].append(took)
                rates.append(rate)
    flops = count_step(config, training, stage).flops * batch
    rate = statistics.median(rates)
    for name, own in seconds.items():
        gains = [a / b for a, b in zip(seconds[NO_SIDES], own, strict=True)]
        share = flops / rate / statistics.median(own)
        which = f"{name} (by trial, {trial:.2f} s)" if name == tried else name
        print(
            f"| {side} px, batch {batch} | {which} | {spread(own)} | {spread(gains)} | "
            f"{share:.0%} of {rate / 1e9:.0f} GF/s |",
            flush=True,
        )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default="64:8,128:4")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    tune_memory()  # as the command does
    print(describe_processor())
    print("| step | planar weight gradients | CPU-s | times as fast | of the ceiling |")
    print("|---|---|---|---|---|")
    for case in asked.cases.split(","):
        side, batch = map(int, case.split(":"))
        time_case(side, batch, asked.rounds)


if __name__ == "__main__":
    main()

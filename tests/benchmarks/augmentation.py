"""What augmentation adds to a training step: CPU seconds with it over those without.

``python -m tests.benchmarks.augmentation [PIPE ...]`` takes steps of both kinds in turn, at 64 px
with R1 in every step (configuration f, --fmap-base 768 --fmap-max 96, batch 16), in one thread, and
prints medians of CPU time, which other programs on the machine disturb less than the clock.
"""

import statistics
import sys
import time

import torch

from stylecli.networks.model import new_network
from stylecli.training.config import TrainingConfig
from stylecli.training.schedule import Stage
from stylecli.training.step import TrainingStep

ROUNDS = 15
STAGE = Stage(lod=0.0, resolution=64, batch=16, lr=0.003, tick_kimg=1)


def make_step(**settings: object) -> TrainingStep:
    """Return a step of the network that is measured."""
    bundle = new_network("f", seed=0, resolution=64, fmap_base=768, fmap_max=96)
    step = TrainingStep(bundle, TrainingConfig(r1_gamma=1.0, **settings))
    step.set_stage(STAGE, reset=True)
    return step


def main() -> None:
    """Measure and print a row for each pipe."""
    torch.set_num_threads(1)
    pipes = sys.argv[1:] or ["bgc", "bgcfnc", "diffaugment"]
    steps = {"plain": make_step()}
    for pipe in pipes:
        steps[pipe] = make_step(augment="fixed", augment_pipe=pipe, augment_p=0.6)
    reals = torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(ROUNDS + 1):
        for name, step in steps.items():
            started = time.process_time()
            step(reals, None, STAGE, number)
            if number:  # the first one allocates
                seconds[name].append(time.process_time() - started)
    plain = seconds["plain"]
    for name, found in seconds.items():
        ratios = [one / other for one, other in zip(found, plain, strict=True)]
        print(
            f"{name:12} {statistics.median(found):.3f} CPU seconds a step, "
            f"{statistics.median(ratios):.3f} of plain ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()

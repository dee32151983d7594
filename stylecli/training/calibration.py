"""Measure how long a step takes at every stage of growth, on this machine, now."""

import time
from dataclasses import replace
from pathlib import Path

import torch

from stylecli.distributed import Ranks
from stylecli.training import run_folder
from stylecli.training.loop import build_networks
from stylecli.training.schedule import Stage, schedule_at
from stylecli.training.step import TrainingStep

SECONDS_PER_STAGE = 1.5
WARM_UP_STEPS = 4


def growth_stages(resolution: int, initial_resolution: int) -> list[tuple[int, bool]]:
    """Return (resolution, fading) in the order of growth: 8, 16 fading, 16, 32 fading, 32."""
    stages = [(initial_resolution, False)]
    side = initial_resolution
    while side < resolution:
        side *= 2
        stages += [(side, True), (side, False)]
    return stages


def measure_stages(run: Path, ranks: Ranks | None = None) -> dict[tuple[int, bool], float]:
    """Return seconds per image at every stage of a run's growth; the run itself is not touched.

    All ranks take the same number of steps, on random pictures.
    """
    ranks = ranks or Ranks()
    settings = run_folder.load_settings(run)
    config, network = settings.training, settings.network
    device = torch.device(settings.device)
    labels = torch.eye(network.label_dim) if network.label_dim else None
    step = TrainingStep(
        build_networks(settings), config, ranks=ranks, device=device, label_table=labels
    )
    r_max = network.resolution_log2
    seconds: dict[tuple[int, bool], float] = {}
    for side, fading in growth_stages(network.resolution, config.initial_resolution):
        lod = r_max - (side.bit_length() - 1) + (0.5 if fading else 0.0)
        stage = replace(_stage_of(settings, side), lod=lod)
        seconds[side, fading] = _time_stage(step, stage, network.channels, labels, ranks)
    return seconds


def _stage_of(settings: run_folder.RunSettings, side: int) -> Stage:
    stage = schedule_at(settings.training, settings.network.resolution, 0)
    config = settings.training
    return replace(
        stage,
        resolution=side,
        batch=config.batch.get(side, config.batch_base),
        lr=config.lr.get(side, config.lr_base),
    )


def _time_stage(
    step: TrainingStep, stage: Stage, channels: int, labels: torch.Tensor | None, ranks: Ranks
) -> float:
    share = stage.batch // ranks.count
    images = torch.randint(
        0, 256, (share, channels, stage.resolution, stage.resolution), dtype=torch.uint8
    )
    picked = None if labels is None else labels[torch.arange(share) % len(labels)]
    step.set_stage(stage, reset=True)
    count, started = 0, time.monotonic()
    interval = step.config.r1_interval
    while True:
        step(images, picked, stage, count)
        count += 1
        if count == WARM_UP_STEPS:
            started = time.monotonic()
        if count > WARM_UP_STEPS and (count - WARM_UP_STEPS) % interval == 0:
            enough = time.monotonic() - started > SECONDS_PER_STAGE
            if ranks.any(ranks.is_main and enough):
                break
    return (time.monotonic() - started) / ((count - WARM_UP_STEPS) * stage.batch)

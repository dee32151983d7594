"""Measure what a step takes at every stage of growth, on this machine, now: time and memory."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from stylecli.distributed.ranks import Ranks
from stylecli.hardware import PeakMemory, available_mib
from stylecli.progress import Progress, silent
from stylecli.training import run_folder
from stylecli.training.config import Session
from stylecli.training.passes import count_passes
from stylecli.training.run_folder import RunSettings
from stylecli.training.run_setup import build_networks
from stylecli.training.schedule import Stage, StageKey, list_stages, stage_of_key
from stylecli.training.step import StepMemoryError, TrainingStep

SECONDS_PER_STAGE = 1.5
WARM_UP_STEPS, WARM_UP_SECONDS = 4, 3.0  # whichever ends first
_LARGEST_BATCH = 4096
_SLOPE_BATCHES = (8, 24)  # the two batches a CPU's memory per image is taken from


@dataclass(frozen=True)
class StageCost:
    """What training costs at one stage of growth."""

    resolution: int
    fading: bool
    batch: int  # over all ranks
    passes: int  # of every rank
    seconds_per_image: float
    memory_mib: float  # the peak of one rank; what kind of memory, PeakMemory.kind says
    computed: bool = False  # from operations counted, not measured


@dataclass(frozen=True)
class StageBudget:
    """A row of the plan."""

    name: str
    resolution: int
    fading: bool
    batch: int  # over all processes
    passes: int  # of every process
    memory_mib: float  # of one process
    sec_per_kimg: float
    kimg: float
    seconds: float
    computed: bool = False  # from operations counted, not measured


@dataclass(frozen=True)
class LargestBatch:
    """The most images of one pass that fit at full resolution."""

    images: int
    memory_mib: float  # that one process may take
    mib_per_image: float
    estimated: bool  # from the growth with the batch, not tried


def measure_stages(
    run: Path,
    ranks: Ranks | None = None,
    *,
    session: Session | None = None,
    only: Callable[[StageKey], bool] = lambda stage: True,
    progress: Progress = silent,
) -> dict[StageKey, StageCost]:
    """Return the cost of every stage of a run's growth; the run itself is not touched.

    All ranks take the same number of steps, on random pictures; ``only`` rank 0 chooses the stages.
    """
    meter = _Meter(run, ranks or Ranks(), session or Session())
    if meter.session.batch_gpu is None:
        meter.step.adapt = meter.forget_peak  # as training does
    growth = list_stages(meter.config, meter.settings.network.resolution)
    chosen = [stage.key for stage in growth if only(stage.key)]
    stages: list[StageKey] = [tuple(key) for key in meter.ranks.from_main(chosen)]
    costs: dict[StageKey, StageCost] = {}
    for number, stage in enumerate(stages):
        progress(number, len(stages), name_stage(stage))
        costs[stage] = meter.cost(stage)
    progress(len(stages), len(stages))
    return costs


def name_stage(stage: StageKey) -> str:
    """Return ``16 px fading in``."""
    return f"{stage[0]} px{' fading in' if stage[1] else ''}"


def budget_stages(settings: RunSettings, costs: Mapping[StageKey, StageCost]) -> list[StageBudget]:
    """Return the stages of a schedule in their order; ``costs`` holds each of them."""
    budgets = []
    for stage in list_stages(settings.training, settings.network.resolution):
        if not stage.reached:
            continue
        cost, kimg = costs[stage.key], stage.to_kimg - stage.from_kimg
        rate = cost.seconds_per_image * 1000
        budgets.append(
            StageBudget(
                name_stage(stage.key), *stage.key, cost.batch, cost.passes,
                round(cost.memory_mib, 1), round(rate, 3), round(kimg, 6), round(rate * kimg, 1),
                cost.computed,
            )
        )  # fmt: skip
    return budgets


def measure_largest_batch(
    run: Path, session: Session | None = None, *, processes: int = 1
) -> LargestBatch | None:
    """Return the most images of a pass at full resolution that this device has memory for.

    On CUDA they are tried, a training step with its penalties each, until one runs out of memory.
    On CPUs two batches say how memory grows by the image, and what is available is shared by so
    many ``processes``. None where the system does not tell.
    """
    meter = _Meter(run, Ranks(), replace(session or Session(), batch_gpu=None))
    group = max(1, meter.settings.network.mbstd_group_size)
    limit = available_mib(meter.step.device)
    if limit is None:
        return None
    if meter.step.device.type == "cuda":
        images = largest_fitting(meter.fits, group, _LARGEST_BATCH)
        used = meter.peak_of(images)
        return LargestBatch(images, limit, used / max(images, 1), estimated=False)
    few, more = (-(-count // group) * group for count in _SLOPE_BATCHES)
    first, second = meter.peak_of(few), meter.peak_of(more)
    slope = max((second - first) / (more - few), 1e-3)
    share = limit / processes
    images = few + int((share - (first - meter.idle_mib)) / slope)
    return LargestBatch(max(images // group * group, 0), share, slope, estimated=True)


def largest_fitting(fits: Callable[[int], bool], group: int, limit: int) -> int:
    """Return the largest multiple of ``group`` up to ``limit`` that fits: doubling, then halving.

    0 where not even one group fits.
    """
    good, bad = 0, group
    while bad <= limit and fits(bad):
        good, bad = bad, bad * 2
    bad = min(bad, limit + group)
    while bad - good > group:
        middle = (good + bad) // 2 // group * group
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


class _Meter:
    """A training step on random pictures."""

    def __init__(self, run: Path, ranks: Ranks, session: Session) -> None:
        self.settings = run_folder.load_settings(run)
        self.config, self.session, self.ranks = self.settings.training, session, ranks
        device = torch.device(self.settings.device)
        label_dim = self.settings.network.label_dim
        self.labels = torch.eye(label_dim) if label_dim else None
        self.step = TrainingStep(
            build_networks(self.settings), self.config, ranks=ranks, device=device,
            label_table=self.labels, batch_gpu=session.batch_gpu, exact=session.exact,
        )  # fmt: skip
        self.memory = PeakMemory(device)
        self.memory.start()
        self.idle_mib = self.memory.mib()

    def cost(self, key: StageKey) -> StageCost:
        """Measure one stage."""
        stage = self._stage(*key)
        share = stage.batch // self.ranks.count
        self.memory.start()
        seconds = self._time(stage, share)
        passes = count_passes(share, self.step.batch_gpu, self.settings.network.mbstd_group_size)
        return StageCost(*key, stage.batch, passes, seconds, self.memory.mib())

    def forget_peak(self, why: str) -> None:
        """Measure memory again: a pass did not fit, and a smaller one follows."""
        self.memory.start()

    def fits(self, batch: int) -> bool:
        """Whether a step of so many images at full resolution has the memory it needs."""
        try:
            self.peak_of(batch)
        except StepMemoryError:
            return False
        return True

    def peak_of(self, batch: int) -> float:
        """Return the peak of memory in MiB in a step of so many images at full resolution."""
        stage = replace(self._stage(self.settings.network.resolution, False), batch=batch)
        self.memory.start()
        self.step.set_stage(stage, reset=True)
        self.step(*self._pictures(stage, batch), stage, 0)  # step 0 has the penalty
        return self.memory.mib()

    def _stage(self, side: int, fading: bool) -> Stage:
        return stage_of_key(self.config, self.settings.network.resolution, (side, fading))

    def _pictures(self, stage: Stage, share: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        size = (share, self.settings.network.channels, stage.resolution, stage.resolution)
        images = torch.randint(0, 256, size, dtype=torch.uint8)
        labels = self.labels
        return images, None if labels is None else labels[torch.arange(share) % len(labels)]

    def _time(self, stage: Stage, share: int) -> float:
        images, labels = self._pictures(stage, share)
        self.step.set_stage(stage, reset=True)
        begun = started = time.monotonic()
        count = warm = 0  # steps in all, and of them not counted
        while True:
            self.step(images, labels, stage, count)
            count += 1
            now = self._now()
            if not warm:
                enough = count == WARM_UP_STEPS or now - begun > WARM_UP_SECONDS
                if self.ranks.any(self.ranks.is_main and enough):
                    warm, started = count, self._now()
            elif (count - warm) % self.config.r1_interval == 0:
                enough = now - started > SECONDS_PER_STAGE
                if self.ranks.any(self.ranks.is_main and enough):
                    return (self._now() - started) / ((count - warm) * stage.batch)

    def _now(self) -> float:
        if self.step.device.type == "cuda":
            torch.cuda.synchronize(self.step.device)
        return time.monotonic()

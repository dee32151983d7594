"""What a step costs in time and memory: measured at every stage, on this machine, now, or computed.

For a GPU that is not here, and for stages too costly to try, a step's operations are counted
without computing any of them (torch's fake tensors): every operation has its arithmetic and the
bytes it reads and writes. Each takes the longer of the two at a share of what the data sheet
promises, and no less than a kernel's launch. The shares were chosen by hand, with the training
times that NVIDIA published for V100s in mind, and no run on these GPUs was measured here: take the
results as right within a factor of 2. Augmentation, a small share of a step, is not counted.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from stylecli.distributed.ranks import Ranks
from stylecli.errors import UsageError
from stylecli.hardware import PeakMemory, available_mib
from stylecli.networks.config import NetworkConfig
from stylecli.networks.model import asked_lod, native_lod
from stylecli.networks.registry import build_discriminator, build_generator
from stylecli.progress import Progress, silent
from stylecli.training import run_folder
from stylecli.training.config import Session, TrainingConfig
from stylecli.training.losses import (
    D_loss,
    G_loss,
    gradient_penalty,
    path_lengths,
    squared_gradient,
)
from stylecli.training.run_folder import RunSettings
from stylecli.training.run_setup import build_networks
from stylecli.training.schedule import Stage, StageKey, count_passes, list_stages, stage_of_key
from stylecli.training.step import StepMemoryError, TrainingStep

# ---- computed from operations

# Shares of the data sheet's peaks that convolutions of these sizes reach, and simple operations.
ARITHMETIC_SHARE, MEMORY_SHARE = 0.45, 0.65
LAUNCH_SECONDS = 5e-6  # of one operation, from Python
SHARED_SHARE = 0.92  # of the speed of one GPU that each of several keeps
_COUNTED = 4  # images; the cost of an image is taken from a step of so many


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet: dense TFLOPS by precision, memory in GB/s and GiB."""

    name: str
    float32: float
    tf32: float  # equal to float32 where there is no TF32
    half: float  # fp16 and bf16 on tensor cores
    memory_gbs: float
    memory_gib: int
    bf16: bool = True

    def peak(self, precision: str, *, exact: bool) -> float:
        """Return floating-point operations per second; raise UsageError where it has none."""
        if precision == "bf16" and not self.bf16:
            raise UsageError(f"{self.name} has no bf16: give --precision fp16 or float32")
        if precision in ("bf16", "fp16"):
            return self.half * 1e12
        return (self.float32 if exact else self.tf32) * 1e12


# NVIDIA's data sheets, without sparsity; SXM modules where there are several.
GPUS: Mapping[str, Gpu] = {
    "t4": Gpu("T4", 8.1, 8.1, 65, 320, 16, bf16=False),
    "v100": Gpu("V100", 15.7, 15.7, 125, 900, 32, bf16=False),
    "rtx3090": Gpu("RTX 3090", 35.6, 35.6, 71, 936, 24),
    "rtx4090": Gpu("RTX 4090", 82.6, 82.6, 165.2, 1008, 24),
    "a10": Gpu("A10", 31.2, 62.5, 125, 600, 24),
    "l4": Gpu("L4", 30.3, 60, 121, 300, 24),
    "l40s": Gpu("L40S", 91.6, 183, 362, 864, 48),
    "a100": Gpu("A100", 19.5, 156, 312, 2039, 80),
    "h100": Gpu("H100", 67, 494, 989, 3350, 80),
    "h200": Gpu("H200", 67, 494, 989, 4800, 141),
}


def find_gpu(name: str) -> Gpu:
    """Return a GPU of the table; raise UsageError for others."""
    gpu = GPUS.get(name.lower().replace(" ", "").replace("-", ""))
    if gpu is None:
        raise UsageError(f"the GPU {name!r} is not in the table: expected {', '.join(GPUS)}")
    return gpu


@dataclass
class Work:
    """What training steps on some images take: (operations, bytes) of every kernel."""

    kernels: list[tuple[float, float]]
    images: int
    steps: int = 1  # that the kernels belong to

    @property
    def flops(self) -> float:
        """Floating-point operations of one image."""
        return sum(flops for flops, _ in self.kernels) / (self.images * self.steps)

    def seconds(self, gpu: Gpu, peak: float, images: int) -> float:
        """Return what a step of so many images takes on one GPU."""
        scale = images / self.images
        bandwidth = gpu.memory_gbs * 1e9 * MEMORY_SHARE
        total = sum(
            max(flops * scale / (peak * ARITHMETIC_SHARE), size * scale / bandwidth, LAUNCH_SECONDS)
            for flops, size in self.kernels
        )
        return total / self.steps


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the arithmetic and the bytes of every operation inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: list[tuple[float, float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        results = _tensors(out)
        inputs = _tensors((args, kwargs or {}))
        if results and not _is_view(func):
            counter = flop_registry.get(func.overloadpacket)
            flops = counter(*args, **(kwargs or {}), out_val=out) if counter else 0
            size = sum(tensor.numel() * tensor.element_size() for tensor in (*results, *inputs))
            self.kernels.append((float(flops), float(size)))
        return out


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _is_view(func: Any) -> bool:
    """Whether an operation only looks at a tensor in another way, which costs nothing."""
    returns = func._schema.returns
    alias = returns[0].alias_info if returns else None
    return alias is not None and not alias.is_write


def count_step(network: NetworkConfig, training: TrainingConfig, stage: Stage) -> Work:
    """Return the work of a training step at a stage, computing nothing.

    D sees reals and fakes, with the penalties of the loss at their intervals; then G is updated.
    """
    with FakeTensorMode():
        G, D = build_generator(network), build_discriminator(network)
        G.lod = D.lod = stage.lod
        seldom = training.pl_interval if training.pl_weight else 1
        period = math.lcm(training.r1_interval, seldom)
        penalised = period // training.r1_interval  # most steps of a period have no penalty
        kernels = _trace(G, D, training, stage, penalise=True) * penalised
        if period > penalised:
            kernels += _trace(G, D, training, stage, penalise=False) * (period - penalised)
        if training.pl_weight:
            kernels += _trace_paths(G, training, stage) * (period // seldom)
    return Work(kernels, _COUNTED, period)


def _reduced(training: TrainingConfig) -> contextlib.AbstractContextManager[object]:
    if training.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast("cpu", torch.bfloat16, cache_enabled=False)


def _draw(G: Any, training: TrainingConfig, stage: Stage, count: int) -> tuple[Tensor, Tensor]:
    """Return ws and pictures of so many latents."""
    config = G.config
    labels = torch.zeros(count, config.label_dim) if config.label_dim else None
    ws = G.mapping.broadcast(G.mapping.embed(torch.zeros(count, config.z_dim), labels))
    noise = {"noise_mode": "none"} if config.has_noise else {}
    with _reduced(training):
        return ws, G.synthesis(ws, **noise, **native_lod(config, stage.lod))


def _trace_paths(G: Any, training: TrainingConfig, stage: Stage) -> list[tuple[float, float]]:
    """Return the kernels of path-length regularisation, which takes half a batch."""
    with _Counting() as counting:
        ws, images = _draw(G, training, stage, _COUNTED // 2)
        path_lengths(images, ws, torch.zeros(images.shape)).square().mean().backward()  # type: ignore[no-untyped-call]
    kernels: list[tuple[float, float]] = counting.kernels
    return kernels


def _trace(
    G: Any, D: Any, training: TrainingConfig, stage: Stage, *, penalise: bool
) -> list[tuple[float, float]]:
    config = G.config
    size = (_COUNTED, config.channels, *config.size_at(stage.resolution))
    labels = torch.zeros(_COUNTED, config.label_dim) if config.label_dim else None
    reals = torch.zeros(size)

    def score(images: Tensor) -> Tensor:
        with _reduced(training):
            logits: Tensor = D(images, labels, **asked_lod(config, stage.lod))
        return logits

    with _Counting() as counting:
        with torch.set_grad_enabled(training.share_fakes):
            _, fakes = _draw(G, training, stage, _COUNTED)
        seen = fakes.detach()
        logistic = training.takes_r1
        reals.requires_grad_(bool(penalise and logistic and training.r1_gamma))
        seen.requires_grad_(bool(penalise and logistic and training.r2_gamma))
        real_logits, fake_logits = score(reals), score(seen)
        total = D_loss(training.loss, real_logits, fake_logits).mean()
        for images, logits in ((reals, real_logits), (seen, fake_logits)):
            if images.requires_grad:
                total = total + squared_gradient(logits, images, 4**stage.level).mean()
        if training.loss.endswith("gp") and penalise:
            mix = torch.zeros(_COUNTED, 1, 1, 1)
            total = total + gradient_penalty(score, reals, seen, mix, 4**stage.level).mean()
        total.backward()  # type: ignore[no-untyped-call]
        if not training.share_fakes:
            _, fakes = _draw(G, training, stage, _COUNTED)
        D.requires_grad_(False)
        beside = score(reals.detach()) if training.is_relativistic else None
        G_loss(training.loss, score(fakes), beside).mean().backward()  # type: ignore[no-untyped-call]
        D.requires_grad_(True)
    kernels: list[tuple[float, float]] = counting.kernels
    return kernels


def price_stages(
    network: NetworkConfig,
    training: TrainingConfig,
    stages: Iterable[Stage],
    *,
    progress: Progress = silent,
) -> dict[Stage, Work]:
    """Return the work of every stage; a fade is taken to cost what its full resolution does."""
    found: dict[int, Work] = {}
    stages = list(stages)
    for number, stage in enumerate(stages):
        progress(number, len(stages), f"{network.size_at(stage.resolution)} px")
        if stage.resolution not in found:
            whole = replace(stage, lod=float(math.floor(stage.lod)))
            found[stage.resolution] = count_step(network, training, whole)
    progress(len(stages), len(stages))
    return {stage: found[stage.resolution] for stage in stages}


# ---- measured on this machine

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
        progress(number, len(stages), name_stage(stage, meter.settings.network))
        costs[stage] = meter.cost(stage)
    progress(len(stages), len(stages))
    return costs


def name_stage(stage: StageKey, network: NetworkConfig) -> str:
    """Return ``16 px fading in``."""
    return f"{network.size_at(stage[0])} px{' fading in' if stage[1] else ''}"


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
                name_stage(stage.key, settings.network), *stage.key, cost.batch, cost.passes,
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
            accelerations=session.accelerations,
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
        share *= self.config.batches_of_reals
        network = self.settings.network
        size = (share, network.channels, *network.size_at(stage.resolution))
        images = torch.randint(0, 256, size, dtype=torch.uint8)
        labels = self.labels
        return images, None if labels is None else labels[torch.arange(share) % len(labels)]

    def _every_phase(self) -> int:
        """Return after how many steps all phases have come as often as they do."""
        return math.lcm(self.config.r1_interval, max(1, self.config.pl_interval))

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
            elif (count - warm) % self._every_phase() == 0:
                enough = now - started > SECONDS_PER_STAGE
                if self.ranks.any(self.ranks.is_main and enough):
                    return (self._now() - started) / ((count - warm) * stage.batch)

    def _now(self) -> float:
        if self.step.device.type == "cuda":
            torch.cuda.synchronize(self.step.device)
        return time.monotonic()

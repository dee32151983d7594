"""How fast this machine draws and trains: medians and spreads, and how near its own ceiling.

On shared machines wall time says little, so every case also reports CPU-seconds (user + system
of this process, over all threads). On CUDA those only tell how long launching takes: there the
device's own seconds count, between two events on its stream, and its peak of memory. Cases take
turns within a round, so that what else the machine does meanwhile falls on all alike.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from stylecli.errors import UsageError
from stylecli.hardware import Precision
from stylecli.networks.model import Bundle
from stylecli.progress import Progress, silent
from stylecli.rendering import exact_kernels, prepare_synthesis
from stylecli.training.config import NO_SIDES, TrainingConfig
from stylecli.training.run_setup import faster_planar_sides
from stylecli.training.schedule import stage_at
from stylecli.training.step import TrainingStep

WARM_UP = 2  # rounds that do not count
CEILING_SIDE = 64  # px of the convolution that stands for the ceiling
CEILING_MAPS = 512


@dataclass(frozen=True)
class Case:
    """One thing to time: ``run`` does the work of ``count`` units once."""

    work: str  # what is done, in the same words for every program
    form: str  # in which precision, or by which other program
    unit: str  # image, step
    count: int
    run: Callable[[], object]
    flops: float = 0.0  # of one unit, where they are known
    precision: Precision = "float32"
    program: str = ""  # "": this one

    @property
    def name(self) -> str:
        """The work and its form."""
        return f"{self.work}, {self.form}"


@dataclass
class Timing:
    """What a case took, per unit, over the rounds."""

    case: Case
    wall: list[float] = field(default_factory=list)  # seconds per unit
    cpu: list[float] = field(default_factory=list)  # CPU-seconds per unit
    gpu: list[float] = field(default_factory=list)  # seconds of a CUDA device per unit
    gpu_mib: float = 0.0  # the most that tensors held on it

    @property
    def busy(self) -> list[float]:
        """The seconds of whatever computes: of the GPU, else of processors."""
        return self.gpu or self.cpu

    @property
    def per_second(self) -> float:
        """Floating-point operations per second of those, 0 where they are not known."""
        seconds = statistics.median(self.busy)
        return self.case.flops / seconds if seconds else 0.0


def measure(
    cases: Sequence[Case],
    repeats: int,
    *,
    device: torch.device | None = None,
    progress: Progress = silent,
) -> list[Timing]:
    """Time all cases in turn, ``repeats`` rounds after a warm-up."""
    if repeats < 1:
        raise UsageError(f"{repeats} repeats measure nothing: give 1 or more")
    timings = [Timing(case) for case in cases]
    rounds = WARM_UP + repeats
    for turn in range(rounds):
        for place, timing in enumerate(timings):
            progress(turn * len(cases) + place, rounds * len(cases), timing.case.name)
            wall, cpu, gpu, mib = _clock(timing.case.run, device)
            if turn >= WARM_UP:
                timing.wall.append(wall / timing.case.count)
                timing.cpu.append(cpu / timing.case.count)
                if gpu is not None:
                    timing.gpu.append(gpu / timing.case.count)
                timing.gpu_mib = max(timing.gpu_mib, mib)
    progress(rounds * len(cases), rounds * len(cases))
    return timings


def drawing_work(side: int, batch: int) -> str:
    """Say what a case of drawing does."""
    return f"draw {side} px, batch {batch}"


def training_work(side: int, batch: int) -> str:
    """Say what a case of training does."""
    return f"train {side} px, batch {batch}"


def training_batch(batches: Sequence[int]) -> int:
    """Return the batch that training is timed with where drawing is with these: 4 at least."""
    return max(*batches, 4)


def times_as_fast(timing: Timing, timings: Sequence[Timing]) -> dict[str, list[float]]:
    """Return how many times as fast as each other program a case is, in every round."""
    return {
        other.case.program: [
            theirs / max(ours, 1e-9) for theirs, ours in zip(other.busy, timing.busy, strict=True)
        ]
        for other in timings
        if other.case.program and other.case.work == timing.case.work
    }


def drawing_cases(
    net: Bundle,
    batches: Sequence[int],
    precisions: Sequence[Precision],
    device: torch.device,
) -> list[Case]:
    """Return cases that draw images [B, C, H, W] from latents, the network being on ``device``."""
    G, config = net.generator.to(device), net.config
    cases = []
    for precision in precisions:
        synthesis = prepare_synthesis(G, precision)
        for batch in batches:
            z = torch.randn(batch, config.z_dim, device=device)

            def draw(z: torch.Tensor = z, synthesis: Callable[..., object] = synthesis) -> None:
                with torch.inference_mode(), exact_kernels(device):
                    synthesis(G.mapping(z, truncation_psi=0.7 if config.has_w else 1.0))

            cases.append(
                Case(
                    drawing_work(config.resolution, batch), precision,
                    "image", batch, draw, config.drawing_flops(), precision,
                )
            )  # fmt: skip
    return cases


def training_case(
    net: Bundle, batch: int, device: torch.device, precision: Precision = "float32"
) -> Case:
    """Return the case of one training step (D with R1 every step, EMA, G) at full resolution.

    The network is trained by it. Raises UsageError where labels would be needed.
    """
    config = net.config
    if config.label_dim:
        raise UsageError("a network with classes is not timed in training: leave --train out")
    tried = device.type == "cpu" and precision == "float32"
    planar = faster_planar_sides(config) if tried else NO_SIDES
    training = TrainingConfig(batch={}, batch_base=batch, lr={}, hold_kimg=0, fade_kimg=1e-3,
                              precision=precision, planar_gradients=planar)  # fmt: skip
    step = TrainingStep(net, training, device=device)
    stage = stage_at(training, config.resolution, 10**9)
    step.set_stage(stage, reset=True)
    size = (batch, config.channels, *config.size)
    reals = torch.randint(0, 256, size, dtype=torch.uint8)
    number = iter(range(10**9))
    rounded = " (TF32)" if step.products == "tf32" else ""
    return Case(
        training_work(config.resolution, batch), f"{precision}{rounded}",
        "step", 1, lambda: step(reals, None, stage, next(number)), precision=precision,
    )  # fmt: skip


def ceiling_case(device: torch.device, precision: Precision) -> Case:
    """Return one 3×3 convolution of 512 feature maps at 64 px: the most this machine does."""
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    x = torch.randn(1, CEILING_MAPS, CEILING_SIDE, CEILING_SIDE, device=device, dtype=dtype)
    w = torch.randn(CEILING_MAPS, CEILING_MAPS, 3, 3, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    w = w.contiguous(memory_format=torch.channels_last)

    def convolve() -> None:
        with torch.inference_mode(), exact_kernels(device):
            F.conv2d(x, w, padding=1)

    flops = 2.0 * 9 * CEILING_MAPS**2 * CEILING_SIDE**2
    return Case("ceiling: 3x3 convolution", precision, "convolution", 1, convolve, flops, precision)


def _clock(
    run: Callable[[], object], device: torch.device | None
) -> tuple[float, float, float | None, float]:
    """Return what one call takes: wall and CPU-seconds, and of a CUDA device its seconds and MiB.

    An accelerator's queue is empty before and after. The device's seconds are those between two
    events around the call's work, in which it may have waited for the host.
    """
    on_gpu = device is not None and device.type == "cuda"
    _wait(device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    wall, cpu = time.perf_counter(), time.process_time()
    if on_gpu:
        before.record()
    run()
    if on_gpu:
        after.record()
    _wait(device)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if not on_gpu:
        return wall, cpu, None, 0.0
    peak = torch.cuda.max_memory_allocated(device) / 2**20
    return wall, cpu, before.elapsed_time(after) / 1000, peak


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device is not None and device.type == "mps":
        torch.mps.synchronize()

"""Which stage is trained when, with what, in how many passes, and how long the rest takes.

All is a function of the settings and of the images shown so far. Stdlib only.
"""

import collections
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stylecli.errors import UsageError
from stylecli.networks.config import NetworkConfig
from stylecli.training.config import TICK_KIMG, TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor

StageKey = tuple[int, bool]  # resolution, whether it is being faded in
_PACE_SECONDS = 60.0  # of a stage that count: its rate now, not since it began
_ENOUGH_SECONDS = 3.0  # before the first estimate,
_ENOUGH_STEPS = 3  # and reports
_LEAST_SECONDS = 0.25  # of a step that counts by itself: quicker ones are taken together
_MOST_STEPS = 256
_PAUSE = 8.0  # times the usual step: no training, but saving, measuring or a machine asleep
# Seconds per image = a + b·values. On two cores the small preset at 8 to 32 px and a network of
# 512 feature maps at 4 to 64 px were within a third of it with this share for a at 8 px.
_FIXED_VALUES = 150_000.0


@dataclass(frozen=True)
class Stage:
    """What holds at one moment of training."""

    lod: float  # level of detail: 0 = full resolution, a fraction = fading
    resolution: int  # pixels that are trained, already the larger one while fading
    batch: int  # images per step, over all ranks
    lr: float  # learning rate of both optimizers
    tick_kimg: float
    nimg: int = 0  # images shown so far

    @property
    def level(self) -> int:
        """Pyramid level the real images are read at: floor(lod)."""
        return math.floor(self.lod)

    @property
    def fade(self) -> float:
        """Share of the next coarser resolution, 0 once it is faded out."""
        return self.lod - self.level


def stage_at(config: TrainingConfig, resolution: int, nimg: int) -> Stage:
    """Return the stage after ``nimg`` images for a network of ``resolution`` pixels.

    lod = max(0, r_max - r_initial - p - max(kimg - p·phase - hold, 0) / fade), where a phase is
    hold + fade and p counts the whole phases passed. Resolution, and with it batch and learning
    rate, switch the moment a fade begins.
    """
    kimg = nimg / 1000
    phase = config.hold_kimg + config.fade_kimg
    passed = math.floor(kimg / phase)
    into = kimg - passed * phase
    lod = float(_doublings(config, resolution) - passed)
    lod = max(lod - max(into - config.hold_kimg, 0.0) / config.fade_kimg, 0.0)
    return replace(stage_of_lod(config, resolution, lod), nimg=nimg)


def stage_of_key(config: TrainingConfig, resolution: int, key: "StageKey") -> Stage:
    """Return the stage of a network of ``resolution`` pixels by (side, fading): half faded in."""
    side, fading = key
    lod = resolution.bit_length() - side.bit_length() + (0.5 if fading else 0.0)
    return stage_of_lod(config, resolution, lod)


def stage_of_lod(config: TrainingConfig, resolution: int, lod: float) -> Stage:
    """Return the stage of a network of ``resolution`` pixels at a level of detail."""
    side = resolution >> math.floor(lod)
    tick = TICK_KIMG[side] if config.tick_kimg is None else config.tick_kimg
    return Stage(
        lod=lod,
        resolution=side,
        batch=batch_at(config, side),
        lr=config.lr.get(side, config.lr_base),
        tick_kimg=tick,
    )


def batch_at(config: TrainingConfig, side: int) -> int:
    """Return the images per step, over all ranks, while ``side`` pixels are trained."""
    return config.batch.get(side, config.batch_base)


def resets_optimizer(before: Stage | None, now: Stage) -> bool:
    """Whether both optimizers start afresh: at the start and at the end of every fade."""
    if before is None:
        return False
    return math.floor(before.lod) != math.floor(now.lod) or math.ceil(before.lod) != math.ceil(
        now.lod
    )


@dataclass(frozen=True)
class Rates:
    """What an update of one network takes: Adam's settings, after the correction of lazy phases."""

    lr: "float | Tensor"
    beta1: float
    beta2: "float | Tensor"


@dataclass(frozen=True)
class Moment:
    """What holds in one step, beside the stage: the settings that move with the images shown."""

    lr: float  # of both networks, before the correction of lazy phases; D may have its own
    G: Rates
    D: Rates
    r1_gamma: float
    r2_gamma: float
    ema_images: float  # half-life of the averaged generator
    augment_p: float  # where it is fixed
    blur_sigma: float  # pixels


def moment_at(config: TrainingConfig, stage: Stage) -> Moment:
    """Return what a step of a stage takes after ``stage.nimg`` images.

    Where regularisation is an update of its own, every k steps beside k plain ones, Adam's lr and
    β are brought to what k of k + 1 updates come to: lr·c and β^c, c = k/(k + 1) (Karras et al.
    2019, appendix B).
    """
    nimg = stage.nimg
    lr = _annealed(config, stage.lr, config.lr_final, nimg)
    lr_D = _annealed(config, config.lr_D or stage.lr, config.lr_final, nimg)
    beta2 = _annealed(config, config.adam_beta2, config.beta2_final, nimg)
    half_life = config.ema_kimg * 1000
    p = config.augment_p
    if config.anneal_kimg:
        half_life, p = (_annealed(config, 0.0, last, nimg) for last in (half_life, p))
    if config.ema_rampup is not None:
        half_life = min(half_life, nimg * config.ema_rampup)
    left = 1 - nimg / (config.blur_kimg * 1000) if config.blur_kimg else 0.0

    def rates(lr: float, interval: int) -> Rates:
        c = interval / (interval + 1) if config.lazy and interval else 1.0
        return Rates(lr * c, config.adam_beta1**c, beta2**c)

    r1, r2 = (
        _annealed(config, gamma, config.gamma_final if gamma else None, nimg)
        for gamma in (config.r1_gamma, config.r2_gamma)
    )
    return Moment(
        lr=lr, G=rates(lr, config.pl_interval),
        D=rates(lr_D, config.r1_interval if config.r1_interval > 1 else 0),
        r1_gamma=r1, r2_gamma=r2, ema_images=half_life, augment_p=p,
        blur_sigma=config.blur_sigma * max(left, 0.0),
    )  # fmt: skip


@dataclass(frozen=True)
class Dials:
    """The numbers in a step's arithmetic that move with the images shown.

    Plain numbers, or tensors [] where a captured step reads them on its device (``graphs``).
    """

    G: Rates
    D: Rates
    r1: "float | Tensor"  # that the mean of squared gradients on reals is multiplied by
    r2: "float | Tensor"  # on fakes
    average: "float | Tensor"  # how far G_ema moves towards G
    fade: "float | Tensor"

    @classmethod
    def at(cls, config: TrainingConfig, stage: Stage, moment: Moment) -> "Dials":
        """Return those of a step; G_ema moves by the half-life of the moment."""
        kept = 0.5 ** (stage.batch / max(moment.ema_images, 1e-8))
        r1, r2 = (gamma / 2 * config.r1_interval for gamma in (moment.r1_gamma, moment.r2_gamma))
        return cls(moment.G, moment.D, r1, r2, 1 - kept, stage.fade)


def _annealed(config: TrainingConfig, first: float, last: float | None, nimg: float) -> float:
    """Return a setting on its way from ``first`` to ``last``: half a cosine, then constant."""
    if last is None or not config.anneal_kimg:
        return first
    share = min(nimg / (config.anneal_kimg * 1000), 1.0)
    return last if share == 1 else first + (1 - math.cos(math.pi * share)) / 2 * (last - first)


@dataclass(frozen=True)
class PlannedStage:
    """One stretch of training: a resolution that is held, or faded in."""

    resolution: int  # px, already the larger one while fading
    fading: bool
    from_kimg: float
    to_kimg: float
    batch: int  # images per step, over all ranks
    lr: float
    tick_kimg: float
    reached: bool = True  # False where the length ends before

    @property
    def key(self) -> StageKey:
        """What tells it from the others."""
        return self.resolution, self.fading


def grown_kimg(config: TrainingConfig, resolution: int) -> float:
    """Return when a network of ``resolution`` pixels is fully grown, in thousands of images."""
    return _doublings(config, resolution) * (config.hold_kimg + config.fade_kimg)


def list_sides(config: TrainingConfig, resolution: int) -> list[int]:
    """Return the sizes in pixels that are trained one after the other, the last ``resolution``."""
    return [resolution >> left for left in range(_doublings(config, resolution), -1, -1)]


def _doublings(config: TrainingConfig, resolution: int) -> int:
    """Return how often a network of ``resolution`` pixels grows."""
    return resolution.bit_length() - min(config.initial_resolution, resolution).bit_length()


def list_stages(config: TrainingConfig, resolution: int) -> list[PlannedStage]:
    """Return all stages of growing to ``resolution``, those beyond the length marked.

    The last stage, full resolution, ends with the schedule; without holding, stages only fade.
    """
    doublings = _doublings(config, resolution)
    phase = config.hold_kimg + config.fade_kimg
    spans: list[tuple[bool, float, float]] = []
    for passed in range(doublings):
        begin = passed * phase
        if config.hold_kimg:
            spans.append((False, begin, begin + config.hold_kimg))
        spans.append((True, begin + config.hold_kimg, begin + phase))
    spans.append((False, doublings * phase, config.total_kimg))
    stages = []
    for fading, begin, end in spans:
        # A moment within the stage, away from the rounding of its borders.
        middle = (begin + end) / 2 if end > begin else begin + config.fade_kimg
        at = stage_at(config, resolution, round(middle * 1000))
        stages.append(
            PlannedStage(
                at.resolution, fading, begin, min(end, config.total_kimg), at.batch, at.lr,
                at.tick_kimg, reached=begin < config.total_kimg,
            )
        )  # fmt: skip
    return stages


def image_cost(network: NetworkConfig, config: TrainingConfig, stage: StageKey) -> float:
    """Return the work of one image at a stage, in units that only ratios have a meaning of.

    The work of the layers, and a constant for what every layer of a step costs by itself.
    """
    side, fading = stage
    batch = batch_at(config, side)
    work = network.training_work(side)
    layers = network.layers_at((network.resolution // side).bit_length() - 1)
    return work * (1.05 if fading else 1.0) + _FIXED_VALUES * layers / batch


class TimeLeft:
    """Estimates the seconds left of a run from its progress in kimg.

    Images cost more at every resolution, so the rate of today says little about tomorrow. Stages
    that were trained in this session count with their measured time per image. Later ones take
    that of the last stage trained, times the ratio of estimated work (``image_cost``). A pause
    between two steps does not count as the pace; where there were several, as many are expected
    as snapshots are left.
    """

    def __init__(
        self,
        config: TrainingConfig,
        network: NetworkConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.network, self._clock = config, network, clock
        self.stages = [stage for stage in list_stages(config, network.resolution) if stage.reached]
        self._steps: dict[StageKey, collections.deque[tuple[float, float]]] = {}  # kimg, seconds
        self._pauses: collections.deque[float] = collections.deque(maxlen=9)  # seconds
        self._last: tuple[float, float] | None = None  # kimg, time
        self._stage: StageKey | None = None

    def __call__(self, done: float) -> float | None:
        """Take note that ``done`` kimg are trained; return the seconds left, None if not known."""
        now = self._clock()
        stage = self._stage_at(done)
        if self._last is None or stage != self._stage or done < self._last[0]:
            self._last, self._stage = (done, now), stage
        elif done > self._last[0] and now - self._last[1] >= _LEAST_SECONDS:
            self._add(stage, done - self._last[0], now - self._last[1])
            self._last = (done, now)
        known = {key: pace for key in self._steps if (pace := self._pace(key)) is not None}
        if not known:
            return None
        return self.seconds_from(done, known) + self._pauses_from(done)

    def seconds_from(self, done: float, measured: dict[StageKey, float]) -> float:
        """Return the seconds from ``done`` kimg on, given seconds per kimg of some stages."""
        order = [stage.key for stage in self.stages]
        latest = max(measured, key=order.index)
        unit = measured[latest] / image_cost(self.network, self.config, latest)
        left = 0.0
        for stage in self.stages:
            if (kimg := stage.to_kimg - max(stage.from_kimg, done)) > 0:
                rate = measured.get(stage.key)
                if rate is None:
                    rate = unit * image_cost(self.network, self.config, stage.key)
                left += kimg * rate
        return left

    def _stage_at(self, kimg: float) -> StageKey:
        for stage in self.stages:
            if kimg < stage.to_kimg:
                return stage.key
        return self.stages[-1].key

    def _add(self, stage: StageKey, kimg: float, seconds: float) -> None:
        steps = self._steps.setdefault(stage, collections.deque(maxlen=_MOST_STEPS))
        if len(steps) >= _ENOUGH_STEPS and seconds > _PAUSE * _usual(steps) * kimg:
            self._pauses.append(seconds)
            return
        steps.append((kimg, seconds))
        spent = sum(second for _, second in steps)
        while len(steps) > _ENOUGH_STEPS and spent - steps[0][1] > _PACE_SECONDS:
            spent -= steps.popleft()[1]

    def _pace(self, stage: StageKey) -> float | None:
        """Return the seconds per kimg of a stage; None where too little was seen of it."""
        steps = self._steps[stage]
        usual = _usual(steps)
        counted = [(kimg, seconds) for kimg, seconds in steps if seconds <= _PAUSE * usual * kimg]
        spent = sum(seconds for _, seconds in counted)
        if len(counted) < _ENOUGH_STEPS or spent < _ENOUGH_SECONDS:
            return None
        return spent / sum(kimg for kimg, _ in counted)

    def _pauses_from(self, done: float) -> float:
        """Return the seconds of the pauses to come: one alone may never come again."""
        if len(self._pauses) < 2:
            return 0.0
        snapshots = sum(
            max(0.0, stage.to_kimg - max(stage.from_kimg, done))
            / (stage.tick_kimg * self.config.snapshot_ticks)
            for stage in self.stages
        )
        return snapshots * statistics.median_low(self._pauses)


def _usual(steps: Iterable[tuple[float, float]]) -> float:
    """Return the usual seconds per kimg of some steps."""
    return statistics.median(seconds / kimg for kimg, seconds in steps)


# ---- passes: several small ones do what one large batch does
#
# A pass takes every P-th sample of the rank's share, as a rank takes every so-many-th of the batch.
# Minibatch stddev puts samples n and n + N/g of N in one group of g; among every P-th sample the
# partners of a group are still N/g apart in the whole, so each group lies within one pass as long
# as the size of a pass is a multiple of g.


def count_passes(share: int, batch_gpu: int | None, group_size: int) -> int:
    """Return the fewest passes of at most ``batch_gpu`` samples that ``share`` samples divide into.

    ``group_size`` is that of minibatch stddev, 0 or 1 for none. Raises UsageError when no number
    of passes keeps its groups whole.
    """
    if batch_gpu is None or share <= batch_gpu:
        return 1
    group = min(group_size, share) if group_size > 1 else 1
    for size in _pass_sizes(share, group):
        if size <= batch_gpu:
            return share // size
    raise UsageError(
        f"{share} samples per process do not divide into passes of at most {batch_gpu} that are "
        f"multiples of the minibatch-stddev group of {group}: give --batch-gpu {group} or more"
        if batch_gpu < group
        else f"{share} samples per process do not divide into equal passes of at most {batch_gpu} "
        f"in whole minibatch-stddev groups of {group}: give another --batch or --batch-gpu"
    )


def smaller_pass(share: int, passes: int, group_size: int) -> int | None:
    """Return the next smaller size of a pass than with ``passes`` of them, None if it is least."""
    group = min(group_size, share) if group_size > 1 else 1
    return next((size for size in _pass_sizes(share, group) if size < share // passes), None)


def _pass_sizes(share: int, group: int) -> Iterator[int]:
    """Yield the sizes of equal passes in whole groups, from the largest below ``share`` down."""
    for passes in range(2, share // group + 1):
        size, rest = divmod(share, passes)
        if not rest and size % group == 0:
            yield size

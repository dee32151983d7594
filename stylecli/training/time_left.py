"""How long a run still takes: what is left of each stage of growth, at the cost of that stage.

Images cost more at every resolution, so the rate of today says little about tomorrow. Stages that
were trained in this session count with their measured time per image. Later ones take that of the
last stage trained, times the ratio of estimated work (``image_cost``).
"""

import time
from collections.abc import Callable, Iterator

from stylecli.networks.config import StyleGAN1Config
from stylecli.training.config import TrainingConfig

StageKey = tuple[int, bool]  # resolution, whether it is being faded in
_PACE_SECONDS = 60.0  # of a stage that count: its rate now, not since it began
_ENOUGH_SECONDS = 3.0  # before the first estimate
# Seconds per image = a + b·values. On two cores the small preset at 8 to 32 px and a network of
# 512 feature maps at 4 to 64 px were within a third of it with this share for a at 8 px.
_FIXED_VALUES = 150_000.0


def growth_spans(
    config: TrainingConfig, resolution: int
) -> Iterator[tuple[StageKey, float, float]]:
    """Yield (stage, first kimg, last kimg) of a schedule; stages with no time are left out."""
    side = min(config.initial_resolution, resolution)
    start, hold = 0.0, config.hold_kimg
    while start < config.total_kimg:
        end = config.total_kimg if side == resolution else start + hold
        if end > start:
            yield (side, False), start, min(end, config.total_kimg)
        if side == resolution or end >= config.total_kimg:
            return
        side *= 2
        start = end + config.fade_kimg
        yield (side, True), end, min(start, config.total_kimg)


def image_cost(network: StyleGAN1Config, config: TrainingConfig, stage: StageKey) -> float:
    """Return the work of one image at a stage, in units that only ratios have a meaning of.

    The sum over all layers of values computed, pixels times feature maps, each costing as much as
    512 of its multiplications, and a constant for what every layer of a step costs by itself.
    """
    side, fading = stage
    batch = config.batch.get(side, config.batch_base)
    work = 0.0
    for r in range(2, side.bit_length()):
        maps = network.fmaps(r - 1)
        work += 4**r * maps * (1 + 9 * maps / 512)
    layers = 2 * (side.bit_length() - 2)
    return work * (1.05 if fading else 1.0) + _FIXED_VALUES * layers / batch


class TimeLeft:
    """Estimates the seconds left of a run from its progress in kimg."""

    def __init__(
        self,
        config: TrainingConfig,
        network: StyleGAN1Config,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.network, self._clock = config, network, clock
        self.spans = list(growth_spans(config, network.resolution))
        self._seconds: dict[StageKey, float] = {}
        self._kimg: dict[StageKey, float] = {}
        self._last: tuple[float, float] | None = None  # kimg, time
        self._stage: StageKey | None = None

    def __call__(self, done: float) -> float | None:
        """Take note that ``done`` kimg are trained; return the seconds left, None if not known."""
        now = self._clock()
        stage = self._stage_at(done)
        if self._last is not None and done > self._last[0] and stage == self._stage:
            self._add(stage, done - self._last[0], now - self._last[1])
        if self._last is None or done != self._last[0] or stage != self._stage:
            self._last, self._stage = (done, now), stage
        known = [key for key in self._kimg if self._seconds[key] >= _ENOUGH_SECONDS]
        if not known:
            return None
        return self.seconds_from(done, {key: self._seconds[key] / self._kimg[key] for key in known})

    def seconds_from(self, done: float, measured: dict[StageKey, float]) -> float:
        """Return the seconds from ``done`` kimg on, given seconds per kimg of some stages."""
        order = [key for key, _, _ in self.spans]
        latest = max(measured, key=order.index)
        unit = measured[latest] / image_cost(self.network, self.config, latest)
        left = 0.0
        for key, start, end in self.spans:
            if (kimg := end - max(start, done)) > 0:
                rate = measured.get(key)
                if rate is None:
                    rate = unit * image_cost(self.network, self.config, key)
                left += kimg * rate
        return left

    def _stage_at(self, kimg: float) -> StageKey:
        for key, _, end in self.spans:
            if kimg < end:
                return key
        return self.spans[-1][0]

    def _add(self, stage: StageKey, kimg: float, seconds: float) -> None:
        spent = self._seconds.get(stage, 0.0)
        keep = min(1.0, _PACE_SECONDS / spent) if spent else 0.0
        self._seconds[stage] = spent * keep + seconds
        self._kimg[stage] = self._kimg.get(stage, 0.0) * keep + kimg

"""Progressive growing as a pure function of the images shown so far."""

import math
from dataclasses import dataclass

from stylecli.training.config import TrainingConfig
from stylecli.training.published import TICK_KIMG


@dataclass(frozen=True)
class Stage:
    """What holds at one moment of training."""

    lod: float  # level of detail: 0 = full resolution, a fraction = fading
    resolution: int  # pixels that are trained, already the larger one while fading
    batch: int  # images per step, over all ranks
    lr: float  # learning rate of both optimizers
    tick_kimg: float

    @property
    def level(self) -> int:
        """Pyramid level the real images are read at: floor(lod)."""
        return math.floor(self.lod)

    @property
    def fade(self) -> float:
        """Share of the next coarser resolution, 0 once it is faded out."""
        return self.lod - self.level


def schedule_at(config: TrainingConfig, resolution: int, nimg: int) -> Stage:
    """Return the stage after ``nimg`` images for a network of ``resolution`` pixels.

    lod = max(0, r_max - r_initial - p - max(kimg - p·phase - hold, 0) / fade), where a phase is
    hold + fade and p counts the whole phases passed. Resolution, and with it batch and learning
    rate, switch the moment a fade begins.
    """
    r_max = resolution.bit_length() - 1
    r_initial = min(config.initial_resolution.bit_length() - 1, r_max)
    kimg = nimg / 1000
    phase = config.hold_kimg + config.fade_kimg
    passed = math.floor(kimg / phase)
    into = kimg - passed * phase
    lod = r_max - r_initial - passed - max(into - config.hold_kimg, 0.0) / config.fade_kimg
    lod = max(lod, 0.0)
    current = 2 ** (r_max - math.floor(lod))
    tick = TICK_KIMG[current] if config.tick_kimg is None else config.tick_kimg
    return Stage(
        lod=lod,
        resolution=current,
        batch=config.batch.get(current, config.batch_base),
        lr=config.lr.get(current, config.lr_base),
        tick_kimg=tick,
    )


def resets_optimizer(before: Stage | None, now: Stage) -> bool:
    """Whether both optimizers start afresh: at the start and at the end of every fade."""
    if before is None:
        return False
    return math.floor(before.lod) != math.floor(now.lod) or math.ceil(before.lod) != math.ceil(
        now.lod
    )

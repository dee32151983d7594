"""A whole schedule as a list of stages, read off the schedule function. Stdlib only."""

from dataclasses import dataclass

from stylecli.training.config import TrainingConfig
from stylecli.training.schedule import schedule_at


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


def grown_kimg(config: TrainingConfig, resolution: int) -> float:
    """Return when a network of ``resolution`` pixels is fully grown, in thousands of images."""
    start = min(config.initial_resolution, resolution)
    doublings = resolution.bit_length() - start.bit_length()
    return doublings * (config.hold_kimg + config.fade_kimg)


def list_stages(config: TrainingConfig, resolution: int) -> list[PlannedStage]:
    """Return all stages of growing to ``resolution``, those beyond the length marked.

    The last stage, full resolution, ends with the schedule.
    """
    start = min(config.initial_resolution, resolution)
    doublings = resolution.bit_length() - start.bit_length()
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
        at = schedule_at(config, resolution, round(middle * 1000))
        stages.append(
            PlannedStage(
                at.resolution, fading, begin, min(end, config.total_kimg), at.batch, at.lr,
                at.tick_kimg, reached=begin < config.total_kimg,
            )
        )  # fmt: skip
    return stages

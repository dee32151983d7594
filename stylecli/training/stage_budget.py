"""What each stage of a schedule takes in all, from the measured cost of an image there."""

from collections.abc import Mapping
from dataclasses import dataclass

from stylecli.training.calibration import StageCost, describe
from stylecli.training.run_folder import RunSettings
from stylecli.training.time_left import StageKey, growth_spans


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


def budget_stages(settings: RunSettings, costs: Mapping[StageKey, StageCost]) -> list[StageBudget]:
    """Return the stages of a schedule in their order; ``costs`` holds each of them."""
    budgets = []
    for key, start, end in growth_spans(settings.training, settings.network.resolution):
        cost = costs[key]
        rate = cost.seconds_per_image * 1000
        budgets.append(
            StageBudget(
                describe(key), *key, cost.batch, cost.passes, round(cost.memory_mib, 1),
                round(rate, 3), round(end - start, 6), round(rate * (end - start), 1),
            )
        )  # fmt: skip
    return budgets

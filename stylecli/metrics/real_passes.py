"""Which real pictures are shown to which feature network: each once, for all metrics together.

Metrics choose pictures for themselves: all, the first, or the same random ones. What the metrics of
one network choose is joined, and each takes its own from what streams past.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stylecli.metrics.metric_tasks import PictureTask
from stylecli.metrics.picture_sets import choose

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class RealPass:
    """Real pictures that are read and shown together, and the metrics that look at them."""

    numbers: Numbers  # in their set, ascending
    tasks: tuple[PictureTask, ...]


def share_reals(tasks: Sequence[PictureTask], size: int) -> list[RealPass]:
    """Return the passes over a set of ``size`` pictures that ``tasks`` need, in their order.

    Views that look at the same pictures share a pass, so that those are read once.
    """
    looking = [task for task in tasks if task.reals and size]
    joined: dict[str, Numbers] = {}
    for task in looking:
        chosen, _ = choose_reals(task, size)
        joined[task.view.key] = np.union1d(joined.get(task.view.key, chosen), chosen)
    passes: dict[bytes, RealPass] = {}
    for task in looking:
        numbers = joined[task.view.key]
        others = passes.get(numbers.tobytes(), RealPass(numbers, ())).tasks
        passes[numbers.tobytes()] = RealPass(numbers, (*others, task))
    return list(passes.values())


def choose_reals(task: PictureTask, size: int) -> tuple[Numbers, str]:
    """Return the numbers of the real pictures of a task, ascending, and in words which they are."""
    return choose(task.reals, size, first=task.published_count or task.full)


def places_of(chosen: Numbers, numbers: Numbers) -> Numbers | None:
    """Return where ``chosen`` stand in ``numbers``; None where they are the first of them."""
    places: Numbers = np.searchsorted(numbers, chosen)
    return None if places[-1] == len(places) - 1 else places

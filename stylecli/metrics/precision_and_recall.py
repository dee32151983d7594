"""Precision and recall: the shares of fakes that look real, and of reals that fakes reach.

Kynkäänniemi et al. 2019; the statistic, for its many uses, is in ``statistics.neighbours``.
"""

from typing import Any

from stylecli.errors import plural
from stylecli.features.extractors import VGG16_FC2, Extractor
from stylecli.metrics import NAMES_OF
from stylecli.metrics.collecting import Accumulator, Rows
from stylecli.metrics.tasks import (
    PUBLISHED_FAKES,
    PictureMetric,
    PictureTask,
    Score,
    says_stand_in,
)
from stylecli.statistics.neighbours import precision_recall

NEIGHBOURS = 3  # whose distance is the radius


class PrecisionRecall(PictureMetric):
    """Both, by their published names and with the stand-in's features."""

    kind = "pr"
    parts = ("precision", "recall")
    names = NAMES_OF["pr"]
    network = VGG16_FC2
    higher_is_better = True
    cpu_samples, gpu_samples = 1000, PUBLISHED_FAKES
    most_reals = 200_000

    def published(self, part: str) -> str:
        """Return pr50k3{}_precision and the like."""
        return "pr50k3{}" + f"_{part}" * (part != self.kind)

    def why_too_few(self, least: int, *, asked: bool) -> str | None:
        """Refuse pictures without enough neighbours."""
        if least > NEIGHBOURS:
            return None
        return (
            f"{plural(least, 'picture does', 'pictures do')} not have {NEIGHBOURS} neighbours "
            f"each: give more with --samples"
        )

    def accumulator(self, task: PictureTask, count: int, extractor: Extractor) -> Accumulator:
        """Return rows in half precision, on which both are defined, as in the official programs."""
        return Rows(count, half=True)

    def score(
        self, task: PictureTask, reals: Any, fakes: Any, seed: int
    ) -> tuple[list[Score], dict[str, Any]]:
        """Return precision and recall."""
        precision, recall = precision_recall(reals, fakes, NEIGHBOURS)
        facts = {"k": NEIGHBOURS, "feature_type": str(fakes.dtype)}
        return [(precision, None), (recall, None)], facts

    def meaning(self, name: str, value: float) -> str:
        """Return whose share it is."""
        share = "fakes that look real" if "precision" in name else "reals that fakes reach"
        return f"share of {share}, 1 is best{says_stand_in(name)}"


PR = PrecisionRecall()

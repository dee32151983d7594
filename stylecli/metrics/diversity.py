"""Diversity: how far apart fakes are beside how far apart reals are, by the stand-in's features."""

from typing import Any

import numpy as np

from stylecli.errors import UsageError
from stylecli.features.extractors import Features
from stylecli.metrics import NAMES_OF
from stylecli.metrics.tasks import PictureMetric, PictureTask, Score


def mean_pairwise_distance(features: Features) -> float:
    """Return the mean Euclidean distance over all pairs of rows of features [N, d], N > 1."""
    if len(features) < 2:
        raise UsageError(f"{len(features)} rows have no pairs: expected at least 2")
    x = features.astype(np.float64)
    squares = np.square(x).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2.0 * (x @ x.T), 0.0))
    np.fill_diagonal(distances, 0.0)
    return float(distances.sum() / (len(x) * (len(x) - 1)))


class Diversity(PictureMetric):
    """The ratio of both means."""

    kind = "diversity"
    names = NAMES_OF["diversity"]
    network = None
    higher_is_better = True
    cpu_samples, gpu_samples = 1000, 2000
    most_pictures = 2000  # pairs grow with the square, the mean is settled long before

    def score(
        self, task: PictureTask, reals: Any, fakes: Any, seed: int
    ) -> tuple[list[Score], dict[str, Any]]:
        """Return the ratio."""
        spread = mean_pairwise_distance(reals)
        value = mean_pairwise_distance(fakes) / max(spread, 1e-12)
        return [(value, None)], {"rows": len(fakes), "rows_of_reals": len(reals)}

    def meaning(self, name: str, value: float) -> str:
        """Return what 1 is."""
        return "variety of the fakes, 1 = as varied as the dataset"


DIVERSITY = Diversity()

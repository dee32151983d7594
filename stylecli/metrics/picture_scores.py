"""From collected features to numbers: one function per kind of metric."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stylecli.errors import StyleCLIError, UsageError
from stylecli.features.extractors import Extractor, Features
from stylecli.metrics.collecting import SMALL, Collected
from stylecli.metrics.frechet import frechet_distance, moments_distance
from stylecli.metrics.kernel import kernel_distance
from stylecli.metrics.metric_tasks import NEIGHBOURS, PictureTask
from stylecli.metrics.results import MetricResult
from stylecli.statistics.neighbours import precision_recall

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000


def score(
    task: PictureTask,
    extractor: Extractor,
    reals: Collected | None,
    fakes: Collected,
    common: Mapping[str, Any],
) -> list[MetricResult]:
    """Return the results of ``task``: one, or two for precision and recall.

    What cannot be computed from these features comes back as a result without a value that says
    why. ``common["seed"]`` chooses the subsets of a kernel distance.
    """
    definition = {
        **common,
        "features": extractor.name,
        "features_sha256": extractor.sha256,
        "features_precision": extractor.precision,
        "resize": extractor.resize,
        "fakes": task.fakes,
        "reals": task.reals or None,
    }
    try:
        values, more = _values(task, reals, fakes, int(common["seed"]))
    except MemoryError:
        reason = f"{task.fakes} and {task.reals} pictures do not fit into memory: give --samples"
        return [failed(task, reason, definition)]
    except StyleCLIError as error:
        return [failed(task, str(error), definition)]
    return [
        MetricResult(name, value, std, note=task.note, definition=definition | more)
        for name, (value, std) in zip(task.names, values, strict=True)
    ]


def failed(task: PictureTask, reason: str, definition: Mapping[str, Any]) -> MetricResult:
    """Return a result without a number."""
    return MetricResult(task.name, None, skipped=reason, note=task.note, definition=definition)


def _values(
    task: PictureTask, reals: Collected | None, fakes: Collected, seed: int
) -> tuple[list[tuple[float, float | None]], dict[str, Any]]:
    if task.kind == "is":
        assert fakes.scores is not None
        mean, std = fakes.scores.result()
        return [(mean, std)], {"splits": fakes.scores.splits, "std_over": "splits"}
    assert reals is not None
    if task.kind == "fid":
        if max(task.fakes, task.reals) <= SMALL:
            value = frechet_distance(reals.rows, fakes.rows, task.ddof)
        else:
            assert reals.moments is not None and fakes.moments is not None
            value = moments_distance(reals.moments, fakes.moments, task.ddof)
        return [(value, None)], {"ddof": task.ddof}
    if task.kind == "kid":
        # Subsets of half the pictures at most: whole sets would show no spread.
        size = min(KID_SUBSET_SIZE, max(2, min(task.fakes, task.reals) // 2))
        rng = np.random.Generator(np.random.Philox(key=[seed, 2]))
        mean, std = kernel_distance(
            reals.rows, fakes.rows, subsets=KID_SUBSETS, subset_size=size, rng=rng
        )
        return [(mean, std)], {"subsets": KID_SUBSETS, "subset_size": size, "std_over": "subsets"}
    if task.kind == "pr":
        precision, recall = precision_recall(reals.rows, fakes.rows, NEIGHBOURS)
        kept = {"k": NEIGHBOURS, "feature_type": str(fakes.rows.dtype)}
        return [(precision, None), (recall, None)], kept
    spread = mean_pairwise_distance(reals.rows)
    value = mean_pairwise_distance(fakes.rows) / max(spread, 1e-12)
    return [(value, None)], {"rows": len(fakes.rows), "rows_of_reals": len(reals.rows)}


def mean_pairwise_distance(features: Features) -> float:
    """Return the mean Euclidean distance over all pairs of rows of features [N, d], N > 1."""
    if len(features) < 2:
        raise UsageError(f"{len(features)} rows have no pairs: expected at least 2")
    x = features.astype(np.float64)
    squares = np.square(x).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2.0 * (x @ x.T), 0.0))
    np.fill_diagonal(distances, 0.0)
    return float(distances.sum() / (len(x) * (len(x) - 1)))

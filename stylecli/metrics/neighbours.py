"""Precision and recall by nearest neighbours in feature space."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import UsageError
from stylecli.metrics.arrays import Float64, as_features, check_same_width

_ROWS = 1000  # distances at a time: bounds memory at _ROWS · N values


def precision_recall(real: Any, fake: Any, k: int = 3) -> tuple[float, float]:
    """Return (precision, recall) of features ``real`` [N, d] and ``fake`` [M, d].

    A set's manifold is the union of balls around its points that reach the k-th neighbour.
    Precision is the share of fakes inside the manifold of the reals (≤), recall the share of
    reals inside that of the fakes. Features and distances are rounded to float32. Raises
    UsageError for wrong shapes or k not from 1 to one less than the rows.
    Kynkäänniemi et al. 2019, Eqs. 1-2.
    """
    real = as_features("real", np.asarray(real, np.float32), 2)
    fake = as_features("fake", np.asarray(fake, np.float32), 2)
    check_same_width("real", real, "fake", fake)
    if not 1 <= k < min(len(real), len(fake)):
        raise UsageError(
            f"k {k} does not fit {len(real)} real and {len(fake)} fake rows: "
            "expected at least 1 and fewer than either"
        )
    return _share_inside(fake, real, k), _share_inside(real, fake, k)


def _share_inside(points: Float64, manifold: Float64, k: int) -> float:
    """Return the share of ``points`` inside any ball of ``manifold``."""
    radii = np.empty(len(manifold), np.float32)
    for start in range(0, len(manifold), _ROWS):
        rows = _distances(manifold[start : start + _ROWS], manifold)
        # A point is its own first neighbour, hence position k and not k - 1.
        radii[start : start + _ROWS] = np.partition(rows, k, axis=1)[:, k]
    inside = 0
    for start in range(0, len(points), _ROWS):
        rows = _distances(points[start : start + _ROWS], manifold)
        inside += int((rows <= radii).any(axis=1).sum())
    return inside / len(points)


def _distances(x: Float64, y: Float64) -> NDArray[np.float32]:
    """Return Euclidean distances [N, M], computed in float64, rounded to float32."""
    squares = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1) - 2.0 * (x @ y.T)
    distances: NDArray[np.float32] = np.sqrt(np.maximum(squares, 0.0)).astype(np.float32)
    return distances

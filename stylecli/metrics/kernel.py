"""Kernel distance between two sets of features (KID when they come from Inception-v3)."""

from typing import Any

import numpy as np

from stylecli.errors import UsageError
from stylecli.metrics.arrays import Float64, as_features, check_same_width

RandomSource = np.random.Generator | np.random.RandomState


def kernel_distance(
    real: Any,
    fake: Any,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    rng: RandomSource,
) -> tuple[float, float]:
    """Return mean and standard deviation of the unbiased MMD² over random subsets.

    ``real`` [N, d] and ``fake`` [M, d]; kernel (xᵀy/d + 1)³. Each subset takes
    m = min(subset_size, N, M) rows of either side without replacement, drawing the fakes' indices
    first, as the official code does: ``numpy.random.RandomState(seed)`` repeats its choice. The
    estimate is unbiased and may be negative. Raises UsageError for wrong shapes, values that are
    not finite, or fewer than two rows. Binkowski et al. 2018.
    """
    real, fake = as_features("real", real, 2), as_features("fake", fake, 2)
    check_same_width("real", real, "fake", fake)
    if subsets < 1 or subset_size < 2:
        raise UsageError(
            f"subsets {subsets} and subset_size {subset_size}: expected at least 1 and 2"
        )
    m = min(subset_size, len(real), len(fake))
    if (len(real) + len(fake)) ** 2 <= subsets * m * m:
        distances = _from_whole_kernels(real, fake, m, subsets, rng)
    else:
        distances = _from_subset_kernels(real, fake, m, subsets, rng)
    return float(distances.mean()), float(distances.std())


def _kernel(x: Float64, y: Float64) -> Float64:
    values: Float64 = (x @ y.T / x.shape[1] + 1.0) ** 3
    return values


def _draw(real: int, fake: int, m: int, rng: RandomSource) -> tuple[Any, Any]:
    of_fake = rng.choice(fake, m, replace=False)
    return rng.choice(real, m, replace=False), of_fake


def _from_subset_kernels(
    real: Float64, fake: Float64, m: int, subsets: int, rng: RandomSource
) -> Float64:
    distances = np.empty(subsets)
    for i in range(subsets):
        rows, columns = _draw(len(real), len(fake), m, rng)
        x, y = real[rows], fake[columns]
        distances[i] = _unbiased(_kernel(x, x), _kernel(y, y), _kernel(x, y))
    return distances


def _from_whole_kernels(
    real: Float64, fake: Float64, m: int, subsets: int, rng: RandomSource
) -> Float64:
    """Compute every kernel value once where subsets overlap so much that this is less work."""
    rr, ff, rf = _kernel(real, real), _kernel(fake, fake), _kernel(real, fake)
    distances = np.empty(subsets)
    for i in range(subsets):
        rows, columns = _draw(len(real), len(fake), m, rng)
        distances[i] = _unbiased(
            rr[np.ix_(rows, rows)], ff[np.ix_(columns, columns)], rf[np.ix_(rows, columns)]
        )
    return distances


def _unbiased(xx: Float64, yy: Float64, xy: Float64) -> float:
    m = len(xx)
    within = xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)
    return float(within / (m * (m - 1)) - 2.0 * xy.sum() / m**2)

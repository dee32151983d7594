"""Kernel distance between two sets of features (KID when they come from Inception-v3)."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import UsageError
from stylecli.metrics import NAMES_OF
from stylecli.metrics.tasks import (
    PUBLISHED_FAKES,
    PictureMetric,
    PictureTask,
    Score,
    says_resized,
    says_stand_in,
)
from stylecli.statistics.arrays import Float64, check_features, check_same_width

RandomSource = np.random.Generator | np.random.RandomState
Rows = NDArray[np.int64]

SUBSETS = 100
SUBSET_SIZE = 1000
_LARGE = 1e12  # larger features may leave float32 in a product
_WHOLE = 6000  # rows whose kernel is kept whole at most: 288 MB
_BLOCK_ROWS = 32  # rows of a kernel that are cubed and summed at a time


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
    estimate is unbiased and may be negative. Features stay as they come, and all of them have to be
    in memory. Products are float64 where features are, else float32 about the features' mean (the
    distance keeps 6 digits and takes half the time); cubes and sums are always float64. Raises
    UsageError for wrong shapes, values that are not finite, or fewer than two rows.
    Binkowski et al. 2018.
    """
    real, fake = np.asarray(real), np.asarray(fake)
    for name, values in (("real", real), ("fake", fake)):
        check_features(name, values, 2)
    check_same_width("real", real, "fake", fake)
    chosen = subset_rows(len(real), len(fake), subsets=subsets, subset_size=subset_size, rng=rng)
    m = min(subset_size, len(real), len(fake))
    centre = _centre(real, fake)
    if (len(real) + len(fake)) ** 2 <= subsets * 4 * m * m and len(real) + len(fake) <= _WHOLE:
        distances = _from_whole_kernels(real, fake, chosen, centre)
    else:
        distances = _from_subset_kernels(real, fake, chosen, centre)
    return float(distances.mean()), float(distances.std())


def subset_rows(
    real: int, fake: int, *, subsets: int, subset_size: int, rng: RandomSource
) -> Iterator[tuple[Rows, Rows]]:
    """Yield each subset's row numbers (of the reals [m], of the fakes [m]).

    They depend on the counts and ``rng`` alone, not on features: whoever streams can know
    beforehand which rows a subset will take.
    """
    if subsets < 1 or subset_size < 2:
        raise UsageError(
            f"subsets {subsets} and subset_size {subset_size}: expected at least 1 and 2"
        )
    m = min(subset_size, real, fake)
    for _ in range(subsets):
        of_fake = rng.choice(fake, m, replace=False)
        yield rng.choice(real, m, replace=False), of_fake


def _centre(real: NDArray[Any], fake: NDArray[Any]) -> Float64 | None:
    """Return what is taken off float32 features before their products; None: float64 products."""
    if np.float64 in (real.dtype, fake.dtype) or _largest(real, fake) > _LARGE:
        return None
    total: Float64 = real.sum(axis=0, dtype=np.float64) + fake.sum(axis=0, dtype=np.float64)
    return total / (len(real) + len(fake))


def _largest(*arrays: NDArray[Any]) -> float:
    return max(max(float(values.max()), -float(values.min())) for values in arrays)


def _kernel(rows: NDArray[Any], centre: Float64 | None) -> Float64:
    """Return k of all pairs of ``rows``: one product, of which numpy computes half.

    Of float32 numbers c + x and c + y only xᵀy, the small part, is a product of float32.
    """
    wide = np.ascontiguousarray(rows, np.float64)
    if centre is None:
        values: Float64 = wide @ wide.T
    else:
        wide = wide - centre
        narrow = wide.astype(np.float32)
        values = (narrow @ narrow.T).astype(np.float64)
        beside = wide @ centre + centre @ centre / 2
        values += beside
        values += beside[:, None]
    values /= rows.shape[1]
    values += 1.0
    square = values * values
    values *= square  # faster than a power
    return values


def _from_subset_kernels(
    real: NDArray[Any],
    fake: NDArray[Any],
    chosen: Iterable[tuple[Rows, Rows]],
    centre: Float64 | None = None,
) -> Float64:
    if centre is not None:
        return _from_narrow_products(real, fake, chosen, centre.astype(np.float32))
    distances = []
    for rows, columns in chosen:
        m = len(rows)
        values = _kernel(np.concatenate([real[rows], fake[columns]]), centre)
        distances.append(_unbiased(values[:m, :m], values[m:, m:], values[:m, m:]))
    return np.array(distances)


def _from_narrow_products(
    real: NDArray[Any],
    fake: NDArray[Any],
    chosen: Iterable[tuple[Rows, Rows]],
    centre: NDArray[np.float32],
) -> Float64:
    """Compute as ``_kernel`` does about a centre, but sum the kernel in blocks that stay in cache.

    The centre is of float32 too, so that the difference of float32 features is rounded once.
    """
    wide = centre.astype(np.float64)
    beside = [
        np.concatenate([(values[at : at + _BLOCK_ROWS] - wide) @ wide + wide @ wide / 2
                        for at in range(0, len(values), _BLOCK_ROWS)])
        for values in (real, fake)
    ]  # fmt: skip
    distances = []
    for rows, columns in chosen:
        m = len(rows)
        narrow = np.concatenate([real[rows], fake[columns]])
        if narrow.dtype == np.float32:
            narrow -= centre
        else:
            narrow = (narrow - wide).astype(np.float32)
        products = narrow @ narrow.T
        scale = 1.0 / narrow.shape[1]
        added = np.concatenate([beside[0][rows], beside[1][columns]]) * scale + 0.5  # 1 of a pair
        within = across = 0.0
        for first in (0, m):
            for top in range(first, first + m, _BLOCK_ROWS):
                bottom = min(top + _BLOCK_ROWS, first + m)
                values = products[top:bottom, first:].astype(np.float64)
                values *= scale
                values += added[first:]
                values += added[top:bottom, None]
                values *= values * values
                same = values[:, :m]  # columns of the rows' own side; reals have the fakes' behind
                within += same.sum() - np.trace(same, offset=top - first)
                across += values[:, m:].sum()
        distances.append(within / (m * (m - 1)) - 2.0 * across / m**2)
    return np.array(distances)


def _from_whole_kernels(
    real: NDArray[Any],
    fake: NDArray[Any],
    chosen: Iterable[tuple[Rows, Rows]],
    centre: Float64 | None = None,
) -> Float64:
    """Compute every kernel value once where subsets overlap so much that this is less work."""
    n = len(real)
    values = _kernel(np.concatenate([real, fake]), centre)
    distances = []
    for rows, columns in chosen:
        xx = values[np.ix_(rows, rows)]
        yy = values[np.ix_(columns + n, columns + n)]
        distances.append(_unbiased(xx, yy, values[np.ix_(rows, columns + n)]))
    return np.array(distances)


def _unbiased(xx: Float64, yy: Float64, xy: Float64) -> float:
    m = len(xx)
    within = xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)
    return float(within / (m * (m - 1)) - 2.0 * xy.sum() / m**2)


class KernelDistance(PictureMetric):
    """KID, by its published names and with the stand-in's features."""

    kind = "kid"
    names = NAMES_OF["kid"]
    cpu_samples, gpu_samples = 1000, PUBLISHED_FAKES
    most_reals = 1_000_000

    def score(
        self, task: PictureTask, reals: Any, fakes: Any, seed: int
    ) -> tuple[list[Score], dict[str, Any]]:
        """Return the distance and its spread over subsets; ``seed`` chooses them."""
        # Subsets of half the pictures at most: whole sets would show no spread.
        size = min(SUBSET_SIZE, max(2, min(task.fakes, task.reals) // 2))
        rng = np.random.Generator(np.random.Philox(key=[seed, 2]))
        found = kernel_distance(reals, fakes, subsets=SUBSETS, subset_size=size, rng=rng)
        return [found], {"subsets": SUBSETS, "subset_size": size, "std_over": "subsets"}

    def meaning(self, name: str, value: float) -> str:
        """Return the usual thousandfold and which way is better."""
        ending = says_stand_in(name, ", not a FID")
        where = f"distance to the dataset{says_resized(name)}"
        return f"×1000 = {1000 * value:.1f}; {where}, 0 is best{ending}"


KID = KernelDistance()

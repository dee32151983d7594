"""Principal components of more points than memory holds, and the directions of style weights.

Points come in batches. What is known of those before, the components times their deviations, is
put beside each new batch, with a row for the mean that moves (Ross et al. 2008, "Incremental
learning for robust visual tracking"), so memory does not grow with their number.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stylecli.errors import UsageError
from stylecli.statistics.arrays import Float64, as_features


class PrincipalComponents:
    """The ``count`` components with the largest deviations, from one batch after another."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise UsageError(f"{count} components are asked for: expected at least 1")
        self.count = count
        self.points = 0
        self.mean: Float64 = np.zeros(0)  # [d]
        self.components: Float64 = np.zeros((0, 0))  # [count, d], unit rows
        self._lengths: Float64 = np.zeros(0)  # singular values
        self._squares = 0.0  # of all points about their mean, summed

    def add(self, batch: Any) -> None:
        """Take in points [N, d], of which the first batch has at least ``count``.

        Raises UsageError for fewer points or dimensions than components, and for values that are
        not finite.
        """
        x = as_features("points", batch).copy()
        new, width = x.shape
        if not self.points and (new < self.count or width < self.count):
            raise UsageError(
                f"{self.count} components do not come of {new} points of {width} dimensions: "
                f"expected at most {min(new, width)}"
            )
        if self.points and width != len(self.mean):
            raise UsageError(f"points have {width} dimensions: expected {len(self.mean)}")
        mean = x.mean(axis=0)
        x -= mean
        self._squares += float((x * x).sum())
        total = self.points + new
        if self.points:
            apart = np.sqrt(self.points / total * new) * (self.mean - mean)
            self._squares += float(apart @ apart)
            x = np.concatenate([self._lengths[:, None] * self.components, x, apart[None]])
            mean = self.mean + (mean - self.mean) * (new / total)
        self._lengths, self.components = _largest(x, self.count)
        self.mean, self.points = mean, total

    @property
    def deviations(self) -> Float64:
        """Standard deviations along the components [count]."""
        return np.asarray(self._lengths / np.sqrt(max(1, self.points - 1)))

    @property
    def shares(self) -> Float64:
        """Shares of all variance [count]."""
        return np.asarray(self._lengths**2 / self._squares if self._squares else self._lengths * 0)


def _largest(x: Float64, count: int) -> tuple[Float64, Float64]:
    """Return the largest singular values [count] of x [N, d] and their right vectors [count, d]."""
    rows, width = x.shape
    if width <= rows:
        values, vectors = np.linalg.eigh(x.T @ x)
        values, vectors = values[::-1][:count], vectors.T[::-1][:count]
        return np.sqrt(np.maximum(values, 0.0)), pointed(vectors)
    _, lengths, right = np.linalg.svd(x, full_matrices=False)
    return lengths[:count], pointed(right[:count])


def pointed(vectors: Any) -> Float64:
    """Return vectors [K, d] whose largest numbers are positive: their signs are free otherwise."""
    v = np.asarray(vectors, np.float64)
    largest = np.take_along_axis(v, np.abs(v).argmax(axis=1)[:, None], axis=1)
    return np.asarray(v * np.where(largest < 0, -1.0, 1.0))


def weight_directions(
    weights: Sequence[Any], *, normalised: bool = True
) -> tuple[Float64, Float64]:
    """Return eigenvalues [w] and directions [w, w] of style weights, each [styles, w], stacked.

    SeFa's closed form (Shen and Zhou 2020, eq. 4): eigenvectors of AAᵀ, the largest value first,
    where A has the weights of each style, divided by their length, as columns. The first direction
    changes the styles most. Other programs leave the lengths as they are: ``normalised`` False.
    """
    rows = np.concatenate([as_features("weights", weight) for weight in weights])  # Aᵀ
    if normalised:
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows / np.where(lengths > 0, lengths, 1.0)
    values, vectors = np.linalg.eigh(rows.T @ rows)
    return np.maximum(values[::-1], 0.0), pointed(vectors.T[::-1])


class LatentRegression:
    """Least squares from coordinates along components to latents, from one batch after another.

    GANSpace (Härkönen et al. 2020, section 2.2): Z ≈ A·M, where A [N, k] are coordinates in units
    of their deviations.
    """

    def __init__(self, found: PrincipalComponents) -> None:
        self._found = found
        self._products: Float64 = np.zeros((found.count, found.count))
        self._latents: Float64 = np.zeros(0)

    def add(self, points: Any, latents: Any) -> None:
        """Take in points [N, d] and the latents [N, z] that made them."""
        found = self._found
        deviations = np.where(found.deviations > 0, found.deviations, 1.0)
        a = (as_features("points", points) - found.mean) @ found.components.T / deviations
        z = as_features("latents", latents)
        self._products += a.T @ a
        self._latents = a.T @ z + (self._latents if self._latents.size else 0.0)

    def directions(self) -> Float64:
        """Return the latents' directions [k, z] of length 1, in the order of the components."""
        found, *_ = np.linalg.lstsq(self._products, self._latents, rcond=None)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))

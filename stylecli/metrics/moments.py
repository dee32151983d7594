"""Mean and covariance of features that arrive in batches; memory does not grow with their number.

Rows are centred on their own block's mean before they are multiplied, and blocks are joined by the
pairwise update of Chan, Golub and LeVeque (1983): features far from zero lose no digits, which the
difference of raw moments E[xxᵀ] - μμᵀ does. Everything is float64.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import UsageError
from stylecli.statistics.arrays import Float64

BLOCK = 2048  # rows multiplied at a time: enough for the matrix product to run at full speed


class Moments:
    """Count, mean [d] and scatter [d, d] = Σ(x-μ)(x-μ)ᵀ of rows added so far.

    Rows go through blocks of ``BLOCK`` whatever the batches were, so the same rows in the same
    order give the same bits for any batch size; another order, or ``merge``, moves the last two
    or three digits of float64.
    """

    def __init__(self, width: int) -> None:
        if width < 1:
            raise UsageError(f"width {width} of features: expected at least 1")
        self.width = width
        self._count = 0
        self._mean = np.zeros(width)
        self._scatter = np.zeros((width, width))
        self._block = np.empty((BLOCK, width))
        self._filled = 0

    @property
    def count(self) -> int:
        """Rows added so far."""
        return self._count + self._filled

    def add(self, features: Any) -> None:
        """Add rows [N, d]. Raises UsageError for another width or values that are not finite."""
        rows = np.asarray(features)
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise UsageError(f"features have shape {list(rows.shape)}: expected [N, {self.width}]")
        start = 0
        while start < len(rows):
            taken = min(BLOCK - self._filled, len(rows) - start)
            part = self._block[self._filled : self._filled + taken]
            part[:] = rows[start : start + taken]
            if not np.isfinite(part).all():
                raise UsageError("features hold values that are not finite: expected finite ones")
            self._filled += taken
            start += taken
            if self._filled == BLOCK:
                self._join_block()

    def merge(self, other: "Moments") -> None:
        """Add what another has seen, for instance another rank's. Merge in a fixed order."""
        if other.width != self.width:
            raise UsageError(
                f"moments of {other.width} columns do not join moments of {self.width}: "
                "expected features of the same network"
            )
        self._join_block()
        other._join_block()
        self._join(other._count, other._mean, other._scatter)

    def mean(self) -> Float64:
        """Return μ [d]. Raises UsageError before the first row."""
        self._need(1)
        return self._mean.copy()

    def covariance(self, ddof: int = 1) -> Float64:
        """Return scatter / (N - ddof) [d, d]. Raises UsageError for fewer than ddof + 1 rows."""
        self._need(ddof + 1)
        return self._scatter / (self._count - ddof)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all there is as arrays, for ``numpy.savez`` and the like."""
        self._join_block()
        return {
            "count": np.array(self._count),
            "mean": self._mean.copy(),
            "scatter": self._scatter.copy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Moments":
        """Return moments from ``state()``; going on gives the same to float64 rounding.

        Raises UsageError when arrays are missing, do not fit each other or are not finite.
        """
        missing = {"count", "mean", "scatter"} - set(state)
        if missing:
            raise UsageError(f"a state of moments lacks {', '.join(sorted(missing))}")
        mean = np.asarray(state["mean"], np.float64)
        scatter = np.asarray(state["scatter"], np.float64)
        count = np.asarray(state["count"])
        if mean.ndim != 1 or scatter.shape != (mean.size, mean.size) or count.size != 1:
            raise UsageError(
                f"a state of moments has shapes {list(mean.shape)} and {list(scatter.shape)}: "
                "expected [d] and [d, d]"
            )
        if int(count.item()) < 0 or not (np.isfinite(mean).all() and np.isfinite(scatter).all()):
            raise UsageError("a state of moments is damaged: expected finite values and a count")
        moments = cls(mean.size)
        moments._count = int(count.item())
        moments._mean, moments._scatter = mean.copy(), scatter.copy()
        return moments

    def _need(self, rows: int) -> None:
        if self.count < rows:
            raise UsageError(f"{self.count} rows were added: expected at least {rows}")
        self._join_block()

    def _join_block(self) -> None:
        if not self._filled:
            return
        rows = self._block[: self._filled]
        mean = rows.mean(axis=0)
        rows -= mean
        self._join(self._filled, mean, rows.T @ rows)  # one buffer: numpy computes half of it
        self._filled = 0

    def _join(self, count: int, mean: Float64, scatter: Float64) -> None:
        if not count:
            return
        total = self._count + count
        step = mean - self._mean
        self._scatter += scatter
        if self._count:
            scaled = step * np.sqrt(self._count * count / total)
            self._scatter += np.outer(scaled, scaled)
        self._mean += step * (count / total)
        self._count = total


def moments_of(features: Any) -> Moments:
    """Return the moments of features [N, d] of any float type; no float64 copy of all is made."""
    rows = np.asarray(features)
    if rows.ndim != 2:
        raise UsageError(f"features have shape {list(rows.shape)}: expected [N, d]")
    moments = Moments(rows.shape[1])
    moments.add(rows)
    return moments

"""Points in feature space a block at a time, and the exact distances of chosen pairs."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Rows = NDArray[np.int64]

_TOGETHER = 1 << 18  # numbers worked on at a time: 2 MB of float64, about a core's cache


class PointSet:
    """Features [N, d] of any float type, centred and widened a block at a time.

    Distances do not see the centre, rounding does: lengths are small near it.
    """

    def __init__(self, features: NDArray[Any], centre: Float64) -> None:
        self.features = features
        self._centre = centre.astype(np.float32)
        self.squares: Float64 = np.empty(len(features))  # of the lengths, from the centre
        step = rows_together(features.shape[1])
        for start in range(0, len(features), step):
            some = self.widened(slice(start, start + step))
            self.squares[start : start + step] = np.einsum("nd,nd->n", some, some)

    def __len__(self) -> int:
        return len(self.features)

    @property
    def width(self) -> int:
        """Return d."""
        return int(self.features.shape[1])

    def centred(self, rows: slice) -> Float32:
        """Return points as centred float32 [B, d]; each number is off by half a unit at most."""
        centred = widen(self.features[rows])
        centred -= self._centre
        return centred

    def widened(self, rows: slice) -> Float64:
        """Return points as centred float64 [B, d]."""
        return np.asarray(widen(self.features[rows]).astype(np.float64) - self._centre)


def rows_together(width: int) -> int:
    """Return how many rows of ``width`` numbers are worked on at a time, at least one."""
    return max(1, _TOGETHER // width)


def widen(features: NDArray[Any]) -> Float32:
    """Return a float32 copy of float16 or float32 features; exact."""
    if features.dtype == np.float32:
        return features.copy()
    # PyTorch converts halves five times as fast as numpy.
    return np.asarray(torch.from_numpy(np.ascontiguousarray(features)).float().numpy())


def exact_distances(a: PointSet, rows: Rows, b: PointSet, columns: Rows) -> Float32:
    """Return distances [P] of pairs, float64 from the features' difference, rounded to float32."""
    distances = np.empty(len(rows), np.float32)
    step = rows_together(a.width)
    for start in range(0, len(rows), step):
        some = slice(start, start + step)
        difference = widen(a.features[rows[some]]).astype(np.float64)
        difference -= widen(b.features[columns[some]])
        distances[some] = np.sqrt(np.einsum("pd,pd->p", difference, difference))
    return distances

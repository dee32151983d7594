"""Squared distances between points by float32 products, with a bound on their error.

‖x-y‖² = ‖x‖² + ‖y‖² - 2xᵀy costs one matrix product for a block of pairs, and cancels where points
are near each other compared with their length. The bound says how much, so that a comparison can
be trusted or made again from the difference itself.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]

_UNIT = 2.0**-24  # half a unit in the last place of float32
_WIDE_UNIT = 2.0**-53
_ROWS = 2048


class Block(NamedTuple):
    """Some points: centred float32 [B, d], and their squared lengths [B]."""

    points: NDArray[np.float32]
    squares: NDArray[np.float32]


class PointSet:
    """Features [N, d] of any float type, centred and widened a block at a time."""

    def __init__(self, features: NDArray[Any], centre: Float64) -> None:
        self.features = features
        self._centre = centre.astype(np.float32)
        self.squares: Float64 = np.concatenate([
            np.square(self._centred(start, start + _ROWS)).sum(axis=1, dtype=np.float64)
            for start in range(0, len(features), _ROWS)
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.features)

    def block(self, start: int, stop: int) -> Block:
        """Return points start to stop - 1."""
        return Block(self._centred(start, stop), self.squares[start:stop].astype(np.float32))

    def doubt(self, others: "PointSet | None" = None, wide: bool = False) -> Float64:
        """Return how wrong a squared distance from each point to any of ``others`` can be [N].

        ``others`` None: to any of its own; ``wide``: one of ``wide_distances``.

        A sum of d products is off by d units at most, in any order, relative to ‖x‖‖y‖, which is
        at most half of ‖x‖² + ‖y‖²; sixteen more units pay for centring, squares and additions.
        """
        longest = float((self if others is None else others).squares.max())
        units = self.features.shape[1] + 16
        unit = _WIDE_UNIT if wide else _UNIT
        return np.asarray(units * unit * (1.0 + 1e-6) * (self.squares + longest))

    def widened(self, rows: Rows | slice) -> Float64:
        """Return points as centred float64 [B, d]."""
        return np.asarray(widen(self.features[rows]).astype(np.float64) - self._centre)

    def _centred(self, start: int, stop: int) -> NDArray[np.float32]:
        centred = widen(self.features[start:stop])
        centred -= self._centre
        return centred


def widen(features: NDArray[Any]) -> NDArray[np.float32]:
    """Return a float32 copy of float16 or float32 features; exact."""
    if features.dtype == np.float32:
        return features.copy()
    # PyTorch converts halves five times as fast as numpy.
    return np.asarray(torch.from_numpy(np.ascontiguousarray(features)).float().numpy())


def squared_distances(rows: Block, columns: Block) -> NDArray[np.float32]:
    """Return approximate squared distances [B, C]; rounding may leave them below zero."""
    squares = rows.points @ columns.points.T
    squares *= np.float32(-2.0)
    squares += rows.squares[:, None]
    squares += columns.squares
    return squares


def wide_distances(points: PointSet, rows: Rows) -> Float64:
    """Return squared distances [B, N] of some points to all by float64 products."""
    mine = points.widened(rows)
    parts = []
    for start in range(0, len(points), _ROWS):
        others = points.widened(slice(start, start + _ROWS))
        parts.append(np.square(others).sum(axis=1) - 2.0 * (mine @ others.T))
    return np.asarray(np.concatenate(parts, axis=1) + np.square(mine).sum(axis=1)[:, None])


def exact_distances(a: PointSet, rows: Rows, b: PointSet, columns: Rows) -> NDArray[np.float32]:
    """Return distances [P] of pairs, float64 from the features' difference, rounded to float32."""
    difference = widen(a.features[rows]).astype(np.float64)
    difference -= widen(b.features[columns])
    squares = np.einsum("pd,pd->p", difference, difference)
    return np.asarray(np.sqrt(squares).astype(np.float32))

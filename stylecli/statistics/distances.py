"""Squared distances between two sets as lower bounds that grow better as they grow dearer.

‖x-y‖² = ‖x‖² + ‖y‖² - 2xᵀy: one matrix product serves a block of pairs. Every rung computes the
product in another way and knows how wrong it can be: at most doubt(x) + doubt(y), proven. Few pairs
are near any threshold, so a cheap rung settles most of them.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Rows = NDArray[np.int64]

_TOGETHER = 1 << 18  # numbers worked on at a time: 2 MB of float64, about a core's cache
_UNIT = 2.0**-24  # half a unit in the last place of float32
_WIDE_UNIT = 2.0**-53
_LARGEST = 1e30  # squared lengths beyond it could leave float32
_FLOOR = 1e-30  # what underflow in float32 can hide


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


class Rung(NamedTuple):
    """One way to compare: what to take from ‖x‖² and ‖y‖² for lower bounds, and when it will do.

    A comparison climbs to the next rung when more than ``share`` of a block's pairs are open:
    then the next product costs less than that many exact distances.
    """

    rows: Float64  # doubt [N]
    columns: Float64  # doubt [M]
    share: float


class Ladder:
    """The rungs for two sets, which may be the same."""

    def __init__(self, rows: PointSet, columns: PointSet) -> None:
        self._rows, self._columns = rows, columns
        self._products: list[_Floats | _Doubles] = [_Doubles(rows, columns)]
        if max(rows.squares.max(), columns.squares.max()) < _LARGEST:
            self._products.insert(0, _Floats(rows, columns))
        self.rungs = [product.rung for product in self._products]

    def lower_bounds(self, rows: slice, columns: slice) -> Iterator[tuple[Rung, Tensor]]:
        """Yield each rung with lower bounds [B, C] of the block's squared distances."""
        for product in self._products:
            rung, crossed = product.rung, product.crossed(rows, columns)
            beside = torch.from_numpy(self._columns.squares[columns] - rung.columns[columns])
            below = torch.from_numpy(self._rows.squares[rows] - rung.rows[rows])
            crossed += beside.to(crossed.dtype)
            crossed += below.to(crossed.dtype)[:, None]
            yield rung, crossed


class _Floats:
    """A product of float32.

    A sum of d products is off by d units at most, in any order, relative to ‖x‖‖y‖, which is at
    most half of ‖x‖² + ‖y‖²; sixteen more units pay for centring, squares and additions.
    """

    def __init__(self, rows: PointSet, columns: PointSet) -> None:
        self._rows, self._columns = rows, columns
        units = (rows.width + 16) * _UNIT * (1.0 + 1e-6)
        self.rung = Rung(units * rows.squares + _FLOOR, units * columns.squares + _FLOOR, 0.02)
        self._kept: tuple[int, NDArray[np.float32]] | None = None

    def crossed(self, rows: slice, columns: slice) -> Tensor:
        """Return -2xᵀy [B, C]."""
        # A row of blocks is worked through before the next.
        if self._kept is None or self._kept[0] != rows.start:
            self._kept = rows.start, self._rows.centred(rows)
        product = self._kept[1] @ self._columns.centred(columns).T
        product *= np.float32(-2.0)
        return torch.from_numpy(product)


class _Doubles:
    """A product of float64: for points nearer to each other than the others can tell.

    The squared lengths are sums of d float64 as well.
    """

    def __init__(self, rows: PointSet, columns: PointSet) -> None:
        self._rows, self._columns = rows, columns
        units = (2 * rows.width + 16) * _WIDE_UNIT * (1.0 + 1e-6)
        self.rung = Rung(units * rows.squares, units * columns.squares, 1.0)

    def crossed(self, rows: slice, columns: slice) -> Tensor:
        """Return -2xᵀy [B, C]."""
        return torch.from_numpy(
            -2.0 * (self._rows.widened(rows) @ self._columns.widened(columns).T)
        )

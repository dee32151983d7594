"""Squared distances between two sets as lower bounds that grow better as they grow dearer.

‖x-y‖² = ‖x‖² + ‖y‖² - 2xᵀy: one matrix product serves a block of pairs. Every rung computes the
product in another way and knows how wrong it can be: at most doubt(x) + doubt(y), proven. Few pairs
are near any threshold, so a cheap rung settles most of them.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylecli.metrics.distance_blocks import Float64, PointSet
from stylecli.metrics.integer_codes import FINE, WIDEST, Codes, bytes_are_fast, products

_UNIT = 2.0**-24  # half a unit in the last place of float32
_WIDE_UNIT = 2.0**-53
_LARGEST = 1e30  # squared lengths beyond it could leave float32
_FLOOR = 1e-30  # what underflow in float32 can hide
_SHORT = 1e-15  # a length of which nothing is left in float32


class Rung(NamedTuple):
    """One way to compare: what to take from ‖x‖² and ‖y‖² for lower bounds, and when it will do.

    A comparison climbs to the next rung when more than ``share`` of a block's pairs are open:
    then the next product costs less than that many exact distances.
    """

    rows: Float64  # doubt [N]
    columns: Float64  # doubt [M]
    share: float


class Codec(Protocol):
    """Something that multiplies a block of points, better each time."""

    rungs: list[Rung]

    def crossed(self, rows: slice, columns: slice) -> Iterator[Tensor]:
        """Yield -2xᵀy [B, C] as each rung computes it."""


class Ladder:
    """The rungs for two sets, which may be the same; with codes of both, or of neither."""

    def __init__(
        self, rows: PointSet, columns: PointSet, row_codes: Codes | None, column_codes: Codes | None
    ) -> None:
        self._rows, self._columns = rows, columns
        self._codecs: list[Codec] = []
        if max(rows.squares.max(), columns.squares.max()) < _LARGEST:
            if row_codes is not None and column_codes is not None:
                self._codecs.append(_Digits(row_codes, column_codes))
            else:
                self._codecs.append(_Floats(rows, columns))
        self._codecs.append(_Doubles(rows, columns))
        self.rungs = [rung for codec in self._codecs for rung in codec.rungs]

    def lower_bounds(self, rows: slice, columns: slice) -> Iterator[tuple[Rung, Tensor]]:
        """Yield each rung with lower bounds [B, C] of the block's squared distances."""
        for codec in self._codecs:
            for rung, crossed in zip(codec.rungs, codec.crossed(rows, columns), strict=True):
                beside = torch.from_numpy(self._columns.squares[columns] - rung.columns[columns])
                below = torch.from_numpy(self._rows.squares[rows] - rung.rows[rows])
                crossed += beside.to(crossed.dtype)
                crossed += below.to(crossed.dtype)[:, None]
                yield rung, crossed


def codes_of(points: PointSet) -> Codes | None:
    """Return the codes of a set where this machine gains by them."""
    if points.width <= WIDEST and points.squares.max() < _LARGEST and bytes_are_fast():
        return Codes(points)
    return None


class _Digits:
    """One product of first digits; then two of first with second digits."""

    def __init__(self, row: Codes, column: Codes) -> None:
        self._row, self._column = row, column
        self.rungs = [
            Rung(*_code_doubts(row, column, [row.rests, column.rests], False), 0.002),
            Rung(*_code_doubts(row, column, [row.fine_rests, column.fine_rests], True), 0.02),
        ]

    def crossed(self, rows: slice, columns: slice) -> Iterator[Tensor]:
        a, b = self._row, self._column
        across = a.scales[rows, None] * -2.0
        coarse = products(a.first[rows], b.first[columns])
        yield torch.mul(coarse, b.scales[columns]).mul_(across)
        fine = products(a.first[rows], b.second[columns])
        fine += products(a.second[rows], b.first[columns])
        both = fine.float().mul_(1.0 / FINE).add_(coarse)
        yield both.mul_(b.scales[columns]).mul_(across)


def _code_doubts(
    row: Codes, column: Codes, rests: list[Float64], fine: bool
) -> tuple[Float64, Float64]:
    """Return how wrong squared distances by codes can be, as a part of each point.

    With x = a + r and y = b + s, |xᵀy - aᵀb| = |rᵀy + aᵀs| ≤ ‖r‖‖y‖ + ‖a‖‖s‖, and twice that is at
    most t‖r‖² + ‖a‖²/t + t‖s‖² + ‖y‖²/t for any t; equality near the usual point is best. Two
    digits also leave out the product of second digits, at most half of the sum of their squares.
    Sixteen units pay for sums in float32.
    """
    lengths = np.concatenate([row.lengths, column.lengths])
    usual = np.concatenate(rests)[lengths > _SHORT] / lengths[lengths > _SHORT]
    t = 1.0 / np.median(usual) if len(usual) else 1.0
    row_doubt, column_doubt = (
        t * np.square(left)
        + np.square(codes.lengths) / t
        + 16 * _UNIT * np.square(codes.lengths)
        + (np.square(codes.fine) if fine else 0.0)
        + _FLOOR
        for codes, left in zip((row, column), rests, strict=True)
    )
    return row_doubt, column_doubt


class _Floats:
    """One product of float32: for machines that multiply bytes no faster.

    A sum of d products is off by d units at most, in any order, relative to ‖x‖‖y‖, which is at
    most half of ‖x‖² + ‖y‖²; sixteen more units pay for centring, squares and additions.
    """

    def __init__(self, rows: PointSet, columns: PointSet) -> None:
        self._rows, self._columns = rows, columns
        units = (rows.width + 16) * _UNIT * (1.0 + 1e-6)
        self.rungs = [Rung(units * rows.squares + _FLOOR, units * columns.squares + _FLOOR, 0.02)]
        self._kept: tuple[int, NDArray[np.float32]] | None = None

    def crossed(self, rows: slice, columns: slice) -> Iterator[Tensor]:
        # A row of blocks is worked through before the next.
        if self._kept is None or self._kept[0] != rows.start:
            self._kept = rows.start, self._rows.centred(rows)
        product = self._kept[1] @ self._columns.centred(columns).T
        product *= np.float32(-2.0)
        yield torch.from_numpy(product)


class _Doubles:
    """One product of float64: for points nearer to each other than the others can tell.

    The squared lengths are sums of d float64 as well.
    """

    def __init__(self, rows: PointSet, columns: PointSet) -> None:
        self._rows, self._columns = rows, columns
        units = (2 * rows.width + 16) * _WIDE_UNIT * (1.0 + 1e-6)
        self.rungs = [Rung(units * rows.squares, units * columns.squares, 1.0)]

    def crossed(self, rows: slice, columns: slice) -> Iterator[Tensor]:
        yield torch.from_numpy(-2.0 * (self._rows.widened(rows) @ self._columns.widened(columns).T))

"""Squared distances between two sets as lower bounds that grow better as they grow dearer.

‖x-y‖² = ‖x‖² + ‖y‖² - 2xᵀy: one matrix product serves a block of pairs. Every rung computes the
product in another way and knows how wrong it can be: at most doubt(x) + doubt(y), proven. Few pairs
are near any threshold, so a cheap rung settles most of them.
"""

import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Rows = NDArray[np.int64]

_TOGETHER = 1 << 18  # numbers worked on at a time: 2 MB of float64, about a core's cache
WIDEST = 65_536  # d: beyond it a sum of products could leave int32
FINE = 254.0  # second digits in a first
_UNIT = 2.0**-24  # half a unit in the last place of float32
_TURNED = 64  # coordinates turned together
# ‖turned as computed - turned‖ / ‖x‖: each of 64 sums of 64 is off by (64 + a few) units of
# Σ|x|/8 at most, and that sum by ‖x‖; centring and scaling take the last units.
_TURNING = (np.sqrt(_TURNED) * (_TURNED + 4) + 8) * _UNIT
_SMALLEST = 1e-30  # a row of smaller numbers than this is all rest
_WIDE_UNIT = 2.0**-53
_LARGEST = 1e30  # squared lengths beyond it could leave float32
_FLOOR = 1e-30  # what underflow in float32 can hide
_SHORT = 1e-15  # a length of which nothing is left in float32


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


class Codes:
    """The digits of a set [N, d'], d' = d filled up to a multiple of 64, and what they leave out.

    A row x is turned by an orthogonal matrix, so that no coordinate stands out, and written as
    s·(q + p/254) + rest, s = its largest coordinate / 127, q and p from -127 to 127: two digits of
    8 bits, whose products are exact integers. A processor with instructions for products of bytes
    multiplies q about seven times as fast as float32. The lengths of the rests are computed, not
    guessed: with them Cauchy and Schwarz bound what the products miss.

    ``lengths`` [N]: upper bounds of the lengths of a row and of its codes; ``rests`` [N]: of what
    the first digit leaves; ``fine_rests`` [N]: of what both leave; ``fine`` [N]: the length of the
    second digit's part.
    """

    def __init__(self, points: PointSet) -> None:
        n, width = len(points), -(-points.width // _TURNED) * _TURNED
        self.first = torch.empty((n, width), dtype=torch.int8)
        self.second = torch.empty((n, width), dtype=torch.int8)
        self.scales = torch.empty(n, dtype=torch.float32)
        self.rests, self.fine_rests, self.fine = np.empty(n), np.empty(n), np.empty(n)
        turn = _turn()
        step = rows_together(width)
        for start in range(0, n, step):
            self._write(slice(start, min(start + step, n)), points, turn)
        # Sums of squares in float32 are off by a unit for each term.
        scales = self.scales.double().numpy() * (1.0 + (width + 16) * _UNIT)
        lengths = np.sqrt(points.squares) * (1.0 + 1e-6)
        for rest in (self.rests, self.fine_rests):
            rest *= scales
            rest += _TURNING * lengths + np.sqrt(width) * _SMALLEST
        self.fine *= scales
        self.lengths = lengths + np.maximum(self.rests, self.fine_rests)

    def _write(self, rows: slice, points: PointSet, turn: Float32) -> None:
        values = points.centred(rows)
        padding = self.first.shape[1] - values.shape[1]
        if padding:
            values = np.pad(values, ((0, 0), (0, padding)))
        values = (values.reshape(-1, _TURNED) @ turn).reshape(values.shape)
        largest = np.maximum(values.max(axis=1), -values.min(axis=1))
        scales = np.where(largest > _SMALLEST, largest / np.float32(127), np.float32(1))
        values /= scales[:, None]
        self.scales[rows] = torch.from_numpy(scales)
        rest = torch.from_numpy(values)
        for digits, norms, step in (
            (self.first, self.rests, 1.0),
            (self.second, self.fine_rests, FINE),
        ):
            digit = (rest * step).round_().clamp_(-127, 127)
            digits[rows] = digit
            rest -= digit.div_(step)
            norms[rows] = rest.square().sum(dim=1).sqrt_().numpy()
        self.fine[rows] = digit.square_().sum(dim=1).sqrt_().numpy()


def _turn() -> Float32:
    """Return an orthogonal matrix [64, 64] of ±1/8, exact: Hadamard's with columns' signs drawn."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < _TURNED:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    signs = np.random.RandomState(0).choice([-1, 1], _TURNED)
    return np.asarray(signs[:, None] * matrix / 8, np.float32)


def products(a: Tensor, b: Tensor) -> Tensor:
    """Return a·bᵀ of int8 [B, d] and [C, d], exact as int32 [B, C]."""
    return torch._int_mm(a, b.T)


@cache
def bytes_are_fast() -> bool:
    """Return whether this machine multiplies bytes exactly and at twice the rate of float32.

    Without the instructions some builds of PyTorch saturate in between, others are slow, so both
    are tried: on products at the ends of the range, and by the clock. Either way the numbers that
    follow are the same; this chooses how soon they come.
    """
    random = np.random.RandomState(0)
    ends = torch.from_numpy(random.choice([-127, 127], (64, 256)).astype(np.int8))
    ends[:32] = 127
    try:
        if not torch.equal(products(ends, ends), (ends.int() @ ends.int().T)):
            return False
        digits = torch.from_numpy(random.randint(-127, 128, (256, 2048)).astype(np.int8))
        floats = digits.float().numpy()
        quick = _seconds(lambda: products(digits, digits))
    except (AttributeError, RuntimeError):  # a private name of PyTorch's, on CPUs since 2.4
        return False
    return quick * 2 < _seconds(lambda: floats @ floats.T)


def _seconds(work: Callable[[], Any]) -> float:
    """Return the shortest of four times of ``work``."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


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

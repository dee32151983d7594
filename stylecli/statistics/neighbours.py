"""Precision and recall by nearest neighbours in feature space.

‖x-y‖² = ‖x‖² + ‖y‖² - 2xᵀy: one matrix product serves a block of pairs. Every rung computes the
product in another way and knows how wrong it can be: at most doubt(x) + doubt(y), proven. Few pairs
are near any threshold, so a cheap rung settles most of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.statistics.arrays import check_features, check_same_width

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


Bools = NDArray[np.bool_]

_BLOCK = 2048  # rows and columns of distances at a time: 16 MB of float32
# Distances are compared after rounding to float32, squares of them are not rounded: within two
# units of a square the rounded distance has the last word.
_ROUNDING = 2.0**-22
_GRAIN = 2.0**-149  # the smallest float32: what rounding can move distances near it


def precision_recall(real: Any, fake: Any, k: int = 3) -> tuple[float, float]:
    """Return (precision, recall) of features ``real`` [N, d] and ``fake`` [M, d].

    A set's manifold is the union of balls around its points that reach the k-th neighbour.
    Precision is the share of fakes inside the manifold of the reals (≤), recall the share of
    reals inside that of the fakes. The distance of two points is computed in float64 from
    their difference and rounded to float32. Most pairs never need it: products of float32 with an
    error bound tell who is near, and only what the bound leaves open is computed again.

    Features stay as they come, float16 (as in the official programs) or float32. Raises UsageError
    for wrong shapes, values that are not finite, or k not from 1 to one less than the rows.
    Kynkäänniemi et al. 2019, Eqs. 1-2.
    """
    real, fake = _as_floats(real), _as_floats(fake)
    check_features("real", real, 2)
    check_features("fake", fake, 2)
    check_same_width("real", real, "fake", fake)
    if not 1 <= k < min(len(real), len(fake)):
        raise UsageError(
            f"k {k} does not fit {len(real)} real and {len(fake)} fake rows: "
            "expected at least 1 and fewer than either"
        )
    fakes = PointSet(fake, fake.mean(axis=0, dtype=np.float64))
    fake_radii = _radii(fakes, k)
    centre = real.mean(axis=0, dtype=np.float64)
    reals, fakes = PointSet(real, centre), PointSet(fake, centre)
    real_radii = _radii(reals, k)
    fakes_inside, reals_inside = _inside(reals, real_radii, fakes, fake_radii)
    return float(fakes_inside.mean()), float(reals_inside.mean())


def _as_floats(values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    return array if array.dtype in (np.float16, np.float32) else array.astype(np.float32)


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a ball (by its centre) and a point, and a lower bound of their squared distance."""

    balls: Rows
    points: Rows
    lower: Float64

    def __len__(self) -> int:
        return len(self.balls)

    def __getitem__(self, which: Rows | Bools) -> "_Pairs":
        return _Pairs(self.balls[which], self.points[which], self.lower[which])


class _Question(Protocol):
    """Something to be known about pairs whose squared distance is within reach of the ball."""

    @property
    def reach(self) -> Float64:
        """Return the squared distances [balls] beyond which nothing matters."""

    @property
    def asked(self) -> Bools | None:
        """Return which points [points] matter still; None for all."""

    def sift(self, pairs: _Pairs, upper: Float64) -> _Pairs:
        """Return the pairs that upper bounds of the squared distances leave open."""

    def guess(self, pairs: _Pairs) -> _Pairs:
        """Settle what few distances may settle; return the pairs left open."""

    def settle(self, pairs: _Pairs) -> None:
        """Compute the distances of open pairs, as far as they matter, and know."""


def _examine(
    ladder: Ladder,
    rows: slice,
    columns: slice,
    questions: list[tuple[_Question, bool]],
    begun: "_Nearest | None" = None,
) -> None:
    """Settle questions about a block of pairs; a question's flag says that balls are columns.

    ``begun``: what first starts with the block, and knows some pairs from then on.
    """
    known: Tensor | None = None
    left: list[_Pairs] = []
    for rung, lower in ladder.lower_bounds(rows, columns):
        if begun is not None:
            known = begun.begin(rows, lower) if known is None else known
            lower.scatter_(1, known, torch.nan)
        left = [_open(rung, lower, rows, columns, *question) for question in questions]
        enough = int(rung.share * lower.numel())
        if sum(map(len, left)) <= enough:
            break
        # One distance for every point is little beside a dear rung, and may make it needless.
        if sum(lower.shape) * 8 <= enough:
            left = [q.guess(pairs) for (q, _), pairs in zip(questions, left, strict=True)]
            if sum(map(len, left)) <= enough:
                break
    for (question, _), pairs in zip(questions, left, strict=True):
        question.settle(pairs)


def _open(
    rung: Rung, lower: Tensor, rows: slice, columns: slice, question: _Question, flipped: bool
) -> _Pairs:
    """Return the pairs of a block that a question leaves open at this rung."""
    balls, points = (columns, rows) if flipped else (rows, columns)
    doubts = (rung.columns, rung.rows) if flipped else (rung.rows, rung.columns)
    reach = torch.from_numpy(question.reach[balls]).to(lower.dtype)
    near = torch.le(lower, reach if flipped else reach[:, None])
    if question.asked is not None:
        asked = torch.from_numpy(question.asked[points])
        near &= asked[:, None] if flipped else asked
    flat = np.flatnonzero(near.numpy())
    row, column = np.divmod(flat, lower.shape[1])
    ball, point = (column, row) if flipped else (row, column)
    pairs = _Pairs(
        ball + balls.start, point + points.start, lower.numpy().reshape(-1)[flat].astype(np.float64)
    )
    gap = 2.0 * (doubts[0][pairs.balls] + doubts[1][pairs.points])
    return question.sift(pairs, pairs.lower + gap)


def _turns(groups: Rows, key: Float64) -> Iterator[Rows]:
    """Yield every group's first by ``key``, then every group's second, and so on."""
    order = np.lexsort((key, groups))
    groups = groups[order]
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]][: len(groups)])
    sizes = np.diff(np.r_[starts, len(groups)])
    turn = np.arange(len(groups)) - np.repeat(starts, sizes)
    order = order[np.argsort(turn, kind="stable")]
    yield from np.split(order, np.cumsum(np.bincount(turn))[:-1])


def _blocks(n: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK)]


def _radii(points: PointSet, k: int) -> Float32:
    """Return the exact distance [N] from every point to its k-th neighbour.

    Distances are symmetric: a block off the diagonal serves its rows and its columns.
    """
    nearest = _Nearest(points, k)
    ladder = Ladder(points, points)
    blocks = _blocks(len(points))
    for block in blocks:  # first, so that every later block meets radii that leave little open
        _examine(ladder, block, block, [(nearest, False)], nearest)
    for i, rows in enumerate(blocks):
        for columns in blocks[i + 1 :]:
            _examine(ladder, rows, columns, [(nearest, False), (nearest, True)])
    return np.asarray(nearest.distances[:, -1])


class _Nearest:
    """The exact distances [N, k] from every point to the nearest others found so far, ascending."""

    asked: Bools | None = None

    def __init__(self, points: PointSet, k: int) -> None:
        self.distances = np.full((len(points), k), np.inf, np.float32)
        self.reach = np.full(len(points), np.inf)
        self._points = points

    def begin(self, block: slice, squares: Tensor) -> Tensor:
        """Compare every point of a block with those that seem nearest; return [B, K] who."""
        selves = torch.arange(len(squares))
        squares.fill_diagonal_(torch.inf)
        kept = min(self.distances.shape[1], len(squares) - 1)
        known = torch.cat([selves[:, None], squares.topk(kept, dim=1, largest=False)[1]], dim=1)
        for column in known[:, 1:].T.numpy():
            self._compare(selves.numpy() + block.start, column + block.start)
        return known

    def sift(self, pairs: _Pairs, upper: Float64) -> _Pairs:
        """Return all: no bound is a distance."""
        return pairs

    def guess(self, pairs: _Pairs) -> _Pairs:
        """Return all: a radius is not known before every pair is."""
        return pairs

    def settle(self, pairs: _Pairs) -> None:
        """Find out who is nearer than the k-th nearest so far, the most likely first."""
        for turn in _turns(pairs.balls, pairs.lower):
            some = pairs[turn]
            some = some[some.lower <= self.reach[some.balls]]
            self._compare(some.balls, some.points)

    def _compare(self, points: Rows, others: Rows) -> None:
        distances = exact_distances(self._points, points, self._points, others)
        more = np.concatenate([self.distances[points], distances[:, None]], axis=1)
        self.distances[points] = np.sort(more, axis=1)[:, :-1]
        radii = self.distances[points, -1].astype(np.float64)
        # Nothing is nearer than 0.
        reach = np.square(radii + _GRAIN) * (1 + _ROUNDING)
        self.reach[points] = np.where(radii > 0, reach, -np.inf)


def _inside(
    reals: PointSet, real_radii: Float32, fakes: PointSet, fake_radii: Float32
) -> tuple[Bools, Bools]:
    """Return which fakes [M] lie in a ball of a real, and which reals [N] in one of a fake.

    A block of distances between reals and fakes answers both questions.
    """
    ladder = Ladder(reals, fakes)
    of_fakes = _Membership(fakes, reals, real_radii)
    of_reals = _Membership(reals, fakes, fake_radii)
    for rows in _blocks(len(reals)):
        for columns in _blocks(len(fakes)):
            _examine(ladder, rows, columns, [(of_fakes, False), (of_reals, True)])
    return ~of_fakes.asked, ~of_reals.asked


class _Membership:
    """Which ``points`` lie in no ball of ``manifold`` so far."""

    def __init__(self, points: PointSet, manifold: PointSet, radii: Float32) -> None:
        self.asked: Bools = np.ones(len(points), bool)
        self._points, self._manifold, self._radii = points, manifold, radii
        wide = radii.astype(np.float64)
        self.reach = np.square(wide + _GRAIN) * (1 + _ROUNDING)
        self._sure = np.square(np.maximum(wide - _GRAIN, 0.0)) * (1 - _ROUNDING)

    def sift(self, pairs: _Pairs, upper: Float64) -> _Pairs:
        """Take note of points that are inside for sure; return the pairs of others."""
        self.asked[pairs.points[upper <= self._sure[pairs.balls]]] = False
        return pairs[self.asked[pairs.points]]

    def guess(self, pairs: _Pairs) -> _Pairs:
        """Try the likeliest ball of every point; return the pairs of points still outside."""
        self._compare(pairs[next(self._by_likelihood(pairs))])
        return pairs[self.asked[pairs.points]]

    def settle(self, pairs: _Pairs) -> None:
        """Find out which points are inside, for each the likeliest ball first."""
        for turn in self._by_likelihood(pairs):
            some = pairs[turn]
            self._compare(some[self.asked[some.points]])

    def _by_likelihood(self, pairs: _Pairs) -> Iterator[Rows]:
        return _turns(pairs.points, pairs.lower - self.reach[pairs.balls])

    def _compare(self, pairs: _Pairs) -> None:
        distances = exact_distances(self._manifold, pairs.balls, self._points, pairs.points)
        self.asked[pairs.points[distances <= self._radii[pairs.balls]]] = False

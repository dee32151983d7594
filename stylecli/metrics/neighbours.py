"""Precision and recall by nearest neighbours in feature space."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import UsageError
from stylecli.metrics.arrays import check_features, check_same_width
from stylecli.metrics.distance_blocks import (
    Bools,
    PointSet,
    Rows,
    exact_distances,
    squared_distances,
    wide_distances,
)

_BLOCK = 2048  # rows and columns of distances at a time: 16 MB of float32
_SPARE = 3  # neighbours kept beyond the k-th, so that rounding seldom leaves a doubt
_PAIRS = 2048  # exact distances at a time
_AGAIN = 128  # points that are compared with all others in float64 at a time


def precision_recall(real: Any, fake: Any, k: int = 3) -> tuple[float, float]:
    """Return (precision, recall) of features ``real`` [N, d] and ``fake`` [M, d].

    A set's manifold is the union of balls around its points that reach the k-th neighbour.
    Precision is the share of fakes inside the manifold of the reals (≤), recall the share of
    reals inside that of the fakes. The distance of two points is computed in float64 from
    their difference and rounded to float32. Most pairs never need it: float32 products with an
    error bound tell who is near, and only what the bound leaves open is computed again.

    Features stay as they come, float16 (as in the official programs) or float32; beyond them
    about 250 MB at d = 4096 is used, and 120 bytes a point (1 kB where float32 leaves a radius
    open). Raises UsageError for wrong shapes, values that are not finite, or k not from
    1 to one less than the rows.
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
    # Distances do not see the centre, rounding does.
    centre = real.mean(axis=0, dtype=np.float64)
    real_radii = _radii(PointSet(real, centre), k)
    fake_radii = _radii(PointSet(fake, fake.mean(axis=0, dtype=np.float64)), k)
    fakes_inside, reals_inside = _inside(
        PointSet(real, centre), real_radii, PointSet(fake, centre), fake_radii
    )
    return float(fakes_inside.mean()), float(reals_inside.mean())


def _as_floats(values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    return array if array.dtype in (np.float16, np.float32) else array.astype(np.float32)


class _Nearest:
    """The nearest points found so far of every point: approximate squares, and who they are."""

    def __init__(self, rows: int, kept: int) -> None:
        self.squares = np.full((rows, kept), np.inf, np.float32)
        self.who = np.zeros((rows, kept), np.int64)

    def see(self, start: int, squares: NDArray[np.float32], first: int) -> None:
        """Take note of squares [B, C] from points start.. to points first.. ."""
        kept = self.squares.shape[1]
        worst = self.squares[start : start + len(squares), -1]
        rows = np.flatnonzero(squares.min(axis=1) < worst)
        if not rows.size:
            return
        near = squares if len(rows) == len(squares) else squares[rows]
        if near.shape[1] > kept:
            columns = np.argpartition(near, kept - 1, axis=1)[:, :kept]
        else:
            columns = np.broadcast_to(np.arange(near.shape[1]), near.shape)
        both = np.concatenate(
            [self.squares[start + rows], np.take_along_axis(near, columns, axis=1)], axis=1
        )
        who = np.concatenate([self.who[start + rows], columns + first], axis=1)
        order = np.argsort(both, axis=1, kind="stable")[:, :kept]
        self.squares[start + rows] = np.take_along_axis(both, order, axis=1)
        self.who[start + rows] = np.take_along_axis(who, order, axis=1)


def _radii(points: PointSet, k: int) -> NDArray[np.float32]:
    """Return the exact distance [N] from every point to its k-th neighbour.

    Distances are symmetric: a block off the diagonal serves its rows and its columns.
    """
    n = len(points)
    # A point is its own first neighbour.
    nearest = _Nearest(n, min(n, k + 1 + _SPARE))
    for i in range(0, n, _BLOCK):
        rows = points.block(i, i + _BLOCK)
        for j in range(i, n, _BLOCK):
            columns = rows if j == i else points.block(j, j + _BLOCK)
            squares = squared_distances(rows, columns)
            nearest.see(i, squares, j)
            if j > i:
                nearest.see(j, np.ascontiguousarray(squares.T), i)
    radii = np.empty(n, np.float32)
    for i in range(0, n, _PAIRS):
        who = nearest.who[i : i + _PAIRS]
        radii[i : i + len(who)] = _kth(points, np.arange(i, i + len(who)), who, k)
    if nearest.squares.shape[1] < n:
        # Who was not kept is at least this far; no radius is smaller than 0.
        beyond = nearest.squares[:, -1] - points.doubt()
        doubtful = (beyond <= np.square(radii, dtype=np.float64)) & (radii > 0)
        _look_again(points, np.flatnonzero(doubtful), k, radii)
    return radii


def _kth(points: PointSet, rows: Rows, who: Rows, k: int) -> NDArray[np.float32]:
    """Return the k-th smallest of the exact distances from ``rows`` [B] to ``who`` [B, K]."""
    exact = [exact_distances(points, rows, points, column) for column in who.T]
    kth: NDArray[np.float32] = np.partition(np.stack(exact, axis=1), k, axis=1)[:, k]
    return kth


def _look_again(points: PointSet, rows: Rows, k: int, radii: NDArray[np.float32]) -> None:
    """Settle the radii of ``rows``, whose neighbours float32 could not tell apart."""
    kept = k + 1 + _SPARE
    for start in range(0, len(rows), _AGAIN):
        some = rows[start : start + _AGAIN]
        squares = wide_distances(points, some)
        who = np.argpartition(squares, kept - 1, axis=1)[:, :kept]
        radii[some] = _kth(points, some, who, k)
        beyond = (
            np.take_along_axis(squares, who, axis=1).max(axis=1) - points.doubt(wide=True)[some]
        )
        for row in some[beyond <= np.square(radii[some], dtype=np.float64)]:
            radii[row] = np.partition(_exact_row(points, row), k)[k]


def _exact_row(points: PointSet, row: int) -> NDArray[np.float32]:
    parts = []
    for start in range(0, len(points), _PAIRS):
        others = np.arange(start, min(start + _PAIRS, len(points)))
        parts.append(exact_distances(points, np.full(len(others), row), points, others))
    return np.concatenate(parts)


def _inside(
    reals: PointSet,
    real_radii: NDArray[np.float32],
    fakes: PointSet,
    fake_radii: NDArray[np.float32],
) -> tuple[Bools, Bools]:
    """Return which fakes [M] lie in a ball of a real, and which reals [N] in one of a fake.

    A block of distances between reals and fakes answers both questions.
    """
    of_fakes = _Membership(fakes, reals, real_radii)
    of_reals = _Membership(reals, fakes, fake_radii)
    for i in range(0, len(reals), _BLOCK):
        rows = reals.block(i, i + _BLOCK)
        for j in range(0, len(fakes), _BLOCK):
            squares = squared_distances(rows, fakes.block(j, j + _BLOCK))
            of_fakes.see(squares, i, j)
            of_reals.see(squares.T, j, i)
    return of_fakes.inside, of_reals.inside


class _Membership:
    """Which ``points`` lie in any ball of ``manifold``; doubtful pairs are settled exactly."""

    def __init__(self, points: PointSet, manifold: PointSet, radii: NDArray[np.float32]) -> None:
        self.inside: Bools = np.zeros(len(points), bool)
        self._points, self._manifold, self._radii = points, manifold, radii
        squares = np.square(radii, dtype=np.float64)
        doubt = manifold.doubt(points)
        self._sure = (squares - doubt).astype(np.float32)
        self._open = (squares + doubt).astype(np.float32)

    def see(self, squares: NDArray[np.float32], start: int, first: int) -> None:
        """Take note of squares [B, C] from balls start.. to points first.. ."""
        balls, points = squares.shape
        inside = self.inside[first : first + points]
        # One comparison of the whole block; few points that are still outside are near any ball.
        near = squares <= self._open[start : start + balls, None]
        undecided = np.flatnonzero(near.any(axis=0) & ~inside)
        if not undecided.size:
            return
        some = squares[:, undecided]
        sure = (some <= self._sure[start : start + balls, None]).any(axis=0)
        inside[undecided[sure]] = True
        undecided = undecided[~sure]
        ball, point = np.nonzero(near[:, undecided])
        if ball.size:
            self._settle(ball + start, undecided[point] + first)

    def _settle(self, ball: Rows, point: Rows) -> None:
        # Every point's first doubt, then every point's second: one that holds ends its row.
        order = np.argsort(point, kind="stable")
        ball, point = ball[order], point[order]
        starts = np.flatnonzero(np.r_[True, point[1:] != point[:-1]])
        turn = np.arange(len(point)) - np.repeat(starts, np.diff(np.r_[starts, len(point)]))
        order = np.argsort(turn, kind="stable")
        ball, point = ball[order], point[order]
        while ball.size:
            now, later = slice(None, _PAIRS), slice(_PAIRS, None)
            distances = exact_distances(self._manifold, ball[now], self._points, point[now])
            self.inside[point[now][distances <= self._radii[ball[now]]]] = True
            left = ~self.inside[point[later]]
            ball, point = ball[later][left], point[later][left]

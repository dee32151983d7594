"""Curves through points: pure functions of float64 arrays, one point per video frame.

A closed curve ends where it began: frame F would be frame 0 again, so a looped video has no seam.
"""

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from stylecli.errors import UsageError

Method = Literal["spline", "lerp", "slerp", "circle"]
METHODS: tuple[Method, ...] = get_args(Method)
Points = npt.NDArray[np.floating[Any]]  # [K, ...]


def path_positions(keys: int, frames: int, *, loop: bool = True) -> Points:
    """Return where on a path through ``keys`` points each frame is, in units of points [F].

    Closed: 0 to keys, the end left out because it is the beginning; open: 0 to keys - 1.
    """
    if keys < 1 or frames < 1:
        raise UsageError(f"a path of {frames} frames through {keys} points is empty: give both")
    if loop:
        return np.arange(frames) * keys / frames  # in this order a key frame is exact
    return np.arange(frames) * (keys - 1) / max(1, frames - 1)


def follow_path(
    points: Points, positions: Points, *, method: Method = "spline", loop: bool = True
) -> Points:
    """Return the path through ``points`` [K, ...] at ``positions`` [F], as float64 [F, ...].

    "spline" is the cubic through all points with continuous velocity and acceleration (periodic
    when closed, natural when open); "lerp" straight lines; "slerp" arcs: the direction turns evenly
    and the length changes evenly, over the last axis; "circle" the great circle through the first
    point and the direction of the second, K positions being once around. Raises UsageError for
    another method, or a circle that is not of two points and closed.
    """
    if method not in METHODS:
        raise UsageError(f"method {method!r} is unknown: expected {', '.join(METHODS)}")
    points = np.asarray(points, dtype=np.float64)
    count = len(points)
    if method == "circle":
        if count != 2 or not loop:
            raise UsageError(
                f"a circle goes around through 2 points, not {count}{'' if loop else ' and open'}"
            )
        return _circle(points, positions)
    if count == 1:
        return points[np.zeros(len(positions), dtype=np.int64)]
    segment = np.clip(np.floor(positions).astype(np.int64), 0, count - 1 if loop else count - 2)
    along = (positions - segment).reshape(-1, *[1] * (points.ndim - 1))
    following = (segment + 1) % count
    here, there = points[segment], points[following]
    if method == "lerp":
        return here + (there - here) * along
    if method == "slerp":
        return _slerp(here, there, along)
    slopes = _closed_slopes(points) if loop else _open_slopes(points)
    leave, arrive = slopes[segment], slopes[following]
    # Hermite form of the cubic on one segment.
    step = there - here
    return here + along * (
        leave + along * (3 * step - 2 * leave - arrive + along * (leave + arrive - 2 * step))
    )


def pulse(
    low: float, high: float, frames: int, *, pulses: int | None = None, loop: bool = True
) -> Points:
    """Return a number that goes from ``low`` towards ``high`` over the frames, as float64 [F].

    Closed, or with ``pulses``: there and back that many times (default once) on a cosine, low in
    frame 0 and highest half a pulse later. Open without ``pulses``: evenly, to ``high`` in the
    last frame. Raises UsageError for less than one pulse.
    """
    if pulses is not None and pulses < 1:
        raise UsageError(f"{pulses} pulses are none: give 1 or more")
    if pulses is None and not loop:
        return low + (high - low) * path_positions(2, frames, loop=False)
    turns = path_positions(1, frames) if loop else path_positions(2, frames, loop=False)
    wave: Points = low + (high - low) * (1 - np.cos(2 * np.pi * (pulses or 1) * turns)) / 2
    return wave


def _slerp(here: Points, there: Points, along: Points) -> Points:
    a, first = _normalized(here)
    b, last = _normalized(there)
    # Between unit vectors; exact for small angles and near opposites, where arccos(a·b) is not.
    angle = 2 * np.arctan2(_length(a - b), _length(a + b))
    sideways, length = _normalized(b - (a * b).sum(axis=-1, keepdims=True) * a)
    sideways = np.where(length < 1e-9, _any_normal(a), sideways)  # opposites: any way round
    direction = np.cos(along * angle) * a + np.sin(along * angle) * sideways
    arc: Points = direction * (first + (last - first) * along)
    return np.where(along == 0, here, arc)


def _circle(points: Points, positions: Points) -> Points:
    start, radius = _normalized(points[0])
    sideways, length = _normalized(
        points[1] - (points[1] * start).sum(axis=-1, keepdims=True) * start
    )
    sideways = np.where(length < 1e-9, _any_normal(start), sideways)
    turn = (np.pi * positions).reshape(-1, *[1] * (points.ndim - 1))  # two positions: 2π
    circle: Points = radius * (np.cos(turn) * start + np.sin(turn) * sideways)
    return np.where(turn == 0, points[0], circle)


def _normalized(vectors: Points) -> tuple[Points, Points]:
    length = _length(vectors)
    return vectors / np.maximum(length, 1e-300), length


def _length(vectors: Points) -> Points:
    return np.asarray(np.linalg.norm(vectors, axis=-1, keepdims=True))


def _any_normal(unit: Points) -> Points:
    """Return a unit vector at right angles to each, by turning its smallest axis."""
    axis = np.zeros_like(unit)
    np.put_along_axis(axis, np.abs(unit).argmin(axis=-1, keepdims=True), 1.0, axis=-1)
    return _normalized(axis - (axis * unit).sum(axis=-1, keepdims=True) * unit)[0]


def _closed_slopes(points: Points) -> Points:
    """Return the velocities [K, ...] that make the acceleration continuous all around.

    They solve m[k-1] + 4 m[k] + m[k+1] = 3 (p[k+1] - p[k-1]), indices mod K: a convolution, which
    a Fourier transform divides out.
    """
    right = 3 * (np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0))
    waves = 4 + 2 * np.cos(2 * np.pi * np.fft.rfftfreq(len(points)))
    spectrum = np.fft.rfft(right, axis=0) / waves.reshape(-1, *[1] * (points.ndim - 1))
    slopes: Points = np.fft.irfft(spectrum, n=len(points), axis=0)
    return slopes


def _open_slopes(points: Points) -> Points:
    """Return the velocities [K, ...] of the natural spline: no acceleration at both ends.

    The same equations inside, 2 m[0] + m[1] = 3 (p[1] - p[0]) and its mirror image at the ends;
    tridiagonal, solved by elimination and back substitution.
    """
    last = len(points) - 1
    slopes: Points = np.empty_like(points)
    slopes[0], slopes[last] = points[1] - points[0], points[last] - points[last - 1]
    slopes[1:last] = points[2:] - points[:-2]
    slopes *= 3
    diagonal = np.full(last + 1, 4.0)
    diagonal[[0, last]] = 2
    for row in range(1, last + 1):
        factor = 1 / diagonal[row - 1]
        diagonal[row] -= factor
        slopes[row] -= factor * slopes[row - 1]
    slopes[last] /= diagonal[last]
    for row in range(last - 1, -1, -1):
        slopes[row] = (slopes[row] - slopes[row + 1]) / diagonal[row]
    return slopes

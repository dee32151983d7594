"""The random squares of FFHQ-U: upright, and moved by a stream of random numbers that all share.

FFHQ-U (Karras et al. 2021) keeps the size of FFHQ's squares, turns none, pads none, and moves each
by a normal deviate of ``random_shift`` of its side until it lies inside its photograph. Which
numbers a face gets depends on all faces before it, so they are drawn for all at once, from sizes
and landmarks alone.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stylecli.data.alignment.geometry import (
    Face,
    FaceSquare,
    Float64,
    check_landmarks,
    face_square,
)
from stylecli.errors import DataError, UsageError

SEED = 12345
TRIES = 1000
RANDOM_SHIFT = 0.2  # of the square's side: FFHQ-U's own

Shift = tuple[float, float]


def random_shifts(
    landmarks: Sequence[Sequence[tuple[float, float]]],
    sizes: Sequence[tuple[int, int]],
    *,
    random_shift: float = RANDOM_SHIFT,
    rotate: bool = False,
    retry: bool = True,
) -> list[Shift | None]:
    """Return for each face how far its square moves, in fractions of its side, for ``face_quad``.

    ``sizes`` are the photographs' (width, height). The generator is numpy's RandomState(12345); as
    many pairs as there are faces are drawn and thrown away, then a pair for each try. With
    ``retry`` a face whose square never fits within its photograph in 1000 tries gets None, and so
    does one whose landmarks give no square, for which nothing is drawn.
    """
    if not np.isfinite(random_shift) or random_shift < 0:
        raise UsageError(f"random shift {random_shift} is not a fraction of 0 or more")
    stream = _Pairs(SEED)
    stream.skip(len(landmarks))
    shifts: list[Shift | None] = []
    for points, size in zip(landmarks, sizes, strict=True):
        try:
            square = face_square(check_landmarks(points), rotate=rotate)
        except (DataError, UsageError):
            shifts.append(None)
            continue
        if retry:
            shifts.append(_first_inside(square, size, stream, random_shift))
        else:
            shifts.append(_pair(random_shift * stream.peek(1)[0]))
            stream.skip(1)
    return shifts


def shifted(face: Face, shift: Shift, *, rotate: bool = False) -> Face:
    """Return the face with its square moved; see ``random_shifts``."""
    quad = face_square(face.landmarks, rotate=rotate, shift=shift).quad()
    return replace(face, quad=tuple((float(x), float(y)) for x, y in quad))


class _Pairs:
    """A stream of pairs of normal deviates that can be looked at before they are taken."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.RandomState(seed)
        self._ahead: Float64 = np.empty((0, 2))

    def peek(self, count: int) -> Float64:
        """Return the next pairs, [count, 2]."""
        if len(self._ahead) < count:
            drawn = self._generator.normal(0, 1, (max(count, TRIES), 2))
            self._ahead = np.concatenate([self._ahead, drawn])
        return self._ahead[:count]

    def skip(self, count: int) -> None:
        """Take pairs and throw them away."""
        self.peek(count)
        self._ahead = self._ahead[count:]


def _first_inside(
    square: FaceSquare, size: tuple[int, int], stream: _Pairs, random_shift: float
) -> Shift | None:
    """Take pairs up to the first whose square lies inside, at most TRIES.

    A square lies inside when all pixels that it touches are pixels of the photograph.
    """
    corners = square.quad()
    for count in (8, TRIES - 8):  # most fit soon; the rest at once for those that never do
        shifts = random_shift * stream.peek(count)
        moved = corners + square.side * shifts[:, None, :]  # [count, 4, 2]
        low, high = np.floor(moved.min(axis=1)), np.ceil(moved.max(axis=1))
        inside = ((low >= 0) & (high < size)).all(axis=1)
        place = int(inside.argmax())
        if inside[place]:
            stream.skip(place + 1)
            return _pair(shifts[place])
        stream.skip(count)
    return None


def _pair(shift: Float64) -> Shift:
    return float(shift[0]), float(shift[1])

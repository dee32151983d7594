"""A made-up face as FFHQ's metadata has it."""

import numpy as np


def face_at(x: float, y: float) -> list[list[float]]:
    """Return 68 points; those that count lie as eyes and mouth about (x, y)."""
    points = np.full((68, 2), (x, y))
    points[36:42] = (x - 5, y - 4)
    points[42:48] = (x + 5, y - 4)
    points[48], points[54] = (x - 4, y + 6), (x + 4, y + 6)
    return points.tolist()  # type: ignore[no-any-return]

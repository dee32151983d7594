"""Shifts of FFHQ-U's squares: one random stream, drawn as the published program draws it."""

import numpy as np

from stylecli.data.alignment.ffhq import random_shifts
from stylecli.data.alignment.geometry import face_quad
from tests.data.alignment.face_points import face_at


def test_the_random_stream_is_numpy_s_and_drawn_pair_by_pair() -> None:
    inside, edge = face_at(45, 40), face_at(25, 22)
    sizes = [(90, 80)] * 40
    stream = np.random.RandomState(12345)
    stream.normal(0, 1, (40, 2))
    expected = []
    for points in (inside, edge) * 20:
        for _ in range(1000):
            shift = 0.2 * stream.normal(0, 1, 2)
            quad = face_quad(points, rotate=False, shift=(shift[0], shift[1]))
            if (np.floor(quad) >= 0).all() and (np.ceil(quad) < (90, 80)).all():
                break
        expected.append((float(shift[0]), float(shift[1])))

    assert random_shifts([inside, edge] * 20, sizes) == expected  # type: ignore[list-item]


def test_a_face_that_never_fits_uses_up_its_thousand_tries() -> None:
    inside, outside = face_at(45, 40), face_at(5, 5)
    stream = np.random.RandomState(12345)
    stream.normal(0, 1, (1002, 2))
    following = 1e-3 * stream.normal(0, 1, 2)

    shifts = random_shifts([outside, inside], [(90, 80)] * 2, random_shift=1e-3)  # type: ignore[list-item]

    assert shifts == [None, (following[0], following[1])]

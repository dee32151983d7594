"""Faces of two real portraits: found upright, tilted, mirrored, lying; nothing found elsewhere."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylecli.data.alignment import detectors
from stylecli.data.alignment.detection import (
    INSTALL,
    Detection,
    Detector,
    search_faces,
    searched_size,
)
from stylecli.data.alignment.detectors import load_detector
from stylecli.data.alignment.geometry import face_quad
from tests.conftest import FIXTURES

Array = Any  # of numpy
NAMES = ("astronaut", "grace_hopper")


@pytest.fixture(scope="module", params=["dlib", "mtcnn"])
def detector(request: pytest.FixtureRequest) -> Detector:
    name: str = request.param
    if not detectors.is_installed(name):
        pytest.skip(f"{name} is not installed: run {INSTALL[name]}")
    return load_detector(name)


@pytest.fixture(scope="module", params=NAMES)
def portrait(request: pytest.FixtureRequest) -> Image.Image:
    return Image.open(FIXTURES / "portraits" / f"{request.param}.jpg").convert("RGB")


def only(detector: Detector, picture: Image.Image) -> Detection:
    (face,) = search_faces(detector, picture, min_crop=256)
    return face


@pytest.fixture(scope="module")
def upright(detector: Detector, portrait: Image.Image) -> Detection:
    """The face of a portrait as it is, which others are compared with."""
    return only(detector, portrait)


def eyes_and_mouth(face: Detection) -> Array:
    """Return [4, 2]: left and right eye, left and right mouth corner, as the picture has them."""
    points = np.array(face.landmarks)
    if len(points) == 5:
        return points[[0, 1, 3, 4]]
    return np.array([points[36:42].mean(0), points[42:48].mean(0), points[48], points[54]])


def error(found: Detection, expected: Array) -> float:
    """Return the mean distance of the four points as a fraction of the eyes' distance."""
    apart = np.hypot(*(expected[1] - expected[0]))
    return float(np.hypot(*(eyes_and_mouth(found) - expected).T).mean() / apart)


def rotated(points: Array, degrees: float, size: tuple[int, int]) -> Array:
    """Turn points as ``Image.rotate`` turns a picture: counter-clockwise about its middle."""
    angle, middle = np.deg2rad(degrees), (np.array(size) - 1) / 2
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (points - middle) @ turn.T + middle


def test_points_lie_as_in_a_face(upright: Detection) -> None:
    left, right, mouth_left, mouth_right = eyes_and_mouth(upright)
    assert left[0] < right[0] and mouth_left[0] < mouth_right[0]
    assert max(left[1], right[1]) < min(mouth_left[1], mouth_right[1])
    x0, y0, x1, y1 = upright.box
    assert all(x0 < x < x1 and y0 < y < y1 for x, y in (left, right))


@pytest.mark.parametrize("degrees", [-45, 30])
def test_points_turn_with_the_picture(
    detector: Detector, portrait: Image.Image, upright: Detection, degrees: int
) -> None:
    expected = rotated(eyes_and_mouth(upright), degrees, portrait.size)
    found = only(detector, portrait.rotate(degrees, Image.Resampling.BICUBIC))
    assert error(found, expected) < 0.15


@pytest.mark.parametrize("degrees", [-30, 15])
def test_the_square_stands_upright_on_the_face(
    detector: Detector, portrait: Image.Image, upright: Detection, degrees: int
) -> None:
    before = face_quad(upright.landmarks)
    after = face_quad(only(detector, portrait.rotate(degrees, Image.Resampling.BICUBIC)).landmarks)
    side = np.hypot(*(before[3] - before[0]))
    shift = np.hypot(*(after - rotated(before, degrees, portrait.size)).T).mean()
    assert shift / side < 0.12


def test_left_and_right_change_places_in_a_mirror(
    detector: Detector, portrait: Image.Image, upright: Detection
) -> None:
    expected = eyes_and_mouth(upright)[[1, 0, 3, 2]]
    expected[:, 0] = portrait.width - 1 - expected[:, 0]
    found = only(detector, portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert error(found, expected) < 0.08


def test_a_photograph_on_its_side_is_turned(detector: Detector) -> None:
    portrait = Image.open(FIXTURES / "portraits" / "astronaut.jpg")
    expected = rotated(eyes_and_mouth(only(detector, portrait)), 90, portrait.size)
    found = only(detector, portrait.transpose(Image.Transpose.ROTATE_90))
    assert error(found, expected) < 0.05


def test_a_large_photograph_is_searched_smaller(
    detector: Detector, portrait: Image.Image, upright: Detection
) -> None:
    expected = (eyes_and_mouth(upright) + 0.5) * 5 - 0.5
    large = portrait.resize((portrait.width * 5, portrait.height * 5), Image.Resampling.BICUBIC)
    assert error(only(detector, large), expected) < 0.06


def test_two_people_come_from_left_to_right(detector: Detector) -> None:
    photo = Image.new("RGB", (1024, 600))
    for place, name in enumerate(NAMES):
        photo.paste(Image.open(FIXTURES / "portraits" / f"{name}.jpg"), (512 * place, 0))
    faces = search_faces(detector, photo, min_crop=256)
    assert [face.box[0] // 512 for face in faces] == [0, 1]


def test_a_badge_is_no_face(detector: Detector) -> None:
    # dlib alone takes the badge of the space mission for one
    portrait = Image.open(FIXTURES / "portraits" / "astronaut.jpg")
    badge = portrait.crop((90, 300, 260, 470)).resize((340, 340))
    assert search_faces(detector, badge, min_crop=128) == []


@pytest.mark.parametrize(
    ("size", "min_crop", "searched"),
    [
        ((1200, 800), 512, (1200, 800)),  # as it is
        ((6000, 4000), 1024, (1600, 1067)),  # reduced
        ((6000, 4000), 128, (3200, 2133)),  # less so, as small faces are wanted
        ((500, 400), 64, (1000, 800)),  # enlarged
    ],
)
def test_the_search_looks_as_closely_as_needed(
    size: tuple[int, int], min_crop: int, searched: tuple[int, int]
) -> None:
    assert searched_size(size, min_face=80, min_crop=min_crop) == searched

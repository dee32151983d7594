"""The crop of a face: the official program's pixels, and an answer to any input."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import stylecli
from stylecli.data.alignment.ffhq import random_shifts
from stylecli.data.alignment.geometry import align_face, blurred, crop_quad, face_quad, face_square
from stylecli.errors import DataError, UsageError
from tests.conftest import FIXTURES

OFFICIAL = FIXTURES / "official" / "ffhq_align"
RUNS = {run["run"]: run for run in json.loads((OFFICIAL / "runs.json").read_text())["runs"]}
Float64 = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def source() -> Image.Image:
    with Image.open(OFFICIAL / "source.png") as picture:
        picture.load()
    return picture


@pytest.fixture(scope="module")
def official() -> dict[str, Any]:
    with np.load(OFFICIAL / "aligned.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def landmarks(official: dict[str, Any]) -> Float64:
    """Of a turned face that lies well inside the picture."""
    points: Float64 = official["landmarks"][0]
    return points


def pixels(picture: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(picture).astype(np.int64)


def five_points(points: Float64) -> list[Float64]:
    """Return left eye, right eye, nose, left and right mouth corner of 68 points."""
    eyes = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    return [*eyes, points[30], points[48], points[54]]


def turned(points: Float64, degrees: float, about: tuple[float, float] = (0, 0)) -> Float64:
    a = np.deg2rad(degrees)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return (points - about) @ turn.T + about


@pytest.mark.parametrize("name", ["default", "no_rotate", "no_padding", "same_size"])
def test_pixels_equal_the_official_program(
    name: str, source: Image.Image, official: dict[str, Any]
) -> None:
    run = RUNS[name]
    for face in range(run["items"]):
        picture = align_face(
            source,
            official["landmarks"][face],
            output_size=run["output_size"],
            transform_size=run["transform_size"],
            padding=run.get("enable_padding", True),
            rotate=run.get("rotate_level", True),
        )

        assert np.array_equal(np.asarray(picture), official[f"out_{name}"][face])


def test_the_random_shift_equals_the_official_program(
    source: Image.Image, official: dict[str, Any]
) -> None:
    run = RUNS["shift"]
    points = official["landmarks"][: run["items"]]
    (shift,) = random_shifts(
        points, [source.size] * len(points), random_shift=run["random_shift"], rotate=True
    )
    assert shift is not None
    square = face_square(points[0], shift=shift)

    picture = crop_quad(
        source, square.quad(), side=square.side, output_size=128, transform_size=512
    )

    assert np.array_equal(np.asarray(picture), official["out_shift"][0])


def test_the_public_name_takes_lists_and_fills_in_the_official_sizes(landmarks: Float64) -> None:
    picture = stylecli.align_face(
        Image.new("RGB", (1500, 1200), "red"), landmarks.tolist(), transform_size=1024
    )

    assert (picture.mode, picture.size) == ("RGB", (1024, 1024))
    assert pixels(picture)[0, 0].tolist() == [255, 0, 0]


def test_five_points_give_the_crop_of_the_68_they_stand_for(landmarks: Float64) -> None:
    assert np.array_equal(face_quad(five_points(landmarks)), face_quad(landmarks))


def test_the_square_of_a_simple_face_is_the_one_computed_by_hand() -> None:
    # eyes 10 apart, mouth 10 below: x = (10 + 10, 0) normalised, half side max(20, 18)
    quad = face_quad([[45, 40], [55, 40], [50, 45], [47, 50], [53, 50]], shift=(0.5, 0))

    assert quad.tolist() == [[50, 21], [50, 61], [90, 61], [90, 21]]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turning_the_photograph_leaves_the_crop_as_it_is(
    degrees: int, source: Image.Image, landmarks: Float64
) -> None:
    width, height = source.size
    moved = turned(landmarks, -degrees)
    moved += {90: (0, width - 1), 180: (width - 1, height - 1), 270: (height - 1, 0)}[degrees]
    upright = align_face(source, landmarks, output_size=128, transform_size=512)

    crop = align_face(
        source.rotate(degrees, expand=True), moved, output_size=128, transform_size=512
    )

    assert np.abs(pixels(crop) - pixels(upright)).max() <= 1  # 0 was measured


def test_tilting_the_photograph_hardly_changes_the_crop(
    source: Image.Image, landmarks: Float64
) -> None:
    middle = ((source.width - 1) / 2, (source.height - 1) / 2)
    tilted = source.rotate(17, Image.Resampling.BICUBIC)
    upright = align_face(source, landmarks, output_size=128, transform_size=512)

    crop = align_face(tilted, turned(landmarks, -17, middle), output_size=128, transform_size=512)

    # 0.39 grey levels were measured, of the interpolation; untilted landmarks give 20
    assert np.abs(pixels(crop) - pixels(upright)).mean() < 0.6


def test_mirroring_the_photograph_mirrors_the_crop(source: Image.Image, landmarks: Float64) -> None:
    five = five_points(landmarks)
    mirrored = [(source.width - 1 - x, y) for x, y in (five[i] for i in (1, 0, 2, 4, 3))]
    plain = align_face(source, landmarks, output_size=128, transform_size=512)

    crop = align_face(
        source.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        mirrored,
        output_size=128,
        transform_size=512,
    )

    assert np.abs(pixels(crop) - pixels(plain)[:, ::-1]).max() <= 1  # 0 was measured


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_pictures_of_other_kinds_are_converted_first(
    mode: str, source: Image.Image, landmarks: Float64
) -> None:
    given = source.convert("L").convert(mode) if mode == "I;16" else source.convert(mode)
    plain = given.convert("L") if mode == "I;16" else given.convert("RGB")
    if mode == "I;16":  # Pillow's own conversions do not scale
        plain = Image.fromarray(np.rint(np.asarray(given) / 257).astype(np.uint8))

    crop = align_face(given, landmarks, output_size=32, transform_size=64)

    expected = align_face(plain, landmarks, output_size=32, transform_size=64)
    assert crop.mode == "RGB"
    assert np.array_equal(pixels(crop), pixels(expected))


def test_the_picture_itself_is_left_alone(source: Image.Image, landmarks: Float64) -> None:
    before = source.tobytes()
    align_face(source, landmarks, output_size=32, transform_size=32)

    assert source.tobytes() == before
    assert source.size == (1500, 1200)


def test_without_padding_the_outside_is_black(official: dict[str, Any]) -> None:
    white = Image.new("RGB", (1500, 1200), "white")

    crop = align_face(
        white, official["landmarks"][1], output_size=64, transform_size=64, padding=False
    )

    assert set(pixels(crop).ravel().tolist()) >= {0, 255}


def test_a_face_larger_than_its_picture_is_mirrored_again_and_again(landmarks: Float64) -> None:
    stripes = Image.fromarray(np.tile(np.uint8([[0], [255]]), (4, 9)))
    points = (landmarks - landmarks.mean(axis=0)) / 10 + 4

    crop = align_face(stripes, points, output_size=64, transform_size=64)

    assert pixels(crop).std() > 1


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((67, 2)),
        np.zeros((68, 3)),
        np.zeros((1, 68, 2)),
        [[1, 2], [3]],
        "face",
        None,
        [["a", "b"]] * 5,
        np.zeros((5, 2), complex),
        [],
    ],
    ids=["67", "three", "batch", "ragged", "word", "none", "words", "complex", "empty"],
)
def test_what_is_no_landmarks_is_refused(points: Any) -> None:
    with pytest.raises(UsageError, match=r"landmarks .*\[68, 2\]"):
        align_face(Image.new("RGB", (9, 9)), points)


FACE = [[45.0, 40.0], [55.0, 40.0], [50.0, 45.0], [47.0, 50.0], [53.0, 50.0]]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[float("nan")] * 2] * 5, "not finite"),
        ([[float("inf")] * 2] * 5, "not finite"),
        ([[1e300, 0]] * 5, "reach 1e"),
        ([[7.0, 7.0]] * 5, "one point"),
        # the mouth above the eyes by their distance
        ([[45, 40], [55, 40], [50, 35], [47, 30], [53, 30]], "no direction"),
        (np.array(FACE) + 5000, "outside the picture of 100 × 90 px"),
        (np.array(FACE) * 0.005 + 40, "too small"),
    ],
    ids=["nan", "infinite", "huge", "point", "upside-down", "outside", "tiny"],
)
def test_landmarks_that_give_no_crop_are_a_clear_error(points: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        align_face(Image.new("RGB", (100, 90)), points, output_size=32, transform_size=32)


@pytest.mark.parametrize("size", [0, -1, 1.5, "64", 10**9])
def test_sizes_that_are_none_are_refused(size: Any) -> None:
    with pytest.raises(UsageError, match="output size"):
        align_face(Image.new("RGB", (100, 90)), FACE, output_size=size)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_unknown_range_are_refused(mode: str) -> None:
    with pytest.raises(DataError, match=f"the picture has {mode} pixels"):
        align_face(Image.new(mode, (100, 90)), FACE, output_size=32)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(UsageError, match="type ndarray"):
        align_face(np.zeros((100, 90, 3), np.uint8), FACE)  # type: ignore[arg-type]


def test_the_blur_is_a_gaussian_with_the_edge_pixel_mirrored() -> None:
    dot = np.zeros((9, 40), np.float32)
    dot[4, 1] = 1
    reach = np.exp(-0.5 * (np.arange(40) - 1.0) ** 2 / 4)
    mirror = np.exp(-0.5 * (np.arange(40) + 2.0) ** 2 / 4)  # of the dot at -2, beyond the edge
    offsets = np.arange(-8, 9)
    reach[10:], mirror[7:] = 0, 0  # cut off at four sigma
    expected = (reach + mirror) / np.exp(-0.5 * offsets**2 / 4).sum()

    blur = blurred(dot, 2.0)

    assert np.allclose(blur.sum(axis=0), expected, atol=1e-6)
    assert np.isclose(blur.sum(), 1)


coordinates = st.floats(-400, 500) | st.sampled_from([0.0, 0.5, 59.0, -1e6, 1e6, 1e-9])
points = st.lists(st.tuples(coordinates, coordinates), min_size=5, max_size=5)


@given(
    landmarks=points,
    width=st.integers(1, 60),
    height=st.integers(1, 60),
    rotate=st.booleans(),
    padding=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_five_points_give_a_crop_or_a_clear_error(
    landmarks: list[tuple[float, float]], width: int, height: int, rotate: bool, padding: bool
) -> None:
    image = Image.new("RGB", (width, height), "teal")
    try:
        crop = align_face(
            image, landmarks, output_size=16, transform_size=32, rotate=rotate, padding=padding
        )
    except DataError as error:
        assert str(error)
    else:
        assert crop.size == (16, 16)
        if padding:  # a picture of one colour stays so, whatever is mirrored and blurred
            assert np.ptp(pixels(crop), axis=(0, 1)).max() == 0


@given(landmarks=points, degrees=st.floats(-180, 180), scale=st.floats(0.1, 10))
@settings(max_examples=100, deadline=None)
def test_the_square_moves_with_the_face(
    landmarks: list[tuple[float, float]], degrees: float, scale: float
) -> None:
    given_points = np.array(landmarks)
    try:
        quad = face_quad(given_points)
        moved = face_quad(turned(given_points, degrees) * scale + (3, -4))
    except DataError:
        return
    across = given_points[1] - given_points[0]
    down = (given_points[3] + given_points[4] - given_points[0] - given_points[1]) / 2
    if np.hypot(across[0] + down[1], across[1] - down[0]) < 1e-6 * np.abs(given_points).max():
        return  # next to no direction: rounding decides

    assert np.allclose(moved, turned(quad, degrees) * scale + (3, -4), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize(("side", "sampled"), [(20, 64), (50, 100), (90, 128)])
def test_twice_the_square_is_sampled_within_bounds(side: float, sampled: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (160, 160, 3), np.uint8)
    image = Image.fromarray(noise)
    quad = np.array([[40, 40], [40, 40 + side], [40 + side, 40 + side], [40 + side, 40]])

    chosen = crop_quad(image, quad, side=side, output_size=32, transform_size=None)

    for size in (64, 100, 128):
        other = crop_quad(image, quad, side=side, output_size=32, transform_size=size)
        assert (chosen.tobytes() == other.tobytes()) == (size == sampled)

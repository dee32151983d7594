"""Grids of pictures that are not square: read, doubled, proposed, refused."""

import pytest

from stylecli.errors import UsageError
from stylecli.shapes import SQUARE, Grid, Size, checked_grid, fitting_grid, parse_shape


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("4:3", (3, 4)), ("3:4", (4, 3)), ("1:1", (4, 4)), ("8:6", (3, 4)), ("1920x1080", (9, 16)),
        ("3:2", (4, 6)), ("2:1", (4, 8)), ("5:3", (3, 5)), ("5:4", (4, 5)),
    ],
)  # fmt: skip
def test_a_shape_is_its_least_numbers_doubled_to_three(text: str, grid: tuple[int, int]) -> None:
    assert parse_shape(text) == grid


@pytest.mark.parametrize(
    ("text", "named"),
    [("4", "4:3"), ("a:b", "'a:b'"), ("4:0", "'4:0'"), ("17:13", "4:3"), ("101:97", "1:1"),
     ("50:1", "16:3"), ("-4:3", "'-4:3'")],
)  # fmt: skip
def test_other_shapes_are_refused_with_one_that_works(text: str, named: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_shape(text)

    assert named in str(refused.value)
    assert text.partition(":")[0] in str(refused.value)


def test_levels_double_the_grid() -> None:
    assert [Grid(3, 4).at(level) for level in (4, 8, 256)] == [(3, 4), (6, 8), (192, 256)]
    assert SQUARE.at(64) == (64, 64)
    assert Grid(3, 4).level_with(192, 1024) == 256
    assert SQUARE.level_with(128, 1024) == 128
    assert (str(Size(48, 64)), str(Size(64, 64))) == ("64x48", "64")


@pytest.mark.parametrize("resolution", [200, 191, 1, 1536])
def test_a_resolution_between_levels_is_refused_with_the_nearest(resolution: int) -> None:
    near = {200: "192", 191: "192", 1: "3", 1536: "768"}[resolution]

    with pytest.raises(UsageError, match=f"resolution {resolution} .* --resolution {near}$"):
        Grid(3, 4).level_with(resolution, 1024)


@pytest.mark.parametrize("base", [(3,), (2, 4), (3, 17), (3.0, 4), "43", None, (True, 4)])
def test_a_grid_of_a_file_is_checked(base: object) -> None:
    with pytest.raises(UsageError, match="base"):
        checked_grid(base)


def test_the_grid_that_fits_keeps_most_and_is_simple() -> None:
    assert fitting_grid({(480, 640): 9, (640, 640): 1}) == (3, 4)
    assert fitting_grid({(1000, 1010): 1, (1010, 1000): 1}) == SQUARE
    assert fitting_grid({(480, 640): 1, (640, 640): 1}) == SQUARE  # both keep as much
    assert fitting_grid({}) == SQUARE
    assert fitting_grid({(1080, 1920): 1}) == (4, 7)  # keeps 98 %, with a doubling more than 9×16
    assert Grid(3, 4).kept(640, 640) == 0.75

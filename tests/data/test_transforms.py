"""Where each transform puts a picture: boxes, sizes and offsets as one would draw them."""

import pytest

from stylecli.data.transforms import (
    ALIASES,
    TRANSFORMS,
    Placement,
    choose_resolution,
    name_transform,
    place,
    target_size,
)
from stylecli.errors import DataError, UsageError


def placed(transform, picture, resolution, **sides):
    """Place a picture of (width, height)."""
    target = target_size(transform, resolution, **sides)
    return place(transform, picture, resolution, target)


@pytest.mark.parametrize(
    ("transform", "picture", "expected"),
    [
        ("center-crop", (10, 4), Placement((3, 0, 7, 4), (8, 8), (0, 0))),
        ("center-crop", (5, 10), Placement((0, 2, 5, 7), (8, 8), (0, 0))),
        ("wide", (16, 16), Placement((0, 2, 16, 14), (8, 6), (0, 1))),
        ("wide", (40, 12), Placement((12, 0, 28, 12), (8, 6), (0, 1))),
        ("tall", (16, 16), Placement((2, 0, 14, 16), (6, 8), (1, 0))),
        ("letterbox", (16, 4), Placement((0, 0, 16, 4), (8, 2), (0, 3))),
        ("letterbox", (3, 9), Placement((0, 0, 3, 9), (3, 8), (2, 0))),
        ("letterbox", (9000, 9), Placement((0, 0, 9000, 9), (8, 1), (0, 3))),
        ("pad", (5, 8), Placement((0, 0, 5, 8), (5, 8), (1, 0))),
        ("stretch", (20, 10), Placement((0, 0, 20, 10), (8, 8), (0, 0))),
        ("celeba", (178, 218), Placement((25, 57, 153, 185), (8, 8), (0, 0))),
    ],
)
def test_places_a_picture(transform, picture, expected):
    assert placed(transform, picture, 8) == expected


def test_lsun_cars_keep_their_proportions():
    assert placed("wide", (512, 384), 512) == placed("letterbox", (512, 384), 512)
    assert placed("wide", (512, 384), 512) == Placement((0, 0, 512, 384), (512, 384), (0, 64))


def test_wide_and_tall_take_other_sides():
    assert placed("wide", (64, 36), 64, height=36) == Placement((0, 0, 64, 36), (64, 36), (0, 14))
    assert placed("tall", (36, 64), 64, width=36) == Placement((0, 0, 36, 64), (36, 64), (14, 0))


@pytest.mark.parametrize(
    ("transform", "sides"),
    [("wide", {"width": 32}), ("wide", {"height": 128}), ("tall", {"height": 32}),
     ("center-crop", {"height": 32}), ("stretch", {"width": 32})],
)  # fmt: skip
def test_sides_that_do_not_fit_are_refused(transform, sides):
    with pytest.raises(UsageError, match="do not fit transform"):
        target_size(transform, 64, **sides)


def test_scale_is_that_of_the_direction_with_fewer_pixels():
    assert placed("stretch", (32, 16), 8).scale == 2
    assert placed("center-crop", (6, 6), 8).scale < 1


def test_pictures_without_a_place_are_refused():
    with pytest.raises(DataError, match="is 9 x 4 px, larger than 8"):
        placed("pad", (9, 4), 8)
    with pytest.raises(DataError, match="celeba is for the aligned pictures of 178 x 218"):
        placed("celeba", (218, 178), 128)


def test_nvidias_names_are_known():
    assert name_transform("center-crop-wide") == "wide" and name_transform("none") == "stretch"
    assert {name_transform(name) for name in (*TRANSFORMS, *ALIASES)} == set(TRANSFORMS)
    with pytest.raises(UsageError, match="'squeeze' is not one of center-crop, wide"):
        name_transform("squeeze")


@pytest.mark.parametrize(
    ("transform", "sizes", "expected"),
    [
        ("center-crop", [(40, 40)] * 95 + [(20, 20)] * 5, 32),
        ("center-crop", [(40, 40)] * 94 + [(20, 20)] * 6, 16),
        ("center-crop", [(5000, 5000)], 1024),
        ("center-crop", [(2, 2)], 4),
        ("center-crop", [], 4),
        ("letterbox", [(64, 10)], 64),
        ("wide", [(512, 384)], 512),
        ("wide", [(512, 300)], 256),
        ("stretch", [(100, 40)], 32),
        ("pad", [(28, 28)] * 99 + [(40, 40)], 32),
        ("pad", [(5000, 10)], 1024),
        ("celeba", [(178, 218)], 128),
    ],
)
def test_chooses_what_nearly_all_pictures_reach(transform, sizes, expected):
    assert choose_resolution(sizes, transform, 1024) == expected


def test_one_small_picture_among_a_few_does_not_decide() -> None:
    assert choose_resolution([(700, 700)] * 10 + [(5, 5)], "center-crop", 1024) == 512
    assert choose_resolution([(64, 64)], "center-crop", 1024) == 64

"""Near duplicates: what is found, and that different pictures are not."""

import numpy as np
import pytest

from stylecli.data.checking.near_duplicates import (
    find_near_duplicates,
    fit_hash,
    group_pairs,
    residual,
    shrink,
    to_grey,
)
from tests.data.checking.pictures import brighten, draw, encode_again, pixels_of, shift


@pytest.fixture(scope="module")
def pictures():
    """500 different pictures, 64 px."""
    return [draw(seed) for seed in range(500)]


def search(pictures):
    pixels = np.stack([pixels_of(picture) for picture in pictures])
    grey = np.rint(to_grey(shrink(pixels))).astype(np.uint8)
    return find_near_duplicates(
        grey, np.arange(len(pixels)), lambda indices: shrink(pixels[list(indices)])
    )


def test_different_pictures_are_no_duplicates(pictures):
    assert search(pictures) == []


@pytest.mark.parametrize("change", [encode_again, brighten, shift], ids=lambda f: f.__name__)
def test_finds_a_changed_copy_of_most_pictures(pictures, change):
    found = search([*pictures[:100], *map(change, pictures[:100])])

    assert {(i, j) for i, j in found if j != i + 100} == set()
    assert len(found) >= 85


def test_finds_a_copy_changed_in_three_ways(pictures):
    copies = [encode_again(brighten(shift(picture)), 90) for picture in pictures[:100]]

    assert len(search([*pictures[:100], *copies])) >= 75


def test_another_colour_of_equal_brightness_is_another_picture():
    red = np.zeros((3, 64, 64), np.uint8)
    red[0, 16:48, 16:48] = 200
    green = np.zeros_like(red)
    green[1, 16:48, 16:48] = round(200 * 0.299 / 0.587)
    pair = np.stack([red, green])
    grey = np.rint(to_grey(shrink(pair))).astype(np.uint8)

    assert np.abs(grey[0].astype(int) - grey[1]).max() <= 1
    assert find_near_duplicates(grey, np.arange(2), lambda rows: shrink(pair[list(rows)])) == []


def test_frames_of_a_film_that_hardly_move_are_found():
    rng = np.random.default_rng(0)
    still = pixels_of(draw(1)).astype(int)
    frames = np.clip(still + rng.integers(-3, 4, (30, *still.shape)), 0, 255).astype(np.uint8)
    grey = np.rint(to_grey(shrink(frames))).astype(np.uint8)
    found = find_near_duplicates(grey, np.arange(30), lambda rows: shrink(frames[list(rows)]))

    assert len(group_pairs(found)[0]) == 30


def test_residual_leaves_nothing_of_gain_and_offset(pictures):
    grey = to_grey(shrink(np.stack([pixels_of(picture) for picture in pictures[:5]])))
    worst, whole, contrast = residual(1.2 * grey + 7, grey)

    assert worst.max() < 0.1 and whole.max() < 0.1 and contrast.min() > 10


def test_groups_join_pairs():
    assert group_pairs([(7, 8), (1, 5), (5, 9), (1, 9)]) == [[1, 5, 9], [7, 8]]


def test_bits_of_a_fitted_hash_are_even(pictures):
    grey = to_grey(shrink(np.stack([pixels_of(picture) for picture in pictures])))
    hashes = fit_hash(grey)(grey)
    share = [np.mean((hashes >> np.uint64(bit)) & np.uint64(1)) for bit in range(64)]

    assert 0.45 < min(share) and max(share) < 0.55

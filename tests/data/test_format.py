"""Lower levels are float box means, rounded once."""

import numpy as np
import pytest

from stylecli.data.format import box_mean, count_levels
from stylecli.errors import UsageError


def halve(pixels):
    """Take the 2 x 2 mean in float32, as the official tool does from level to level."""
    return (
        pixels[..., ::2, ::2] + pixels[..., ::2, 1::2]
        + pixels[..., 1::2, ::2] + pixels[..., 1::2, 1::2]
    ) * np.float32(0.25)  # fmt: skip


def test_equals_a_chain_of_float_means_rounded_at_the_end():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    floats = pixels.astype(np.float32)
    for level in range(1, count_levels(64)):
        floats = halve(floats)
        assert np.array_equal(box_mean(pixels, level), np.rint(floats))


def test_rounds_once_and_not_at_every_level():
    # Level 1 means 0.25 and 1.5 and 1.5 and 1.5: rounded there first, level 2 would be 2.
    pixels = np.array([[0, 1, 1, 2], [0, 0, 1, 2], [1, 2, 1, 2], [1, 2, 1, 2]], np.uint8)
    assert box_mean(pixels, 2).item() == 1


def test_keeps_white_white_at_the_largest_factor():
    assert box_mean(np.full((1, 1024, 1024), 255, np.uint8), 8).tolist() == [[[255] * 4] * 4]


def test_refuses_a_level_below_one_pixel():
    with pytest.raises(UsageError, match="level 3 does not exist in pictures of 4 x 4 px"):
        box_mean(np.zeros((4, 4), np.uint8), 3)

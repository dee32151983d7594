"""The clean resize: floats, antialiased, clipped, and not rounded."""

import numpy as np
import pytest

from stylecli.errors import UsageError
from stylecli.features.resizing import resize_clean


def test_a_flat_picture_stays_flat():
    resized = resize_clean(np.full((2, 3, 40, 30), 77, np.uint8))
    assert resized.shape == (2, 3, 299, 299) and resized.dtype == np.float32
    np.testing.assert_allclose(resized, 77.0, rtol=1e-5)


def test_a_picture_of_the_size_keeps_its_values():
    pictures = np.random.default_rng(0).integers(0, 256, (1, 3, 20, 20), np.uint8)
    np.testing.assert_array_equal(resize_clean(pictures, 20), pictures)


def test_a_fine_pattern_turns_grey_when_shrunk():
    checkers = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    inner = resize_clean(checkers[None, None], 16)[..., 2:-2, 2:-2]
    np.testing.assert_allclose(inner, 127.5, atol=3)


def test_overshoot_is_clipped_and_levels_are_not_whole():
    edge = np.zeros((1, 1, 16, 16), np.uint8)
    edge[..., 8:] = 255
    resized = resize_clean(edge, 50)
    assert resized.min() == 0.0 and resized.max() == 255.0
    assert (resized % 1 != 0).any()


def test_refuses_floats():
    with pytest.raises(UsageError, match="expected uint8"):
        resize_clean(np.zeros((1, 3, 8, 8), np.float32))

"""The kernel distance against the official program's values, its bias, and both ways to it."""

import numpy as np
import pytest

from stylecli.errors import UsageError
from stylecli.metrics import kernel_distance
from stylecli.metrics.kernel import _from_subset_kernels, _from_whole_kernels, subset_rows


@pytest.mark.parametrize("run", [0, 1])
def test_equals_the_official_value_for_the_same_random_state(arrays, values, run):
    official = values["kid"][run]
    mean, _ = kernel_distance(
        arrays["real_features"],
        arrays["gen_features"],
        subsets=official["num_subsets"],
        subset_size=official["max_subset_size"],
        rng=np.random.RandomState(official["np_random_seed"]),
    )
    assert mean == pytest.approx(official["kid"], rel=1e-6)


def test_is_unbiased_where_both_sets_have_one_distribution():
    random = np.random.default_rng(0)
    real, fake = random.normal(size=(400, 8)), random.normal(size=(400, 8))
    mean, std = kernel_distance(real, fake, subset_size=100, rng=random)
    assert abs(mean) < std / 2  # a biased estimate would be larger by about k(x, x)/m


def test_both_ways_of_computing_agree(arrays):
    real, fake = arrays["real_features"].astype(float), arrays["gen_features"].astype(float)
    chosen = list(
        subset_rows(len(real), len(fake), subsets=5, subset_size=50, rng=np.random.RandomState(3))
    )
    whole, parts = (
        _from_whole_kernels(real, fake, chosen),
        _from_subset_kernels(real, fake, chosen),
    )
    np.testing.assert_allclose(whole, parts, rtol=1e-10)


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("subset_size", [100, 150])
def test_products_of_float32_keep_the_digits(shift, subset_size):
    random = np.random.default_rng(0)
    mixing = random.standard_normal((64, 2048)) / 8
    # As Inception's features: correlated, many of them 0, none below.
    real, fake = (
        np.maximum(0.35 + by + 0.4 * random.standard_normal((150, 64)) @ mixing, 0)
        for by in (0.0, shift)
    )
    real, fake = real.astype(np.float32), fake.astype(np.float32)

    def distance(dtype):
        rng = np.random.RandomState(1)
        return kernel_distance(
            real.astype(dtype), fake.astype(dtype), subsets=4, subset_size=subset_size, rng=rng
        )

    narrow, wide = distance(np.float32), distance(np.float64)
    assert narrow[0] != wide[0]
    np.testing.assert_allclose(narrow, wide, rtol=5e-7, atol=1e-10)


def test_features_too_large_for_float32_products_take_float64():
    random = np.random.default_rng(0)
    real, fake = (1e15 * random.standard_normal((2, 20, 4))).astype(np.float32)
    narrow, wide = (
        kernel_distance(real.astype(dtype), fake.astype(dtype), rng=np.random.RandomState(1))
        for dtype in (np.float32, np.float64)
    )
    assert narrow == wide and np.isfinite(narrow).all()


def test_the_rows_of_subsets_are_known_before_any_feature():
    rows, columns = next(subset_rows(9, 7, subsets=1, subset_size=5, rng=np.random.RandomState(4)))
    random = np.random.RandomState(4)
    np.testing.assert_array_equal(columns, random.choice(7, 5, replace=False))  # fakes first
    np.testing.assert_array_equal(rows, random.choice(9, 5, replace=False))


def test_one_row_is_too_few():
    with pytest.raises(UsageError, match="at least 2 rows"):
        kernel_distance(np.zeros((1, 4)), np.zeros((5, 4)), rng=np.random.default_rng(0))

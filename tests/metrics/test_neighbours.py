"""Precision and recall against official values and where they are known."""

import numpy as np
import pytest

from stylecli.errors import UsageError
from stylecli.metrics import neighbours, precision_recall


@pytest.mark.parametrize(("k", "name"), [(3, ""), (5, "_k5")])
def test_equals_the_official_values(arrays, values, k, name):
    official = values[f"precision_recall_fp32_features{name}"]
    found = precision_recall(arrays["pr_real_features"], arrays["pr_gen_features"], k)
    assert found == pytest.approx((official["precision"], official["recall"]), abs=1e-6)


def test_equal_sets_have_full_precision_and_recall(arrays):
    real = arrays["pr_real_features"]
    assert precision_recall(real, real) == (1.0, 1.0)


def test_fakes_that_repeat_one_real_picture_are_precise_and_recall_little(arrays):
    real = arrays["pr_real_features"]
    precision, recall = precision_recall(real, real[[7] * 50])
    assert precision == 1.0
    assert recall == pytest.approx(1 / len(real))


def test_blocks_of_rows_change_nothing(arrays, monkeypatch):
    real, fake = arrays["pr_real_features"], arrays["pr_gen_features"]
    whole = precision_recall(real, fake)
    monkeypatch.setattr(neighbours, "_BLOCK", 17)
    assert precision_recall(real, fake) == whole


def brute_force(real, fake, k):
    """Every distance from its own difference in float64, rounded to float32 like the official."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)

    def distances(x, y):
        return np.stack([np.sqrt(np.square(y - row).sum(axis=1)) for row in x]).astype(np.float32)

    real_radii = np.sort(distances(real, real), axis=1)[:, k]
    fake_radii = np.sort(distances(fake, fake), axis=1)[:, k]
    across = distances(real, fake)
    precision = (across <= real_radii[:, None]).any(axis=0).mean()
    return float(precision), float((across <= fake_radii).any(axis=1).mean())


def sets_of_points(kind):
    random = np.random.default_rng(5)
    real = random.standard_normal((90, 12)).astype(np.float32)
    fake = (0.8 * random.standard_normal((70, 12)) + 0.2).astype(np.float32)
    if kind == "half":
        return real.astype(np.float16), fake.astype(np.float16)
    if kind == "repeated":
        return real[random.integers(0, 12, 90)], np.concatenate([real[:9].repeat(6, axis=0), fake])
    if kind == "far from zero":
        return real + 1000, fake + 1000
    if kind == "on a grid":  # every distance is shared by many pairs: all comparisons are ties
        return np.round(real[:, :3]), np.round(fake[:, :3])
    if kind == "nearly collapsed":  # nearer to each other than float32 products can tell
        return real, (100 + 1e-4 * fake).astype(np.float32)
    if kind == "both nearly collapsed":
        fake[:3] = 50
        return (real * 1e-4 + 3).astype(np.float32), (fake * 1e-4 + 3).astype(np.float32)
    return real, fake


@pytest.mark.parametrize(
    "kind",
    [
        "plain",
        "half",
        "repeated",
        "far from zero",
        "on a grid",
        "nearly collapsed",
        "both nearly collapsed",
    ],
)
@pytest.mark.parametrize("k", [1, 3])
def test_equals_brute_force(kind, k, monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK", 32)
    monkeypatch.setattr(neighbours, "_PAIRS", 16)
    real, fake = sets_of_points(kind)
    assert precision_recall(real, fake, k) == brute_force(real, fake, k)


def test_the_features_are_not_changed(arrays):
    real, fake = arrays["pr_real_features"].copy(), arrays["pr_gen_features"].copy()
    precision_recall(real, fake)
    np.testing.assert_array_equal(real, arrays["pr_real_features"])
    np.testing.assert_array_equal(fake, arrays["pr_gen_features"])


def test_k_has_to_leave_a_neighbour():
    with pytest.raises(UsageError, match="k 3 does not fit 3 real"):
        precision_recall(np.zeros((3, 2)), np.zeros((9, 2)))

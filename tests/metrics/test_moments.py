"""Streamed mean and covariance: batches, order, ranks, large offsets, states."""

import numpy as np
import pytest

from stylecli.errors import UsageError
from stylecli.metrics import moments as module
from stylecli.metrics.moments import Moments, moments_of


@pytest.fixture
def features():
    random = np.random.default_rng(0)
    return (random.standard_normal((250, 7)) * [1, 2, 3, 4, 5, 6, 7]).astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 32)


def in_batches(features, size):
    moments = Moments(features.shape[1])
    for start in range(0, len(features), size):
        moments.add(features[start : start + size])
    return moments


def test_equals_numpy(features):
    moments = moments_of(features)
    np.testing.assert_allclose(moments.mean(), features.astype(float).mean(0), rtol=1e-13)
    for ddof in (0, 1):
        expected = np.cov(features.astype(float), rowvar=False, ddof=ddof)
        np.testing.assert_allclose(moments.covariance(ddof), expected, rtol=1e-12, atol=1e-12)


def test_features_far_from_zero_lose_nothing(features):
    near, far = moments_of(features), moments_of(features.astype(float) + 2.0**20)
    np.testing.assert_allclose(far.covariance(), near.covariance(), rtol=1e-9, atol=1e-9)
    # What the difference of raw moments makes of the same numbers.
    x = features.astype(float) + 2.0**20
    raw = (x.T @ x - len(x) * np.outer(x.mean(0), x.mean(0))) / (len(x) - 1)
    assert np.abs(raw - near.covariance()).max() > 1e-4


@pytest.mark.parametrize("size", [1, 7, 32, 100])
def test_the_size_of_batches_changes_no_bit(features, size):
    whole, parts = moments_of(features), in_batches(features, size)
    np.testing.assert_array_equal(parts.mean(), whole.mean())
    np.testing.assert_array_equal(parts.covariance(), whole.covariance())


def test_order_and_ranks_stay_within_rounding(features):
    whole = moments_of(features)
    shuffled = moments_of(features[np.random.default_rng(1).permutation(len(features))])
    ranks = moments_of(features[0::2])
    ranks.merge(moments_of(features[1::2]))
    for other in (shuffled, ranks):
        assert other.count == len(features)
        np.testing.assert_allclose(other.mean(), whole.mean(), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(other.covariance(), whole.covariance(), rtol=1e-12, atol=1e-11)


def test_a_rank_without_pictures_changes_nothing(features):
    moments, before = moments_of(features), moments_of(features).covariance()
    moments.merge(Moments(7))
    np.testing.assert_array_equal(moments.covariance(), before)


def test_a_stored_state_goes_on(features, tmp_path):
    first = moments_of(features[:100])
    np.savez(tmp_path / "state.npz", **first.state())
    with np.load(tmp_path / "state.npz") as stored:
        again = Moments.from_state(stored)
    again.add(features[100:])
    assert again.count == 250
    np.testing.assert_allclose(
        again.covariance(), moments_of(features).covariance(), rtol=1e-12, atol=1e-11
    )


def test_a_damaged_state_is_refused(features):
    state = moments_of(features).state()
    with pytest.raises(UsageError, match="lacks scatter"):
        Moments.from_state({name: state[name] for name in ("count", "mean")})
    with pytest.raises(UsageError, match="damaged"):
        Moments.from_state({**state, "scatter": state["scatter"] * np.nan})
    with pytest.raises(UsageError, match="shapes"):
        Moments.from_state({**state, "mean": state["mean"][:3]})


def test_refuses_what_is_not_features(features):
    with pytest.raises(UsageError, match="not finite"):
        moments_of(np.full((3, 2), np.inf))
    with pytest.raises(UsageError, match=r"expected \[N, 7\]"):
        Moments(7).add(np.zeros((3, 6)))
    with pytest.raises(UsageError, match="1 rows were added: expected at least 2"):
        moments_of(features[:1]).covariance()

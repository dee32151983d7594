"""The Fréchet distance against official values and closed forms; moments in batches and states."""

import numpy as np
import pytest

from stylecli.errors import UsageError
from stylecli.metrics import frechet as module
from stylecli.metrics import frechet_distance
from stylecli.metrics.frechet import Moments, moments_distance, moments_of, statistics_distance


@pytest.fixture
def features(small_blocks):
    random = np.random.default_rng(0)
    return (random.standard_normal((250, 7)) * [1, 2, 3, 4, 5, 6, 7]).astype(np.float32)


@pytest.fixture
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


def test_the_order_stays_within_rounding(features):
    whole = moments_of(features)
    other = moments_of(features[np.random.default_rng(1).permutation(len(features))])
    assert other.count == len(features)
    np.testing.assert_allclose(other.mean(), whole.mean(), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(other.covariance(), whole.covariance(), rtol=1e-12, atol=1e-11)


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


def test_equals_the_official_values(arrays, values):
    real, fake = arrays["real_features"], arrays["gen_features"]
    assert frechet_distance(real, fake, ddof=0) == pytest.approx(
        values["fid_pytorch_official"], rel=1e-6
    )
    assert frechet_distance(real, fake) == pytest.approx(
        values["fid_tf_stylegan1_formula"], rel=1e-6
    )


def test_a_set_has_no_distance_to_itself(arrays):
    assert frechet_distance(arrays["real_features"], arrays["real_features"]) < 1e-9


def test_diagonal_gaussians_have_a_closed_form():
    mean, a, b = np.array([1.0, -2.0, 0.5]), np.array([4.0, 1.0, 0.0]), np.array([1.0, 9.0, 2.0])
    expected = np.square(mean).sum() + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    found = statistics_distance(mean, np.diag(a), np.zeros(3), np.diag(b))
    assert found == pytest.approx(expected, rel=1e-12)


def test_fewer_rows_than_columns_give_the_same_as_their_statistics(arrays):
    a, b = arrays["real_features"][:20].astype(float), arrays["gen_features"][:30].astype(float)
    by_statistics = statistics_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert frechet_distance(a, b) == pytest.approx(by_statistics, rel=1e-9)


def covariance_of(eigenvalues):
    """Return a covariance of these eigenvalues in a random basis."""
    d = len(eigenvalues)
    basis, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((d, d)))
    cov = basis @ np.diag(eigenvalues) @ basis.T
    return (cov + cov.T) / 2


@pytest.mark.parametrize("least", [1e-3, 1e-8, 1e-13, 0.0])
def test_scaled_covariances_have_a_closed_form_at_every_condition(least):
    half = np.geomspace(1.0, 0.1, 20)
    eigenvalues = np.r_[half, np.geomspace(0.1, least, 20) if least else np.zeros(20)]
    cov = covariance_of(eigenvalues)
    expected = (1.5 - 1.0) ** 2 * np.trace(cov)
    found = statistics_distance(np.zeros(40), cov, np.zeros(40), 2.25 * cov)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("rows_a", "rows_b"), [(300, 300), (300, 20), (20, 300), (50, 45)])
def test_ranks_of_any_kind_agree_with_the_nuclear_norm(rows_a, rows_b):
    random = np.random.default_rng(2)
    scale = np.geomspace(1, 1e-2, 40)
    a = random.standard_normal((rows_a, 40)) * scale
    b = random.standard_normal((rows_b, 40)) * scale + 0.1
    x, y = (z - z.mean(0) for z in (a, b))
    x, y = x / np.sqrt(rows_a - 1), y / np.sqrt(rows_b - 1)
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    expected = np.square(a.mean(0) - b.mean(0)).sum() + (x**2).sum() + (y**2).sum() - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_a_constant_column_is_no_trouble():
    random = np.random.default_rng(3)
    a, b = random.standard_normal((200, 6)), random.standard_normal((200, 6))
    a[:, 2] = b[:, 2] = 4.0
    without = frechet_distance(np.delete(a, 2, axis=1), np.delete(b, 2, axis=1))
    assert frechet_distance(a, b) == pytest.approx(without, rel=1e-9)


def test_streamed_moments_give_the_same(arrays):
    a, b = arrays["real_features"], arrays["gen_features"]
    assert moments_distance(moments_of(a), moments_of(b), ddof=0) == pytest.approx(
        frechet_distance(a, b, ddof=0), rel=1e-9
    )


def test_names_both_widths_when_they_differ():
    with pytest.raises(UsageError, match="a has 3 columns and b 4"):
        frechet_distance(np.zeros((5, 3)), np.zeros((5, 4)))


def test_refuses_values_that_are_not_finite():
    with pytest.raises(UsageError, match="not finite"):
        frechet_distance(np.full((5, 3), np.nan), np.zeros((5, 3)))

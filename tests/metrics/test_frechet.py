"""The Fréchet distance against official values, closed forms and singular covariances."""

import numpy as np
import pytest

from stylecli.errors import UsageError
from stylecli.metrics import frechet_distance
from stylecli.metrics.frechet import statistics_distance


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


def test_names_both_widths_when_they_differ():
    with pytest.raises(UsageError, match="a has 3 columns and b 4"):
        frechet_distance(np.zeros((5, 3)), np.zeros((5, 4)))


def test_refuses_values_that_are_not_finite():
    with pytest.raises(UsageError, match="not finite"):
        frechet_distance(np.full((5, 3), np.nan), np.zeros((5, 3)))

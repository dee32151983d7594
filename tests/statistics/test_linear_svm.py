"""Hyperplanes against scikit-learn's LinearSVC, and what makes them the optimum."""

import numpy as np
import pytest

from stylecli.errors import UsageError
from stylecli.statistics.linear_svm import fit_linear_svm, fit_one_vs_rest, objective, svm_classes


def whole(svm):
    return np.append(svm.weights, svm.bias)


@pytest.mark.parametrize(("C", "official"), [(1.0, "svm_binary"), (0.05, "svm_binary_C005")])
def test_equals_sklearn_at_its_tightest_tolerance(official_separability, C, official):
    arrays, _ = official_separability
    svm = fit_linear_svm(arrays["svm_points"], arrays["svm_positive"], C=C)
    np.testing.assert_allclose(whole(svm), arrays[official], rtol=1e-6, atol=1e-8)


def test_one_against_the_rest_equals_sklearn(official_separability):
    arrays, _ = official_separability
    svms = fit_one_vs_rest(arrays["svm_points"], arrays["svm_three"], [0, 1, 2])
    found = np.stack([whole(svm) for svm in svms])
    np.testing.assert_allclose(found, arrays["svm_rest"], rtol=1e-5, atol=1e-7)
    told = svm_classes(arrays["svm_points"], svms)
    np.testing.assert_array_equal(told, arrays["svm_rest_told"])


def test_no_step_away_from_the_answer_is_lower():
    random = np.random.default_rng(0)
    x = random.standard_normal((500, 20)) + 3.0  # far from the origin: the bias matters
    y = x[:, 0] + random.standard_normal(500) > 3.0
    svm = fit_linear_svm(x, y)
    least = objective(x, y, svm)
    for scale in (1e-3, 1e-5):
        for _ in range(20):
            step = scale * random.standard_normal(21)
            other = type(svm)(svm.weights + step[:-1], svm.bias + step[-1], 0)
            assert objective(x, y, other) > least


def test_more_dimensions_than_points_and_separable_points_are_solved():
    random = np.random.default_rng(1)
    x = random.standard_normal((30, 100))
    y = random.random(30) > 0.5
    assert (svm_classes(x, [fit_linear_svm(x, y)]) == np.where(y, 0, 1)).all()


def test_latents_that_are_all_alike_say_nothing():
    y = np.arange(30) < 10
    svm = fit_linear_svm(np.zeros((30, 4)), y)
    assert not svm.weights.any() and svm.bias < 0


def test_one_class_and_odd_points_are_refused():
    with pytest.raises(UsageError, match="expected two classes"):
        fit_linear_svm(np.ones((4, 2)), np.ones(4, bool))
    with pytest.raises(UsageError, match="not finite"):
        fit_linear_svm(np.full((4, 2), np.nan), np.arange(4) < 2)

"""Inception Score against official values and its two extremes."""

import numpy as np
import pytest

from stylecli.errors import UsageError
from stylecli.metrics import inception_score


def test_equals_the_official_values(arrays, values):
    for official in values["inception_score"]:
        mean, std = inception_score(arrays["class_probabilities"], official["num_splits"])
        assert mean == pytest.approx(official["mean"], rel=1e-6)
        assert std == pytest.approx(official["std"], rel=1e-5, abs=1e-9)


def test_sure_and_varied_pictures_score_the_number_of_classes():
    assert inception_score(np.eye(5).repeat(4, axis=0), splits=1) == (pytest.approx(5.0), 0.0)


def test_one_class_scores_one():
    assert inception_score(np.eye(5)[[2] * 20])[0] == pytest.approx(1.0)


def test_refuses_logits():
    with pytest.raises(UsageError, match="rows that sum to 1"):
        inception_score(np.full((20, 3), 2.0))

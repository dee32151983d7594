"""Inception Score against official values and its two extremes."""

import numpy as np
import pytest

from stylecli.errors import UsageError
from stylecli.metrics import inception_score
from stylecli.metrics.class_scores import ClassScores


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


def test_batches_in_any_order_give_the_score_of_the_whole(arrays):
    probs = arrays["class_probabilities"]
    total, classes = probs.shape
    scores = ClassScores(total, classes, 7)
    for odd in (0, 1):
        for start in range(odd, total, 6):
            numbers = np.arange(start, min(start + 6, total), 2)
            scores.add(probs[numbers], numbers)
    assert scores.result() == pytest.approx(inception_score(probs, 7), rel=1e-12)


def test_no_score_before_the_last_row(arrays):
    probs = arrays["class_probabilities"]
    scores = ClassScores(len(probs), probs.shape[1])
    scores.add(probs[:-1])
    with pytest.raises(UsageError, match=f"expected {len(probs)}"):
        scores.result()
    with pytest.raises(UsageError, match="do not fit"):
        scores.add(probs[:2])

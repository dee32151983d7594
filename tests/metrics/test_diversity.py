"""The mean distance between pictures."""

import numpy as np
import pytest

from stylecli.metrics.diversity import mean_pairwise_distance


def test_the_pairwise_distance_is_the_mean_over_pairs():
    features = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    by_hand = [np.linalg.norm(a - b) for i, a in enumerate(features) for b in features[:i]]
    assert mean_pairwise_distance(features) == pytest.approx(np.mean(by_hand))

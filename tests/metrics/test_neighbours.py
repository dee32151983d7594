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
    monkeypatch.setattr(neighbours, "_ROWS", 17)
    assert precision_recall(real, fake) == whole


def test_k_has_to_leave_a_neighbour():
    with pytest.raises(UsageError, match="k 3 does not fit 3 real"):
        precision_recall(np.zeros((3, 2)), np.zeros((9, 2)))

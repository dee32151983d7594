"""Conditional entropy against official values."""

import numpy as np
import pytest

from stylecli.errors import UsageError
from stylecli.metrics import conditional_entropy


def test_equals_the_official_values(values):
    for official in values["conditional_entropy"]:
        found = conditional_entropy(official["table"])
        assert found == pytest.approx(official["conditional_entropy"], abs=1e-6)


def test_rows_are_what_is_given():
    table = np.array([[1, 1], [0, 2]])
    assert conditional_entropy(table) == pytest.approx(0.5)
    assert conditional_entropy(table.T) == pytest.approx(0.75 * np.log2(3) - 0.5)


def test_refuses_an_empty_table():
    with pytest.raises(UsageError, match="at least one above 0"):
        conditional_entropy(np.zeros((2, 2)))

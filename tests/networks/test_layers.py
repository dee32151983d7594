"""Minibatch stddev: which samples share a group."""

import pytest
import torch

from stylecli.errors import UsageError
from stylecli.networks.layers import minibatch_stddev


def test_stddev_groups_are_strided() -> None:
    x = torch.zeros(8, 1, 2, 2)
    x[0], x[2], x[4], x[6] = 1, 2, 3, 4  # samples i and i + 2 share a group of four
    plane = minibatch_stddev(x, 4)[:, 1]
    assert torch.allclose(plane[0::2], torch.tensor(1.25).sqrt().expand(4, 2, 2))
    assert torch.allclose(plane[1::2], torch.tensor(1e-4).expand(4, 2, 2))


def test_stddev_refuses_batches_that_do_not_divide() -> None:
    with pytest.raises(UsageError, match="batch 6 does not divide"):
        minibatch_stddev(torch.zeros(6, 1, 2, 2), 4)

"""Behaviour of the discriminator that the official numbers do not cover."""

from typing import Any

import pytest
import torch

from stylecli.errors import UsageError
from stylecli.networks.bundle import new_network
from stylecli.networks.layers import minibatch_stddev


def test_native_images_score_as_their_upscaled_selves(tiny_network: Any) -> None:
    small = torch.randn(4, 3, 8, 8)
    full = torch.nn.functional.interpolate(small, scale_factor=2, mode="nearest")
    D = tiny_network.D
    assert torch.allclose(D(small, lod=1.3), D(full, lod=1.3), atol=1e-6)


def test_stddev_groups_are_strided() -> None:
    x = torch.zeros(8, 1, 2, 2)
    x[0], x[2], x[4], x[6] = 1, 2, 3, 4  # samples i and i + 2 share a group of four
    plane = minibatch_stddev(x, 4)[:, 1]
    assert torch.allclose(plane[0::2], torch.tensor(1.25).sqrt().expand(4, 2, 2))
    assert torch.allclose(plane[1::2], torch.tensor(1e-4).expand(4, 2, 2))


def test_stddev_refuses_batches_that_do_not_divide() -> None:
    with pytest.raises(UsageError, match="batch 6 does not divide"):
        minibatch_stddev(torch.zeros(6, 1, 2, 2), 4)


def test_labels_select_their_own_output(tiny_config_fields: Any) -> None:
    D = new_network(label_dim=3, **tiny_config_fields).D
    images = torch.randn(4, 3, 16, 16)
    outputs = D.outputs(images)
    c = torch.eye(3)[[2, 0, 1, 1]]
    assert torch.allclose(D(images, c)[:, 0], outputs[range(4), [2, 0, 1, 1]])
    with pytest.raises(UsageError, match="needs labels"):
        D(images)


def test_wrong_image_shapes_are_named(tiny_network: Any) -> None:
    with pytest.raises(UsageError, match=r"images have shape \[2, 3, 8, 8\]"):
        tiny_network.D(torch.zeros(2, 3, 8, 8))


def test_second_derivative_of_the_whole_network() -> None:
    """R1 differentiates a gradient: checked against finite differences in float64."""
    D = new_network(resolution=8, fmap_base=8, fmap_max=2, z_dim=2, w_dim=2,
                    mapping_layers=1, mapping_fmaps=2).D.double()  # fmt: skip
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: D(x, lod=0.5), [images], fast_mode=True)

"""A fresh bundle: one seed, one set of weights, an equal average."""

from typing import Any

import pytest
import torch

from stylecli.errors import UsageError
from stylecli.networks.model import Bundle, new_network

WIDTHS = {"resolution": 16, "fmap_base": 128, "fmap_max": 8, "z_dim": 8}
THREE = {"num_layers": 3, "w_dim": 8, "D_fmap_base": 64, "D_fmap_max": 8}
UNLABELLED: dict[str, dict[str, Any]] = {
    "a": WIDTHS,
    "f": WIDTHS | {"w_dim": 8, "mapping_layers": 2, "mapping_fmaps": 8},
    "stylegan2": WIDTHS | {"w_dim": 8, "mapping_layers": 2},
    "stylegan3-t": WIDTHS | THREE,
    "r3gan": WIDTHS | {"group_fmaps": 4},
    "lucidrains": {"resolution": 16, "capacity": 1, "z_dim": 8, "w_dim": 8},
}


def unlabelled(name: str) -> Bundle:
    return new_network(name, seed=0, **UNLABELLED[name])


@pytest.mark.parametrize("name", UNLABELLED)
def test_every_discriminator_takes_lod_and_refuses_labels_that_it_has_not(name: str) -> None:
    D: Any = unlabelled(name).D
    images = torch.zeros(4, 3, 16, 16)
    with torch.no_grad():
        assert D(images, None, lod=None).shape == (4, 1)
        assert torch.equal(D(images, torch.zeros(4, 0), lod=0.0), D(images))
    with pytest.raises(UsageError, match="takes no labels"):
        D(images, torch.eye(4))
    with pytest.raises(UsageError, match="lod 9"):
        D(images, lod=9.0)


def test_same_seed_same_weights_and_untouched_global_state(tiny_config_fields: Any) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    first = new_network(seed=1, **tiny_config_fields)
    assert torch.equal(torch.rand(1), wanted)
    again, other = (new_network(seed=seed, **tiny_config_fields) for seed in (1, 2))
    z = torch.randn(2, 8)
    assert torch.equal(first.G(z), again.G(z))
    assert not torch.equal(first.G(z), other.G(z))


def test_fresh_bundle_is_in_eval_mode_with_an_equal_average(tiny_network: Any) -> None:
    z = torch.randn(2, 8)
    assert torch.equal(tiny_network.G(z), tiny_network.G_ema(z))
    assert not any(net.training for net in (tiny_network.G, tiny_network.D, tiny_network.G_ema))

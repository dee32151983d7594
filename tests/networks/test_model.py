"""A fresh bundle: one seed, one set of weights, an equal average."""

from typing import Any

import torch

from stylecli.networks.model import new_network


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

"""bias_act: official numbers, defaults, what it refuses."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from stylecli import ops
from stylecli.errors import UsageError
from tests.conftest import FIXTURES

OFFICIAL = FIXTURES / "official"
CALLS = json.loads((OFFICIAL / "bias_act.json").read_text("utf-8"))


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_official_values_and_gradients(call: dict[str, Any]) -> None:
    data = np.load(OFFICIAL / "bias_act.npz")
    settings = dict(call)
    index = settings.pop("index")
    x, b, dy = (torch.tensor(data[f"{index}_{name}"]) for name in ("x", "b", "dy"))
    y = ops.bias_act(x.requires_grad_(), b.requires_grad_(), **settings)
    found = [y, *torch.autograd.grad(y, [x, b], dy)]
    for ours, name in zip(found, ("y", "dx", "db"), strict=True):
        assert torch.allclose(ours, torch.tensor(data[f"{index}_{name}"]), atol=1e-5)


def test_defaults_leave_the_input_alone() -> None:
    x = torch.randn(2, 3)
    assert torch.equal(ops.bias_act(x), x)


def test_the_gain_of_straight_activations_is_root_two_unless_given() -> None:
    x = torch.tensor([[-1.0, 2.0]])
    assert torch.allclose(ops.bias_act(x, act="lrelu"), math.sqrt(2) * torch.tensor([[-0.2, 2.0]]))
    assert torch.allclose(
        ops.bias_act(x, act="lrelu", alpha=0.5, gain=1, clamp=1.5), torch.tensor([[-0.5, 1.5]])
    )


def test_the_bias_follows_dim() -> None:
    x = torch.zeros(2, 3, 4)
    y = ops.bias_act(x, torch.arange(4.0), dim=-1)
    assert torch.equal(y, torch.arange(4.0).expand(2, 3, 4))


def test_a_stylegan2_layer_by_its_parts() -> None:
    x, scale, noise = torch.randn(2, 3, 4, 5), torch.randn(2, 3), torch.randn(1, 1, 4, 5)
    b, strength = torch.randn(3), torch.tensor(0.3)
    y = ops.bias_act(
        x, b, act="lrelu", clamp=1.0, scale=scale, noise=noise, noise_strength=strength
    )
    u = x * scale[:, :, None, None] + noise * strength + b[None, :, None, None]
    wanted = torch.nn.functional.leaky_relu(u, 0.2).mul(math.sqrt(2)).clamp(-1, 1)
    assert torch.allclose(y, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"act": "gelu"}, "unknown activation 'gelu'"),
        ({"dim": 4}, "dim 4 is out of range"),
        ({"b": torch.zeros(2)}, r"bias has shape \[2\]: expected \[3\]"),
        ({"scale": torch.zeros(3, 2)}, r"expected \[2, 3\]"),
        ({"noise": torch.zeros(2, 3, 4, 5)}, r"expected \[2 or 1, 1, 4, 5\]"),
        ({"noise": torch.zeros(1, 1, 4, 5), "noise_strength": torch.zeros(2)}, "expected 1 or 3"),
        ({"scale": torch.zeros(2, 3), "dim": 2}, "dim 1"),
    ],
)
def test_what_does_not_fit_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ops.bias_act(torch.zeros(2, 3, 4, 5), **settings)


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(UsageError, match=r"needs floating-point x: this one is torch\.int32"):
        ops.bias_act(torch.zeros(1, 2, dtype=torch.int32), torch.tensor([0.9, 1.9]))

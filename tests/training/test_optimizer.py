"""Adam equals the official one; the layers of D that stay frozen are those near the picture."""

from typing import Any

import numpy as np
import pytest
import torch

from stylecli.checkpoint import load_network
from stylecli.errors import UsageError
from stylecli.networks.model import new_network
from stylecli.training.losses import (
    D_loss,
    squared_gradient,
)
from stylecli.training.optimizer import Adam, FlatParameters, describe_frozen, frozen_layers
from stylecli.training.schedule import Rates
from tests.conftest import FIXTURES

OFFICIAL = FIXTURES / "official"


@pytest.fixture
def case() -> tuple[Any, dict[str, torch.Tensor]]:
    D = load_network(OFFICIAL / "stylegan1_labels_G_D_Gs.pkl").D
    with np.load(OFFICIAL / "stylegan1_labels_D_io.npz") as file:
        io = {key: torch.from_numpy(file[key]) for key in file}
    return lambda x: D(x, io["labels8"]), {**io, "D": D}


def test_three_official_adam_steps(case: Any) -> None:
    D, io = case
    network = io["D"]
    flat = FlatParameters(network)
    adam = Adam(flat.data, beta1=0.0, epsilon=1e-8)
    history = []
    for _ in range(4):
        flat.grad.zero_()
        reals = io["d_images"].detach().requires_grad_()
        logits = D(reals)
        penalty = squared_gradient(logits, reals).mean()
        loss = D_loss("logistic", logits, D(io["loss_fakes"])).mean() + 5 * penalty
        history.append(loss.detach())
        if len(history) <= 3:
            loss.backward()
            adam.step(flat.data, flat.grad, Rates(0.0015, 0.0, 0.99), torch.tensor(True))
    assert torch.allclose(torch.stack(history), io["adam_D_loss_history"].float(), rtol=1e-3)
    wanted = io["adam_D_after3:4x4/Conv/weight"].permute(3, 2, 0, 1)
    assert torch.allclose(network.head.conv.weight, wanted, atol=1e-3)


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_a_step_that_is_left_out_leaves_no_trace(beta1: float) -> None:
    """Of the first steps above all: the count of steps corrects the moments."""

    def train(taken: list[bool]) -> tuple[torch.Tensor, int]:
        data = torch.linspace(-1, 1, 5)
        adam = Adam(data, beta1=beta1, epsilon=1e-8)
        for number, one in enumerate(taken):
            grad = torch.full((5,), 0.1 * (sum(taken[:number]) + 1)) if one else torch.zeros(5)
            adam.step(data, grad, Rates(0.01, beta1, 0.99), torch.tensor(one))
        return data, int(adam.steps)

    data, steps = train([False, False, True, False, True])
    wanted, _ = train([True, True])
    assert torch.equal(data, wanted)
    assert steps == 2


def test_what_grows_in_is_not_frozen(tiny_config_fields: dict[str, Any]) -> None:
    config = new_network("f", **{**tiny_config_fields, "resolution": 32}).config
    layers = frozen_layers(config, 4, 16)
    assert layers == ["from_rgb.2", "blocks.1.conv0", "blocks.1.conv1_down", "blocks.0.conv0"]
    assert describe_frozen(layers) == "FromRGB 16 px, conv0 16 px, conv1_down 16 px, conv0 8 px"
    assert frozen_layers(config, 7, 16)[-2:] == ["head.conv", "head.dense0"]
    with pytest.raises(UsageError, match="freeze_d 8 is not within 0 to 7"):
        frozen_layers(config, 8, 16)

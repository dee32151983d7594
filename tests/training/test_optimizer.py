"""Adam equals the official one; the layers of D that stay frozen are those near the picture."""

from typing import Any

import numpy as np
import pytest
import torch

from stylecli.checkpoint import load_network
from stylecli.distributed.ranks import Ranks
from stylecli.errors import UsageError
from stylecli.networks.model import new_network
from stylecli.training import optimizer
from stylecli.training.config import OVERLAP, TrainingConfig
from stylecli.training.losses import (
    D_loss,
    squared_gradient,
)
from stylecli.training.optimizer import (
    Adam,
    EarlySums,
    FlatParameters,
    describe_frozen,
    frozen_layers,
)
from stylecli.training.schedule import Rates, Stage
from stylecli.training.step import TrainingStep
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


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_parts_are_updated_as_the_whole(beta1: float, monkeypatch: Any) -> None:
    ends = []
    for part in (7, 1000):
        monkeypatch.setattr(optimizer, "_PART", part)
        random = torch.Generator().manual_seed(0)
        data = torch.randn(100, generator=random)
        adam = Adam(data, beta1=beta1, epsilon=1e-8)
        for taken in (True, False, True):
            grad = torch.randn(100, generator=random) * taken
            adam.step(data, grad, Rates(1e-3, beta1, 0.99), torch.tensor(taken))
        ends.append((data, adam.square))
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))


def test_a_gradient_too_long_for_its_norm_is_applied_all_the_same(tiny_config_fields: Any) -> None:
    step = TrainingStep(new_network("f", seed=0, **tiny_config_fields), TrainingConfig())
    before = step.flat_G.data.clone()
    step.flat_G.grad.fill_(1e18)  # float32 holds each square, but not their sum
    step._apply(step.flat_G, step.adam_G, step.scaler_G, Rates(1e-3, 0.0, 0.99))
    assert step.take_statistics()["skipped_steps"] == 0
    assert not torch.equal(step.flat_G.data, before)


class Agreeing(Ranks):
    """Two ranks with the same gradients. Keeps what was sent, in its order."""

    def __init__(self) -> None:
        super().__init__(0, 2)
        object.__setattr__(self, "sent", [])

    def mean_(self, tensor: torch.Tensor, *, wait: bool = True) -> None:
        pass

    def from_main(self, value: Any = None) -> Any:
        return value

    def add_up(self, tensor: torch.Tensor) -> Any:
        tensor.mul_(2)
        self.sent.append((tensor.data_ptr(), len(tensor)))  # type: ignore[attr-defined]
        return lambda: self.sent.append("waited")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "settings",
    [{"batch_gpu": 4}, {"config": {"r1_interval": 2, "r2_gamma": 1.0}},
     {"config": {"share_fakes": True}},
     {"config": {"phases": "lazy", "r1_interval": 2, "pl_weight": 2.0, "pl_interval": 2}}],
    ids=str,
)  # fmt: skip
def test_slices_travel_when_their_last_gradient_is_there(
    settings: dict[str, Any], tiny_config_fields: Any, monkeypatch: Any
) -> None:
    """Each once, most of them before the backward pass ends, and never one that still changes."""
    monkeypatch.setattr(optimizer, "SLICE", 500)
    lazy = settings.get("config", {}).get("phases") == "lazy"
    fields = dict(tiny_config_fields)
    if lazy:
        del fields["mapping_fmaps"]
    stage = Stage(lod=0.0 if lazy else 1.0, resolution=16 if lazy else 8, batch=16, lr=1e-3,
                  tick_kimg=1)  # fmt: skip
    reals = torch.zeros(8, 3, stage.resolution, stage.resolution, dtype=torch.uint8)
    ends, ranks = [], Agreeing()
    for accelerations in (frozenset(), frozenset({OVERLAP})):
        step = TrainingStep(
            new_network("stylegan2" if lazy else "f", seed=0, **fields),
            TrainingConfig(r1_gamma=1.0, **settings.get("config", {})), ranks=ranks,
            batch_gpu=settings.get("batch_gpu"), accelerations=accelerations,
        )  # fmt: skip
        step.set_stage(stage, reset=False)
        for number in range(4):
            ranks.sent.clear()  # type: ignore[attr-defined]
            step(reals, None, stage, number)
        ends.append([step.flat_G.data, step.flat_D.data, step.adam_D.square])
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))

    sent = [one for one in ranks.sent if one != "waited"]  # type: ignore[attr-defined]
    assert len(set(sent)) == len(sent) >= 9
    assert sum(count for _, count in sent) == len(step.flat_G.data) + len(step.flat_D.data)


def test_slices_wait_for_nothing_else(tiny_config_fields: Any, monkeypatch: Any) -> None:
    """In the second step of a shape the backward pass is still on when the first ones are sent."""
    monkeypatch.setattr(optimizer, "SLICE", 500)
    ranks, left = Agreeing(), []
    net = new_network("f", seed=0, **tiny_config_fields)
    flat = FlatParameters(net.D)
    sums = EarlySums(net.D, flat, ranks)
    for _ in range(2):
        flat.grad.zero_()
        sums.begin("shape", 1)
        net.D(torch.ones(4, 3, 16, 16)).sum().backward()
        left.append(len(sums._slices) - len(ranks.sent))  # type: ignore[attr-defined]
        sums.finish()
        ranks.sent.clear()  # type: ignore[attr-defined]
    assert left[0] == len(sums._slices) == 7
    assert left[1] <= 2  # of layers below the last fade, which have no gradient

"""Training on pictures that are not square: steps, settings, sheets, and starting from a square."""

from typing import Any

import numpy as np
import pytest
import torch

from stylecli.networks.model import Bundle, new_network
from stylecli.shapes import SQUARE, Grid, Size
from stylecli.training.config import TrainingConfig
from stylecli.training.costs import count_step
from stylecli.training.oversight import sheet_cells
from stylecli.training.plan import describe_plan, plan_training, usual_gamma
from stylecli.training.schedule import Stage
from stylecli.training.step import TrainingStep
from stylecli.training.transfer import reshape_tensors, transfer_networks
from stylecli.training.transfer_table import describe_transfer
from tests.networks.test_wide import SMALL, small

WIDE = Grid(3, 4)


def train(net: Bundle, stage: Stage, **settings: Any) -> TrainingStep:
    """Take a step on noise of the stage's size."""
    step = TrainingStep(net, TrainingConfig(**{"r1_gamma": 1.0, **settings}))
    step.set_stage(stage, reset=True)
    size = net.config.size_at(stage.resolution)
    reals = torch.randint(0, 256, (4, 3, *size), dtype=torch.uint8)
    step(reals, None, stage, 0)
    return step


@pytest.mark.parametrize("preset", SMALL)
def test_a_step_of_every_family_moves_both_networks(preset: str) -> None:
    net = small(preset, shape="4:3", resolution=24)
    settings: dict[str, Any] = {"augment": "fixed", "augment_p": 1.0, "augment_pipe": "bgcfnc"}
    if preset == "stylegan2":
        settings |= {"phases": "lazy", "pl_weight": 2.0, "pl_interval": 1}
    assert net.D is not None
    before = {name: tensor.clone() for name, tensor in net.D.state_dict().items()}
    level = 0.5 if net.config.grows else 0.0

    step = train(net, Stage(level, 32, 4, 0.01, 1), **settings)

    found = step.take_statistics()
    assert np.isfinite(list(found.values())).all()
    assert not found["skipped_steps"]
    moved = [name for name, tensor in step.D.state_dict().items()
             if not torch.equal(tensor, before[name])]  # fmt: skip
    assert any("head" in name or "fc" in name for name in moved)


def test_growing_trains_at_every_level_and_counts_its_work() -> None:
    net = small("f", shape="3:5", resolution=24)
    config = TrainingConfig()

    works = []
    for lod, side in ((2.0, 8), (0.5, 32), (0.0, 32)):
        stage = Stage(lod, side, 4, 0.001, 1)
        train(net, stage)
        works.append(count_step(net.config, config, stage).flops)

    square = small("f", resolution=32)
    whole = count_step(square.config, config, Stage(0.0, 32, 4, 0.001, 1)).flops
    assert works[0] < works[1]
    assert works[2] == pytest.approx(whole * 15 / 16, rel=0.1)


def test_settings_are_those_of_the_square_of_as_many_pixels() -> None:
    wide, square = (
        plan_training("auto", config="stylegan2", resolution=256, grid=grid, device="cuda")
        for grid in (WIDE, SQUARE)
    )
    assert wide.training == square.training
    assert (wide.network.base, wide.network.fmap_base) == ((3, 4), square.network.fmap_base)

    # 9x16 at level 64 has 144x256 px, as many as about 192x192.
    panorama = plan_training("paper", config="f", resolution=64, grid=Grid(9, 16), device="cuda")
    usual = plan_training("paper", config="f", resolution=256, device="cuda").training
    assert panorama.network.size == (144, 256)
    assert panorama.training.batch[16] == usual.batch[64]
    assert panorama.training.lr[32] == usual.lr[128]
    assert usual_gamma(usual, panorama.network)[0] < usual_gamma(usual, square.network)[0]

    rows = {item.name: item.value for item in describe_plan(wide).network}
    assert rows["base"] == "4x3"
    assert "base" not in {item.name for item in describe_plan(square).network}


@pytest.mark.parametrize("preset", SMALL)
def test_a_square_network_starts_a_wide_one(preset: str) -> None:
    source = small(preset, resolution=32)
    config = small(preset, shape="4:3", resolution=24).config

    transfer = transfer_networks(source, config, seed=1)

    net = transfer.bundle
    fates = {fate for outcomes in transfer.outcomes.values() for fate in outcomes.values()}
    assert fates <= {"taken over", "resized"}
    assert net.G_ema is not None
    assert net.D is not None
    drawn = net.G_ema.eval()(torch.randn(2, 8))
    assert drawn.shape == (2, 3, 24, 32)
    assert net.D(drawn).isfinite().all()
    told = [row for row in describe_transfer(transfer.outcomes, source.config, config)
            if row.outcome == "resized"]  # fmt: skip
    assert told
    assert all("shape 1:1 to 4:3" in row.why for row in told)


@pytest.mark.parametrize("preset", SMALL)
def test_even_planes_act_as_before_on_any_grid(preset: str) -> None:
    """What is even over the picture must draw, and be scored, alike on another grid."""
    source = small(preset, resolution=4 if preset != "stylegan3-t" else 16)
    assert source.D is not None
    grid = source.config.grid
    tensors = dict(source.D.state_dict())
    for name, tensor in tensors.items():
        if name.endswith(("dense0.weight", "b4.fc.weight")):
            planes = tensor.view(len(tensor), -1, *grid)
            tensors[name] = planes.mean(dim=(2, 3), keepdim=True).expand_as(planes).flatten(1)
        if name == "head.basis":
            tensors[name] = tensor.mean(dim=(1, 2), keepdim=True).expand_as(tensor)
    wide = new_network(
        source.config.preset,
        **{**SMALL[preset], "z_dim": 8, "resolution": source.config.resolution, "base": (3, 5)},
    )
    assert wide.D is not None

    found = reshape_tensors(tensors, source.config, wide.config)

    for name, tensor in wide.D.state_dict().items():
        assert found[name].shape == tensor.shape
    dense = [name for name in found if name.endswith(("dense0.weight", "b4.fc.weight"))]
    for name in dense:  # by gain/√fan_in, over so many pixels
        sums = [one[name].double().sum(dim=1) / one[name].shape[1] ** 0.5
                for one in (tensors, found)]  # fmt: skip
        assert torch.allclose(*sums, rtol=1e-4, atol=1e-6)
    if "head.basis" in found:
        sums = [one["head.basis"].sum(dim=(1, 2)) for one in (tensors, found)]
        assert torch.allclose(*sums, rtol=1e-4)


def test_stored_noise_keeps_its_deviation() -> None:
    source = small("f", resolution=32)
    assert source.G is not None
    tensors = source.G.state_dict()
    config = small("f", shape="4:3", resolution=24).config

    found = reshape_tensors(tensors, source.config, config)

    for layer in range(config.num_layers):
        name = f"synthesis.layers.{layer}.noise_const"
        assert found[name].shape[2:] == config.layer_size(layer)
        assert found[name].std() == pytest.approx(float(tensors[name].std()), rel=1e-5)
    assert reshape_tensors(tensors, source.config, source.config) == tensors

    name = "synthesis.layers.0.noise_const"
    still = {**tensors, name: torch.zeros_like(tensors[name])}
    assert not reshape_tensors(still, source.config, config)[name].any()  # and no NaN


def test_cells_of_a_sheet_are_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylecli.training.checkpoints.SHEET_SIDE", 8)
    cells = np.random.default_rng(0).integers(0, 256, (64, 3, 4, 3), np.uint8)
    sheet = cells.reshape(8, 8, 3, 4, 3).swapaxes(1, 2).reshape(24, 32, 3)
    enlarged = sheet.repeat(2, axis=0).repeat(2, axis=1)

    assert np.array_equal(sheet_cells(enlarged, Size(3, 4)), cells)

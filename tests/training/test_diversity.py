"""The distance between fakes: 1 is the variety of the data, 0 one picture for every seed."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from stylecli.data.reader import open_dataset
from stylecli.networks.registry import make_config
from stylecli.training.config import TrainingConfig
from stylecli.training.diversity import DiversityGauge, mean_pair_distance
from stylecli.training.schedule import stage_at

STAGE = stage_at(TrainingConfig(initial_resolution=16), 16, 0)


def test_the_distance_is_the_mean_over_all_pairs() -> None:
    images = torch.tensor([0.0, 3.0, 4.0])[:, None, None, None].expand(3, 3, 4, 4)

    assert mean_pair_distance(images) == pytest.approx((3 + 4 + 1) / 3)


def test_one_picture_for_every_seed_measures_nothing(tiny_lmdb: Path, tiny_network: Any) -> None:
    gauge = DiversityGauge(open_dataset(tiny_lmdb), None, 8)
    alive = gauge.measure(tiny_network.G_ema, STAGE)
    assert alive > 0.05
    with torch.no_grad():
        for layer in tiny_network.G_ema.synthesis.layers:
            layer.style.weight.zero_()  # no picture depends on its w any more
    assert gauge.measure(tiny_network.G_ema, STAGE) < 1e-6 * alive


def test_reals_measure_one(tiny_lmdb: Path) -> None:
    """A generator that returns the data's own pictures is as varied as the data."""
    dataset = open_dataset(tiny_lmdb)
    gauge = DiversityGauge(dataset, None, 8)
    reals = torch.from_numpy(dataset.read(range(24))).float() / 127.5 - 1

    class Copyist(torch.nn.Module):
        config = make_config("f", resolution=16)

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))
            self.shown = 0

        def mapping(self, z: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
            return z

        def synthesis(self, ws: torch.Tensor, **how: Any) -> torch.Tensor:
            self.shown += len(ws)
            return reals[torch.arange(self.shown - len(ws), self.shown) % len(reals)]

    measured = gauge.measure(Copyist(), STAGE)  # type: ignore[arg-type]
    assert measured == pytest.approx(1.0, abs=0.1)  # 8 of the 32 are shown twice


def test_measuring_draws_no_random_numbers(tiny_lmdb: Path, tiny_network: Any) -> None:
    gauge = DiversityGauge(open_dataset(tiny_lmdb), None, 8)
    state = torch.get_rng_state()
    first = gauge.measure(tiny_network.G_ema, STAGE)

    assert torch.equal(torch.get_rng_state(), state)
    assert gauge.measure(tiny_network.G_ema, STAGE) == first


def test_a_dataset_of_equal_pictures_has_no_measure(
    tiny_lmdb: Path, tiny_network: Any, monkeypatch: Any
) -> None:
    gauge = DiversityGauge(open_dataset(tiny_lmdb), None, 8)
    monkeypatch.setattr(gauge, "_real_distance", lambda side: 0.0)

    assert math.isnan(gauge.measure(tiny_network.G_ema, STAGE))

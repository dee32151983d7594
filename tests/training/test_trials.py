"""What doctor tries of training on a GPU, here on a processor, and that faults are found."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from stylecli.training import trials
from stylecli.training.config import ACCELERATIONS, CHANNELS_LAST, OVERLAP
from stylecli.training.step import TrainingStep
from stylecli.training.trials import Trial, try_training

CPU = torch.device("cpu")


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Trial]]:
    monkeypatch.setattr(trials, "_BATCH", 4)
    monkeypatch.setattr(trials, "_SMALL", {"fmap_base": 32, "fmap_max": 8, "mapping_layers": 1,
                                           "z_dim": 8, "w_dim": 8})  # fmt: skip
    return lambda: {one.name: one for one in try_training(CPU, seconds, side=8)}


def test_every_acceleration_is_tried_and_right(tried: Any) -> None:
    found = tried()
    assert found.keys() == {"TF32", *ACCELERATIONS} - {OVERLAP}  # which takes two GPUs
    assert all(one.works for one in found.values()), found


def test_wrong_gradients_and_failures_are_found(
    tried: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(TrainingStep):
        def __call__(self, *arguments: Any) -> None:
            super().__call__(*arguments)
            if self._last:
                self.flat_G.grad.mul_(1.5)

    monkeypatch.setattr(trials, "TrainingStep", Wrong)
    found = tried()
    assert not found[CHANNELS_LAST].works and "50.0%" in found[CHANNELS_LAST].sentence

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(trials, "TrainingStep", fails)
    found = tried()
    assert not found[CHANNELS_LAST].works and "no kernel image" in found[CHANNELS_LAST].sentence


def test_products_that_are_not_full_are_found(tried: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.Tensor.__matmul__

    def rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return real(a, b) if a.dtype == torch.float64 else real(a.half().float(), b.half().float())

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not tried()["TF32"].works

"""Trackers are told of a run, and never end it."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stylecli.errors import UsageError
from stylecli.networks.registry import make_config
from stylecli.training.config import TrainingConfig
from stylecli.training.run_folder import RunSettings
from stylecli.training.trackers import Trackers, flat_settings

TICK = {"tick": 3, "nimg": 500, "kimg": 0.5, "sec_per_kimg": 4.0, "loss_G": 1.5, "memory_mib": 9,
        "grad_norm_G": 2.0, "diversity": float("nan")}  # fmt: skip
SHEET = np.zeros((4, 4, 3), np.uint8)


@pytest.fixture
def settings(tiny_config_fields: dict[str, Any]) -> RunSettings:
    return RunSettings(make_config("f", **tiny_config_fields), TrainingConfig(), Path("d"), "abc")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Stand-ins for wandb and mlflow that write down how they were called."""
    calls: list[tuple[str, Any]] = []

    def recorder(name: str) -> Any:
        return lambda *given, **named: calls.append((name, given or named))

    wandb, mlflow = types.ModuleType("wandb"), types.ModuleType("mlflow")
    run = types.SimpleNamespace(
        define_metric=recorder("define"), log=recorder("wandb"), finish=recorder("finish")
    )
    wandb.init = lambda **named: calls.append(("init", named)) or run  # type: ignore[attr-defined]
    wandb.Image = lambda sheet: sheet.shape  # type: ignore[attr-defined]
    for name in ("set_experiment", "start_run", "log_params", "log_image", "end_run"):
        setattr(mlflow, name, recorder(name))
    mlflow.log_metrics = lambda values, step: calls.append(("mlflow", (step, values)))  # type: ignore[attr-defined]
    for module in (wandb, mlflow):
        module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_both_get_settings_speed_gradients_memory_and_sheets(
    tmp_path: Path, settings: RunSettings, told: list[tuple[str, Any]]
) -> None:
    trackers = Trackers(tmp_path / "run", settings, ("wandb", "mlflow"), pytest.fail)
    trackers.start(0)
    trackers.add_tick(TICK)
    trackers.add_metric({"name": "kid@small", "value": 0.5, "nimg": 500})
    trackers.add_metric({"name": "ppl", "value": None, "nimg": 500})
    trackers.add_sheet(SHEET, 500)
    trackers.close()

    (init,) = [values for name, values in told if name == "init"]
    assert init["config"] == flat_settings(settings) and init["config"]["training.lr.128"] == 0.0015
    numbers = [values[0] for name, values in told if name == "wandb"]
    wanted = {
        "training/loss_G": 1.5, "training/grad_norm_G": 2.0, "training/memory_mib": 9,
        "training/sec_per_kimg": 4.0, "training/pictures_per_second": 250.0,
    }  # fmt: skip
    assert numbers[0] == {**wanted, "kimg": 0.5}
    assert numbers[1] == {"metrics/kid@small": 0.5, "kimg": 0.5}
    assert numbers[-1] == {"fakes": (4, 4, 3), "kimg": 0.5}
    steps = [values for name, values in told if name == "mlflow"]
    assert steps[0] == (500, wanted) and steps[1] == (500, {"metrics/kid-small": 0.5})
    assert [name for name, _ in told if name in ("finish", "end_run")] == ["finish", "end_run"]


@pytest.mark.parametrize("where", ["init", "log"])
def test_one_that_fails_is_left_out_and_said_once(
    tmp_path: Path, settings: RunSettings, told: list[tuple[str, Any]], where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fails(*given: Any, **named: Any) -> None:
        raise ConnectionError("no route to host")

    if where == "init":
        monkeypatch.setattr(sys.modules["wandb"], "init", fails)
    else:
        run = types.SimpleNamespace(define_metric=lambda *a, **n: None, log=fails, finish=fails)
        monkeypatch.setattr(sys.modules["wandb"], "init", lambda **named: run)
    warnings: list[str] = []
    trackers = Trackers(tmp_path / "run", settings, ("wandb", "mlflow"), warnings.append)
    trackers.start(0)
    for _ in range(2):
        trackers.add_tick(TICK)
    trackers.start(100)
    trackers.close()

    assert len(warnings) == 1
    assert "wandb" in warnings[0] and "no route to host" in warnings[0]
    assert sum(name == "mlflow" for name, _ in told) == 2


def test_a_package_that_is_missing_is_named_first(tmp_path: Path, settings: RunSettings) -> None:
    if "mlflow" in sys.modules:
        pytest.skip("mlflow is here")
    with pytest.raises(UsageError, match="run pip install mlflow"):
        Trackers(tmp_path, settings, ("mlflow",), pytest.fail)

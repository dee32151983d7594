"""Runs: they resume bit for bit, over ranks they agree, and their folder says what happened."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from stylecli.data.reader import open_dataset
from stylecli.errors import DataError, Interrupted, StyleCLIError, UsageError
from stylecli.networks.registry import make_config
from stylecli.training import launch
from stylecli.training.config import TrainingConfig
from stylecli.training.launch import rank_processes
from stylecli.training.loop import TrainingLoop
from stylecli.training.run_folder import (
    RunSettings,
    create_run,
    is_finished,
    load_settings,
    read_statistics,
)
from stylecli.training.setup import check_batches
from stylecli.workspace import newest_snapshot

# 8 px, fade, 16 px: two optimizer resets within 0.192 kimg.
SETTINGS = {
    "total_kimg": 0.192, "hold_kimg": 0.064, "fade_kimg": 0.064, "batch": {}, "batch_base": 8,
    "lr": {}, "lr_base": 0.003, "r1_interval": 2, "minibatch_repeats": 2, "tick_kimg": 0.016,
    "snapshot_ticks": 2, "mirror": True,
}  # fmt: skip


def start(run: Path, data: Path, fields: dict[str, Any], ranks: int = 1, **settings: Any) -> Path:
    dataset = open_dataset(data)
    config = make_config("f", **fields)
    training = TrainingConfig(**{**SETTINGS, **settings})
    create_run(run, RunSettings(config, training, data, dataset.digest, ranks))
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    from stylecli.checkpoint import read_tensors

    return read_tensors(run / "checkpoint.safetensors")[1]


def stop_after(images: int) -> Any:
    """Return a progress callback that stops training once so many images were shown."""

    asked = False

    def report(done: float, total: float, note: str = "") -> None:
        nonlocal asked
        if done * 1000 >= images and not asked:
            asked = True  # a second Ctrl-C would interrupt at once
            signal.raise_signal(signal.SIGINT)

    return report


def session(run: Path, count: int, **options: Any) -> bool:
    with rank_processes(run, count) as ranks:
        return TrainingLoop(run, ranks).train(**options)


@pytest.mark.parametrize(
    ("count", "stops", "precision"),
    # at 8 px, within the fade, after it
    [(1, (48, 112, 144), "float32"), (2, (112,), "float32"), (1, (112,), "bf16")],
    ids=["one process", "two processes", "bf16"],
)
def test_a_stopped_run_goes_on_bit_for_bit(
    count: int,
    stops: tuple[int, ...],
    precision: str,
    tmp_path: Path,
    tiny_lmdb: Path,
    tiny_config_fields: Any,
) -> None:
    settings = {"precision": precision}
    whole = start(tmp_path / "whole", tiny_lmdb, tiny_config_fields, count, **settings)
    assert session(whole, count)
    parts = start(tmp_path / "parts", tiny_lmdb, tiny_config_fields, count, **settings)
    for images in stops:
        with pytest.raises(Interrupted, match="the same command goes on"):
            session(parts, count, progress=stop_after(images))
        assert not is_finished(parts)
    assert session(parts, count)
    assert is_finished(parts)
    wanted, found = weights(whole), weights(parts)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_the_run_folder_tells_its_story(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: Any
) -> None:
    run = start(tmp_path / "run", tiny_lmdb, tiny_config_fields)
    TrainingLoop(run).train()
    rows = read_statistics(run)
    assert [row["nimg"] for row in rows] == list(range(16, 193, 16))
    assert rows[0]["resolution"] == 8
    assert rows[-1]["lod"] == 0
    assert {"loss_G", "loss_D", "sec_per_kimg", "memory_mib"} <= rows[-1].keys()
    assert newest_snapshot(run).name == "network-snapshot-000000192.safetensors"  # type: ignore[union-attr]
    assert (run / "reals.png").exists()
    assert len(list(run.glob("fakes*.png"))) == 7


def test_two_ranks_follow_one(tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: Any) -> None:
    """Two processes with half of the batch each train what one does, up to rounding."""
    one = start(tmp_path / "one", tiny_lmdb, tiny_config_fields)
    two = start(tmp_path / "two", tiny_lmdb, tiny_config_fields, ranks=2)
    for run in (one, two):
        settings = json.loads((run / "run.json").read_text())
        settings["training"]["total_kimg"] = 0.016  # two steps: Adam amplifies rounding later
        (run / "run.json").write_text(json.dumps(settings))
    TrainingLoop(one).train()
    with rank_processes(two, 2) as ranks:
        TrainingLoop(two, ranks).train()
    wanted, found = weights(one), weights(two)
    for name in ("G.synthesis.layers.0.const", "D.head.dense1.weight", "G_ema.mapping.w_avg"):
        assert torch.allclose(wanted[name], found[name], rtol=1e-3, atol=1e-4), name


def test_a_deadline_ends_a_session_saved(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: Any
) -> None:
    run = start(tmp_path / "run", tiny_lmdb, tiny_config_fields)
    assert not TrainingLoop(run).train(deadline_seconds=0.0)
    assert (run / "checkpoint.safetensors").exists()
    assert not is_finished(run)


def test_another_dataset_is_refused(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: Any
) -> None:
    run = start(tmp_path / "run", tiny_lmdb, tiny_config_fields)
    settings = json.loads((run / "run.json").read_text())
    settings["dataset"]["digest"] = "0" * 64
    (run / "run.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match="is not the dataset this run was started on"):
        TrainingLoop(run)


def test_batches_must_divide(tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: Any) -> None:
    run = start(tmp_path / "run", tiny_lmdb, tiny_config_fields, ranks=3)
    with pytest.raises(UsageError, match="batch 8 at 8 px does not divide into 3"):
        check_batches(load_settings(run))


def test_a_dead_process_is_named(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: Any, monkeypatch: Any
) -> None:
    run = start(tmp_path / "run", tiny_lmdb, tiny_config_fields, ranks=2)
    workers: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def remembered(*arguments: Any, **options: Any) -> Any:
        workers.append(popen(*arguments, **options))
        return workers[-1]

    monkeypatch.setattr(launch.subprocess, "Popen", remembered)

    def kill_the_other(done: float, total: float, note: str = "") -> None:
        workers[0].kill()

    with (
        pytest.raises(StyleCLIError, match="process 1 ended with exit code -9"),
        rank_processes(run, 2) as ranks,
    ):
        TrainingLoop(run, ranks).train(progress=kill_the_other)

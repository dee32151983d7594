"""Saving on a full disk: one sentence, the last checkpoint as it was, and the run goes on."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stylecli import checkpoint, files, images
from stylecli.checkpoint import read_tensors
from stylecli.data.reader import open_dataset
from stylecli.errors import ExitCode, StyleCLIError
from stylecli.networks.registry import make_config
from stylecli.training import saving
from stylecli.training.config import TrainingConfig
from stylecli.training.loop import TrainingLoop
from stylecli.training.run_folder import RunSettings, create_run, read_statistics

TRAINING: dict[str, Any] = {
    "total_kimg": 0.064, "batch": {}, "batch_base": 8, "lr": {}, "lr_base": 0.003,
    "minibatch_repeats": 2, "tick_kimg": 0.016, "snapshot_ticks": 1, "initial_resolution": 16,
    "r1_interval": 4,
}  # fmt: skip


def fill_up(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def on_call(number: int, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that finds the disk full when called for the so-manieth time."""
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return fill_up() if calls == number else original(*arguments, **options)

    return call


def no_room(path: Path) -> Any:
    return SimpleNamespace(free=1000)


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (files.shutil, "disk_usage", None),  # foreseen
        (checkpoint, "save_file", 3),  # the network
        (checkpoint, "save_file", 4),  # the checkpoint behind it
        (images, "encode_png", 4),  # the sheet between them
        (os, "fsync", 14),
    ],
    ids=["foreseen", "network", "checkpoint", "sheet", "sync"],
)
def test_a_full_disk_leaves_the_last_checkpoint_and_the_run_goes_on(
    module: Any,
    name: str,
    call: int | None,
    tmp_path: Path,
    tiny_lmdb: Path,
    tiny_config_fields: dict[str, Any],
    monkeypatch: Any,
) -> None:
    settings = RunSettings(
        make_config("f", **tiny_config_fields), TrainingConfig(**TRAINING), tiny_lmdb,
        open_dataset(tiny_lmdb).digest,
    )  # fmt: skip
    run, whole = tmp_path / "run", tmp_path / "whole"
    for folder in (run, whole):
        create_run(folder, settings)
    TrainingLoop(whole).train()
    with monkeypatch.context() as patch:
        loop = TrainingLoop(run)
        if call is None:  # after the first save
            original = saving.save_snapshot
            patch.setattr(saving, "save_snapshot", lambda *a: (
                original(*a), patch.setattr(module, name, no_room)
            )[0])  # fmt: skip
        else:
            patch.setattr(module, name, on_call(call, getattr(module, name)))
        with pytest.raises(
            StyleCLIError, match=r"the disk is full: .*run.* needs .* are free"
        ) as e:
            loop.train()
        assert e.value.exit_code == ExitCode.FAILED
    header, _ = read_tensors(run / "checkpoint.safetensors")
    assert header["training"]["counters"]["nimg"] in (16, 32)
    assert not list(run.glob(".*"))
    TrainingLoop(run).train()
    found, wanted = (read_tensors(f / "checkpoint.safetensors")[1] for f in (run, whole))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert [row["nimg"] for row in read_statistics(run)] == [16, 32, 48, 64]
    assert shutil.disk_usage(run).free > 1000

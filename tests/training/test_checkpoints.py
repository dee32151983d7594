"""What a run saves: safe on a full disk; the newest and the best stay, and the files of others."""

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
from stylecli.errors import ExitCode, NetworkError, StyleCLIError
from stylecli.networks.headers import read_header
from stylecli.networks.registry import make_config
from stylecli.training import checkpoints
from stylecli.training.checkpoints import keep_best, read_best, remove_old_snapshots, repair_best
from stylecli.training.config import Session, TrainingConfig
from stylecli.training.loop import TrainingLoop
from stylecli.training.run_folder import (
    RunSettings,
    append_event,
    create_run,
    load_settings,
    read_statistics,
)
from stylecli.workspace import find_network

TRAINING: dict[str, Any] = {
    "batch": {}, "batch_base": 8, "lr": {}, "lr_base": 0.003,
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


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, tiny_lmdb: Path, tiny_config_fields: dict[str, Any]
) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    training = TrainingConfig(total_kimg=0.064, **TRAINING)
    digest = open_dataset(tiny_lmdb).digest
    config = make_config("f", **tiny_config_fields)
    create_run(run, RunSettings(config, training, tiny_lmdb, digest))
    TrainingLoop(run).train()
    return run


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
    whole: Path,
    monkeypatch: Any,
) -> None:
    run = tmp_path / "run"
    create_run(run, load_settings(whole))
    with monkeypatch.context() as patch:
        loop = TrainingLoop(run)
        if call is None:  # after the first save
            original = checkpoints.save_snapshot
            patch.setattr(checkpoints, "save_snapshot", lambda *a: (
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


def snapshot(run: Path, nimg: int) -> None:
    """Pretend that training saved."""
    names = [f"network-snapshot-{nimg:09d}.safetensors", f"fakes{nimg:09d}.png"]
    for name in names:
        (run / name).write_text(str(nimg))
    (run / "checkpoint.safetensors").unlink(missing_ok=True)
    (run / "checkpoint.safetensors").write_text(str(nimg))
    append_event(run, {"nimg": nimg, "event": "saved", "files": names})


def networks(run: Path) -> list[int]:
    return sorted(int(path.stem[-9:]) for path in run.glob("network-snapshot-*"))


def test_training_keeps_the_last_and_the_best_with_its_full_state(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    config = make_config("f", **tiny_config_fields)
    digest = open_dataset(tiny_lmdb).digest
    create_run(
        run, RunSettings(config, TrainingConfig(total_kimg=0.08, **TRAINING), tiny_lmdb, digest)
    )
    values = iter([5.0, 2.0, 3.0, 4.0, 4.5])
    loop = TrainingLoop(
        run, session=Session(keep=2), evaluate=lambda net, data: [
            {"name": "kid", "value": next(values)}
        ]
    )  # fmt: skip
    loop.train()
    assert networks(run) == [32, 64, 80]
    assert sorted(path.stem for path in run.glob("fakes*.png")) == [
        "fakes000000000", "fakes000000032", "fakes000000064", "fakes000000080"
    ]  # fmt: skip
    best = read_header(run / "checkpoint-best.safetensors")
    assert best["training"]["counters"]["nimg"] == 32
    assert find_network(run / "best").path == run / "network-snapshot-000000032.safetensors"
    assert find_network(run).path == run / "network-snapshot-000000080.safetensors"


@pytest.mark.parametrize(
    ("row", "best"),
    [
        ({"name": "fid50k"}, 100),
        ({"name": "diversity@1000", "higher_is_better": True}, 200),
    ],
    ids=["a distance", "said by the metric"],
)
def test_which_way_is_better(row: dict[str, Any], best: int, tmp_path: Path) -> None:
    for nimg, value in ((100, 1.0), (200, 2.0), (300, 1.5)):
        snapshot(tmp_path, nimg)
        keep_best(tmp_path, nimg, {**row, "value": value})
    assert read_best(tmp_path)["nimg"] == best  # type: ignore[index]
    assert (tmp_path / "checkpoint-best.safetensors").read_text() == str(best)


@pytest.mark.parametrize("value", [None, float("nan")])
def test_what_was_not_measured_is_not_best(value: float | None, tmp_path: Path) -> None:
    snapshot(tmp_path, 100)
    assert not keep_best(tmp_path, 100, {"name": "fid", "value": value})
    with pytest.raises(NetworkError, match="none was measured while it trained"):
        find_network(tmp_path / "best")


def test_only_what_training_wrote_is_removed(tmp_path: Path) -> None:
    foreign = ["network-snapshot-000000050.safetensors", "fakes000000100 copy.png", "notes.txt"]
    for name in foreign:
        (tmp_path / name).write_text("mine")
    append_event(tmp_path, {"nimg": 60, "event": "saved", "files": ["notes.txt", "../escape"]})
    for nimg in (100, 200, 300):
        snapshot(tmp_path, nimg)
    removed = remove_old_snapshots(tmp_path, 1)
    assert sorted(path.name for path in removed) == [
        "fakes000000100.png", "fakes000000200.png",
        "network-snapshot-000000100.safetensors", "network-snapshot-000000200.safetensors",
    ]  # fmt: skip
    assert all((tmp_path / name).exists() for name in foreign)
    assert networks(tmp_path) == [50, 300]


def test_everything_stays_where_nothing_is_asked_for(tmp_path: Path) -> None:
    for nimg in (100, 200):
        snapshot(tmp_path, nimg)
    assert remove_old_snapshots(tmp_path, None) == []
    assert networks(tmp_path) == [100, 200]


def test_a_best_checkpoint_that_a_crash_left_out_is_made(tmp_path: Path) -> None:
    snapshot(tmp_path, 100)
    keep_best(tmp_path, 100, {"name": "fid", "value": 3.0})
    (tmp_path / "checkpoint-best.safetensors").unlink()
    repair_best(tmp_path, 100)
    assert (tmp_path / "checkpoint-best.safetensors").read_text() == "100"

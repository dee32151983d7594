"""``--resume``: what may be given, what comes of it, and that restarts begin with the same."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stylecli.checkpoint import load_network, save_network
from stylecli.data.reader import Dataset, open_dataset
from stylecli.errors import NetworkError
from stylecli.networks.headers import network_digest
from stylecli.networks.model import new_network
from stylecli.training import run_setup
from stylecli.training.loop import TrainingLoop
from stylecli.training.plan import TrainingPlan, plan_training
from stylecli.training.run_folder import Origin, RunSettings, load_settings
from stylecli.training.run_setup import (
    StartingNetwork,
    begin_run,
    choose_planar_gradients,
    open_source,
    plan_resumed,
)

SHORT: dict[str, Any] = {
    "total_kimg": 0.032, "minibatch_repeats": 2, "tick_kimg": 0.016, "snapshot_ticks": 1,
    "batch": {}, "batch_base": 8,
}  # fmt: skip
OTHER_SEED = {**SHORT, "seed": 9}


@pytest.fixture
def grey_file(tmp_path: Path, tiny_config_fields: dict[str, Any]) -> Path:
    """A network of 8 px, grey, without classes."""
    path = tmp_path / "grey.safetensors"
    net = new_network("f", **{**tiny_config_fields, "resolution": 8, "channels": 1})
    net.info["source_licence"] = "somebody's"
    save_network(path, net)
    return path


def planned(
    source: StartingNetwork, dataset: Dataset, **options: Any
) -> tuple[TrainingPlan, Origin]:
    given = {"labels": None, "network": {}, "training": SHORT, **options}
    return plan_resumed(source, "small", dataset=dataset, **given)


def begun(run: Path, source: StartingNetwork, data: Path, **options: Any) -> Path:
    dataset = open_dataset(data)
    plan, origin = planned(source, dataset, **options)
    settings = RunSettings(plan.network, plan.training, data, dataset.digest, 1, "cpu", origin)
    begin_run(run, settings, source)
    return run


def test_the_architecture_is_the_files_and_the_rest_the_datas(
    grey_file: Path, tiny_lmdb: Path
) -> None:
    source = open_source(grey_file)
    plan, origin = planned(source, open_dataset(tiny_lmdb), labels=True)
    own = source.net.config
    assert plan.network == replace(own, resolution=16, channels=3, label_dim=3)
    assert plan.training.initial_resolution == 8  # what is new grows in
    assert (origin.continued, origin.resolution) == (False, 8)
    assert origin.digest == network_digest(grey_file)
    reasons = {item.name: item.reason for item in plan.derived}
    assert reasons["initial_resolution"] == "the source is grown to 8 px"
    assert reasons["fmap_max"] == "as in the source"
    assert "fmap_max" not in plan.given


def test_classes_are_kept_unless_told_otherwise(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: dict[str, Any]
) -> None:
    path = tmp_path / "labelled.safetensors"
    save_network(path, new_network("f", **tiny_config_fields, label_dim=3))
    source, dataset = open_source(path), open_dataset(tiny_lmdb)
    assert planned(source, dataset)[0].network.label_dim == 3
    assert planned(source, dataset, labels=False)[0].network.label_dim == 0


def test_a_transfer_trains_stops_and_goes_on_from_its_own_start(
    grey_file: Path, tmp_path: Path, tiny_lmdb: Path
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    for folder in (run, other):
        begun(folder, open_source(grey_file), tiny_lmdb, labels=True)
    grey_file.unlink()  # the run has all that it needs
    start = load_network(run / "initial.safetensors")
    first = TrainingLoop(run).bundle.generator
    assert (start.generator.lod, first.lod) == (1.0, 1.0)  # the first sheet shows what was there
    while not TrainingLoop(run).train(deadline_seconds=0.0):
        pass
    TrainingLoop(other).train()
    found, wanted = (load_network(folder / "checkpoint.safetensors") for folder in (run, other))
    states = [net.generator.state_dict() for net in (found, wanted)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert found.info["source_licence"] == "somebody's"
    assert load_settings(run).origin == load_settings(other).origin


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_frozen_layers_stay_to_the_bit_while_the_others_move(
    momentum: float, tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: dict[str, Any]
) -> None:
    path = tmp_path / "net.safetensors"
    save_network(path, new_network("f", **tiny_config_fields))
    run = tmp_path / "run"
    training = {**SHORT, "freeze_d": 2, "adam_beta1": momentum}
    begun(run, open_source(path), tiny_lmdb, training=training)
    loop = TrainingLoop(run)
    before = {name: value.clone() for name, value in loop.step.D.state_dict().items()}
    loop.train()
    kept = {
        name for name, value in loop.step.D.state_dict().items() if torch.equal(value, before[name])
    }
    frozen = {f"{layer}.{part}" for layer in ("from_rgb.2", "blocks.1.conv0")
              for part in ("weight", "bias")}  # fmt: skip
    unused = {name for name in before if name.startswith(("from_rgb.0", "from_rgb.1"))}
    assert kept == frozen | unused


def test_runs_and_checkpoints_are_found(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: dict[str, Any]
) -> None:
    path = tmp_path / "net.safetensors"
    save_network(path, new_network("f", **tiny_config_fields))
    run = begun(tmp_path / "run", open_source(path), tiny_lmdb)
    with pytest.raises(NetworkError, match="holds no checkpoint and no network"):
        open_source(run)
    TrainingLoop(run).train()
    assert open_source(run).path == run / "checkpoint.safetensors"
    assert open_source(run).nimg == 32
    snapshot = run / "network-snapshot-000000032.safetensors"
    assert open_source(snapshot).training is None  # weights only: a transfer
    with pytest.raises(NetworkError, match="none was measured"):
        open_source(run / "best")


def test_a_source_that_changes_meanwhile_is_refused(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: dict[str, Any]
) -> None:
    path = tmp_path / "net.safetensors"
    save_network(path, new_network("f", **tiny_config_fields))
    run = begun(tmp_path / "run", open_source(path), tiny_lmdb)
    TrainingLoop(run).train()
    source = open_source(run)
    with open(source.path, "ab") as file:
        file.write(b"more")
    with pytest.raises(NetworkError, match="changed while it was read"):
        begun(tmp_path / "next", source, tiny_lmdb, training={"total_kimg": 1.0})
    assert list((tmp_path / "next").iterdir()) == []


def test_a_run_begins_only_with_the_file_it_was_started_with(
    grey_file: Path, tmp_path: Path, tiny_lmdb: Path
) -> None:
    """Of weights taken over and of a continued run alike; a run of an early version has no word."""
    run = begun(tmp_path / "run", open_source(grey_file), tiny_lmdb)
    origin = load_settings(run).origin
    assert origin is not None and origin.initial == network_digest(run / "initial.safetensors")
    other = begun(tmp_path / "other", open_source(grey_file), tiny_lmdb, training=OTHER_SEED)
    shutil.copyfile(other / "initial.safetensors", run / "initial.safetensors")
    with pytest.raises(NetworkError, match="is not the file from which this run started"):
        TrainingLoop(run)
    (run / "initial.safetensors").unlink()
    with pytest.raises(NetworkError, match="is gone"):
        TrainingLoop(run)


def test_sides_of_planar_gradients_are_tried_once_where_nobody_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gains = {4: 1.05, 8: 1.2, 16: 0.6, 32: 3.0}
    asked: list[tuple[int, int]] = []

    def gain(maps: int, side: int) -> float:
        asked.append((maps, side))
        return gains[side]

    monkeypatch.setattr(run_setup, "planar_gain", gain)
    fields = {"resolution": 32, "network": {"fmap_base": 256, "fmap_max": 64}}
    plan = choose_planar_gradients(plan_training("small", **fields), "cpu")
    assert plan.training.planar_gradients == "8,32"
    assert plan.training.planar_sides(32) == [8, 32]
    assert asked == [(64, 4), (64, 8), (32, 16), (16, 32)]
    assert "trial" in {item.name: item.reason for item in plan.derived}["planar_gradients"]
    asked.clear()
    for training, device in (({"planar_gradients": "all"}, "cpu"), ({"precision": "bf16"}, "cpu"),
                             ({}, "cuda")):  # fmt: skip
        plan = plan_training("small", **fields, training=training)
        assert choose_planar_gradients(plan, device) == plan
    assert not asked

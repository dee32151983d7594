"""Runs: they resume bit for bit, over ranks they agree, and their folder says what happened."""

import json
import math
import os
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stylecli.checkpoint import read_tensors
from stylecli.data.reader import open_dataset
from stylecli.distributed.processes import launch
from stylecli.errors import DataError, DeviceError, Interrupted, UsageError
from stylecli.files import LOCK_FILE, OwnerLock
from stylecli.networks.headers import read_header
from stylecli.networks.registry import make_config
from stylecli.training.config import Session, TrainingConfig
from stylecli.training.loop import TrainingLoop
from stylecli.training.run_folder import (
    Origin,
    RunSettings,
    append_event,
    append_statistics,
    create_run,
    held,
    is_finished,
    load_settings,
    read_events,
    read_statistics,
)
from stylecli.training.run_setup import begin_run, check_batches, open_source, plan_resumed
from stylecli.workspace import newest_snapshot

# 8 px, fade, 16 px: two optimizer resets within 0.192 kimg.
SETTINGS: dict[str, Any] = {
    "total_kimg": 0.192, "hold_kimg": 0.064, "fade_kimg": 0.064, "batch": {}, "batch_base": 8,
    "lr": {}, "lr_base": 0.003, "r1_interval": 2, "minibatch_repeats": 2, "tick_kimg": 0.016,
    "snapshot_ticks": 2, "mirror": True,
}  # fmt: skip


# What a family's steps consist of, in short runs at 16 px; all have p and path lengths to keep.
_LAZY: dict[str, Any] = {
    "phases": "lazy", "r1_interval": 4, "minibatch_repeats": 1, "ema_rampup": 0.05,
}  # fmt: skip
_TINY = {"z_dim": 8, "fmap_base": 64, "fmap_max": 8}
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "stylegan2": (
        {**_TINY, "w_dim": 8, "mapping_layers": 2},
        {**_LAZY, "pl_weight": 2.0, "pl_interval": 2, "augment": "adaptive"},
    ),
    "stylegan3-r": (
        {**_TINY, "w_dim": 8, "num_layers": 3, "D_fmap_base": 64, "D_fmap_max": 8},
        {**_LAZY, "lr_D": 0.002, "blur_sigma": 2.0, "blur_kimg": 0.08, "augment": "adaptive"},
    ),
    "r3gan": (
        {**_TINY, "group_fmaps": 4, "label_dim": 3, "embed_dim": 4},
        {"phases": "paired", "loss": "relativistic", "r1_interval": 1, "r2_gamma": 1.0,
         "r1_gamma": 1.0, "gamma_final": 0.1, "anneal_kimg": 0.08, "lr_final": 0.001,
         "beta2_final": 0.999, "minibatch_repeats": 1, "augment": "fixed",
         "augment_pipe": "halfcolor"},
    ),
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


def stop_after(images: float) -> Any:
    """Return a progress callback that stops training once so many images were shown."""

    asked = False

    def report(done: float, total: float, note: str = "") -> None:
        nonlocal asked
        if done * 1000 >= images and not asked:
            asked = True  # a second Ctrl-C would interrupt at once
            signal.raise_signal(signal.SIGINT)

    return report


def on_two_ranks(runs: Iterable[Path], *words: str, stop_at: int | None = None) -> int:
    """Train runs in turn on ranks that are started once, as ``session`` trains one."""
    rank = str(Path(__file__).with_name("one_rank.py"))
    stop = [] if stop_at is None else ["--stop-at", str(stop_at)]
    return launch(2, [rank, *map(str, runs), *stop, *words])


def session(run: Path, count: int, *words: str, stop_at: int | None = None) -> int:
    """Train, until so many images if not to the end; return the exit code."""
    if count > 1:
        return on_two_ranks([run], *words, stop_at=stop_at)
    try:
        TrainingLoop(run).train(progress=stop_after(math.inf if stop_at is None else stop_at))
    except Interrupted as error:
        assert "run the same command to continue" in str(error)
        return int(error.exit_code)
    return 0


@pytest.mark.parametrize(
    ("count", "stops", "precision", "augment", "planar"),
    # at 8 px, within the fade, after it; between two moves of the strength of augmentation
    [
        pytest.param(1, (48, 112, 144), "float32", "adaptive", "8", id="one process"),
        pytest.param(
            2, (112,), "float32", "adaptive", "none", id="two processes", marks=pytest.mark.slow
        ),
        pytest.param(1, (112,), "bf16", "none", "none", id="bf16", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(
    count: int,
    stops: tuple[int, ...],
    precision: str,
    augment: str,
    planar: str,
    tmp_path: Path,
    tiny_lmdb: Path,
    tiny_config_fields: Any,
) -> None:
    settings = {"precision": precision, "augment": augment, "augment_kimg": 0.2,
                "augment_target": 0.0, "planar_gradients": planar}  # fmt: skip
    whole = start(tmp_path / "whole", tiny_lmdb, tiny_config_fields, count, **settings)
    assert session(whole, count) == 0
    parts = start(tmp_path / "parts", tiny_lmdb, tiny_config_fields, count, **settings)
    for images in stops:
        assert session(parts, count, stop_at=images) == 130
        assert not is_finished(parts)
    assert session(parts, count) == 0
    assert is_finished(parts)
    wanted, found = weights(whole), weights(parts)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    headers = [read_header(run / "checkpoint.safetensors")["training"] for run in (whole, parts)]
    assert headers[0]["augmentation"] == headers[1]["augmentation"]
    strengths = [[row.get("augment_p") for row in read_statistics(run)] for run in (whole, parts)]
    assert strengths[1][-1] == strengths[0][-1]
    assert (max(strengths[0]) > 0) if augment == "adaptive" else strengths[0][-1] is None


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


@pytest.mark.slow
def test_gradients_may_travel_during_the_backward_pass(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: Any
) -> None:
    """Two ranks end with the same bits with and without, stopped on the way or not."""
    dataset = open_dataset(tiny_lmdb)
    fields, settings = FAMILIES["stylegan2"]
    settings = {"total_kimg": 0.096, "initial_resolution": 16, **settings}
    plain, early = [], []
    for family, network, training in (
        ("f", tiny_config_fields, {}), ("stylegan2", fields, settings),
    ):  # fmt: skip
        config = make_config(family, **{"resolution": 16, **network})
        chosen = TrainingConfig(**{**SETTINGS, **training})
        for runs, name in ((plain, "plain"), (early, "early")):
            runs.append(tmp_path / f"{name}-{family}")
            create_run(runs[-1], RunSettings(config, chosen, tiny_lmdb, dataset.digest, 2))
    assert on_two_ranks(plain) == 0
    assert on_two_ranks(early, "--accelerate", "overlap", stop_at=40) == 130
    assert not any(is_finished(run) for run in early)
    assert on_two_ranks(early, "--accelerate", "overlap") == 0
    for one, other in zip(plain, early, strict=True):
        wanted, found = weights(one), weights(other)
        assert [key for key in wanted if not torch.equal(wanted[key], found[key])] == []


@pytest.mark.slow
def test_two_ranks_follow_one(tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: Any) -> None:
    """Two processes with half of the batch each train what one does, up to rounding."""
    one = start(tmp_path / "one", tiny_lmdb, tiny_config_fields)
    two = start(tmp_path / "two", tiny_lmdb, tiny_config_fields, ranks=2)
    for run in (one, two):
        settings = json.loads((run / "run.json").read_text())
        settings["training"]["total_kimg"] = 0.016  # two steps: Adam amplifies rounding later
        (run / "run.json").write_text(json.dumps(settings))
    assert session(one, 1) == session(two, 2) == 0
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
    with pytest.raises(DataError, match="is not the dataset of this run"):
        TrainingLoop(run)


def test_batches_must_divide(tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: Any) -> None:
    run = start(tmp_path / "run", tiny_lmdb, tiny_config_fields, ranks=3)
    with pytest.raises(UsageError, match="batch 8 at 8 px does not divide into 3"):
        check_batches(load_settings(run))


def settings_for(data: Path, fields: dict[str, Any], **training: Any) -> RunSettings:
    config = make_config("f", **fields)
    return RunSettings(
        config, TrainingConfig(**{**SETTINGS, **training}), data, open_dataset(data).digest
    )


def state_of(run: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return a run's counters (all but the time), and its tensors."""
    header, tensors = read_tensors(run / "checkpoint.safetensors")
    return {**header["training"]["counters"], "seconds": 0, "lods": header["lods"]}, tensors


def assert_same_state(found: Path, wanted: Path, *leave_out: str) -> None:
    (counters, tensors), (wanted_counters, wanted_tensors) = state_of(found), state_of(wanted)
    for name in leave_out:
        del counters[name], wanted_counters[name]
    assert counters == wanted_counters
    assert tensors.keys() == wanted_tensors.keys()
    assert all(torch.equal(tensors[name], wanted_tensors[name]) for name in tensors)


def settings_of_family(config: str, data: Path, count: int) -> RunSettings:
    fields, training = FAMILIES[config]
    chosen = {**SETTINGS, "total_kimg": 0.096, "initial_resolution": 16, **training}
    return RunSettings(
        make_config(config, resolution=16, **fields),
        TrainingConfig(**{**chosen, "augment_kimg": 0.2, "augment_target": 0.0}),
        data, open_dataset(data).digest, count,
    )  # fmt: skip


def assert_went_on(parts: Path, whole: Path, config: str) -> None:
    """Through p, the mean of path lengths, averages of magnitudes, and schedules by images."""
    assert_same_state(parts, whole, "tick", "tick_start_nimg")
    states = [read_tensors(run / "checkpoint.safetensors")[0]["training"] for run in (parts, whole)]
    for name in ("path_mean", "augmentation", "adam_steps"):
        assert states[0][name] == states[1][name]
    assert (states[0]["path_mean"] > 0) == (config == "stylegan2")


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, marks=[] if config == "stylegan2" else [pytest.mark.slow])
        for config in FAMILIES
    ],
)
def test_a_stopped_run_of_any_family_goes_on_bit_for_bit(
    config: str, tmp_path: Path, tiny_lmdb: Path
) -> None:
    settings = settings_of_family(config, tiny_lmdb, 1)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    create_run(whole, settings)
    assert session(whole, 1) == 0
    create_run(parts, settings)
    assert session(parts, 1, stop_at=40) == 130
    assert session(parts, 1) == 0
    assert_went_on(parts, whole, config)


@pytest.mark.slow
def test_a_stopped_run_of_any_family_goes_on_bit_for_bit_on_two_ranks(
    tmp_path: Path, tiny_lmdb: Path
) -> None:
    wholes, parts = ([tmp_path / f"{name}-{one}" for one in FAMILIES] for name in ("whole", "part"))
    for config, *runs in zip(FAMILIES, wholes, parts, strict=True):
        for run in runs:
            create_run(run, settings_of_family(config, tiny_lmdb, 2))
    assert on_two_ranks(wholes) == 0
    assert on_two_ranks(parts, stop_at=40) == 130
    assert not any(is_finished(run) for run in parts)
    assert on_two_ranks(parts) == 0
    for config, whole, part in zip(FAMILIES, wholes, parts, strict=True):
        assert_went_on(part, whole, config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "training"),
    [
        pytest.param(
            {"label_dim": 3}, {"loss": "wgan-gp", "r1_gamma": 0.0}, id="classes with WGAN-GP"
        ),
        pytest.param(
            {"label_dim": 3},
            {"adam_beta1": 0.5, "precision": "bf16", "share_fakes": True},
            id="classes with momentum in bf16",
        ),
    ],
)
def test_sessions_add_up_bit_for_bit(
    network: dict[str, Any],
    training: dict[str, Any],
    tmp_path: Path,
    tiny_lmdb: Path,
    tiny_config_fields: dict[str, Any],
) -> None:
    settings = settings_for(tiny_lmdb, {**tiny_config_fields, **network}, **training)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    create_run(whole, settings)
    assert TrainingLoop(whole).train()
    create_run(parts, settings)
    sessions = 0
    while not TrainingLoop(parts).train(deadline_seconds=0.0):  # a look at the schedule each
        sessions += 1
    assert sessions > 5
    assert_same_state(parts, whole, "tick", "tick_start_nimg")  # a session ends its tick


def test_a_checkpoint_goes_on_in_a_new_run_as_if_it_had_been_longer(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: dict[str, Any]
) -> None:
    whole, short, more = (tmp_path / name for name in ("whole", "short", "more"))
    settings = settings_for(tiny_lmdb, tiny_config_fields)
    create_run(whole, settings)
    TrainingLoop(whole).train()
    create_run(short, settings_for(tiny_lmdb, tiny_config_fields, total_kimg=0.096))
    TrainingLoop(short).train()
    source = open_source(short)
    dataset = open_dataset(tiny_lmdb)
    plan, origin = plan_resumed(
        source, None, dataset=dataset, labels=None, network={}, training={"total_kimg": 0.192}
    )
    assert origin.continued
    assert plan.training == settings.training  # but for the length those of the checkpoint
    begin_run(more, replace(settings, origin=origin), source)
    TrainingLoop(more).train()
    assert_same_state(more, whole, "tick", "tick_start_nimg")
    assert read_events(more)[0]["nimg"] == 96
    assert not (short / "initial.safetensors").exists()


def test_a_longer_run_wants_more_images_than_its_source_has(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: dict[str, Any]
) -> None:
    create_run(tmp_path / "run", settings_for(tiny_lmdb, tiny_config_fields, total_kimg=0.032))
    TrainingLoop(tmp_path / "run").train()
    with pytest.raises(UsageError, match=r"trained to 0\.032 of 0\.032 kimg: .*--kimg"):
        plan_resumed(
            open_source(tmp_path / "run"), None, dataset=open_dataset(tiny_lmdb), labels=None,
            network={}, training={},
        )  # fmt: skip


def test_what_a_crash_left_is_swept_and_no_line_is_doubled(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: dict[str, Any]
) -> None:
    """Before the first checkpoint there is nothing to go on from but the beginning."""
    run = tmp_path / "run"
    create_run(run, settings_for(tiny_lmdb, tiny_config_fields, total_kimg=0.032))
    append_statistics(run, {"nimg": 16, "loss_G": 0.0})
    with open(run / "stats.jsonl", "a") as file:
        file.write('{"nimg": 32, "lo')
    (run / ".checkpoint-ab12_cd3.part").mkdir()
    (run / ".checkpoint-ab12_cd3.part" / ".tmpIlzkIN").write_bytes(b"half")
    (run / ".note-ab12_cd3.part.txt").write_bytes(b"not ours")
    TrainingLoop(run).train()
    lines = (run / "stats.jsonl").read_text().splitlines()
    assert [json.loads(line)["nimg"] for line in lines] == [16, 32]
    assert [path.name for path in run.glob(".*")] == [".note-ab12_cd3.part.txt"]


def test_a_run_has_one_writer(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    create_run(run, settings_for(tiny_lmdb, tiny_config_fields))
    other = OwnerLock(run)  # as another process would hold it
    with pytest.raises(DataError, match=f"is being written by another command .*{os.getpid()}"):
        TrainingLoop(run).train()
    other.release()
    with held(run), held(run):  # who owns it already may again
        assert TrainingLoop(run).train()
    assert not (run / LOCK_FILE).exists()


def test_a_session_does_not_go_on_from_what_another_has_replaced(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    create_run(run, settings_for(tiny_lmdb, tiny_config_fields))
    waiting = TrainingLoop(run)
    TrainingLoop(run).train(deadline_seconds=0.0)
    with pytest.raises(DataError, match="another process trained"):
        waiting.train()


def test_a_snapshot_whose_measuring_was_killed_is_measured_by_the_next_session(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: dict[str, Any]
) -> None:
    run, killed = tmp_path / "run", True
    create_run(run, settings_for(tiny_lmdb, tiny_config_fields, total_kimg=0.064))

    def evaluate(bundle: Any, dataset: Any) -> list[dict[str, Any]]:
        if killed:
            raise KeyboardInterrupt  # what nothing catches
        return [{"name": "kid", "value": 0.5}]

    for _ in range(2):  # a session that is killed again measures what the first did not
        with pytest.raises(KeyboardInterrupt):
            TrainingLoop(run, evaluate=evaluate).train()
    killed = False
    assert TrainingLoop(run, evaluate=evaluate).train()
    rows = (run / "metric-kid.jsonl").read_text().splitlines()
    assert [json.loads(row)["kimg"] for row in rows] == [0.032, 0.064]


def test_a_number_that_is_none_is_null_in_the_file(tmp_path: Path) -> None:
    append_statistics(tmp_path, {"nimg": 16, "loss_G": math.nan, "losses": [math.inf, 1.0]})
    line = (tmp_path / "stats.jsonl").read_text()
    assert line == '{"nimg":16,"loss_G":null,"losses":[null,1.0]}\n'
    assert math.isnan(read_statistics(tmp_path)[0]["loss_G"])


def test_a_torn_line_is_cut_off_before_the_next(tmp_path: Path) -> None:
    append_event(tmp_path, {"nimg": 1000, "event": "saved", "text": "one"})
    with open(tmp_path / "events.jsonl", "a") as file:
        file.write('{"nimg": 2000, "ev')
    assert len(read_events(tmp_path)) == 1
    append_event(tmp_path, {"nimg": 3000, "event": "warning", "text": "two"})
    assert [(row["kimg"], row["event"]) for row in read_events(tmp_path)] == [
        (1.0, "saved"), (3.0, "warning")
    ]  # fmt: skip
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 2


def test_where_a_run_began_is_part_of_which_run_it_is(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: dict[str, Any]
) -> None:
    fresh = settings_for(tiny_lmdb, tiny_config_fields)
    begun = replace(fresh, origin=Origin("a.safetensors", "00ff", False, 16))
    assert not fresh.same_run(begun)
    assert not begun.same_run(replace(fresh, origin=Origin("a.safetensors", "11ff", False, 16)))
    assert begun.same_run(replace(fresh, origin=Origin("moved/a.safetensors", "00ff", False, 16)))
    assert read_statistics(tmp_path) == []


def test_a_run_notes_a_smaller_pass_and_goes_on_unless_a_number_was_given(
    tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: Any, monkeypatch: Any
) -> None:
    def train(run: Path, **session: Any) -> None:
        loop = TrainingLoop(run, session=Session(**session))
        forward = loop.step.D.forward

        def judge(images: torch.Tensor, *given: Any, **how: Any) -> torch.Tensor:
            if len(images) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return forward(images, *given, **how)  # type: ignore[no-any-return]

        monkeypatch.setattr(loop.step.D, "forward", judge)
        loop.train()

    run = start(tmp_path / "run", tiny_lmdb, tiny_config_fields, total_kimg=0.032)
    with pytest.raises(DeviceError, match=r"--batch-gpu 4\b.*stylecli plan"):
        train(run, batch_gpu=8)
    train(run)
    assert is_finished(run)
    notes = [event["text"] for event in read_events(run) if event["event"] == "memory"]
    assert len(notes) == 1 and "--batch-gpu 4" in notes[0]

"""A run folder belongs to one session from the moment its number is chosen."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stylecli.data.reader import open_dataset
from stylecli.errors import DataError, UsageError
from stylecli.files import LOCK_FILE, OwnerLock
from stylecli.networks.registry import make_config
from stylecli.training.config import TrainingConfig
from stylecli.training.run_folder import (
    RunSettings,
    choose_run,
    create_run,
    held,
    load_settings,
    next_numbered,
    record_dataset,
)
from stylecli.workspace import list_runs

# Reserves numbers until told to stop, and prints each; a run is "made" in every second one.
RESERVING = """
import sys
from dataclasses import replace
from pathlib import Path
from stylecli.training.run_folder import next_numbered
print("ready", flush=True)
sys.stdin.readline()
for count in range(20):
    with next_numbered(sys.argv[1]) as run:
        (run / "mine").write_text(sys.argv[1])
        if count % 2:
            (run / "run.json").write_text("{}")
        else:
            (run / "mine").unlink()
        print(run.name, flush=True)
"""


@pytest.fixture
def settings(tiny_lmdb: Path, tiny_config_fields: dict[str, Any]) -> RunSettings:
    config = make_config("f", **tiny_config_fields)
    return RunSettings(config, TrainingConfig(), tiny_lmdb, open_dataset(tiny_lmdb).digest)


def test_each_of_several_processes_gets_numbers_of_its_own(tmp_path: Path) -> None:
    names = ["cats-f16", "dogs-f16", "cats-f16", "cats-f16", "cats-f16"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RESERVING, name], cwd=tmp_path, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for name in names
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    reserved = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 5
    assert [len(each) for each in reserved] == [20] * 5
    runs = list_runs(tmp_path)
    assert len(runs) == 50  # those in which a run was made, and nothing is left of the others
    assert len({run.name[:5] for run in runs}) == 50
    owners = {run.name: {i for i, each in enumerate(reserved) if run.name in each} for run in runs}
    assert all((run / "mine").read_text() in run.name for run in runs)
    assert all(owners.values())
    assert not [path for run in runs for path in run.iterdir() if path.name == LOCK_FILE]


def test_what_a_killed_session_left_before_there_was_a_run_is_cleared(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name, files in (
        ("00000-a", ["initial.safetensors", "writer.lock", ".initial-ab12_cd3.part/initial"]),
        ("00001", []),
        ("00002-b", ["run.json"]),
        ("00003-c", ["notes.txt"]),  # somebody's own
    ):
        (runs / name).mkdir(parents=True)
        for file in files:
            (runs / name / file).parent.mkdir(exist_ok=True)
            (runs / name / file).touch()
    (runs / "00004-d").mkdir()
    lock = OwnerLock(runs / "00004-d")  # another process begins it just now
    with next_numbered("new", tmp_path) as run:
        assert run.name == "00005-new"
        assert (run / LOCK_FILE).exists()
        assert [path.name for path in list_runs(tmp_path)] == [
            "00002-b", "00003-c", "00004-d", "00005-new"
        ]  # fmt: skip
    lock.release()
    assert not run.exists()  # nothing was made in it


def test_a_run_past_five_digits_and_a_file_in_the_way_count(tmp_path: Path) -> None:
    (tmp_path / "runs" / "99999-a").mkdir(parents=True)
    (tmp_path / "runs" / "99999-a" / "run.json").touch()
    with next_numbered("b", tmp_path) as run:
        (run / "run.json").touch()
    (tmp_path / "runs" / "100001-file").touch()
    assert [path.name for path in list_runs(tmp_path)] == ["99999-a", "100000-b"]
    with next_numbered("b", tmp_path) as run:
        assert run.name == "100002-b"


def test_a_folder_without_rights_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(UsageError, match="cannot be made"), next_numbered("b", tmp_path):
        pass


def test_what_a_trial_came_to_stays_with_the_run_unless_asked_otherwise(
    tmp_path: Path, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tried = replace(settings, training=replace(settings.training, planar_gradients="8,16"))
    run = tmp_path / "runs" / "00001-set-f16"
    create_run(run, tried)
    again = choose_run(settings, None)  # where the trial came to none
    assert (again.run.resolve(), again.state) == (run, "continue")
    assert again.training is not None and again.training.planar_gradients == "8,16"
    assert choose_run(settings, None, {"planar_gradients"}).state == "begin"


def test_a_named_folder_is_made_by_one(tmp_path: Path, settings: RunSettings) -> None:
    (tmp_path / "run").mkdir()
    other = OwnerLock(tmp_path / "run")
    with pytest.raises(DataError, match="is being written by another command"):
        create_run(tmp_path / "run", settings)
    other.release()
    create_run(tmp_path / "run", settings)
    with pytest.raises(UsageError, match="already a run"):
        create_run(tmp_path / "run", settings)


def test_a_folder_is_owned_until_the_outermost_lets_go(tmp_path: Path) -> None:
    with held(tmp_path):
        with held(tmp_path):
            pass
        assert (tmp_path / LOCK_FILE).exists()
        script = "from pathlib import Path\nfrom stylecli.training.run_folder import held\n"
        script += f"with held(Path({str(tmp_path)!r})): pass"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert f"process {os.getpid()}" in done.stderr
    assert not (tmp_path / LOCK_FILE).exists()


def test_where_a_moved_dataset_lies_is_recorded(
    tmp_path: Path, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "00000-a"
    create_run(run, settings)
    assert not record_dataset(run, settings.dataset)
    assert record_dataset(run, tmp_path / "elsewhere.lmdb")
    assert load_settings(run).dataset == tmp_path / "elsewhere.lmdb"
    assert load_settings(run).dataset_digest == settings.dataset_digest

    def other_drive(path: Path, start: Path) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", other_drive)
    record_dataset(run, tmp_path / "far.lmdb")
    assert load_settings(run).dataset == (tmp_path / "far.lmdb").resolve()

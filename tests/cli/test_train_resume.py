"""`stylecli train --resume` as typed: going on, transfer with its table, refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stylecli.cli.app import app

SHORT = ["--kimg", "0.016", "--batch", "8", "--ranks", "1", "--device", "cpu"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["train", *arguments])


def test_a_network_file_is_transferred_and_the_same_command_knows_the_run(
    here: Path, tiny_lmdb: Path, tiny_network_file: Path
) -> None:
    command = [str(tiny_lmdb), "--resume", str(tiny_network_file), "--labels", *SHORT]
    first = train(*command, "--freeze-d", "1")
    assert first.exit_code == 0, first.stderr
    assert f"beginning with the weights of {tiny_network_file}, at the first image:" in first.stderr
    assert "  G, G_ema  mapping          resized     classes 0 to 3" in first.stderr
    assert "frozen in D: FromRGB 16 px; all else is trained" in first.stderr
    again = train(*command, "--freeze-d", "1")
    assert "is finished with these settings" in again.stderr
    assert again.stdout == first.stdout
    assert train(*command).stdout.startswith("runs/00001-")  # another run: nothing is frozen


def test_a_run_goes_on_for_longer_in_a_new_one(
    here: Path, tiny_lmdb: Path, tiny_network_file: Path
) -> None:
    first = train(str(tiny_lmdb), "--resume", str(tiny_network_file), *SHORT)
    assert first.exit_code == 0, first.stderr
    longer = train("--resume", "runs/00000-tiny-f16", "--kimg", "0.08", "--ranks", "1", "--json")
    assert longer.exit_code == 0, longer.stderr
    assert "using " in longer.stderr  # the run's own dataset
    assert "at 0.032 kimg with its full state: optimizers" in longer.stderr
    run = Path(json.loads(longer.stdout)["run"])
    assert run.name == "00001-tiny-f16"
    assert json.loads((run / "run.json").read_text())["origin"]["continued"] is True


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--resume", "nowhere"], 3, "--resume nowhere does not exist: give a run, a checkpoint"),
        (["--freeze-d", "2"], 2, "freeze_d 2 needs weights worth keeping"),
        (["--resume", "NETWORK", "--config", "b"], 2, "leave --config out"),
        (["--resume", "NETWORK", "--freeze-d", "99"], 2, "freeze_d 99 is not within 0 to 7"),
    ],
)
def test_what_cannot_be_resumed_is_refused(
    arguments: list[str],
    code: int,
    words: str,
    here: Path,
    tiny_lmdb: Path,
    tiny_network_file: Path,
) -> None:
    given = [str(tiny_network_file) if word == "NETWORK" else word for word in arguments]
    result = train(str(tiny_lmdb), *SHORT, *given)
    assert result.exit_code == code
    assert words in result.stderr
    assert not (here / "runs").exists()

"""`stylecli train` as typed: a new run, going on, finished, refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stylecli.cli.app import app

SMALL = ["--kimg", "0.048", "--batch", "8", "--ranks", "1", "--fmap-base", "64", "--fmap-max", "8",
         "--z-dim", "8", "--w-dim", "8", "--mapping-layers", "1", "--device", "cpu"]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["train", *arguments])


def test_a_run_is_made_and_the_same_command_knows_it(here: Path, tiny_lmdb: Path) -> None:
    first = train(str(tiny_lmdb), *SMALL)
    assert first.exit_code == 0, first.stderr
    assert first.stdout.startswith("runs/00000-tiny-f16/network-snapshot-")
    assert "lr_base 0.003: at every resolution; three times the paper's" in first.stderr
    again = train(str(tiny_lmdb), *SMALL)
    assert again.stdout == first.stdout
    assert "is finished with these settings" in again.stderr
    other = train(str(tiny_lmdb), *SMALL, "--seed", "1")
    assert other.stdout.startswith("runs/00001-")


def test_labels_and_configurations_reach_the_network(here: Path, tiny_lmdb: Path) -> None:
    result = train(str(tiny_lmdb), *SMALL, "--labels", "--config", "b", "--json")
    assert result.exit_code == 0, result.stderr
    settings = json.loads((Path(json.loads(result.stdout)["run"]) / "run.json").read_text())
    assert settings["network"]["label_dim"] == 3
    assert settings["network"]["use_styles"] is False


def test_dry_run_prints_every_derived_value_and_trains_nothing(here: Path, tiny_lmdb: Path) -> None:
    result = train(str(tiny_lmdb), "--dry-run", "--preset", "paper", "--json")
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["network"]["fmap_base"] == 8192
    assert plan["training"]["total_kimg"] == 25_000
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--config", "z"], 2, "configuration 'z' is unknown"),
        (["--resolution", "32"], 2, "holds 16 px"),
        (["--batch", "6"], 2, "does not divide into"),
        (["--loss", "mse"], 2, "loss 'mse' is unknown"),
        (["--device", "tpu"], 2, "device 'tpu' is unknown"),
    ],
)
def test_mistakes_are_one_sentence(
    here: Path, tiny_lmdb: Path, arguments: list[str], code: int, words: str
) -> None:
    result = train(str(tiny_lmdb), *SMALL, *arguments)
    assert result.exit_code == code
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_no_dataset_says_how_to_make_one(here: Path) -> None:
    result = train()
    assert result.exit_code == 3
    assert "make one with stylecli pack" in result.stderr

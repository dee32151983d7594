"""``stylecli info``: pictures tell how they were made, and the told command makes them again."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from stylecli.cli import generate_images, interpolate_video, mix_styles, show_info
from stylecli.errors import DataError
from stylecli.images import save_png

Run = Callable[..., Result]


@pytest.fixture
def run(tiny_network_file: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tiny_network_file.parent)
    app = typer.Typer()
    app.command("generate")(generate_images.command)
    app.command("mix")(mix_styles.command)
    app.command("interpolate")(interpolate_video.command)
    app.command("info")(show_info.command)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    "command",
    [
        "generate --seeds 3 --psi -0.5 --noise-mode random --scale 2",
        "generate --seeds 0-2,9 --grid --columns 2 --noise-seed 4",
        "mix --rows 2 --cols 7,9 --styles fine",
        "interpolate --seeds 4-6 --seconds 0.2 --no-loop --space z",
    ],
)
def test_the_told_command_makes_the_same_bytes(run: Run, command: str) -> None:
    words = [*command.split(), "--network", "tiny.safetensors", "--quiet", "--out"]
    (first,) = run(*words, "first").stdout.split()

    told = json.loads(run("info", first, "--json").stdout)["again"]
    (again,) = run(*shlex.split(told)[1:], "--out", "again").stdout.split()

    assert Path(again).read_bytes() == Path(first).read_bytes()


def test_a_picture_is_explained(run: Run) -> None:
    run("generate", "--network", "tiny.safetensors", "--seeds", "3", "--out", "here")

    lines = run("info", "here/seed0003.png").stdout.splitlines()

    assert lines[0].split() == ["what", "picture"]
    assert "network is  here, unchanged" in lines and "seeds       3" in lines


def test_a_moved_network_is_found_by_its_hash(run: Run) -> None:
    run("generate", "--network", "tiny.safetensors", "--seeds", "3", "--out", "here")
    home = Path("runs/00000-x/network-snapshot-000001.safetensors")
    home.parent.mkdir(parents=True)
    Path("tiny.safetensors").rename(home)

    told = json.loads(run("info", "here/seed0003.png", "--json").stdout)["network is"]

    assert told == f"here, as {home}: give that to --network"


def test_networks_and_datasets_are_explained(run: Run, tiny_lmdb: Path) -> None:
    network = json.loads(run("info", "tiny.safetensors", "--json").stdout)
    dataset = json.loads(run("info", str(tiny_lmdb), "--json").stdout)

    assert (network["what"], network["resolution"], network["layers"]) == ("network", 16, 6)
    assert (dataset["what"], dataset["pictures"], dataset["classes"]) == ("dataset", 24, 3)


def test_a_run_is_explained(run: Run) -> None:
    home = Path("runs/00000-x")
    home.mkdir(parents=True)
    (home / "run.json").write_text('{"total_kimg": 4}')
    (home / "stats.jsonl").write_text('{"kimg": 1}\n{"kimg": 2}\n')
    Path("tiny.safetensors").rename(home / "network-snapshot-000002.safetensors")

    told = json.loads(run("info", "--json").stdout)  # the newest run

    assert (told["what"], told["networks"], told["can go on"]) == ("run", 1, False)
    assert told["settings"] == {"total_kimg": 4} and told["last tick"] == {"kimg": 2}


def test_a_picture_that_names_its_network_by_hash_alone_is_explained(run: Run) -> None:
    made = {"network": "0" * 64, "figure": "fakes", "stylecli": "0.1.0"}
    save_png("fakes.png", np.zeros((4, 4, 3), dtype=np.uint8), made)

    told = json.loads(run("info", "fakes.png", "--json").stdout)

    assert told["made by"] == "stylecli 0.1.0, a generated picture" and told["figure"] == "fakes"
    assert told["network is"].startswith("not here") and "again" not in told


def test_foreign_things_are_said_to_be_foreign(run: Run) -> None:
    save_png("plain.png", np.zeros((4, 4, 3), dtype=np.uint8))

    assert "carries no record" in run("info", "plain.png").stdout
    for path, message in (("nowhere", "does not exist"), (".", "neither a run")):
        result = run("info", path)
        assert isinstance(result.exception, DataError) and message in str(result.exception)

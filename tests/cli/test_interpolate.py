"""``stylecli interpolate``: a video of the asked length, and when it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import stylecli
from stylecli.cli import interpolate_video
from stylecli.errors import UsageError
from stylecli.video import read_video_provenance

Run = Callable[..., Result]


@pytest.fixture
def run(tiny_network_file: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tiny_network_file.parent)
    app = typer.Typer()
    app.command()(interpolate_video.command)
    network = ["--network", tiny_network_file.name]
    return lambda *arguments: CliRunner().invoke(app, [*network, *arguments])


def test_writes_a_loop_of_the_asked_length(run: Run) -> None:
    result = run("--seeds", "1,2", "--seconds", "0.5", "--fps", "8", "--json")

    document = json.loads(result.stdout)
    assert document["frames"] == 4 and document["loop"] is True and document["space"] == "w"
    assert document["path"] == "out/tiny/interpolation.mp4"
    assert (read_video_provenance(document["path"]) or {})["settings"]["seeds"] == "1-2"


def test_the_same_command_again_keeps_the_video(run: Run) -> None:
    arguments = ["--seconds", "0.2", "--fps", "10", "--grid", "2x1", "--out", "w.mp4"]
    run(*arguments)

    assert "w.mp4 is already there" in run(*arguments).stderr


def test_networks_without_w_walk_in_z(run: Run, tiny_config_fields: dict[str, Any]) -> None:
    stylecli.save_network("b.safetensors", stylecli.new_network("b", **tiny_config_fields))
    short = ["--network", "b.safetensors", "--seconds", "0.1", "--seeds", "1-2"]

    assert json.loads(run(*short, "--json").stdout)["space"] == "z"
    refused = run(*short, "--space", "w", "--out", "x.mp4")
    assert isinstance(refused.exception, UsageError) and "use --space z" in str(refused.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "0x2"], "grid '0x2' is not readable: give columns x rows"),
        (["--seconds", "0"], "make no video"),
        (["--seeds", "1-3", "--grid", "2x1"], "3 seeds do not divide among 2x1 cells"),
        (["--space", "q"], "space 'q' is unknown: expected w or z"),
        (["--method", "teleport"], "method 'teleport' is unknown"),
        (["--out", "walk.avi"], "walk.avi is not an MP4"),
    ],
)
def test_bad_input_is_one_sentence(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments)

    assert isinstance(result.exception, UsageError) and message in str(result.exception)
    assert not list(Path().glob("**/*.mp4"))

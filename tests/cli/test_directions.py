"""``stylecli directions``, and ``--edit`` of the drawing commands: files, records, refusals."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import stylecli
from stylecli.cli.app import app
from stylecli.images import read_provenance
from stylecli.latents.directions import write_directions
from stylecli.networks.headers import network_digest
from tests.latents.test_directions import directions_of

Run = Callable[..., Result]
FOLDER = Path("out/tiny")


@pytest.fixture
def run(tiny_network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a folder with the tiny network and its directions."""
    monkeypatch.chdir(tmp_path)
    stylecli.save_network("tiny.safetensors", tiny_network)
    own = directions_of(tiny_network, network_digest("tiny.safetensors"))
    write_directions(FOLDER / "directions.safetensors", own)

    def invoke(command: str) -> Result:
        network = (
            []
            if "--network" in command or "--help" in command
            else ["--network", "tiny.safetensors"]
        )
        return CliRunner().invoke(app, [*shlex.split(command), *network])

    return invoke


def test_a_record_recreates_an_edited_picture(run: Run) -> None:
    assert run("generate --seeds 3 --edit smile:2,c1.3:-3 --out a").exit_code == 0
    assert run("generate --seeds 3 --out plain").exit_code == 0
    made = Path("a/seed0003.png")
    record = read_provenance(made)
    assert record is not None
    assert record["settings"]["edit"] == "smile:+2,c1.3:-3"
    assert record["inputs"]["directions"]["sha256"] == network_digest(
        FOLDER / "directions.safetensors"
    )

    again = stylecli.info(made)["again"]
    assert run(f"{again.removeprefix('stylecli ')} --out b").exit_code == 0

    assert Path("b/seed0003.png").read_bytes() == made.read_bytes()
    assert Path("plain/seed0003.png").read_bytes() != made.read_bytes()


def test_saved_styles_are_the_edited_ones(run: Run) -> None:
    run("generate --seeds 0-1 --edit pose@4-5:1.5 --save-ws w.npz --out a")
    run("generate --ws w.npz --out b")

    for row in range(2):
        edited, saved = Path(f"a/seed000{row}.png"), Path(f"b/row000{row}.png")
        assert pixels(edited) == pixels(saved)
    refused = run("generate --seeds 0 --edit c1.3:1 --save-ws v.npz --out c")
    assert refused.exit_code == 2
    assert "--save-ws" in refused.stderr


def pixels(path: Path) -> bytes:
    from PIL import Image

    with Image.open(path) as image:
        return image.tobytes()


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("mix --rows 1 --cols 1 --styles coarse", "mix-coarse.png"),
        ("interpolate --seeds 0-1 --seconds 0.1 --format gif", "interpolation.gif"),
    ],
)
def test_every_drawing_command_takes_edits(run: Run, command: str, file: str) -> None:
    assert run(f"{command} --edit smile:4 --out a").exit_code == 0
    assert run(f"{command} --out b").exit_code == 0

    assert Path("a", file).read_bytes() != Path("b", file).read_bytes()


def test_a_list_of_names_methods_and_layers(run: Run) -> None:
    result = run("directions list")

    assert result.stderr == "directions: out/tiny/directions.safetensors\n"
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1] == ["smile", "labels", "all", "0.5", "90.0", "%"]
    assert [line[:3] for line in lines[2:]] == [
        ["pose", "sefa", "coarse"],
        ["c1.3", "channels", "1"],
    ]
    assert max(map(len, result.stdout.splitlines())) <= 80
    document = json.loads(run("directions list --json").stdout)
    assert [row["layers"] for row in document["directions"]] == [
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3],
        [1],
    ]
    assert document["sha256"] == network_digest("tiny.safetensors")


REFUSALS = [
    ("generate --edit smile", 2, "has no strength"),
    ("generate --edit smile:two", 2, "has no strength"),
    ("generate --edit smlie:1", 2, "Did you mean 'smile'"),
    ("generate --edit smile@9:1", 2, "layers 0-5"),
    ("generate --directions d.safetensors", 2, "--edit"),
    ("generate --edit smile:1 --directions none.safetensors", 3, "does not exist"),
    ("generate --edit smile:1 --directions tiny.safetensors", 3, "holds no directions"),
    ("generate --edit smile:1 --network shipped --directions out/tiny/directions.safetensors", 3,
     "another network"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "code", "words"), REFUSALS)
def test_refusals(run: Run, command: str, code: int, words: str) -> None:
    result = run(command)

    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
    said = [line for line in result.stderr.splitlines() if not line.startswith("network: ")]
    assert len(said) == 1

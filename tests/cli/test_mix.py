"""``stylecli mix``: sheets per band, counts and seeds."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from stylecli.cli import mix_styles
from stylecli.errors import UsageError
from stylecli.images import read_provenance

Run = Callable[..., Result]


@pytest.fixture
def run(tiny_network_file: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tiny_network_file.parent)
    app = typer.Typer()
    app.command()(mix_styles.command)
    network = ["--network", tiny_network_file.name]
    return lambda *arguments: CliRunner().invoke(app, [*network, *arguments])


def test_every_band_becomes_a_sheet(run: Run) -> None:
    result = run("--rows", "2", "--cols", "3")

    assert result.exit_code == 0  # a 16 px network has no middle band
    assert result.stdout == "out/tiny/mix-coarse.png\nout/tiny/mix-fine.png\n"
    with Image.open("out/tiny/mix-fine.png") as sheet:
        assert sheet.size == (4 * 128 + 3 * 2, 3 * 128 + 2 * 2)


def test_counted_columns_take_other_seeds_than_counted_rows(run: Run) -> None:
    document = json.loads(run("--rows", "2", "--cols", "3", "--json").stdout)

    assert (document["row_seeds"], document["col_seeds"]) == ("0-1", "2-4")
    assert document["layers"] == {"coarse": [0, 1, 2, 3], "fine": [4, 5]}


def test_commas_and_dashes_are_seeds_and_so_are_seed_options(run: Run) -> None:
    run("--rows", "7,9", "--col-seeds", "888", "--styles", "0-1", "--out", "m.png")

    settings = (read_provenance("m.png") or {})["settings"]
    assert (settings["row_seeds"], settings["col_seeds"]) == ("7,9", "888")
    assert settings["styles"] == "0-1" and settings["psi"] == 0.7


def test_several_bands_share_a_named_file(run: Run) -> None:
    assert run("--rows", "1", "--cols", "1", "--out", "m.png").stdout == (
        "m-coarse.png\nm-fine.png\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "0"], "--rows 0 is a count from 1 to 100"),
        (["--styles", "8-9"], "a 16 px network has layers 0-5"),
        (["--styles", "middle"], "has no middle styles"),
    ],
)
def test_bad_input_is_one_sentence(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments)

    assert isinstance(result.exception, UsageError) and message in str(result.exception)

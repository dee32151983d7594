"""``stylecli figures``: what it writes, skips and refuses; one command for an official pickle."""

import json
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

import stylecli
from stylecli.cli import figures
from stylecli.errors import Interrupted, UsageError
from stylecli.images import SOURCE_TYPE, read_provenance
from stylecli.sheets.paper import FIGURES
from tests.conftest import FIXTURES

Run = Callable[..., Result]
ALL = [figure.file for figure in FIGURES]


@pytest.fixture
def run(tiny_network_file: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tiny_network_file.parent)
    app = typer.Typer()
    app.command()(figures.command)

    def call(*arguments: str) -> Result:
        network = [] if "--network" in arguments else ["--network", tiny_network_file.name]
        return CliRunner().invoke(app, [*arguments, *network])

    return call


def test_bare_it_makes_all_figures_and_a_page(run: Run) -> None:
    result = run()

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"out/tiny/figures/{name}" for name in [*ALL, "index.html"]
    ]
    page = Path("out/tiny/figures/index.html").read_text()
    for figure in FIGURES:
        assert escape(figure.heading) in page
    assert page.count("<img") == len(FIGURES)
    assert "stylecli figures mixing --network tiny.safetensors" in page


def test_figures_are_named_by_number_or_word(run: Run) -> None:
    result = run("8", "mixing", "--out", "here")

    assert result.stdout.splitlines() == [
        "here/figure03-mixing.png", "here/figure08-truncation.png", "here/index.html"
    ]  # fmt: skip


def test_an_official_pickle_gives_figure_3_in_one_command(run: Run) -> None:
    pickle = str(FIXTURES / "official" / "stylegan1_auto128_G_D_Gs.pkl")

    result = run("3", "--network", pickle)

    assert result.exit_code == 0
    (sheet, page) = result.stdout.splitlines()
    assert sheet == "out/stylegan1_auto128_G_D_Gs/figures/figure03-mixing.png"
    with Image.open(sheet) as image:
        assert image.size == (6 * 128, 7 * 128)
    settings = (read_provenance(sheet) or {})["settings"]
    assert settings["row_seeds"] == "888,829,1898,1733,1614,845" and settings["psi"] == 1
    assert Path(page).is_file() and SOURCE_TYPE.encode() in Path(sheet).read_bytes()


def test_seeds_and_psi_can_be_given(run: Run) -> None:
    run("2", "3", "4", "--seed", "7", "--row-seeds", "3,1-2", "--seeds", "9", "--psi", "0.5",
        "--out", "here")  # fmt: skip

    told = {
        path.stem: (read_provenance(path) or {})["settings"] for path in Path("here").glob("*.png")
    }
    assert told["figure02-uncurated"]["seed"] == 7
    assert told["figure03-mixing"]["row_seeds"] == "3,1-2"
    assert told["figure04-noise-detail"]["seeds"] == "9"
    assert {settings["psi"] for settings in told.values()} == {0.5}
    with Image.open("here/figure03-mixing.png") as image:
        assert image.size == (6 * 128, 4 * 128)


def test_the_same_command_again_draws_nothing(run: Run) -> None:
    run("2", "8", "--out", "here")
    before = {path: path.stat().st_mtime_ns for path in Path("here").glob("*.png")}

    again = run("2", "8", "--out", "here")
    other = run("2", "--seed", "6", "--out", "here")

    assert "2 of 2 figures" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert isinstance(other.exception, UsageError) and "figure02-uncurated.png exists" in str(
        other.exception
    )
    assert run("2", "--seed", "6", "--out", "here", "--force").exit_code == 0


def test_the_page_keeps_earlier_figures_of_the_same_network(run: Run) -> None:
    run("2", "--out", "here")
    run("8", "--out", "here")

    page = Path("here/index.html").read_text()
    assert "Figure 2:" in page and "Figure 8:" in page


def test_what_a_network_cannot_show_is_left_out_with_a_sentence(
    run: Run, tiny_config_fields: dict[str, Any]
) -> None:
    stylecli.save_network("b.safetensors", stylecli.new_network("b", **tiny_config_fields))

    result = run("--network", "b.safetensors", "--json")
    asked = run("5", "--network", "b.safetensors")

    document = json.loads(result.stdout)
    assert sorted(document["figures"]) == ["bedrooms", "cars", "cats", "uncurated"]
    why = "configuration 'b' has no intermediate latent space w"
    assert document["left_out"]["mixing"] == why
    assert f"Figure 3: Style mixing is left out: {why}" in result.stderr
    assert "no intermediate latent space" in Path(document["page"]).read_text()
    assert isinstance(asked.exception, UsageError) and "no noise inputs" in str(asked.exception)


def test_an_interruption_keeps_what_is_drawn(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from stylecli.sheets import paper

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(paper, "draw_truncation_sweep", interrupted)
        result = run("2", "8", "--out", "here")

    assert isinstance(result.exception, Interrupted) and "1 of 2 figures" in str(result.exception)
    assert [path.name for path in Path("here").iterdir()] == ["figure02-uncurated.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["6"], "unknown figure '6'"),
        (["8", "--psi", "0.5"], "--psi 0.5"),
        (["2", "--row-seeds", "1"], "--row-seeds 1"),
        (["2", "--class", "1"], "trained without labels"),
        (["3", "--row-seeds", "5-1"], "runs backwards"),
    ],
)
def test_bad_input_is_one_sentence(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments)

    assert isinstance(result.exception, UsageError) and message in str(result.exception)
    assert not Path("out").exists()

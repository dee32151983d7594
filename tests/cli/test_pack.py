"""``stylecli pack``: what it prints, where, and how it ends."""

import json

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from stylecli.cli import pack_pictures
from stylecli.errors import DataError


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run ``pack`` in an empty folder that holds ``photos`` with two classes."""
    monkeypatch.chdir(tmp_path)
    for name in ("cat/1.png", "dog/1.png", "dog/2.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "photos" / name)
    app = typer.Typer()
    app.command()(pack_pictures.command)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_prints_path_count_and_classes(run):
    result = run("photos")
    assert result.exit_code == 0
    assert result.stdout == (
        "datasets/photos.lmdb\n3 pictures, 16 px, RGB\n2 classes: cat (1), dog (2)\n"
    )
    assert result.stderr.startswith("packing: 3/3 pictures")


def test_the_same_command_again_finds_it_done(run):
    first, again = run("photos"), run("photos")
    assert again.exit_code == 0 and again.stdout == first.stdout
    assert again.stderr == ("datasets/photos.lmdb is there already, made from the same pictures\n")


def test_other_settings_need_force(run):
    run("photos")
    refused = run("photos", "--resolution", "8")
    assert isinstance(refused.exception, DataError)
    assert "--force to replace it" in str(refused.exception)
    assert run("photos", "--resolution", "8", "--force").exit_code == 0


def test_json_is_one_document_with_every_skipped_picture(run, tmp_path):
    for number in range(12):
        (tmp_path / "photos" / "cat" / f"bad{number:02}.png").write_text("no picture")
    result = run("photos", "--json", "--quiet", "--out", "a.lmdb")
    document = json.loads(result.stdout)
    assert document["path"] == "a.lmdb" and document["classes"] == {"cat": 1, "dog": 2}
    assert len(document["skipped"]) == 12
    assert document["skipped"][0]["name"] == "cat/bad00.png"
    assert result.stderr == "warning: 12 pictures were skipped\n"


def test_names_ten_skipped_pictures_and_counts_the_rest(run, tmp_path):
    for number in range(12):
        (tmp_path / "photos" / "cat" / f"bad{number:02}.png").write_text("no picture")
    told = run("photos").stderr
    assert "  cat/bad09.png is not a picture of a known kind\n  and 2 more" in told


def test_refuses_a_missing_source(run):
    refused = run("nothing")
    assert isinstance(refused.exception, DataError)
    assert str(refused.exception).startswith("nothing does not exist")

"""``stylecli check``: what it prints, where, and how it ends."""

import json

import lmdb
import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from stylecli.cli import check
from stylecli.cli.app import app as cli
from stylecli.data.checking.inspection import Inspection
from stylecli.data.format import image_key
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError, Interrupted
from tests.data.checking.pictures import draw


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run ``check`` in a folder with ``photos`` of two classes."""
    monkeypatch.chdir(tmp_path)
    for index, name in enumerate(("cat/1.png", "dog/1.png", "dog/2.png")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        draw(index).save(tmp_path / "photos" / name)
    app = typer.Typer()
    app.command()(check.command)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.fixture
def dataset(tmp_path):
    """1,000 pictures of noise, 8 px: no problems."""
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 3, 8, 8), dtype=np.uint8)
    path = tmp_path / "datasets" / "noise.lmdb"
    with DatasetWriter(path, resolution=8, channels=3) as writer:
        for picture in pixels:
            writer.add(picture)
    return path


def test_prints_facts_then_problems_with_what_mends_them(run):
    result = run("photos")

    assert result.exit_code == 0, result.output
    facts, problems, last = result.stdout.split("\n\n")
    assert facts == (
        "what              value\n"
        "source            photos\n"
        "pictures          3\n"
        "smallest          64 x 64 px (cat/1.png)\n"
        "median side       64 px\n"
        "largest           64 x 64 px\n"
        "shapes            square 100%\n"
        "kinds             PNG 3; RGB 3\n"
        "packs to          64 px, unless --resolution says otherwise\n"
        "classes           2: cat (1), dog (2); largest / smallest 2.0\n"
        "exact duplicates  none\n"
        "near duplicates   none"
    )
    assert problems.startswith("warning: 3 pictures are few")
    assert "add pictures, or double them by stylecli train photos --mirror" in problems
    assert last == "next: stylecli train photos --mirror\n"
    assert result.stderr.endswith(
        "check/photos/mean.png\ncheck/photos/samples.png\ncheck/photos/check.json\n"
    )


def test_takes_the_only_dataset_and_finds_nothing_wrong(run, dataset):
    result = run()

    assert result.exit_code == 0, result.output
    assert result.stdout.endswith(
        "\n\nno problems found\n\nnext: stylecli train datasets/noise.lmdb\n"
    )
    assert result.stderr.startswith(
        "using datasets/noise.lmdb, the only dataset in datasets/\nchecking: 1,000/1,000 pictures"
    )


def test_ends_with_one_command_that_does_all_that_is_advised(run, tmp_path):
    for path in (tmp_path / "photos").glob("*/*.png"):
        with Image.open(path) as picture:
            Image.merge("RGB", [picture.convert("L")] * 3).save(path)
    last = run("photos").stdout.splitlines()[-1]
    assert last == "next: stylecli pack photos --channels 1 && stylecli train photos --mirror"
    (pack, _) = last.removeprefix("next: stylecli ").split(" && ")
    packed = CliRunner().invoke(cli, pack.split())
    assert packed.exit_code == 0, packed.output
    # What is advised is done: only training remains, and of the dataset the same is said.
    assert run("photos").stdout.splitlines()[-1] == "next: stylecli train photos --mirror"
    again = run("datasets/photos.lmdb").stdout.splitlines()[-1]
    assert again == "next: stylecli train datasets/photos.lmdb --mirror"


def test_advice_goes_round_a_dataset_that_is_in_the_way(run, tmp_path):
    assert CliRunner().invoke(cli, ["pack", "photos"]).exit_code == 0
    draw(9).save(tmp_path / "photos" / "cat" / "9.png")
    last = run("photos").stdout.splitlines()[-1]
    assert "--out datasets/photos-2.lmdb" in last
    assert CliRunner().invoke(cli, last.split(" && ")[0].split()[2:]).exit_code == 0


def test_damage_ends_with_the_code_for_unusable_data(run, dataset):
    with lmdb.open(str(dataset), lock=False) as database, database.begin(write=True) as transaction:
        transaction.put(image_key(5), bytes(3 * 8 * 8))
    result = run("--quiet", "--workers", "1")

    assert result.exit_code == 3
    assert (
        "error: 1 of 1,000 pictures is damaged: its pixels are not what was packed: "
        "stylecli pack SRC --out datasets/noise.lmdb --force\n"
        "    #5 its pixels differ from its digest\n"
    ) in result.stdout
    assert result.stderr == ""


def test_json_is_one_document_and_the_file_holds_the_same(run, tmp_path):
    (tmp_path / "photos" / "cat" / "bad.png").write_text("no picture")
    result = run("photos", "--json", "--quiet", "--out", "seen")
    document = json.loads(result.stdout)

    assert document["kind"] == "source" and document["usable"] and document["complete"]
    assert document["facts"]["faults"] == {"unusable": 1}
    kinds = {problem["kind"]: problem for problem in document["problems"]}
    assert kinds["unusable"]["names"] == ["cat/bad.png is not a picture of a known kind"]
    stored = json.loads((tmp_path / "seen" / "check.json").read_text())
    assert stored.pop("tool").startswith("stylecli ") and stored == document


def test_every_problem_ends_with_what_mends_it(run, tmp_path):
    (tmp_path / "photos" / "cat" / "bad.png").write_text("no picture")
    problems = json.loads(run("photos", "--json").stdout)["problems"]

    assert len(problems) >= 2
    assert all("stylecli" in problem["fix"] or "train" in problem["fix"] for problem in problems)


def test_a_file_that_is_not_read_is_named_with_its_own_advice_alone(run, tmp_path):
    (tmp_path / "photos" / "phone.jxl").write_bytes(b"not a picture")
    result = run("photos")
    note = next(line for line in result.output.splitlines() if "phone.jxl" in line)
    assert "convert" in note
    assert not note.endswith("stylecli pack photos")


def test_an_interrupt_tells_what_was_found_so_far(run, monkeypatch):
    def interrupt(self, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Inspection, "scan", interrupt)
    result = run("photos")

    assert isinstance(result.exception, Interrupted)
    assert str(result.exception).startswith("stopped after 0 of 3 pictures")
    assert "pictures          3, 0 of them checked" in result.stdout


def test_refuses_what_is_not_there(run):
    refused = run("nothing")

    assert isinstance(refused.exception, DataError)
    assert str(refused.exception).startswith("nothing does not exist: expected a folder")


def test_wide_pictures_are_cut_towards_the_subject_and_shown_so(run, tmp_path):
    folder = tmp_path / "wide"
    folder.mkdir()
    for number in range(4):
        picture = Image.new("RGB", (300, 100), (90, 90, 120))
        picture.paste((255, number, 0), (260, 20, 290, 80))
        picture.save(folder / f"{number}.png")
    (folder / "damaged.png").write_bytes(b"no picture")
    result = run("wide")
    assert "draws black bars into every picture" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("next: stylecli pack wide --transform subject")
    with Image.open(tmp_path / "check" / "wide" / "samples.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    assert ((pixels[..., 0] > 250) & (pixels[..., 1] < 9)).sum() > 4 * 30 * 60  # each is there
    assert not (pixels.sum(axis=2) < 30).any()  # and the damaged one is no black tile

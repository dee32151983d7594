"""``stylecli pack``: what it prints, where, and how it ends."""

import json
import zipfile

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from stylecli.cli import pack
from stylecli.data import packing
from stylecli.errors import DataError, Interrupted


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run ``pack`` in an empty folder that holds ``photos`` with two classes."""
    monkeypatch.chdir(tmp_path)
    for grey, name in enumerate(("cat/1.png", "dog/1.png", "dog/2.png")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (grey,) * 3).save(tmp_path / "photos" / name)
    app = typer.Typer()
    app.command()(pack.command)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_prints_path_count_and_classes(run):
    result = run("photos")
    assert result.exit_code == 0
    assert result.stdout == (
        "datasets/photos.lmdb\n3 pictures, 16 px, RGB\n2 classes: cat (1), dog (2)\n"
    )
    first, second = result.stderr.splitlines()
    assert first.startswith("datasets/photos.lmdb: 3 pictures of 16 px, about 6 kB of ")
    assert second.startswith("packing: 3/3 pictures")


def test_the_same_command_again_finds_it_done(run):
    first, again = run("photos"), run("photos")
    assert again.exit_code == 0 and again.stdout == first.stdout
    assert again.stderr == ("datasets/photos.lmdb already exists, made from the same pictures\n")


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


def test_says_what_was_skipped_by_cause_when_it_is_much(run, tmp_path):
    for number in range(11):
        (tmp_path / "photos" / "cat" / f"bad{number:02}.png").write_text("no picture")
    Image.new("RGB", (16, 16), (1, 1, 1)).save(tmp_path / "photos" / "dog" / "again.png")
    told = run("photos").stderr
    assert "  11 x is not a picture of a known kind\n" in told
    assert "  1 x has the same pixels as an earlier picture\n" in told


def test_duplicates_are_named_with_the_first_or_kept(run, tmp_path):
    Image.new("RGB", (16, 16), (1, 1, 1)).save(tmp_path / "photos" / "cat" / "like_dog.png")
    told = run("photos").stderr
    assert "dog/1.png has the same pixels as an earlier picture but another label: cat/like" in told
    kept = run("photos", "--keep-duplicates", "--out", "all.lmdb")
    assert "4 pictures" in kept.stdout and "skipped" not in kept.stderr


def test_adds_to_a_dataset(run, tmp_path):
    run("photos")
    (tmp_path / "new" / "cow").mkdir(parents=True)
    (tmp_path / "new" / "dog").mkdir()
    Image.new("RGB", (16, 16), "red").save(tmp_path / "new" / "cow" / "1.png")
    Image.new("RGB", (16, 16), "blue").save(tmp_path / "new" / "dog" / "9.png")
    result = run("new", "--append", "--out", "datasets/photos.lmdb")
    assert result.stdout == (
        "datasets/photos.lmdb\n5 pictures (2 of them added), 16 px, RGB\n"
        "3 classes: cat (1), dog (3), cow (1)\n"
    )


def test_adding_needs_to_know_to_what(run):
    assert "name it with --out" in str(run("photos", "--append").exception)


def test_goes_on_after_ctrl_c_and_says_from_where(run, tmp_path, monkeypatch):
    store = packing._store

    def interrupted(job, writer, item, picture):
        if item.name == "dog/2.png":
            raise KeyboardInterrupt
        store(job, writer, item, picture)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "_store", interrupted)
        stopped = run("photos")
    assert isinstance(stopped.exception, Interrupted)
    assert str(stopped.exception).startswith("stopped at picture 2 of 3: run the same command")
    result = run("photos")
    assert result.stderr.startswith("continuing after picture 2 of 3\n")
    assert "3 pictures" in result.stdout


@pytest.mark.parametrize("source", ["photos", "datasets/photos.lmdb"])
def test_writes_nvidias_zip_from_pictures_or_a_dataset(run, tmp_path, source):
    run("photos")
    result = run(source, "--out", "photos.zip")
    assert result.exit_code == 0 and result.stdout == "photos.zip\n3 pictures, 16 px\n"
    with zipfile.ZipFile(tmp_path / "photos.zip") as archive:
        assert len(json.loads(archive.read("dataset.json"))["labels"]) == 3
    assert not (tmp_path / "photos.zip.lmdb").exists()
    again = run(source, "--out", "photos.zip")  # as after a kill between renaming and answering
    assert again.exit_code == 0 and again.stdout == result.stdout
    assert "photos.zip already exists" in again.stderr
    other = run(source, "--out", "photos.zip", "--resolution", "8")
    assert "photos.zip exists" in str(other.exception)


def test_a_kill_before_the_rest_of_a_zip_was_removed_leaves_nothing(run, tmp_path):
    assert run("photos", "--out", "photos.zip").exit_code == 0
    assert run("photos", "--out", "photos.zip.lmdb").exit_code == 0
    assert run("photos", "--out", "photos.zip").exit_code == 0
    assert not (tmp_path / "photos.zip.lmdb").exists()
    assert run("photos", "--resolution", "8", "--out", "photos.zip.lmdb").exit_code == 0
    assert run("photos", "--out", "photos.zip").exit_code == 0
    assert (tmp_path / "photos.zip.lmdb").exists()  # somebody's own


def test_tells_of_labels_that_are_not_used(run, tmp_path):
    (tmp_path / "photos" / "3.png").write_bytes((tmp_path / "photos/cat/1.png").read_bytes())
    assert "photos: " in run("photos").stderr.splitlines()[0]


def test_files_that_are_left_out_are_named_before_the_work(run, tmp_path, without_heif):
    (tmp_path / "photos" / "phone.HEIC").touch()
    first = run("photos").stderr.splitlines()[0]
    assert first.startswith("photos: 1 file is left out") and "phone.HEIC" in first


@pytest.mark.parametrize("options", [[], ["--no-labels"], ["--labels", "x.csv"]])
@pytest.mark.parametrize("text", ['{"images": []}', '{"labels": [["cat/1.png", '])
def test_labels_of_another_program_never_block_the_options(run, tmp_path, options, text):
    (tmp_path / "photos" / "dataset.json").write_text(text)
    (tmp_path / "x.csv").write_text("0\n1\n0\n")
    result = run("photos", *options, "--json")
    if not options and "labels" in text:  # spoilt, so it may be theirs
        assert "--no-labels" in str(result.exception)
    else:
        assert result.exit_code == 0
        assert ("--labels" in options) == ("0" in json.loads(result.stdout)["classes"])


def test_a_background_must_be_a_colour(run):
    assert "background 'nice' is not a colour" in str(
        run("photos", "--background", "nice").exception
    )
    assert run("photos", "--background", "#102030").exit_code == 0


def test_a_zip_is_never_written_over_its_source_or_over_a_stranger(run, tmp_path):
    run("photos", "--out", "own.zip")
    before = (tmp_path / "own.zip").read_bytes()
    (tmp_path / "notes.zip").write_text("hello")

    over_itself = run("own.zip", "--resolution", "8", "--out", "own.zip", "--force")
    over_notes = run("photos", "--out", "notes.zip", "--force")

    assert "is the source itself" in str(over_itself.exception)
    assert "notes.zip" in str(over_notes.exception)
    assert (tmp_path / "own.zip").read_bytes() == before
    assert (tmp_path / "notes.zip").read_text() == "hello"


def photograph(folder, name, *, sideways=False):
    """Save a picture with a red upper half; sideways as phones do it, with a mark to turn it."""
    picture = Image.new("RGB", (48, 32), "blue")
    picture.paste("red", (0, 0, 48, 16))
    exif = Image.Exif()
    if sideways:
        picture, exif[0x0112] = picture.transpose(Image.Transpose.ROTATE_90), 6
    folder.mkdir(exist_ok=True)
    if name.endswith(".avif"):
        picture.save(folder / name, exif=exif.tobytes())
    else:
        import pillow_heif

        pillow_heif.from_pillow(picture).save(folder / name, exif=exif.tobytes())


def is_upright(pixels):
    """Tell whether a picture [C, H, W] is red above and blue below."""
    high, low = pixels[:, 2].mean(1), pixels[:, -3].mean(1)
    return bool(high[0] > 200 > 60 > high[2] and low[2] > 200 > 60 > low[0])


def test_every_command_reads_the_photographs_of_phones(tmp_path, monkeypatch):
    """HEIC and AVIF, upright and sideways: check, pack, metrics of loose files, train."""
    pytest.importorskip("pillow_heif")
    from stylecli.cli.app import app
    from stylecli.data.reader import open_dataset
    from stylecli.metrics.picture_sets import open_set

    monkeypatch.chdir(tmp_path)
    for name in ("IMG_1.HEIC", "IMG_2.heic", "3.avif", "4.avif"):
        photograph(tmp_path / "phone", name, sideways=name[-6] in "24")
    (tmp_path / "phone/cut.HEIC").write_bytes((tmp_path / "phone/IMG_1.HEIC").read_bytes()[:-200])

    checked = CliRunner().invoke(app, ["check", "phone", "--json", "--quick", "--workers", "1"])
    assert json.loads(checked.stdout)["rows"]["kinds"] == "AVIF 2, HEIF 2; RGB 4"
    assert "cut.HEIC begins like HEIC but cannot be read: copy it again" in checked.stdout
    (tmp_path / "phone/cut.HEIC").unlink()

    CliRunner().invoke(app, ["pack", "phone", "--resolution", "16", "--keep-duplicates"])
    dataset = open_dataset(tmp_path / "datasets/phone.lmdb")
    assert [is_upright(dataset[place][0]) for place in range(len(dataset))] == [True] * 4
    loose = open_set(tmp_path / "phone")
    for read in loose.read(np.arange(4)):
        assert [is_upright(one) for one in read] == [True] * len(read)
    planned = CliRunner().invoke(app, ["train", "phone", "--dry-run", "--json"])
    assert json.loads(planned.stdout)["dataset"]["pictures"] == 4


def test_without_its_reader_heic_is_counted_and_the_rest_is_packed(run, tmp_path, request):
    pytest.importorskip("pillow_heif")
    photograph(tmp_path / "photos", "IMG_1.HEIC")
    photograph(tmp_path / "photos", "2.avif")
    request.getfixturevalue("without_heif")

    packed = run("photos", "--no-labels", "--enlarge", "--workers", "1")

    assert packed.exit_code == 0, packed.exception
    assert "1 .heic (IMG_1.HEIC: pip install 'stylecli[heif]'" in packed.stderr
    assert "\n4 pictures" in packed.stdout

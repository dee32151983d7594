"""``stylecli prepare-ffhq``: photographs or FFHQ in, aligned faces and a dataset out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from stylecli.cli import prepare_ffhq
from stylecli.data.alignment import detection, detectors
from stylecli.data.reader import open_dataset
from stylecli.errors import DataError, UsageError
from stylecli.files import LOCK_FILE, OwnerLock
from tests.conftest import FIXTURES

Run = Callable[..., Any]

# Eyes, nose, corners of the mouth, as MTCNN finds them.
POINTS = {
    "astronaut.jpg": [[204, 101], [247, 103], [224, 128], [203, 141], [245, 142]],
    "sub/grace_hopper.jpg": [[222, 192], [309, 187], [269, 237], [232, 278], [306, 273]],
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(prepare_ffhq.command)
    return lambda *arguments: CliRunner().invoke(app, [*arguments])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two portraits, a picture without a face, a broken one, and the landmarks of the two."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(FIXTURES / "portraits" / "astronaut.jpg", folder)
    shutil.copy(FIXTURES / "portraits" / "grace_hopper.jpg", folder / "sub")
    Image.linear_gradient("L").save(folder / "gradient.png")
    (folder / "broken.jpg").write_text("no picture")
    (tmp_path / "points.json").write_text(json.dumps(POINTS))
    return folder


def test_photographs_with_given_landmarks(run: Run, photos: Path) -> None:
    result = run("photos", "--landmarks", "points.json", "--size", "64", "--workers", "1")
    assert result.exit_code == 0, result.exception
    assert result.stdout == (
        "aligned/photos-64\n2 faces of 4 photographs, 64 px\n"
        "aligned/photos-64/contact-sheet-00.png\n"
        "datasets/photos-64.lmdb\n2 pictures, 64 px, RGB\n"
    )
    assert (
        "warning: 2 pictures were skipped; the full list is in aligned/photos-64/skipped.jsonl"
        in result.stderr
    )
    skipped = Path("aligned/photos-64/skipped.jsonl").read_text().splitlines()
    assert json.loads(skipped[0])["name"] == "broken.jpg"
    dataset = open_dataset(Path("datasets/photos-64.lmdb"))
    picture = np.asarray(Image.open("aligned/photos-64/images64x64/00000/00001.png"))
    assert np.array_equal(np.moveaxis(dataset[1][0], 0, 2), picture)


def test_the_same_command_again_finds_it_done(run: Run, photos: Path) -> None:
    arguments = ("photos", "--landmarks", "points.json", "--size", "64", "--workers", "1")
    first, again = run(*arguments), run(*arguments)
    assert again.exit_code == 0 and again.stdout == first.stdout
    assert "aligned/photos-64 already holds these faces" in again.stderr
    assert "datasets/photos-64.lmdb already exists" in again.stderr


def test_a_folder_of_faces_has_one_writer(run: Run, photos: Path) -> None:
    """Two at once cleared each other's temporary files away, and called faces skipped."""
    arguments = ("photos", "--landmarks", "points.json", "--size", "32", "--workers", "1")
    folder = Path("aligned/photos-32")
    folder.mkdir(parents=True)
    other = OwnerLock(folder)
    refused = run(*arguments)
    assert isinstance(refused.exception, DataError)
    assert "is being written by another command" in str(refused.exception)
    other.release()
    assert run(*arguments).exit_code == 0
    assert not (folder / LOCK_FILE).exists()


def test_only_a_dataset_or_only_pictures(run: Run, photos: Path) -> None:
    arguments = ("photos", "--landmarks", "points.json", "--size", "32", "--quiet", "--json")
    dataset = json.loads(run(*arguments, "--no-images").stdout)
    assert dataset["images"] is None and dataset["pictures"] == 2
    assert not Path("aligned").exists()
    pictures = json.loads(run(*arguments, "--no-dataset", "--images", "faces").stdout)
    assert pictures["dataset"] is None and pictures["images"] == "faces"
    assert [each["name"] for each in pictures["skipped"]] == ["broken.jpg", "gradient.png"]


def test_faces_of_another_source_are_not_replaced(run: Run, photos: Path) -> None:
    run("photos", "--landmarks", "points.json", "--size", "32", "--images", "faces")
    refused = run("photos/sub", "--landmarks", "points.json", "--size", "32", "--images", "faces")
    assert isinstance(refused.exception, DataError)
    assert "faces holds faces made with another source" in str(refused.exception)


def test_a_dataset_of_other_faces_is_refused_before_pictures_are_replaced(
    run: Run, photos: Path
) -> None:
    arguments = ("photos", "--landmarks", "points.json", "--size", "32")
    run(*arguments)
    records = Path("aligned/photos-32/faces.jsonl").read_bytes()
    (photos / "astronaut.jpg").unlink()
    refused = run(*arguments)
    assert isinstance(refused.exception, DataError)
    assert str(refused.exception) == (
        "datasets/photos-32.lmdb exists and was made from another set of faces: "
        "give another --out, or --force to replace it"
    )
    assert Path("aligned/photos-32/faces.jsonl").read_bytes() == records
    assert len(list(Path("aligned/photos-32/images32x32").glob("*/*.png"))) == 2
    assert run(*arguments, "--force").exit_code == 0
    assert len(open_dataset(Path("datasets/photos-32.lmdb"))) == 1


def test_a_trial_and_an_exclude_list_take_fewer(run: Run, photos: Path) -> None:
    Path("list.txt").write_text("broken.jpg\ngradient.png\n")
    arguments = ("photos", "--landmarks", "points.json", "--size", "32", "--exclude", "list.txt")
    result = run(*arguments, "--limit", "1")
    assert result.stdout.splitlines()[1] == "1 face of 1 photograph, 32 px"
    assert Path("datasets/photos-32-sample1.lmdb").is_dir()


def test_faces_that_are_all_too_small_are_named(run: Run, photos: Path) -> None:
    refused = run("photos", "--landmarks", "points.json")
    assert isinstance(refused.exception, DataError)
    words = str(refused.exception)
    assert all(part in words for part in ("astronaut.jpg", "172 px", "512", "--min-size"))
    assert words.endswith("stylecli pack photos")


def test_in_an_empty_folder_it_says_what_to_put_where(run: Run) -> None:
    refused = run()
    assert isinstance(refused.exception, DataError)
    words = str(refused.exception)
    assert "ffhq-dataset-v2.json" in words and "in-the-wild-images/" in words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("photos", "--size", "100"), "size 100 is not a power of two"),
        (("photos", "--no-images", "--no-dataset"), "leave nothing to do"),
        (("photos", "--unaligned"), "--unaligned is for the official FFHQ files"),
        (("photos", "--split", "training"), "--split is for the official FFHQ files"),
        (("photos", "--detector", "file"), "--detector file needs --landmarks FILE"),
        (("photos", "--detector", "yolo"), "'yolo'"),
        (("photos", "--detector", "dlib", "--landmarks", "points.json"), "takes the place of"),
        (("photos", "--min-size", "-1"), "--min-size -1"),
    ],
)
def test_refuses_what_makes_no_sense(
    run: Run, photos: Path, arguments: tuple[str, ...], words: str
) -> None:
    refused = run(*arguments)
    assert isinstance(refused.exception, UsageError)
    assert words in str(refused.exception)


@pytest.fixture
def ffhq(tmp_path: Path) -> Path:
    """The official layout with one photograph, the astronaut, and 68 points of her face."""
    points = np.zeros((68, 2))
    points[36:42], points[42:48], _, points[48], points[54] = POINTS["astronaut.jpg"]
    photo = tmp_path / "in-the-wild-images" / "00000" / "00000.png"
    photo.parent.mkdir(parents=True)
    Image.open(FIXTURES / "portraits" / "astronaut.jpg").save(photo)
    record = {
        "category": "training",
        "metadata": {"author": "NASA", "license": "Public Domain Mark", "photo_url": "https://x/1"},
        "in_the_wild": {"face_landmarks": points.tolist(), "pixel_size": [512, 512]},
    }
    (tmp_path / "ffhq-dataset-v2.json").write_text(json.dumps({"0": record}))
    return photo


def test_bare_it_takes_ffhq_in_this_folder(run: Run, ffhq: Path) -> None:
    result = run("--size", "32")
    assert result.exit_code == 0, result.exception
    assert result.stdout.splitlines()[-2:] == ["datasets/ffhq-32.lmdb", "1 picture, 32 px, RGB"]
    metadata = open_dataset(Path("datasets/ffhq-32.lmdb")).metadata(0)
    assert metadata["author"] == "NASA" and metadata["licence"] == "Public Domain Mark"


def test_ffhq_u_has_squares_of_its_own(run: Run, ffhq: Path) -> None:
    result = run("--size", "32", "--unaligned")
    assert result.exit_code == 0, result.exception
    run("--size", "32")
    both = [Image.open(f"aligned/{name}/images32x32/00000/00000.png").convert("L")
            for name in ("ffhq-32", "ffhq-u-32")]  # fmt: skip
    assert not np.array_equal(*both)


def test_options_for_photographs_are_refused_with_ffhq(run: Run, ffhq: Path) -> None:
    refused = run("--largest")
    assert isinstance(refused.exception, UsageError)
    assert "--largest is for photographs" in str(refused.exception)


@pytest.mark.parametrize("detector", ["dlib", "mtcnn"])
def test_faces_are_found_and_cut_out_upright(run: Run, photos: Path, detector: str) -> None:
    if not detectors.is_installed(detector):
        pytest.skip(f"{detector} is not installed: run {detection.INSTALL[detector]}")
    tilted = Image.open(photos / "astronaut.jpg").rotate(25, Image.Resampling.BICUBIC)
    tilted.save(photos / "tilted.png")
    arguments = (
        "photos",
        "--detector",
        detector,
        "--size",
        "128",
        "--no-dataset",
        "--workers",
        "1",
    )
    result = run(*arguments)
    assert result.exit_code == 0, result.exception
    assert result.stdout.splitlines()[1] == "3 faces of 5 photographs, 128 px"
    assert ("iBUG 300-W" in result.stderr) == (detector == "dlib")
    crops = [Image.open(f"aligned/photos-128/images128x128/00000/0000{place}.png")
             for place in range(3)]  # fmt: skip
    straight, turned = (np.asarray(crop, float)[32:96, 32:96] for crop in (crops[0], crops[2]))
    other = np.asarray(crops[1], float)[32:96, 32:96]
    assert np.abs(straight - turned).mean() < 0.5 * np.abs(straight - other).mean()


@pytest.mark.parametrize("reader", ["with", "without"])
def test_a_face_in_heic(
    run: Run, tmp_path: Path, reader: str, request: pytest.FixtureRequest
) -> None:
    """Its pixels are those of the JPEG but for what is lost, or it is named with what reads it."""
    heif = pytest.importorskip("pillow_heif")
    (tmp_path / "photos").mkdir()
    portrait = FIXTURES / "portraits" / "astronaut.jpg"
    shutil.copy(portrait, tmp_path / "photos/b.jpg")
    with Image.open(portrait) as picture:
        heif.from_pillow(picture).save(tmp_path / "photos/a.HEIC", quality=95)
    points = dict.fromkeys(("a.HEIC", "b.jpg"), POINTS["astronaut.jpg"])
    (tmp_path / "points.json").write_text(json.dumps(points))
    if reader == "without":
        request.getfixturevalue("without_heif")

    result = run("photos", "--landmarks", "points.json", "--size", "64", "--workers", "1")

    assert result.exit_code == 0, result.exception
    if reader == "without":
        assert "1 face of 2 photographs" in result.stdout
        assert "a.HEIC is HEIC: run pip install 'stylecli[heif]'" in result.stderr
        return
    heic, jpeg = (pixels for pixels, _ in open_dataset(Path("datasets/photos-64.lmdb")))
    assert np.abs(heic.astype(int) - jpeg).mean() < 3

"""Faces as a source and as a folder: what is written, what survives, what is carried along."""

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylecli.data.alignment.aligned_folder import AlignedFolder, licence_notes
from stylecli.data.alignment.aligning import AlignedFaces, write_aligned
from stylecli.data.alignment.geometry import (
    AlignSettings,
    Face,
    align_face,
    bytes_needed,
    fitting_workers,
)
from stylecli.errors import DataError, UsageError

CREDITS = {
    "author": "Zoë",
    "licence": "Attribution-NonCommercial License",
    "licence_url": "https://creativecommons.org/licenses/by-nc/2.0/",
    "source_url": "https://www.flickr.com/photos/zoe/1/",
}


def five_points(x: float, y: float) -> tuple[tuple[float, float], ...]:
    """Return a small face about (x, y)."""
    return ((x - 5, y - 4), (x + 5, y - 4), (x, y), (x - 4, y + 6), (x + 4, y + 6))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "party.png"
    noise = np.random.default_rng(0).integers(0, 255, (80, 120, 3), np.uint8)
    Image.fromarray(noise).resize((120, 80)).save(path)
    return path


@pytest.fixture
def faces(photo: Path) -> list[Face]:
    return [
        Face(photo, f"party.png#{place}", five_points(25 + 20 * place, 40), metadata=CREDITS)
        for place in range(4)
    ]


def write(faces: list[Face], folder: Path, **options: Any) -> Any:
    return write_aligned(faces, folder, 32, **{"transform_size": 64, "workers": 1, **options})


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_item_aligns_its_face_when_it_is_opened(faces: list[Face], photo: Path) -> None:
    source = AlignedFaces(faces, 32, transform_size=64, name="party")

    item = source[1]

    with Image.open(photo) as picture:
        expected = align_face(picture, faces[1].landmarks, output_size=32, transform_size=64)
    assert item.open().tobytes() == expected.tobytes()
    assert (len(source), source.name, item.label, item.name) == (4, "party", None, "party.png#1")
    assert item.metadata == {"source": "party.png#1", **CREDITS}


def test_the_fingerprint_tells_settings_and_landmarks_apart(faces: list[Face]) -> None:
    prints = {
        AlignedFaces(faces, 32).fingerprint(),
        AlignedFaces(faces, 64).fingerprint(),
        AlignedFaces(faces, 32, rotate=False).fingerprint(),
        AlignedFaces(faces[:3], 32).fingerprint(),
    }

    assert len(prints) == 4
    assert AlignedFaces(list(faces), 32).fingerprint() in prints


def test_a_photograph_is_turned_by_its_exif_tag_only_when_asked(tmp_path: Path) -> None:
    upright = Image.fromarray(
        np.arange(80 * 60 * 3, dtype=np.uint32).astype(np.uint8).reshape(80, 60, 3)
    )
    exif = Image.Exif()
    exif[274] = 6  # stored lying, to be turned by 270 degrees
    path = tmp_path / "phone.png"
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    face = Face(path, "phone", five_points(30, 40), upright=True)

    crop = AlignedFaces([face], 16)[0].open()

    assert (
        crop.tobytes()
        == align_face(upright, face.landmarks, output_size=16, transform_size=64).tobytes()
    )


@pytest.mark.parametrize(
    ("content", "cause"), [(None, "cannot be read"), (b"no picture", "not a picture")]
)
def test_a_photograph_that_cannot_be_used_is_a_cause(
    content: bytes | None, cause: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.png"
    if content:
        path.write_bytes(content)

    with pytest.raises(DataError, match=cause):
        AlignedFaces([Face(path, "x", five_points(30, 40))], 16)[0].open()


def test_the_folder_is_laid_out_as_ffhq_and_explains_itself(
    faces: list[Face], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    numbered = [Face(**{**vars(face), "number": 1999 + i}) for i, face in enumerate(faces[:2])]

    report = write(numbered, out)

    assert (report.count, report.written, report.skipped) == (2, 2, [])
    assert sorted(contents(out)) == [
        "alignment.json",
        "faces.jsonl",
        "images32x32/01000/01999.png",
        "images32x32/02000/02000.png",
        "thumbnails128x128/01000/01999.png",
        "thumbnails128x128/02000/02000.png",
    ]
    record = json.loads((out / "faces.jsonl").read_text("utf-8").splitlines()[0])
    file = out / "images32x32/01000/01999.png"
    with Image.open(file) as picture:
        assert picture.size == (32, 32)
        assert hashlib.md5(picture.tobytes()).hexdigest() == record["pixel_md5"]
        assert picture.info["Author"] == "Zoë"
        assert "by-nc" in picture.info["Copyright"]
    assert hashlib.md5(file.read_bytes()).hexdigest() == record["file_md5"]
    assert record["landmarks"] == [list(point) for point in faces[0].landmarks]
    assert np.shape(record["quad"]) == (4, 2)
    assert record["metadata"] == CREDITS
    with Image.open(out / "thumbnails128x128/02000/02000.png") as thumbnail:
        assert thumbnail.size == (128, 128)


def test_the_folder_is_a_source_that_carries_authors_and_licences(
    faces: list[Face], tmp_path: Path
) -> None:
    write(faces, tmp_path / "out")

    source = AlignedFolder(tmp_path / "out")

    assert (len(source), source.class_names, source[3].label) == (4, None, None)
    assert source[3].metadata == {"source": "party.png#3", **CREDITS}
    with source[3].open() as picture:
        assert picture.size == (32, 32)
    assert any("4 for non-commercial use only" in note for note in source.notes)


def test_an_interrupted_run_goes_on_and_ends_the_same(faces: list[Face], tmp_path: Path) -> None:
    write(faces, tmp_path / "whole")

    def stop(done: float, total: float, note: str = "") -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(faces, tmp_path / "out", progress=stop)
    with pytest.raises(DataError, match="not finished"):
        AlignedFolder(tmp_path / "out")
    with open(tmp_path / "out" / "faces.jsonl.part", "ab") as part:
        part.write(b'{"number":2,"recipe":"tor')  # killed in the middle of a line
    scratch = tmp_path / "out" / "images32x32" / "00000" / ".00002-abcd1234.part"
    scratch.mkdir()
    (scratch / "00002.png").touch()  # and of a picture
    report = write(faces, tmp_path / "out")

    assert (report.kept, report.written) == (2, 2)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_the_same_command_again_changes_nothing(faces: list[Face], tmp_path: Path) -> None:
    write(faces, tmp_path / "out")
    before = contents(tmp_path / "out")

    report = write(faces, tmp_path / "out")

    assert (report.kept, report.written) == (4, 0)
    assert contents(tmp_path / "out") == before


def test_damaged_and_missing_pictures_are_made_again(faces: list[Face], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(faces, out)
    before = contents(out)
    folder = out / "images32x32" / "00000"
    (folder / "00000.png").unlink()
    damaged = bytearray((folder / "00001.png").read_bytes())
    damaged[60] ^= 1
    (folder / "00001.png").write_bytes(damaged)
    (out / "thumbnails128x128" / "00000" / "00002.png").unlink()

    report = write(faces, out)

    assert (report.kept, report.written) == (2, 2)
    assert contents(out) == before


def test_faces_that_are_no_longer_wanted_leave_the_folder(
    faces: list[Face], tmp_path: Path
) -> None:
    write(faces, tmp_path / "out")

    report = write(faces[:3], tmp_path / "out")

    assert report.removed == 1
    assert len(AlignedFolder(tmp_path / "out")) == 3
    assert not list((tmp_path / "out").rglob("00003.png"))


def test_unusable_faces_are_skipped_and_listed(faces: list[Face], tmp_path: Path) -> None:
    outside = Face(faces[0].photo, "outside", five_points(900, 900))
    gone = Face(tmp_path / "gone.jpg", "gone.jpg", five_points(40, 40))

    report = write([faces[0], outside, gone, faces[1]], tmp_path / "out")

    assert [(skipped.name, skipped.cause[:32]) for skipped in report.skipped] == [
        ("outside", "cannot be aligned: the face at ("),
        ("gone.jpg", "cannot be read: No such file or "),
    ]
    assert [picture.name for picture in AlignedFolder(tmp_path / "out")] == [
        "images32x32/00000/00000.png",
        "images32x32/00000/00003.png",
    ]


def test_no_usable_face_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable face among 1: gone"):
        write([Face(tmp_path / "gone", "gone", five_points(40, 40))], tmp_path / "out")


@pytest.mark.parametrize("change", [{"rotate": False}, {"source": "elsewhere"}])
def test_a_folder_made_otherwise_is_not_replaced_without_force(
    change: dict[str, Any], faces: list[Face], tmp_path: Path
) -> None:
    write(faces, tmp_path / "out")
    with pytest.raises(DataError, match=f"another {next(iter(change))}.*--force"):
        write(faces, tmp_path / "out", **change)

    assert write(faces, tmp_path / "out", force=True, **change).count == 4


def test_pictures_that_others_made_are_never_replaced(faces: list[Face], tmp_path: Path) -> None:
    (tmp_path / "out" / "images32x32").mkdir(parents=True)

    with pytest.raises(DataError, match="not made by stylecli"):
        write(faces, tmp_path / "out")


def test_two_faces_of_one_number_are_refused(faces: list[Face], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="same number"):
        write([faces[0], Face(faces[0].photo, "b", faces[0].landmarks, number=0)], tmp_path)


def test_several_processes_write_the_same_folder(faces: list[Face], tmp_path: Path) -> None:
    write(faces, tmp_path / "one")
    write(faces, tmp_path / "two", workers=2)

    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_folder_whose_files_were_lost_says_so_when_opened(
    faces: list[Face], tmp_path: Path
) -> None:
    write(faces, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "images32x32")

    with pytest.raises(DataError, match="cannot be read"):
        AlignedFolder(tmp_path / "out")[0].open()


def test_licences_are_counted_and_restrictions_said() -> None:
    public = {"licence": "Public Domain Mark", "licence_url": "https://example.org/publicdomain/"}

    notes = licence_notes([CREDITS, CREDITS, public])

    assert "Attribution-NonCommercial License (2), Public Domain Mark (1)" in notes[0]
    assert notes[1].startswith("2 for non-commercial use only; 2 with credit")
    assert licence_notes([{}, {"source": "x"}]) == []


def test_large_faces_get_fewer_processes(photo: Path) -> None:
    huge = Face(photo, "huge", [(x * 300, y * 300) for x, y in five_points(0, 0)])
    tiny = Face(photo, "tiny", five_points(0, 0))
    settings = AlignSettings(1024)

    assert bytes_needed(huge, settings) > 2 * bytes_needed(tiny, settings)
    assert fitting_workers(1000, 1 << 60) == 1
    assert fitting_workers(1, 1) == 1
    assert not math.isnan(bytes_needed(Face(photo, "bad", [(math.nan, 0)] * 5), settings))

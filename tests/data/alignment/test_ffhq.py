"""FFHQ as published: six made-up pictures in the true layout and record format."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylecli.data.alignment import ffhq_records
from stylecli.data.alignment.aligned_folder import AlignedFolder
from stylecli.data.alignment.aligning import write_aligned
from stylecli.data.alignment.ffhq import (
    Exclusions,
    FfhqLayout,
    FfhqOptions,
    ffhq_faces,
    ffhq_pictures,
    find_ffhq,
    open_published,
    random_shifts,
    read_exclusions,
    what_is_missing,
)
from stylecli.data.alignment.ffhq_records import read_ffhq_records
from stylecli.data.alignment.geometry import face_quad
from stylecli.errors import DataError, UsageError
from tests.data.alignment.face_points import face_at

NUMBERS = (0, 1, 2, 999, 1000, 60000)


def write_picture(path: Path, size: tuple[int, int], seed: int) -> dict[str, Any]:
    """Write a PNG and return its part of the record."""
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)
    return {
        "file_url": "https://drive.google.com/uc?id=x",
        "file_path": path.relative_to(path.parents[2]).as_posix(),
        "file_size": path.stat().st_size,
        "file_md5": hashlib.md5(path.read_bytes()).hexdigest(),
        "pixel_size": list(size),
        "pixel_md5": hashlib.md5(noise.tobytes()).hexdigest(),
    }


def record_of(root: Path, number: int) -> dict[str, Any]:
    file = f"{number - number % 1000:05d}/{number:05d}.png"
    wild = write_picture(root / "in-the-wild-images" / file, (90, 80), number)
    wild |= {
        "face_rect": [30, 25, 60, 55],
        "face_landmarks": face_at(45 + number % 5, 40),
        "face_quad": [[0.0, 0.0]] * 4,
    }
    return {
        "category": "training" if number < 60000 else "validation",
        "metadata": {
            "photo_url": f"https://www.flickr.com/photos/someone/{number + 5000}/",
            "photo_title": 'Ünder the \\"} sky',
            "author": f"Author {number}",
            "country": "",
            "license": "Attribution License" if number % 2 else "Public Domain Mark",
            "license_url": "https://creativecommons.org/licenses/by/2.0/",
            "date_uploaded": "2014-07-12",
            "date_crawled": "2018-10-10",
        },
        "image": write_picture(root / "images1024x1024" / file, (32, 32), number)
        | {"face_landmarks": face_at(16, 16)},
        "thumbnail": write_picture(root / "thumbnails128x128" / file, (8, 8), number),
        "in_the_wild": wild,
    }


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    records = {str(number): record_of(root, number) for number in NUMBERS}
    (root / "ffhq-dataset-v2.json").write_text(json.dumps(records))
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """A copy of its own for each test."""
    return Path(shutil.copytree(published, tmp_path / "ffhq"))


@pytest.fixture
def layout(root: Path) -> FfhqLayout:
    found = find_ffhq(root)
    assert found is not None
    return found


def picture(root: Path, number: int, folder: str = "in-the-wild-images") -> Path:
    return root / folder / f"{number - number % 1000:05d}" / f"{number:05d}.png"


def test_the_layout_is_found_from_above_and_from_within(root: Path) -> None:
    found = find_ffhq(root)

    assert found is not None and set(found.folders) == {
        "in-the-wild-images",
        "images1024x1024",
        "thumbnails128x128",
    }
    assert find_ffhq(root.parent) == find_ffhq(root) == find_ffhq(root / "images1024x1024")
    assert find_ffhq(root / "images1024x1024" / "00000") is None


def test_what_is_missing_is_said_in_one_sentence(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "ffhq-dataset-v2.json").touch()
    (root / "ffhq-dataset-v2.json").unlink()

    assert find_ffhq(root) is None
    assert "put ffhq-dataset-v2.json and in-the-wild-images/" in what_is_missing(tmp_path / "empty")
    assert "put in-the-wild-images/ beside it" in what_is_missing(tmp_path / "half")
    assert "put ffhq-dataset-v2.json beside it" in what_is_missing(root)


@pytest.mark.parametrize("level", ["none", "size", "file", "pixels"])
def test_faces_carry_landmarks_author_and_licence(level: Any, layout: FfhqLayout) -> None:
    faces, report = ffhq_faces(layout, FfhqOptions(verify=level))

    assert [face.number for face in faces] == list(NUMBERS)
    assert (report.records, report.taken, report.failed, report.missing) == (6, 6, [], [])
    assert faces[1].name == "in-the-wild-images/00000/00001.png"
    assert np.array_equal(faces[1].landmarks, face_at(46, 40))
    assert faces[1].box == (30, 25, 60, 55)
    assert faces[1].metadata == {
        "author": "Author 1",
        "licence": "Attribution License",
        "licence_url": "https://creativecommons.org/licenses/by/2.0/",
        "source_url": "https://www.flickr.com/photos/someone/5001/",
        "title": 'Ünder the \\"} sky',
        "category": "training",
    }


def test_metadata_other_than_published_is_said_not_refused(layout: FfhqLayout) -> None:
    _, report = ffhq_faces(layout)

    assert not report.official
    assert any("not the published file" in note for note in report.notes)


def test_the_published_metadata_is_recognised_by_its_md5(
    layout: FfhqLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.md5(layout.metadata_file.read_bytes()).hexdigest()
    monkeypatch.setattr(ffhq_records, "OFFICIAL_MD5", digest)

    _, report = ffhq_faces(layout)

    assert report.official and report.notes == []


@pytest.mark.parametrize(("split", "count"), [("all", 6), ("training", 5), ("validation", 1)])
def test_the_split_is_the_category_of_the_records(
    split: str, count: int, layout: FfhqLayout
) -> None:
    assert len(ffhq_faces(layout, FfhqOptions(split=split))[0]) == count


def test_excluded_pictures_are_left_out_by_number_name_or_address(
    layout: FfhqLayout, tmp_path: Path
) -> None:
    listed = tmp_path / "exclude.txt"
    listed.write_text(
        "# asked for removal\n00002  # by number\n\nimages1024x1024/00000/00999.png\n60000.PNG\n"
        "http://flickr.com/photos/someone/5001\n7\nhttps://example.org/x#y\n"
    )

    faces, report = ffhq_faces(layout, FfhqOptions(exclude=read_exclusions(listed)))

    assert [face.number for face in faces] == [0, 1000]
    assert len(report.excluded) == 4
    (note,) = [note for note in report.notes if "exclude list" in note]
    assert "2 entries" in note and "7, https://example.org/x#y" in note


def test_missing_pictures_are_listed_not_fatal(root: Path, layout: FfhqLayout) -> None:
    picture(root, 2).unlink()

    faces, report = ffhq_faces(layout)

    assert len(faces) == 5
    assert report.missing == ["in-the-wild-images/00000/00002.png"]


def test_verification_finds_what_its_level_can(root: Path, layout: FfhqLayout) -> None:
    with open(picture(root, 0), "ab") as file:  # longer
        file.write(b"x")
    same_size = bytearray(picture(root, 1).read_bytes())
    same_size[-1] ^= 1  # in the checksum of the end mark, which decoders pass over
    picture(root, 1).write_bytes(same_size)
    Image.new("RGB", (90, 80), "red").save(picture(root, 2))

    def failed(level: Any) -> dict[str, str]:
        _, report = ffhq_faces(layout, FfhqOptions(verify=level))
        return {skipped.name[-9:-4]: skipped.cause for skipped in report.failed}

    assert failed("none") == {}
    assert set(failed("size")) == {"00000", "00002"}
    assert set(failed("file")) == {"00000", "00001", "00002"}
    assert set(failed("pixels")) == {"00002"}  # the others decode to the published pixels
    assert "the published file has" in failed("size")["00000"]


def test_photographs_of_other_formats_are_taken_unverified(root: Path, layout: FfhqLayout) -> None:
    with Image.open(picture(root, 2)) as photo:
        photo.save(picture(root, 2).with_suffix(".jpg"))
    picture(root, 2).unlink()

    faces, report = ffhq_faces(layout)

    assert faces[2].photo.suffix == ".jpg"
    assert any(note.startswith("1 picture is used unverified") for note in report.notes)


def test_faces_become_a_folder_numbered_as_ffhq(layout: FfhqLayout, tmp_path: Path) -> None:
    faces, _ = ffhq_faces(layout)
    write_aligned(faces, tmp_path / "out", 16, workers=1)

    source = AlignedFolder(tmp_path / "out")

    assert source[5].name == "images16x16/60000/60000.png"
    assert source[5].metadata["author"] == "Author 60000"
    assert source[5].metadata["category"] == "validation"


def test_pictures_that_are_aligned_already_are_a_source_with_metadata(layout: FfhqLayout) -> None:
    source, report = ffhq_pictures(layout, "images1024x1024", FfhqOptions(verify="pixels"))
    small, _ = ffhq_pictures(layout, "thumbnails128x128", FfhqOptions(split="validation"))

    assert (len(source), report.taken, source.name) == (6, 6, "ffhq")
    assert source[3].name == "images1024x1024/00000/00999.png"
    assert source[3].metadata["author"] == "Author 999"
    with source[3].open() as image, small[0].open() as thumbnail:
        assert (image.size, thumbnail.size) == ((32, 32), (8, 8))
    assert (len(small), small.name) == (1, "ffhq-validation")
    assert any("Attribution License (2)" in note for note in source.notes)


def test_published_pictures_are_recognised_with_their_metadata(root: Path) -> None:
    picture(root, 2, "images1024x1024").unlink()

    source = open_published(root)
    thumbnails = open_published(root / "thumbnails128x128")

    assert source is not None and thumbnails is not None
    assert (len(source), len(thumbnails)) == (5, 6)
    assert source[0].metadata["author"] == "Author 0"
    assert "1 of FFHQ's 6 pictures is missing" in source.notes
    assert open_published(root / "in-the-wild-images") is None  # any folder of photographs
    assert open_published(root.parent) is None


def test_published_photographs_alone_are_sent_to_prepare_ffhq(root: Path) -> None:
    shutil.rmtree(root / "images1024x1024")
    shutil.rmtree(root / "thumbnails128x128")

    with pytest.raises(DataError, match="run stylecli prepare-ffhq"):
        open_published(root)


def test_no_usable_picture_is_an_error(root: Path, layout: FfhqLayout) -> None:
    for number in NUMBERS:
        picture(root, number, "images1024x1024").unlink()

    with pytest.raises(DataError, match="no usable picture: 6 are missing"):
        ffhq_pictures(layout)


def test_unaligned_squares_do_not_depend_on_what_is_left_out(
    root: Path, layout: FfhqLayout
) -> None:
    whole, _ = ffhq_faces(layout, unaligned=True)
    picture(root, 0).unlink()
    some, report = ffhq_faces(layout, FfhqOptions(exclude=Exclusions(["2"])), unaligned=True)

    quads = {face.number: face.quad for face in whole}
    assert [face.number for face in some] == [1, 999, 1000, 60000]
    assert all(quads[face.number] == face.quad for face in some)
    assert any("differ from FFHQ-U's" in note for note in report.notes)


def test_unaligned_squares_are_upright_and_lie_inside(layout: FfhqLayout) -> None:
    faces, _ = ffhq_faces(layout, unaligned=True)

    for face in faces:
        quad = np.array(face.quad)
        assert np.ptp(quad, axis=0) == pytest.approx([40, 40])
        assert (quad >= 0).all() and (np.ceil(quad) < (90, 80)).all()


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_records_are_read_the_same_in_pieces_of_any_size(
    chunk: int, layout: FfhqLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read_ffhq_records(layout.metadata_file, "image")
    monkeypatch.setattr(ffhq_records, "CHUNK", chunk)

    if chunk == 1:  # quadratic; one record is enough
        first = json.loads(layout.metadata_file.read_text())["0"]
        first["in_the_wild"] = first["image"] = {}
        layout.metadata_file.write_text(json.dumps({"0": first}))
        assert len(read_ffhq_records(layout.metadata_file, "image").records) == 1
    else:
        assert read_ffhq_records(layout.metadata_file, "image") == whole


@pytest.mark.parametrize("fields", [{"split": "test"}, {"verify": "sha"}])
def test_options_that_do_not_exist_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected one of"):
        FfhqOptions(**fields)


def test_a_list_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(DataError, match="not UTF-8"):
        read_exclusions(tmp_path / "list")
    with pytest.raises(DataError, match="cannot be read"):
        read_exclusions(tmp_path / "nothing")


def test_a_number_of_absurd_length_in_a_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("7\n" + "9" * 5000)

    with pytest.raises(DataError, match=r"5,000 characters in line 2"):
        read_exclusions(tmp_path / "list")


@pytest.mark.parametrize("entry", ["9" * 4000, "000042", "caf\u00e9.png", "cafe\u0301.png"])
def test_entries_name_pictures_however_they_are_written(entry: str) -> None:
    exclusions = Exclusions([entry])

    assert exclusions.excludes(number=42) == (entry == "000042")
    assert exclusions.excludes(name="a/caf\u00e9.png") == entry.endswith(".png")
    assert exclusions.excludes(name="a/cafe\u0301.png") == entry.endswith(".png")


def test_the_random_stream_is_numpy_s_and_drawn_pair_by_pair() -> None:
    inside, edge = face_at(45, 40), face_at(25, 22)
    sizes = [(90, 80)] * 40
    stream = np.random.RandomState(12345)
    stream.normal(0, 1, (40, 2))
    expected = []
    for points in (inside, edge) * 20:
        for _ in range(1000):
            shift = 0.2 * stream.normal(0, 1, 2)
            quad = face_quad(points, rotate=False, shift=(shift[0], shift[1]))
            if (np.floor(quad) >= 0).all() and (np.ceil(quad) < (90, 80)).all():
                break
        expected.append((float(shift[0]), float(shift[1])))

    assert random_shifts([inside, edge] * 20, sizes) == expected  # type: ignore[list-item]


def test_a_face_that_never_fits_uses_up_its_thousand_tries() -> None:
    inside, outside = face_at(45, 40), face_at(5, 5)
    stream = np.random.RandomState(12345)
    stream.normal(0, 1, (1002, 2))
    following = 1e-3 * stream.normal(0, 1, 2)

    shifts = random_shifts([outside, inside], [(90, 80)] * 2, random_shift=1e-3)  # type: ignore[list-item]

    assert shifts == [None, (following[0], following[1])]

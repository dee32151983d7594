"""Photographs: listed, opened, skipped; a search that goes on; landmarks that are given."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylecli.data.alignment import photographs
from stylecli.data.alignment.detection import Detection
from stylecli.data.alignment.photographs import (
    FOUND_FILE,
    Choice,
    FoundFaces,
    Journal,
    Photograph,
    Search,
    choose_faces,
    find_faces,
    given_faces,
    list_photographs,
    read_landmarks,
)
from stylecli.errors import DataError

SEARCH = Search("dlib", 100)

FIVE = [[10.0, 10.0], [20.0, 10.0], [15.0, 15.0], [11.0, 20.0], [19.0, 20.0]]
MANY = [[float(place), float(place % 7)] for place in range(68)]


def face_at(x: float, y: float, scale: float = 1.0) -> Detection:
    """Return a face of five points whose square has a side of 40 px times ``scale``."""
    around = np.array([[-5, -4], [5, -4], [0, 0], [-4, 6], [4, 6]]) * scale + (x, y)
    return Detection((x - 8, y - 8, x + 8, y + 8), tuple(map(tuple, around.tolist())), 1.0)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Image.Image]:
    """Put a search in place that finds one face anywhere, and return what it is shown."""
    pictures: list[Image.Image] = []

    def search_faces(detector: Any, image: Image.Image, *, min_crop: float) -> list[Detection]:
        pictures.append(image)
        return [face_at(image.width / 2, image.height / 2)]

    monkeypatch.setattr(photographs, "load_detector", lambda name: None)
    monkeypatch.setattr(photographs, "search_faces", search_faces)
    return pictures


def save(path: Path, size: tuple[int, int] = (40, 30), **options: Any) -> Photograph:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 100, 50)).save(path, **options)
    return Photograph(path, path.name)


def test_lists_all_pictures_but_hidden_ones_and_its_own(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/c.PNG", ".hidden/d.jpg", ".e.jpg", "aligned/f.png", "set.lmdb/g.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for name in ("phone.JXL", "notes.txt", f"aligned/{FOUND_FILE}", "set.lmdb/data.mdb"):
        (tmp_path / name).touch()
    (tmp_path / "scan").write_bytes((save(tmp_path / "b.jpg").path).read_bytes())
    notes: list[str] = []
    names = [photo.name for photo in list_photographs(tmp_path, notes)]
    assert names == ["a/c.PNG", "b.jpg", "phone.JXL"]
    note, beside = notes
    assert (
        "2 files are left out" in note and "(phone.JXL: convert" in note and "(scan: JPEG" in note
    )
    assert beside == "not read, because they are not pictures: 1 .txt"


def test_one_photograph_is_a_list_of_one(tmp_path: Path) -> None:
    photo = save(tmp_path / "me.jpg")
    assert list_photographs(photo.path) == [photo]


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no photograph"):
        list_photographs(tmp_path)
    (tmp_path / "notes.jpg.part").touch()
    with pytest.raises(DataError, match=r"1 file is left out .*notes.jpg.part"):
        list_photographs(tmp_path)
    (tmp_path / "faces.jsonl").touch()
    with pytest.raises(DataError, match="aligned faces already: run stylecli pack"):
        list_photographs(tmp_path)


def test_photographs_are_turned_upright(tmp_path: Path, seen: list[Image.Image]) -> None:
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[:, :20, 0] = 255  # red on the left; tag 6 turns it to the top
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    found = SEARCH(Photograph(tmp_path / "a.png", "a.png"))
    assert found.size == seen[0].size == (30, 40)
    assert seen[0].getpixel((15, 5)) == (255, 0, 0) and seen[0].getpixel((15, 35)) == (0, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_colours_is_searched_in_rgb(
    tmp_path: Path, seen: list[Image.Image], mode: str
) -> None:
    name = "a.tif" if mode == "CMYK" else "a.png"
    Image.new("L", (40, 30), 200).convert(mode).save(tmp_path / name)
    assert SEARCH(Photograph(tmp_path / name, name)).faces
    assert seen[0].mode == "RGB"


def test_what_cannot_be_read_is_a_cause(tmp_path: Path, seen: list[Image.Image]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "phone.jxl").touch()
    frames = [Image.new("L", (8, 8), level) for level in (0, 255)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    causes = {
        name: SEARCH(Photograph(tmp_path / name, name)).cause.partition(":")[0]
        for name in ("cut.jpg", "text.jpg", "phone.jxl", "film.gif", "gone.jpg")
    }
    assert causes == {
        "cut.jpg": "is cut short",
        "text.jpg": "is not a picture of a known kind",
        "phone.jxl": "is of a kind that stylecli does not read (.jxl)",
        "film.gif": "has 2 frames",
        "gone.jpg": "cannot be read",
    }
    assert seen == []


def test_author_and_licence_come_from_exif(tmp_path: Path, seen: list[Image.Image]) -> None:
    exif = Image.Exif()
    exif[315], exif[33432] = "Ann  Example\n", "CC BY 4.0"
    photo = save(tmp_path / "a.jpg", exif=exif)
    faces, _ = choose_faces([photo], [SEARCH(photo)], Choice(0))
    assert faces[0].metadata == {"author": "Ann Example", "licence": "CC BY 4.0"}


@pytest.fixture
def photos(tmp_path: Path) -> list[Photograph]:
    return [save(tmp_path / "photos" / f"{place}.png", (40 + place, 30)) for place in range(6)]


def test_a_search_that_was_stopped_goes_on(
    tmp_path: Path, photos: list[Photograph], seen: list[Image.Image]
) -> None:
    def stop(done: float, total: float, note: str = "") -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_faces(photos, tmp_path, SEARCH, progress=stop)
    with open(tmp_path / FOUND_FILE, "ab") as file:
        file.write(b'{"photo": "3.png", "sta')  # what a kill in the middle of a line leaves
    reported: list[tuple[float, str]] = []
    resumed = find_faces(
        photos,
        tmp_path,
        SEARCH,
        progress=lambda done, total, note="": reported.append((done, note)),
    )
    assert [image.width for image in seen] == [40, 41, 42, 43, 44, 45]  # none twice
    assert resumed == [SEARCH(photo) for photo in photos]
    assert reported == [(4, "4 faces"), (5, "5 faces"), (6, "6 faces")]


def test_a_changed_photograph_is_searched_again(
    tmp_path: Path, photos: list[Photograph], seen: list[Image.Image]
) -> None:
    find_faces(photos, tmp_path, SEARCH)
    save(photos[2].path, (99, 98))
    seen.clear()
    assert find_faces(photos, tmp_path, SEARCH)[2].size == (99, 98)
    assert len(seen) == 1


def test_another_way_of_searching_begins_anew(
    tmp_path: Path, photos: list[Photograph], seen: list[Image.Image]
) -> None:
    for search in (SEARCH, SEARCH, Search("dlib", 50), Search("mtcnn", 50)):
        find_faces(photos[:2], tmp_path, search)
    assert len(seen) == 6


@pytest.fixture
def choose() -> Callable[..., tuple[list[str], dict[str, str]]]:
    """Choose among a large and a small face of one photograph, and another without faces."""
    faces = (face_at(30, 30), face_at(80, 30, 2.0))
    photos = [Photograph(Path(name), name) for name in ("two.jpg", "none.jpg")]
    found = [FoundFaces("two.jpg", (0, 0), faces=faces), FoundFaces("none.jpg", (0, 0))]

    def choose(**choice: Any) -> tuple[list[str], dict[str, str]]:
        chosen, skipped = choose_faces(photos, found, Choice(**choice))
        assert all(face.upright for face in chosen)
        return [face.name for face in chosen], {each.name: each.cause for each in skipped}

    return choose


def test_all_faces_are_taken(choose: Callable[..., Any]) -> None:
    assert choose(min_crop=0) == (
        ["two.jpg#1", "two.jpg#2"],
        {"none.jpg": "shows no detectable face"},
    )


def test_small_faces_are_left_out(choose: Callable[..., Any]) -> None:
    names, skipped = choose(min_crop=60)
    assert names == ["two.jpg#2"]
    assert skipped["two.jpg#1"] == "is too small: its square has 40 px and needs 60"


def test_the_largest_face_is_taken(choose: Callable[..., Any]) -> None:
    names, skipped = choose(min_crop=0, largest=True)
    assert names == ["two.jpg#2"]
    assert skipped["two.jpg#1"] == "is not the largest face of its photograph"


def read(tmp_path: Path, content: Any, *, lines: bool = False) -> dict[str, list[int]]:
    """Return the number of points of each face by photograph."""
    path = tmp_path / "points.json"
    text = "\n".join(map(json.dumps, content)) if lines else json.dumps(content)
    path.write_text(text)
    return {
        name: [len(face.landmarks) for face in faces]
        for name, faces in read_landmarks(path).items()
    }


def test_a_face_or_a_list_of_faces_for_each_photo(tmp_path: Path) -> None:
    content = {"a.jpg": FIVE, "b.jpg": [FIVE, MANY], "c.jpg": [{"landmarks": MANY}], "d.jpg": []}
    assert read(tmp_path, content) == {"a.jpg": [5], "b.jpg": [5, 68], "c.jpg": [68], "d.jpg": []}


def test_the_metadata_of_ffhq(tmp_path: Path) -> None:
    wild = {"file_path": "in-the-wild-images/00000/00007.png", "face_landmarks": MANY,
            "face_rect": [0, 0, 70, 9]}  # fmt: skip
    assert read(tmp_path, {"7": {"in_the_wild": wild}}) == {wild["file_path"]: [68]}


def test_our_list_of_aligned_faces(tmp_path: Path) -> None:
    lines = [
        {"number": 0, "name": "trip/a.jpg#1", "photo": "a.jpg", "landmarks": FIVE},
        {"number": 1, "name": "trip/a.jpg#2", "photo": "a.jpg", "landmarks": MANY},
        {"number": 2, "name": "b.jpg", "photo": "b.jpg", "landmarks": MANY},
    ]
    assert read(tmp_path, lines, lines=True) == {"trip/a.jpg": [5, 68], "b.jpg": [68]}
    assert read(tmp_path, lines[2:]) == {"b.jpg": [68]}


def test_our_journal_even_with_a_torn_line(tmp_path: Path) -> None:
    face = Detection((0, 0, 1, 1), tuple((x, y) for x, y in FIVE), 1.0)
    with Journal(tmp_path, {}) as journal:
        journal.add(FoundFaces("a.jpg", (1, 2), (30, 30), (face,)))
        journal.add(FoundFaces("b.jpg", (1, 2), cause="is broken"))
    with open(journal.path, "a") as file:
        file.write('{"photo": "c.j')
    assert read_landmarks(journal.path) == {"a.jpg": (face,)}


def test_without_a_box_the_points_give_it(tmp_path: Path) -> None:
    path = tmp_path / "points.json"
    path.write_text(json.dumps({"a.jpg": FIVE}))
    assert read_landmarks(path)["a.jpg"][0].box == (10, 10, 20, 20)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ('{"photo": "a.jpg"}\n{', "line 2 of .* is not JSON"),
        ("[1, 2]", "holds '1'"),
        ("{}", "holds no landmarks"),
        ('{"a.jpg": 3}', "'a.jpg' in .*: '3' is not a list of points"),
        ('{"a.jpg": [[1, 2], [3, 4]]}', r"shape \[2, 2\]: expected \[68, 2\]"),
        ('{"a.jpg": {"eyes": []}}', "has no landmarks or"),
        ('[{"landmarks": []}]', "without the name of a photo"),
        ('{"a.jpg": {"landmarks": [[0,0],[1,0],[0,1],[0,2],[1,NaN]]}}', "NaN"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_says_what_it_does_not_understand(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "points.json"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_landmarks(path)


def test_other_bytes_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_landmarks(tmp_path / "bytes")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_landmarks(tmp_path / "nothing")


def given(names: list[str], entries: list[str]) -> tuple[list[bool], list[str]]:
    """Return which photographs have faces, and the entries that fit none."""
    face = (Detection((0, 0, 1, 1), (), 0),)
    photos = [Photograph(Path(name), name) for name in names]
    found, unused = given_faces(photos, dict.fromkeys(entries, face), Path("points.json"))
    assert all(each.cause == "has no landmarks in points.json" for each in found if not each.faces)
    return [bool(each.faces) for each in found], unused


def test_photographs_are_matched_by_path_or_by_a_name_that_is_single() -> None:
    assert given(["x/a.jpg"], ["x/a.jpg"]) == ([True], [])
    assert given(["x/a.jpg"], ["elsewhere/a.jpg", "b.jpg"]) == ([True], ["b.jpg"])
    assert given(["x/a.jpg", "y/a.jpg"], ["a.jpg"]) == ([False, False], ["a.jpg"])
    assert given(["a.jpg"], ["x/a.jpg", "y/a.jpg"]) == ([False], ["x/a.jpg", "y/a.jpg"])

"""Files of landmarks: every form that is taken, matching with photographs, clear refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from stylecli.data.alignment.detection import Detection
from stylecli.data.alignment.found_faces import FoundFaces, Journal
from stylecli.data.alignment.landmark_files import given_faces, read_landmarks
from stylecli.data.alignment.photographs import Photograph
from stylecli.errors import DataError

FIVE = [[10.0, 10.0], [20.0, 10.0], [15.0, 15.0], [11.0, 20.0], [19.0, 20.0]]
MANY = [[float(place), float(place % 7)] for place in range(68)]


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
        ('{"a.jpg": 3}', "'a.jpg' in .*: '3' is no list of points"),
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

"""NVIDIA's dataset.json, in a zip and in a folder: used whole or not at all, and that is told."""

import json
import zipfile

import pytest

from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError
from tests.data.sources.formats import picture_bytes

NAMES = ["00000/img00000000.png", "00000/img00000001.png", "00000/img00000002.png"]


@pytest.fixture(params=["zip", "folder"])
def write(request, tmp_path):
    """A function that writes three pictures with a dataset.json and gives their source."""

    def write_and_find(labels, **more):
        text = labels if isinstance(labels, str) else json.dumps({"labels": labels, **more})
        files = dict.fromkeys(NAMES, picture_bytes()) | {"dataset.json": text.encode()}
        if request.param == "zip":
            with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
            return find_source(tmp_path / "set.zip")
        for name, content in files.items():
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name).write_bytes(content)
        return find_source(tmp_path / "set")

    return write_and_find


def labels_of(source):
    return [item.label for item in source]


def test_integers_are_classes(write):
    source = write([[NAMES[2], 0], [NAMES[0], 3], [NAMES[1], 1]])
    assert source.name == "set" and labels_of(source) == [3, 1, 0]
    assert source.class_names == ["0", "1", "2", "3"] and source.notes == []


def test_lists_are_vectors_even_where_they_are_one_hot(write):
    source = write([[name, [0, 1.0]] for name in NAMES])
    assert labels_of(source) == [(0.0, 1.0)] * 3 and source.class_names is None


def test_classes_may_be_named(write):
    source = write([[name, "cat"] for name in NAMES])
    assert source.class_names == ["cat"] and labels_of(source) == [0, 0, 0]
    named = write([[name, 0] for name in NAMES], class_names=["cat", "dog"])
    assert named.class_names == ["cat", "dog"]


def test_no_labels_are_none(write):
    assert labels_of(write(None)) == [None] * 3


def test_incomplete_labels_are_not_used_and_that_is_told(write):
    source = write([[NAMES[0], 1], ["gone.png", 0]])
    assert labels_of(source) == [None] * 3 and source.class_names is None
    assert "labels 1 pictures that are not there: gone.png" in source.notes[0]
    assert f"no label for 2 of 3 pictures ({NAMES[1]}, {NAMES[2]})" in source.notes[1]
    assert "its labels are not used" in source.notes[1]


@pytest.mark.parametrize(
    ("labels", "cause"),
    [
        ("{", "not readable JSON"),
        ("[" * 100_000, "not readable JSON"),
        ('{"labels": [["a.png", NaN]]}', "holds NaN"),
        ('{"labels": [["a.png", [1e999]]]}', "not finite"),
        ("[]", 'has no "labels"'),
        ({"a": 1}, "does not list its labels"),
        ([["a.png"]], "does not list its labels"),
        ([["a.png", 0], ["b.png", [1.0]]], "mixes kinds of labels"),
        ([["a.png", [1]], ["b.png", [1, 2]]], "of different lengths"),
        ([["a.png", -1]], "holds the label -1"),
        ([["a.png", 10**30]], "expected classes from 0 to 99,999"),
        ([[name, place] for name in NAMES for place in range(2)], "two different labels"),
    ],
)
def test_malformed_labels_are_refused_with_a_cause(write, labels, cause):
    with pytest.raises(DataError, match=cause):
        write(labels)

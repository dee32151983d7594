"""Label files: CSV in its many forms, npy, JSON; every picture gets its own or none does."""

import unicodedata

import numpy as np
import pytest

from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError
from tests.data.sources.formats import picture_bytes

NAMES = ["a/1.png", "a/2.png", "b/3.png"]


@pytest.fixture
def labelled(tmp_path):
    """A function: file name and content of labels -> the source with these labels."""
    for name in NAMES:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(picture_bytes())

    def label(name, content):
        path = tmp_path / name
        if isinstance(content, np.ndarray):
            np.save(path, content)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return find_source(tmp_path / "photos", labels=path)

    return label


def labels_of(source):
    return [item.label for item in source]


@pytest.mark.parametrize(
    "content",
    [
        "a/1.png,2\na/2.png,0\nb/3.png,1\n",
        "name,label\nb/3.png,1\na/1.png,2\na/2.png,0\n",  # a header, another order
        "\ufeffname;label\r\n1.png;2\r\n2.png;0\r\n3.png;1\r\n",  # a spreadsheet's, file names
        "file\tclass\n./a\\1.png\t2\na\\2.png\t0\nb\\3.png\t1\nnot/here.png\t7\n",
        "2\n0\n1\n",  # in the pictures' order
    ],
)
def test_integers_in_a_csv_are_classes(labelled, content):
    source = labelled("labels.csv", content)
    assert labels_of(source) == [2, 0, 1]
    assert "the source's own are not used" in source.notes[-1]  # its folders were classes


def test_words_in_a_csv_are_class_names(labelled):
    source = labelled("labels.csv", "name,label\n1.png,cat\n2.png,dog\n3.png,cat\n")
    assert source.class_names == ["cat", "dog"] and labels_of(source) == [0, 1, 0]


def test_rows_with_a_single_1_are_classes_and_the_header_names_them(labelled):
    source = labelled("x.csv", "name,cat,dog\n1.png,0,1\n2.png,1,0\n3.png,0,1\n")
    assert source.class_names == ["cat", "dog"] and labels_of(source) == [1, 0, 1]
    assert "every row has a single 1" in source.notes[0]


def test_other_rows_are_vectors(labelled):
    source = labelled("x.csv", "name,smile,hat\n1.png,1,1\n2.png,0.5,0\n3.png,0,1\n")
    assert source.class_names is None
    assert labels_of(source) == [(1.0, 1.0), (0.5, 0.0), (0.0, 1.0)]
    assert "vectors of 2 values (smile, hat)" in source.notes[0]


def test_one_hot_arrays_are_classes_in_the_pictures_order(labelled):
    assert labels_of(labelled("x.npy", np.eye(3)[[2, 0, 1]])) == [2, 0, 1]
    assert labels_of(labelled("x.npy", np.array([[5], [0], [1]]))) == [5, 0, 1]
    assert labels_of(labelled("x.npy", np.full((3, 2), 0.5, np.float32))) == [(0.5, 0.5)] * 3


def test_a_dataset_json_elsewhere_serves_too(labelled):
    text = '{"labels": [["a/1.png", 1], ["a/2.png", 0], ["b/3.png", 1]]}'
    assert labels_of(labelled("labels.json", text)) == [1, 0, 1]


def test_pictures_without_a_label_are_counted_and_named(labelled):
    with pytest.raises(DataError, match=r"no label for 2 of 3 pictures \(a/2.png, b/3.png\)"):
        labelled("x.csv", "name,label\n1.png,0\nother.png,1\n")


def test_file_names_that_occur_twice_need_their_path(labelled, tmp_path):
    (tmp_path / "photos" / "b" / "1.png").write_bytes(picture_bytes())
    with pytest.raises(DataError, match="no label for 2 of 4"):
        labelled("x.csv", "1.png,0\n2.png,1\n3.png,1\n")


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("x.csv", "", "is empty"),
        ("x.csv", "\n\n", "no labels"),
        ("x.csv", "<!doctype html><html>", "web page"),
        ("x.csv", "name,label\n", "a header and no labels"),
        ("x.csv", "1.png,0\n2.png\n3.png,0\n", "row 2"),
        ("x.csv", "1.png,0\n2.png,\n3.png,0\n", "row 2"),
        ("x.csv", "1.png,0,cat\n2.png,1,dog\n3.png,1,dog\n", "must be numbers"),
        ("x.csv", "1.png,nan,0\n2.png,1,0\n3.png,1,0\n", "not finite"),
        ("x.csv", "1.png,nan\n2.png,1\n3.png,1\n", "not finite"),
        ("x.csv", b"PK\x03\x04....", "a zip or a spreadsheet"),
        ("x.csv", "id,breed\np1,a\np2,b\n", "no label for 3 of 3 pictures .*the file names p1, p2"),
        ("x.csv", "1.png,-3\n2.png,1\n3.png,1\n", "label -3"),
        ("x.csv", "1.png,99999999999\n2.png,1\n3.png,1\n", "expected classes from 0 to 99,999"),
        ("x.csv", "1.png,0\n1.png,1\n2.png,1\n3.png,1\n", "two different labels"),
        ("x.csv", b"1.png,0\n" + b"x" * 200_000 + b",1\n", "as CSV"),
        ("x.csv", b"\0\0\0,\0\n\0,\0", "no label for 3 of 3"),
        ("x.npy", b"\x93NUMPY garbage", "not a readable npy"),
        ("x.npy", np.zeros((2, 4)), "2 labels without names"),
        ("x.npy", np.array([{}]), "expected numbers"),
        ("x.npy", np.zeros((3, 2, 2)), r"shape \[3, 2, 2\]"),
        ("x.json", "[]", 'has no "labels"'),
        ("x.txt", "1.png one two\n", "not a list of pictures"),
    ],
)
def test_malformed_files_are_refused_with_a_cause(labelled, name, content, cause):
    with pytest.raises(DataError, match=cause):
        labelled(name, content)


def test_an_array_that_lies_about_its_size_takes_no_memory(labelled, tmp_path):
    labelled("x.npy", np.zeros((3, 4)))
    content = (tmp_path / "x.npy").read_bytes().replace(b"(3, 4), }     ", b"(3, 40000000), }")
    with pytest.raises(DataError, match="960,000,000 bytes"):
        labelled("x.npy", content)


def test_a_missing_file_is_named(tmp_path, labelled):
    with pytest.raises(DataError, match=r"labels .*none.csv cannot be read"):
        find_source(tmp_path / "photos", labels=tmp_path / "none.csv")


def test_the_fingerprint_follows_the_labels(labelled):
    first = labelled("x.csv", "1.png,0\n2.png,1\n3.png,1\n").fingerprint()
    assert labelled("x.csv", "1.png,1\n2.png,1\n3.png,1\n").fingerprint() != first


@pytest.mark.parametrize(
    "text",
    [
        '{"labels": [["1.png", 0.0], ["2.png", 1.0], ["3.png", 0.0]]}',
        '{"labels": [["1.png", false], ["2.png", true], ["3.png", false]]}',
        '{"labels": [["1.png", 0], ["2.png", 1.0], ["3.png", false]]}',
        '{"labels": {"1.png": 0, "2.png": 1, "3.png": 0}}',
        '{"1.png": 0, "2.png": 1, "3.png": 0}',
        '[["1.png", 0], ["2.png", 1], ["3.png", 0]]',
        '[{"file_name": "1.png", "label": 0}, {"file_name": "2.png", "label": 1}, '
        '{"file_name": "3.png", "label": 0}]',
        "[0, 1, 0]",
        '{"labels": [0.0, 1.0, 0.0]}',
        '{"labels": [["1.png", -1], ["2.png", 1], ["3.png", -1]]}',
        '{"labels": [["1.png", 1], ["2.png", 2], ["3.png", 1]]}',  # counted from 1
    ],
)
def test_classes_in_json_however_they_are_written(labelled, text):
    source = labelled("labels.json", text)
    assert labels_of(source) == [0, 1, 0] and len(source.class_names) == 2


@pytest.mark.parametrize(
    "text",
    [
        "1.png,0.0\n2.png,1.0\n3.png,0.0\n",
        "1.png,False\n2.png,True\n3.png,False\n",
        "1.png,1\n2.png,2\n3.png,1\n",
        "id,breed\n1,a\n2,b\n3,a\n",  # without suffix
        "1,0\n2,1\n3,0\n",
        "a/1.JPG,0\na/2.JPG,1\nb/3.JPG,0\n",  # as they were before they were converted
        "photos/a/1.png,0\nphotos/a/2.png,1\nphotos/b/3.png,0\n",
        "/home/me/photos/a/1.png,0\n/home/me/photos/a/2.png,1\n/home/me/photos/b/3.png,0\n",
        ",name,label\n0,1.png,0\n1,2.png,1\n2,3.png,0\n",  # a data frame's row numbers
        ",name,label\n7,1.png,0\n3,2.png,1\n9,3.png,0\n",  # of rows that were chosen
        ",id,label\n0,1,0\n1,2,1\n2,3,0\n",
        ",id,label\n1,1,0\n2,2,1\n3,3,0\n",  # numbers that name the pictures as well
        "0,1.png,0\n1,2.png,1\n2,3.png,0\n",
        "label,name\n0,1.png\n1,2.png\n0,3.png\n",
        "-1\n1\n-1\n",
        "name,label,split\n1.png,0,train\n2.png,1,train\n3.png,0,val\n",
    ],
)
def test_classes_in_a_csv_however_they_are_written(labelled, text):
    source = labelled("labels.csv", text)
    assert labels_of(source) == [0, 1, 0] and len(source.class_names) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", "1.png,0.5\n2.png,1\n3.png,0\n"),
        ("x.json", '{"labels": [["1.png", 0.5], ["2.png", 1], ["3.png", 0.0]]}'),
        ("x.npy", np.array([0.5, 1, 0])),
        ("x.npy", np.array([[0.5], [1], [0]], np.float32)),
    ],
)
def test_one_number_a_picture_that_is_no_class_is_a_vector_of_one(labelled, name, content):
    assert labels_of(labelled(name, content)) == [(0.5,), (1.0,), (0.0,)]


@pytest.mark.parametrize("kind", [bool, np.float32, np.int64])
def test_an_array_of_classes_may_be_of_any_kind(labelled, kind):
    assert labels_of(labelled("x.npy", np.array([0, 1, 0]).astype(kind))) == [0, 1, 0]


def test_a_line_of_json_for_each_picture_serves_too(labelled):
    rows = "".join(f'{{"file_name": "{n}.png", "label": {n % 2}}}\n' for n in (1, 2, 3))
    assert labels_of(labelled("metadata.jsonl", rows)) == [1, 0, 1]


def test_classes_counted_from_1_keep_their_names(labelled):
    source = labelled("labels.csv", "1.png,1\n2.png,3\n3.png,1\n")
    assert labels_of(source) == [0, 2, 0] and source.class_names == ["1", "2", "3"]
    assert "counted from 1" in source.notes[0]
    text = '{"labels": [["1.png", 1], ["2.png", 2], ["3.png", 1]], "class_names": %s}'
    assert labelled("a.json", text % '["cat", "dog"]').class_names == ["cat", "dog"]
    kept = labelled("a.json", text % '["none", "cat", "dog"]')  # 0 is a class that has a name
    assert labels_of(kept) == [1, 2, 1] and kept.class_names == ["none", "cat", "dog"]


@pytest.mark.parametrize(("there", "told"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_composed_and_decomposed_accents_are_the_same(tmp_path, there, told):
    names = [f"caf\u00e9-{number}.png" for number in range(2)]
    (tmp_path / "p").mkdir()
    for name in names:
        (tmp_path / "p" / unicodedata.normalize(there, name)).write_bytes(picture_bytes())
    rows = [f"{unicodedata.normalize(told, name)},{place}" for place, name in enumerate(names)]
    (tmp_path / "x.csv").write_text("\n".join(rows))
    assert labels_of(find_source(tmp_path / "p", labels=tmp_path / "x.csv")) == [0, 1]


def test_of_two_rows_the_closer_one_counts(tmp_path):
    (tmp_path / "p" / "a").mkdir(parents=True)
    (tmp_path / "p" / "a" / "1.png").write_bytes(picture_bytes())
    (tmp_path / "x.csv").write_text("b/1.png,0\na/1.png,1\na/1.jpg,2\n")  # more than is here
    assert labels_of(find_source(tmp_path / "p", labels=tmp_path / "x.csv")) == [1]

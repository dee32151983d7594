"""What a dataset or a CSV tells of its pictures' attributes."""

import numpy as np
import pytest

from stylecli.data.reader import open_dataset
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError
from stylecli.metrics.classifier_training import keep_usable, read_attribute_csv, read_attributes


def make(path, rows, **options):
    """Write blank pictures with (label, metadata) ``rows``; return the open dataset."""
    with DatasetWriter(path, resolution=8, channels=3, **options) as writer:
        for index, (label, metadata) in enumerate(rows):
            writer.add(np.full((3, 8, 8), index, np.uint8), label, metadata)
    return open_dataset(path)


def test_metadata_come_before_labels(tmp_path):
    rows = [(i % 2, {"attributes": {"hat": "yes" if i < 2 else "no"}}) for i in range(4)]
    dataset = make(tmp_path / "a.lmdb", rows, class_names=["cat", "dog"])
    assert read_attributes(dataset) == {"hat": ["yes", "yes", "no", "no"]}


def test_classes_are_one_attribute(tiny_lmdb):
    found = read_attributes(open_dataset(tiny_lmdb))
    assert list(found) == ["class"] and found["class"][:4] == ["a", "b", "c", "a"]


def test_columns_of_zeros_and_ones_are_attributes_each(tmp_path):
    rows = [([i % 2, i // 2, 0.5], {}) for i in range(4)]
    dataset = make(tmp_path / "a.lmdb", rows)
    assert read_attributes(dataset) == {
        "label 0": ["no", "yes", "no", "yes"],
        "label 1": ["no", "no", "yes", "yes"],
    }


def test_what_is_missing_or_seen_once_is_not_known():
    table = {"a": ["x", "x", "y", "y", "z", None], "b": ["x"] * 6, "c": list("uvwxyz")}
    assert keep_usable(table) == {"a": ["x", "x", "y", "y", None, None]}


def test_a_csv_is_matched_by_name_and_may_have_gaps(tmp_path):
    dataset = make(tmp_path / "a.lmdb", [(None, {"source": f"in/{i}.png"}) for i in range(5)])
    table = tmp_path / "a.csv"
    table.write_text("image_id,hat\n4.png,no\n0.png,yes\nin/1.png,yes\n3.png,no\n2.png,\n")
    assert read_attribute_csv(table, dataset) == {"hat": ["yes", "yes", None, "no", "no"]}


def test_a_csv_may_name_pictures_by_number(tmp_path):
    dataset = make(tmp_path / "a.lmdb", [(None, {"source": "x"}) for i in range(4)])
    table = tmp_path / "a.csv"
    table.write_text("number,hat\n0,no\n1,yes\n2,yes\n3,no\n")
    assert read_attribute_csv(table, dataset) == {"hat": ["no", "yes", "yes", "no"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image\n1.png\n", "has 1 column"),
        ("", "has 0 columns"),
        ("image,hat\n1.png\n", "line 2 does not have 2 cells"),
        ("image,hat\nother.png,yes\n", "names no picture .* such as in/0.png"),
        ("image,hat\n0.png,yes\n1.png,yes\n", "no attribute with two values"),
    ],
)
def test_a_table_that_is_none_is_refused_in_one_sentence(tmp_path, text, message):
    dataset = make(tmp_path / "a.lmdb", [(None, {"source": f"in/{i}.png"}) for i in range(2)])
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_attribute_csv(tmp_path / "a.csv", dataset)


def test_a_dataset_that_tells_nothing_names_the_option(tmp_path):
    with pytest.raises(DataError, match=r"--attributes FILE\.csv"):
        read_attributes(make(tmp_path / "a.lmdb", [(None, {})] * 3))

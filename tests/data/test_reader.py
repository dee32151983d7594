"""Reading survives pickling, forking and damaged files."""

import json
import multiprocessing
import pickle

import lmdb
import numpy as np
import pytest

from stylecli.data.layout import META_KEY, image_key
from stylecli.data.reader import open_dataset
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError, UsageError


@pytest.fixture
def path(tmp_path):
    """Write four grey pictures, picture i all of value i, two classes."""
    path = tmp_path / "four.lmdb"
    with DatasetWriter(path, resolution=8, channels=1, class_names=["cat", "dog"]) as writer:
        for index in range(4):
            writer.add(np.full((1, 8, 8), index, np.uint8), index % 2, {"author": f"A{index}"})
    return path


def edit(path, key, change):
    """Replace what is stored under ``key`` by ``change(stored)``; None deletes it."""
    with lmdb.open(str(path), lock=False) as environment, environment.begin(write=True) as txn:
        value = change(txn.get(key))
        txn.delete(key) if value is None else txn.put(key, value)


def change_header(path, **fields):
    edit(path, META_KEY, lambda text: json.dumps({**json.loads(text), **fields}).encode())


def test_indexing_counts_like_a_list(path):
    dataset = open_dataset(path)
    assert [(int(pixels.max()), label) for pixels, label in dataset] == [
        (0, 0), (1, 1), (2, 0), (3, 1),
    ]  # fmt: skip
    assert dataset[-1][0].max() == 3
    with pytest.raises(IndexError):
        dataset[4]


def test_knows_its_pictures(path):
    dataset = open_dataset(path)
    assert (dataset.resolution, dataset.channels, dataset.label_dim) == (8, 1, 2)
    assert dataset.class_names == ["cat", "dog"]
    assert dataset.metadata(2) == {"author": "A2"}


def test_reads_after_closing_and_from_two_at_once(path):
    one, other = open_dataset(path), open_dataset(path)
    one.close()
    assert one.read([3]).max() == other.read([3]).max() == 3


def test_reads_in_spawned_and_forked_processes(path):
    dataset = open_dataset(path)
    assert pickle.loads(pickle.dumps(dataset)).read([3]).max() == 3
    if "fork" in multiprocessing.get_all_start_methods():
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.apply(dataset.read, ([2],)).max() == 2
    assert dataset.read([1]).max() == 1


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"version": 2}, "has dataset version 2, this stylecli reads 1"),
        ({"complete": False}, "is incomplete"),
        ({"format": "other"}, "was not made by stylecli"),
        ({"count": 10**12}, "says count = 1000000000000"),
        ({"count": 5}, "holds fewer than the 5 pictures"),
        ({"resolution": 9}, "says resolution = 9"),
        ({"resolution": True}, "says resolution = True"),
        ({"channels": 2}, "says channels = 2"),
        ({"codec": "jpeg"}, "says codec = 'jpeg'"),
        ({"class_names": ["cat"]}, "does not name its 2 classes"),
    ],
)
def test_refuses_a_header_in_one_sentence(path, fields, sentence):
    change_header(path, **fields)
    with pytest.raises(DataError, match=sentence):
        open_dataset(path)


def test_refuses_an_unfinished_dataset(path):
    edit(path, META_KEY, lambda text: None)
    with pytest.raises(DataError, match="not a complete stylecli dataset"):
        open_dataset(path)


def test_refuses_what_is_no_dataset(tmp_path):
    with pytest.raises(DataError, match="does not exist: make one with stylecli pack"):
        open_dataset(tmp_path / "none.lmdb")
    with pytest.raises(DataError, match="is not a dataset: pack its pictures"):
        open_dataset(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match="is not a readable dataset"):
        open_dataset(tmp_path)


def test_names_the_damaged_picture(path):
    edit(path, image_key(2), lambda pixels: pixels[:-1])
    edit(path, image_key(3), lambda pixels: None)
    dataset = open_dataset(path)
    with pytest.raises(DataError, match=r"picture 2 of .*four.lmdb: 63 bytes of pixels found"):
        dataset.read([0, 2])
    with pytest.raises(DataError, match=r"picture 3 of .* is missing"):
        dataset.read([3])


def test_refuses_labels_beyond_the_classes(path):
    edit(path, b"_labels", lambda labels: np.full(4, 7, "<i8").tobytes())
    with pytest.raises(DataError, match="exceed its 2 classes"):
        open_dataset(path)[0]


def test_refuses_pictures_and_levels_that_do_not_exist(path):
    dataset = open_dataset(path)
    for index in (-1, 4):
        with pytest.raises(UsageError, match=f"picture {index} is not one of the 4"):
            dataset.read([index])
    with pytest.raises(UsageError, match="level 2 does not exist in 8 px pictures"):
        dataset.read([0], level=2)

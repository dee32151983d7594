"""Reading survives pickling, forking and damaged files."""

import json
import multiprocessing
import pickle

import lmdb
import numpy as np
import pytest

from stylecli.data.format import META_KEY, digest_key, image_key, label_key, levels_key
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
        ({"version": 3}, "has dataset version 3"),
        ({"version": 2}, "do not fit together"),  # of another shape, without its base
        ({"version": 2, "base": [3, 4]}, "do not fit together"),
        ({"version": 2, "base": [0, 4]}, "do not fit together"),
        ({"width": 3}, "do not fit together"),
        ({"complete": False}, "is incomplete"),
        ({"format": "other"}, "was not made by stylecli"),
        ({"count": 10**12}, "has count = 1000000000000"),
        ({"count": 5}, "fewer pictures than the 5"),
        ({"resolution": 9}, "has resolution = 9"),
        ({"resolution": True}, "has resolution = True"),
        ({"channels": 2}, "has channels = 2"),
        ({"codec": "jpeg"}, "has codec = 'jpeg'"),
        ({"skipped": 10**12}, "has skipped = 1000000000000"),
        ({"tool": 3.5}, "has tool = 3.5"),
        ({"tally": {"enlarged": "x"}}, "has tally = "),
        ({"additions": [3]}, "has additions = "),
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
    with pytest.raises(DataError, match=r"picture 2 of .*four.lmdb: .* 63 bytes"):
        dataset.read([0, 2])
    with pytest.raises(DataError, match=r"picture 3 of .* is missing"):
        dataset.read([3])


def flip(value):
    return bytes([value[0] ^ 16]) + value[1:]


def test_pixels_that_changed_do_not_pass(path):
    edit(path, image_key(2), flip)
    dataset = open_dataset(path)
    assert dataset.read([0, 1, 3]).shape[0] == 3
    for _ in range(2):  # not only the first time
        with pytest.raises(DataError, match=r"picture 2 of .*four.lmdb has changed"):
            dataset.read([1, 2])
    with pytest.raises(DataError, match="picture 2 of"):
        dataset.verify()
    assert dataset.read([2], verify=False).max() == 18
    with pytest.raises(DataError, match="picture 2 of"):
        pickle.loads(pickle.dumps(dataset)).read([2], level=1)


@pytest.mark.parametrize("has_digests", [True, False], ids=["with digests", "packed before"])
@pytest.mark.parametrize("codec", ["raw", "png"])
def test_levels_that_changed_do_not_pass(tmp_path, codec, has_digests):
    path = tmp_path / "a.lmdb"
    pictures = np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    with DatasetWriter(path, resolution=16, channels=3, codec=codec, pyramid=True) as writer:
        for pixels in pictures:
            writer.add(pixels)
    other = open_dataset(path).read([1], 1)
    with open_dataset(path)._begin() as transaction:
        of_another = bytes(transaction.get(image_key(1, 1)))
    edit(path, image_key(2, 1), lambda _: of_another)
    if not has_digests:
        for index in range(3):
            edit(path, levels_key(index), lambda _: None)
    dataset = open_dataset(path)
    assert np.array_equal(dataset.read([0, 1], 1)[1:], other)
    assert dataset.read([2]).shape == (1, 3, 16, 16)
    with pytest.raises(DataError, match=r"picture 2 of .* its pixels at 8 px"):
        dataset.read([2], 1)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (b"_labels", "list of labels differs"),
        (label_key(1), "list of labels differs"),
        (digest_key(3), "its header's digest"),
    ],
)
def test_rows_that_changed_do_not_pass(path, key, sentence):
    edit(path, key, lambda value: bytes([value[0] ^ 1]) + value[1:])
    with pytest.raises(DataError, match=sentence):
        open_dataset(path).read([0])


def test_damaged_metadata_is_named(path):
    edit(path, b"m/" + bytes(8), lambda _: b'{"author": ')
    edit(path, b"m/" + bytes(7) + b"\1", lambda _: b"[]")
    for index in (0, 1):
        with pytest.raises(DataError, match=f"metadata of picture {index} in .*four.lmdb"):
            open_dataset(path).metadata(index)


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

"""LMDBs: rosinality's and LSUN's order, sizes, categories, damage; a dataset as a source."""

import pickle

import lmdb
import numpy as np
import pytest

from stylecli.data.reader import open_dataset
from stylecli.data.sources.lmdb_pictures import RosinalityLmdb
from stylecli.data.sources.recognition import find_source
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError
from tests.data.sources.formats import (
    picture_bytes,
    write_lmdb,
    write_lsun,
    write_named_lmdb,
    write_rosinality,
)


def reds(source):
    """Return about how red each picture is: its number."""
    return [source[index].open().convert("RGB").getpixel((0, 0))[0] for index in range(len(source))]


def test_rosinality_gives_the_largest_size_in_order(tmp_path):
    write_rosinality(tmp_path / "ffhq.lmdb", 40)
    source = find_source(tmp_path / "ffhq.lmdb")
    assert source.name == "ffhq" and source[3].name == "16-00003"
    assert source[3].open().size == (16, 16)
    assert all(abs(red - index) < 4 for index, red in enumerate(reds(source)))
    assert "lossy" in source.notes[0]


def test_rosinality_gives_another_size_when_told(tmp_path):
    write_rosinality(tmp_path, 2)
    assert RosinalityLmdb(tmp_path, size=8)[0].open().size == (8, 8)
    with pytest.raises(DataError, match=r"has no 32 px pictures: it has \[8, 16\]"):
        RosinalityLmdb(tmp_path, size=32)


def test_rosinality_counts_on_where_keys_grow_longer(tmp_path):
    numbers = (99_999, 100_000, 100_001)  # as keys, the first one comes last
    write_lmdb(tmp_path, {f"8-{number:05d}".encode(): picture_bytes() for number in numbers})
    names = [item.name for item in RosinalityLmdb(tmp_path)]
    assert names == ["8-99999", "8-100000", "8-100001"]


@pytest.mark.parametrize("length", [5, ""])
def test_rosinality_says_when_its_length_is_wrong(tmp_path, length):
    write_rosinality(tmp_path, 2, length=length)
    source = find_source(tmp_path)
    assert len(source) == 2 and "holds 2" in source.notes[1]


def test_lsun_decodes_by_content(tmp_path):
    write_lsun(tmp_path / "church_outdoor_train_lmdb", 30)
    source = find_source(tmp_path / "church_outdoor_train_lmdb")
    assert source.name == "church_outdoor" and source.class_names is None
    assert source[1].name == f"{1:040x}"
    assert [source[index].open().format for index in (0, 1)] == ["WEBP", "JPEG"]
    assert source[0].open().size == (9, 8)


def test_several_lsun_categories_are_classes(tmp_path):
    write_lsun(tmp_path / "cat_lmdb", 2)
    write_lsun(tmp_path / "bedroom_train_lmdb", 3)
    write_lsun(tmp_path / "bedroom_val_lmdb", 1)
    source = find_source(tmp_path)
    assert source.class_names == ["bedroom", "cat"]
    assert [source[index].label for index in range(5)] == [0, 0, 0, 1, 1]
    assert source[3].name == f"cat/{0:040x}"
    assert "bedroom_val_lmdb left out" in source.notes[1]


def test_items_travel_to_other_processes(tmp_path):
    write_lsun(tmp_path, 1)
    item = pickle.loads(pickle.dumps(find_source(tmp_path)[0]))
    assert item.open().size == (9, 8)


def test_a_database_cut_short_is_found_out(tmp_path):
    write_rosinality(tmp_path, 60, sizes=(64,))
    content = (tmp_path / "data.mdb").read_bytes()
    for share in (0.9, 0.5, 0.1, 0.01):
        (tmp_path / "data.mdb").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(DataError, match=r"cut short|damaged"):
            find_source(tmp_path)


@pytest.mark.parametrize("entries", [{}, {b"some key": b"some value"}])
def test_other_lmdbs_are_refused(tmp_path, entries):
    write_lmdb(tmp_path, entries)
    with pytest.raises(DataError, match="LMDB of an unknown kind"):
        find_source(tmp_path)


def test_a_dataset_can_be_packed_again(tiny_lmdb):
    source, dataset = find_source(tiny_lmdb), open_dataset(tiny_lmdb)
    assert (len(source), source.name, source.class_names) == (24, "tiny", ["a", "b", "c"])
    assert [source[index].label for index in range(24)] == dataset.labels.tolist()
    picture = np.asarray(source[5].open())
    assert np.array_equal(picture.transpose(2, 0, 1), dataset[5][0])


def test_metadata_and_names_come_from_when_it_was_packed(tmp_path):
    known = {"source": "a/1.png", "author": "A. Nyone"}
    with DatasetWriter(tmp_path / "set.lmdb", resolution=4, channels=1) as writer:
        writer.add(np.zeros((1, 4, 4), np.uint8), (0.5, 1.0), known)
    item = pickle.loads(pickle.dumps(find_source(tmp_path / "set.lmdb")[0]))
    assert (item.name, item.metadata, item.label) == ("a/1.png", known, (0.5, 1.0))


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "tiff", "jpeg", "webp"])
def test_any_kind_of_picture_is_read_and_only_lossy_ones_are_called_that(tmp_path, kind):
    values = {f"{n:04d}".encode(): picture_bytes((n, 0, 0), kind=kind) for n in range(3)}
    write_lmdb(tmp_path / "a.lmdb", values)
    source = find_source(tmp_path / "a.lmdb")
    assert len(source) == 3 and source[2].open().size == (8, 8)
    assert any("lossy" in note for note in source.notes) == (kind in ("jpeg", "webp"))
    assert not any("LSUN" in note for note in source.notes)


def test_entries_that_are_no_pictures_are_left_out_and_counted(tmp_path):
    values = {f"image-{n:03d}".encode(): picture_bytes((n, 0, 0)) for n in range(80)}
    write_lmdb(tmp_path, {b"__len__": b"80", **values, b"num-samples": b"80"})
    source = find_source(tmp_path)
    assert reds(source) == list(range(80))
    assert "2 entries are not pictures and are left out: __len__, num-samples" in source.notes[-1]


def test_the_named_database_with_pictures_is_taken(tmp_path):
    pictures = {f"{n:05d}".encode(): picture_bytes((n, 0, 0)) for n in range(300)}
    write_named_lmdb(tmp_path / "a", {b"images": pictures, b"labels": {b"0": b"cat"}})
    source = find_source(tmp_path / "a")
    assert reds(source) == [n % 256 for n in range(300)] or len(source) == 300
    assert "named databases left out: labels" in source.notes[0]


@pytest.mark.parametrize(
    ("databases", "cause"),
    [
        ({b"a": {b"0": b"text"}}, "named databases .a., and none"),
        ({b"a": {b"0": picture_bytes()}, b"b": {b"0": picture_bytes()}}, "a, b.*several"),
    ],
)
def test_other_named_databases_are_told_and_not_called_damaged(tmp_path, databases, cause):
    write_named_lmdb(tmp_path / "a", databases)
    with pytest.raises(DataError, match=cause) as caught:
        find_source(tmp_path / "a")
    assert "damaged" not in str(caught.value)


def test_several_values_under_a_key_are_told_and_not_called_damaged(tmp_path):
    with lmdb.open(str(tmp_path / "a"), map_size=1 << 26, max_dbs=9) as environment:
        database = environment.open_db(b"x", dupsort=True)
        with environment.begin(write=True) as transaction:
            for value in (b"1", b"2"):
                transaction.put(b"k", value, db=database)
    with pytest.raises(DataError, match="dupsort") as caught:
        find_source(tmp_path / "a")
    assert "damaged" not in str(caught.value)

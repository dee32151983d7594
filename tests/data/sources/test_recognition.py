"""What lies at a path is told by content; what does not fit is refused in one sentence."""

import os

import numpy as np
import pytest

from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError
from tests.data.sources.formats import picture_bytes, write_cifar10, write_tar, write_tfrecords


def test_names_do_not_matter(tmp_path):
    write_cifar10(tmp_path / "download")
    assert find_source(tmp_path / "download").name == "cifar-10"


def test_nothing_there_names_what_is_known(tmp_path):
    with pytest.raises(DataError, match=r"does not exist: expected a folder, zip or tar .* CelebA"):
        find_source(tmp_path / "none")


def test_something_else_names_what_is_known(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(100))
    with pytest.raises(DataError, match=r"not a source of pictures: expected .*TFRecords"):
        find_source(tmp_path / "a.bin")


def test_a_single_picture_is_named_as_such(tmp_path):
    (tmp_path / "a.png").write_bytes(picture_bytes())
    with pytest.raises(DataError, match="is a single picture: name the folder"):
        find_source(tmp_path / "a.png")


def test_tfrecords_with_a_broken_start_are_named_as_such(tmp_path):
    (tmp_path / "a-r02.tfrecords").write_bytes(bytes(100))
    with pytest.raises(DataError, match="damaged, or no TFRecord file"):
        find_source(tmp_path / "a-r02.tfrecords")


def test_only_an_unfinished_dataset_is_there(tmp_path):
    (tmp_path / "a.lmdb.part").mkdir()
    (tmp_path / "a.lmdb.part" / "data.mdb").touch()
    with pytest.raises(DataError, match=r"a.lmdb is unfinished .* stylecli pack"):
        find_source(tmp_path / "a.lmdb")


def test_an_empty_data_file_is_a_damaged_dataset(tmp_path):
    (tmp_path / "data.mdb").touch()
    with pytest.raises(DataError, match="first pages are damaged"):
        find_source(tmp_path)


@pytest.mark.parametrize("depth", [1, 3])
def test_a_folder_around_everything_is_looked_through(tmp_path, depth):
    outer = tmp_path / "download"
    inner = outer.joinpath(*["in"] * depth)
    inner.mkdir(parents=True)
    (outer / "readme.txt").touch()
    (outer / "__MACOSX").mkdir()
    write_tfrecords(inner / "a-r03.tfrecords", np.zeros((2, 3, 8, 8), np.uint8))
    assert len(find_source(outer)) == 2


def test_a_single_archive_in_a_folder_is_opened(tmp_path):
    write_cifar10(tmp_path / "download.tar.gz")
    assert find_source(tmp_path).name == "cifar-10"


def test_a_damaged_archive_alone_in_a_folder_is_named(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(DataError, match=r"a.zip is not a readable zip"):
        find_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("cats.zip", b"<!DOCTYPE html><html>", "web page"),
        ("cats.zip", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("cats.zip", b"", "empty"),
        ("cats.rar", b"Rar!\x1a\x07\x01\x00", "RAR archive: unpack"),
        ("cats", picture_bytes(), "single picture"),
    ],
)
def test_a_file_is_called_what_it_is(tmp_path, name, content, cause):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=cause) as caught:
        find_source(tmp_path / name)
    assert "damaged" not in str(caught.value)


def test_a_tarball_of_pictures_is_not_called_cifar(tmp_path):
    write_tar(tmp_path / "cats.tar.gz", {"cats/1.png": picture_bytes()})
    with pytest.raises(DataError, match=r"gzip.*gunzip"):
        find_source(tmp_path / "cats.tar.gz")


@pytest.mark.parametrize(
    "name", ["data.mdb", "a-r02.tfrecords", "a-rxx.labels", "train-00000-of-00001", "dataset.json",
             "train-images-idx3-ubyte", "batches.meta", "a.png", "faces.jsonl", "photos.zip"]
)  # fmt: skip
def test_a_pipe_is_not_waited_for(tmp_path, name):
    write_tfrecords(tmp_path / "a-r01.tfrecords", np.zeros((1, 3, 2, 2), np.uint8))
    os.mkfifo(tmp_path / name)
    assert len(find_source(tmp_path)) == 1
    with pytest.raises(DataError, match="not a file"):
        find_source(tmp_path, labels=tmp_path / name)
    with pytest.raises(DataError, match=r"not a source|single picture|damaged"):
        find_source(tmp_path / name)

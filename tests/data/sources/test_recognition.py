"""What lies at a path is told by content; what does not fit is refused in one sentence."""

import pytest

from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError
from tests.data.sources.formats import picture_bytes, write_cifar10, write_tfrecords


def test_names_do_not_matter(tmp_path):
    write_cifar10(tmp_path / "download")
    assert find_source(tmp_path / "download").name == "cifar-10"


def test_nothing_there_names_what_is_known(tmp_path):
    with pytest.raises(DataError, match=r"does not exist: expected a folder or zip .* CelebA"):
        find_source(tmp_path / "none")


def test_something_else_names_what_is_known(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(100))
    with pytest.raises(DataError, match=r"no source of pictures: expected .*TFRecords"):
        find_source(tmp_path / "a.bin")


def test_a_single_picture_is_named_as_such(tmp_path):
    (tmp_path / "a.png").write_bytes(picture_bytes())
    with pytest.raises(DataError, match="is a single picture: name the folder"):
        find_source(tmp_path / "a.png")


def test_tfrecords_with_a_broken_start_are_named_as_such(tmp_path):
    write_tfrecords(tmp_path / "a-r02.tfrecords", [])
    with pytest.raises(DataError, match="damaged, or no TFRecord file"):
        find_source(tmp_path / "a-r02.tfrecords")


def test_only_an_unfinished_dataset_is_there(tmp_path):
    (tmp_path / "a.lmdb.part").mkdir()
    (tmp_path / "a.lmdb.part" / "data.mdb").touch()
    with pytest.raises(DataError, match=r"a.lmdb is unfinished .* it goes on"):
        find_source(tmp_path / "a.lmdb")


def test_an_empty_data_file_is_a_damaged_dataset(tmp_path):
    (tmp_path / "data.mdb").touch()
    with pytest.raises(DataError, match="first pages are damaged"):
        find_source(tmp_path)

"""CIFAR's pickles: the official bytes read, and nothing in them run."""

import gzip
import os
import pickle
import tarfile

import numpy as np
import pytest

from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError
from tests.data.sources.formats import python2_batch, write_cifar10, write_tar

META = "cifar-100-python/meta"


def test_cifar10_gives_its_training_batches_in_order(tmp_path):
    pixels = write_cifar10(tmp_path / "cifar-10-python.tar.gz")
    source = find_source(tmp_path / "cifar-10-python.tar.gz")
    assert (source.name, len(source), source[3].label) == ("cifar-10", 10, 1)
    assert source[3].name == "data_batch_2#1" and source.class_names[3] == "class 3"
    expected = pixels[3].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(np.asarray(source[3].open()), expected)
    assert "test_batch is left out" in source.notes[0]


def test_the_unpacked_folder_gives_the_same(tmp_path):
    write_cifar10(tmp_path / "a.tar.gz")
    with tarfile.open(tmp_path / "a.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "cifar-10-batches-py"
    assert find_source(folder).fingerprint() == find_source(tmp_path / "a.tar.gz").fingerprint()
    assert find_source(folder / "test_batch")[1].name == "test_batch#1"


def test_cifar100_takes_its_fine_labels(tmp_path):
    names = {b"fine_label_names": [b"apple", b"bee", b"cup"], b"coarse_label_names": [b"thing"]}
    batch = python2_batch(np.zeros((2, 3072), np.uint8), [2, 0], b"fine_labels")
    files = {META: pickle.dumps(names, protocol=2), "cifar-100-python/train": batch}
    write_tar(tmp_path / "cifar-100-python.tar.gz", files)
    source = find_source(tmp_path / "cifar-100-python.tar.gz")
    assert source[0].label == 2 and source.class_names == ["apple", "bee", "cup"]


@pytest.mark.parametrize("protocol", [2, 4])
def test_batches_that_python3_wrote_are_read(tmp_path, protocol):
    batch = {b"data": np.full((1, 3072), 7, np.uint8), b"labels": [4]}
    files = {"data_batch_1": pickle.dumps(batch, protocol=protocol)}
    write_tar(tmp_path / "a.tar.gz", files)
    source = find_source(tmp_path / "a.tar.gz")
    assert source[0].label == 4 and source[0].open().getpixel((0, 0)) == (7, 7, 7)


class Harmful:
    """Would make a folder if it were unpickled the usual way."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_in_a_pickle_is_run(tmp_path):
    content = pickle.dumps({b"data": Harmful(str(tmp_path / "made"))}, protocol=2)
    write_tar(tmp_path / "a.tar.gz", {"data_batch_1": content})
    with pytest.raises(DataError, match=r"names posix.mkdir; nothing in it was run"):
        find_source(tmp_path / "a.tar.gz")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("batch", "cause"),
    [
        ({b"labels": [0]}, "holds no pixels"),
        ({b"data": np.zeros((1, 100), np.uint8), b"labels": [0]}, "rows of 100 bytes"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "not one label for each"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [-1]}, "no classes of CIFAR"),
    ],
)
def test_refuses_other_batches_with_a_cause(tmp_path, batch, cause):
    write_tar(tmp_path / "a.tar.gz", {"data_batch_1": pickle.dumps(batch, protocol=2)})
    with pytest.raises(DataError, match=cause):
        find_source(tmp_path / "a.tar.gz")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path):
    header = tarfile.TarInfo("data_batch_1")
    header.size = 2 << 30
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header.tobuf() + bytes(1 << 20)))
    with pytest.raises(DataError, match="unpacks to over"):
        find_source(tmp_path / "a.tar.gz")

"""MNIST's files: pairs of pictures and labels, padded, and never trusted."""

import gzip
import struct

import numpy as np
import pytest

from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError


def write_idx(path, array):
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_set(folder, name, values, suffix=".gz"):
    """Write 6 x 6 pictures of the given values, labelled by them."""
    values = np.array(values)
    pictures = np.broadcast_to(values[:, None, None], (len(values), 6, 6))
    write_idx(folder / f"{name}-images-idx3-ubyte{suffix}", pictures)
    write_idx(folder / f"{name}-labels-idx1-ubyte{suffix}", values)


def test_a_folder_gives_the_training_set_and_then_the_test_set(tmp_path):
    write_set(tmp_path, "t10k", [3])
    write_set(tmp_path, "train", [1, 2], suffix="")
    source = find_source(tmp_path)
    assert [(item.name, item.label) for item in map(source.__getitem__, range(3))] == [
        ("train-images-idx3-ubyte#0", 1),
        ("train-images-idx3-ubyte#1", 2),
        ("t10k-images-idx3-ubyte.gz#0", 3),
    ]
    assert len(source) == 3 and source.class_names == ["0", "1", "2", "3"]


def test_one_file_brings_its_labels(tmp_path):
    write_set(tmp_path, "train", [1])
    write_set(tmp_path, "t10k", [0, 5])
    source = find_source(tmp_path / "t10k-images-idx3-ubyte.gz")
    assert len(source) == 2 and source[1].label == 5


def test_pictures_without_labels_have_none(tmp_path):
    write_set(tmp_path, "train", [1])
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    source = find_source(tmp_path)
    assert source.class_names is None and source[0].label is None


def test_pictures_are_padded_with_zeros_to_a_power_of_two(tmp_path):
    write_set(tmp_path, "train", [9])
    pixels = np.asarray(find_source(tmp_path)[0].open())
    assert np.array_equal(pixels, np.pad(np.full((6, 6), 9), 1))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("count", [3, 2**31])
def test_a_lying_header_is_found_out(tmp_path, suffix, count):
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    content = struct.pack(">4B3I", 0, 0, 8, 3, count, 6, 6) + bytes(2 * 36)
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        find_source(path)


def test_a_truncated_file_is_found_out(tmp_path):
    write_set(tmp_path, "train", range(50))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="is damaged"):
        find_source(path)


def test_refuses_labels_of_another_number(tmp_path):
    write_set(tmp_path, "train", [1, 2])
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(3))
    with pytest.raises(DataError, match="2 pictures but 3 labels"):
        find_source(tmp_path)

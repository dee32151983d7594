"""Pickles of arrays come in whole; anything that could run, lie or blow up does not."""

import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from stylecli.errors import WeightsError
from stylecli.interop import array_pickle
from stylecli.interop.array_pickle import read_array_pickle


@pytest.fixture
def write(tmp_path):
    def writer(content, protocol=3):
        path = tmp_path / "arrays.ckpt"
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
        return path

    return writer


@pytest.mark.parametrize("protocol", [3, 4])
def test_reads_nested_dicts_of_arrays(write, protocol):
    kernel = np.arange(6, dtype=">f4").reshape(2, 3)
    arrays = read_array_pickle(
        write({"net": {"kernel": kernel, "bias": np.asfortranarray(kernel.T)}}, protocol)
    )
    assert list(arrays) == ["net/kernel", "net/bias"]
    np.testing.assert_array_equal(arrays["net/kernel"], kernel)
    np.testing.assert_array_equal(arrays["net/bias"], kernel.T)


class _Runs:
    def __reduce__(self):
        return os.mkdir, ("was-run",)


def test_runs_nothing(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"it names (posix|nt)\.mkdir; nothing in it was run"):
        read_array_pickle(write({"a": _Runs()}))
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"a": np.array(["text"])}, "values of type 'U4'"),
        ({"a": np.array([{}], dtype=object)}, "opcode|values of type"),
        ({"a": 3}, "a is neither an array nor a dict of arrays"),
        ({1: np.zeros(2)}, "the key 1"),
        (np.zeros(2), "the top is neither"),
    ],
)
def test_takes_numbers_only(write, content, reason):
    with pytest.raises(WeightsError, match=reason):
        read_array_pickle(write(content))


def test_a_truncated_file_is_damaged(write):
    whole = pickle.dumps({"a": np.zeros(100)}, 3)
    with pytest.raises(WeightsError, match="damaged"):
        read_array_pickle(write(whole[:-50]))


def test_a_memo_number_makes_it_allocate_nothing(write):
    path = write(b"\x80\x03}r" + struct.pack("<I", 2**31) + b".")
    tracemalloc.start()
    try:
        assert read_array_pickle(path) == {}
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_names_cannot_be_changed(write):
    build = b"\x80\x03cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb."
    with pytest.raises(WeightsError, match="it changes a name"):
        read_array_pickle(write(build))


def test_a_dict_that_holds_itself_ends(write):
    with pytest.raises(WeightsError, match="neither"):
        read_array_pickle(write(b"\x80\x03}q\x00X\x01\x00\x00\x00ah\x00s."))


def test_a_shape_has_to_fit_its_bytes(write):
    content = pickle.dumps({"a": np.zeros((2, 3), np.uint8)}, 3)
    with pytest.raises(WeightsError, match="6 bytes for an array"):
        read_array_pickle(write(content.replace(b"K\x02K\x03", b"K\xffK\xff")))


def test_a_file_has_a_largest_size(write, monkeypatch):
    monkeypatch.setattr(array_pickle, "MAX_FILE_BYTES", 100)
    with pytest.raises(WeightsError, match="expected at most 100"):
        read_array_pickle(write({"a": np.zeros(100)}))

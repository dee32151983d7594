"""Values travel as they are; bytes of any other kind make a DataError and run nothing."""

import math
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest

from stylecli.data.messages import from_bytes, to_bytes
from stylecli.data.preparation import Prepared, Skipped
from stylecli.errors import DataError

PREPARED = Prepared((3, 2, 2), b"abc", None, b"d" * 32, 2, False, "")
VALUES = [
    None, True, False, 0, -(1 << 63), 1 << 70, -1.5, math.inf, "", "Bärbel \udcff", b"\0", [], (),
    {1, 2}, {"a": [1, (2, {"b": None})]}, Path("a/b"), Skipped("x", "y"), PREPARED,
]  # fmt: skip


class Loud:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch RAN",)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_went(value):
    found = from_bytes(to_bytes(value))
    assert found == value and type(found) is type(value)


def test_arrays_and_their_numbers_come_back():
    for array in (
        np.arange(6, dtype=np.uint8).reshape(1, 2, 3),
        np.zeros((0, 3)),
        np.ones(2, ">f4"),
    ):
        found = from_bytes(to_bytes(array))
        assert found.dtype == array.dtype and found.shape == array.shape and (found == array).all()
    number = from_bytes(to_bytes(np.float64(2.5)))
    assert number == 2.5 and isinstance(number, np.float64)


@pytest.mark.parametrize(
    "value",
    [object(), print, Loud(), np.array([object()]), lambda: 0],
    ids=lambda v: type(v).__name__,
)
def test_what_is_no_plain_value_is_not_sent(value):
    with pytest.raises(DataError, match="no plain value"):
        to_bytes([value])


def test_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="damaged"):
        from_bytes(pickle.dumps(Loud()))
    assert not Path("RAN").exists()


@pytest.mark.parametrize(
    "name", ["os:_wrap_close", "stylecli.data.workers:_Worker", "stylecli.files:X"]
)
def test_no_class_but_our_records_is_made(name):
    content = to_bytes(Skipped("x", "y"))
    known = b"stylecli.data.preparation:Skipped"
    forged = content.replace(len(known).to_bytes(8, "little") + known,
                             len(name).to_bytes(8, "little") + name.encode())  # fmt: skip
    assert forged != content
    with pytest.raises(DataError, match="damaged"):
        from_bytes(forged)


def test_spoilt_bytes_are_an_error_of_ours_or_another_value():
    content = to_bytes([*VALUES, np.arange(4.0), np.int64(3)])
    random.seed(0)
    refused = 0
    for _ in range(3000):
        spoilt = bytearray(content)
        for _ in range(random.randint(1, 4)):
            spoilt[random.randrange(len(spoilt))] = random.randrange(256)
        if random.random() < 0.3:
            del spoilt[random.randrange(len(spoilt)) :]
        try:
            from_bytes(bytes(spoilt))
        except DataError:
            refused += 1
    assert refused > 1000
    with pytest.raises(DataError, match="damaged"):
        from_bytes(b"l\x01\0\0\0\0\0\0\0" * 5000)

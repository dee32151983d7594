"""CIFAR's pickles: plain values come out, everything else is refused before it is loaded."""

import pickle

import numpy as np
import pytest

from stylecli.errors import DataError
from stylecli.interop.pickles import read_batch_pickle


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_keys_and_text_come_back_as_text(protocol):
    batch = {b"data": np.eye(2, dtype=np.uint8), b"labels": [1, 0], "filenames": [b"a", "b"]}
    read = read_batch_pickle(pickle.dumps(batch, protocol=protocol), "batch")
    assert np.array_equal(read.pop("data"), np.eye(2))
    assert read == {"labels": [1, 0], "filenames": ["a", "b"]}


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"\x80\x02}" + b"Vx\n" * 2, "the opcode UNICODE"),  # of protocol 0
        (b"\x80\x02\x82\x01.", "the opcode EXT1"),  # names a global past the list of names
        (b"\x80\x02cbuiltins\neval\n.", "names builtins.eval"),
        (pickle.dumps([1], protocol=2), "holds no dict"),
        (pickle.dumps({b"labels": [[1]]}, protocol=2), "a list where text is expected"),
        (pickle.dumps({b"labels": 1.5}, protocol=2), "a float where text is expected"),
        (pickle.dumps({b"a": 1}, protocol=2)[:-3], "damaged"),
        (b"", "damaged"),
    ],
)
def test_refuses_what_no_batch_needs(content, cause):
    with pytest.raises(DataError, match=cause):
        read_batch_pickle(content, "batch")

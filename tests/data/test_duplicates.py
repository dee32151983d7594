"""Digests that were met before are found, in few bytes."""

import hashlib
import tracemalloc

from stylecli.data.duplicates import SeenDigests


def digest(number):
    return hashlib.sha256(b"%d" % number).digest()


def test_finds_the_first_of_equal_digests():
    seen = SeenDigests()
    for number in (*range(5000), 7):
        seen.append(digest(number))
    assert len(seen) == 5001
    assert [seen.find(digest(number)) for number in (7, 4999, 5000)] == [7, 4999, None]


def test_goes_on_from_stored_digests():
    seen = SeenDigests(digest(1) + digest(2))
    seen.append(digest(3))
    assert [seen.find(digest(number)) for number in (1, 2, 3, 4)] == [0, 1, 2, None]


def test_digests_of_equal_beginnings_are_told_apart():
    one, other = bytes(31) + b"\1", bytes(31) + b"\2"
    seen = SeenDigests(one + other)
    assert (seen.find(one), seen.find(other), seen.find(bytes(32))) == (0, 1, None)


def test_takes_under_a_hundred_bytes_a_picture():
    tracemalloc.start()
    seen = SeenDigests(b"".join(map(digest, range(20_000))))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(seen) == 20_000 and taken < 100 * 20_000

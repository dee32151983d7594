"""CRC-32C: the published check values, and any length against the definition."""

import numpy as np
import pytest

from stylecli.data.sources.checksums import crc32c, masked_crc32c
from tests.data.sources import formats


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"123456789", 0xE3069283),  # the check value of the Rocksoft model
        (bytes(32), 0x8A9136AA),  # RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"", 0),
    ],
)
def test_gives_the_published_values(data, expected):
    assert crc32c(data) == expected


@pytest.mark.parametrize("length", [1, 63, 64, 65, 128, 191, 64 * 7 + 3, 5000])
def test_any_length_is_right(length):
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(data) == formats.crc32c(data)


def test_parts_of_a_long_message_are_joined_rightly():
    data = np.random.default_rng(0).bytes(64 * 5000)  # more than one chunk of look-ups
    assert crc32c(memoryview(data)) == formats.crc32c(data)


def test_the_mask_rotates_and_adds():
    assert masked_crc32c(b"12345678") == formats.masked(b"12345678")

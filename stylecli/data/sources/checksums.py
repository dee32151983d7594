"""CRC-32C (Castagnoli), as TFRecord files use it, in numpy.

A CRC is linear: the CRC of a message is the XOR of what each of its bytes contributes, and a byte's
contribution depends on its value and its distance from the end only. So a block of 64 bytes is 64
look-ups, done for all blocks at once; then neighbouring blocks are joined pairwise, the left one
shifted over the length of the right one, until one is left. Measured in one thread: 0.5 ms for
200 kB, 8 ms for 3 MB; a compiled library would take a tenth, but be one more dependency.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

_POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41 with its bits reversed, as the CRC is defined
_BLOCK = 64
_CHUNK_BLOCKS = 1 << 12  # 256 KiB at a time: the indices of a look-up are 8 times its bytes
_ONES = 0xFFFFFFFF

Words = npt.NDArray[np.uint32]


def crc32c(data: "bytes | memoryview[int]") -> int:
    """Return the CRC-32C of ``data``; of b"123456789" it is 0xE3069283."""
    content = np.frombuffer(data, np.uint8)
    whole = len(content) // _BLOCK * _BLOCK
    state = _ONES
    if whole:
        # Linear again: what the initial ones become, and what the blocks make of a state of zero.
        linear = _blocks(content[:whole].reshape(-1, _BLOCK))
        state = linear ^ _shift_one(_ONES, whole)
    byte_table = _byte_table().tolist() if len(content) > whole else []
    for byte in content[whole:].tolist():
        state = byte_table[(state ^ byte) & 0xFF] ^ state >> 8
    return state ^ _ONES


def masked_crc32c(data: "bytes | memoryview[int]") -> int:
    """Return the CRC as a TFRecord stores it: rotated right by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & _ONES


def _blocks(blocks: npt.NDArray[np.uint8]) -> int:
    """Return the CRC, from a state of zero, of blocks [M, 64]."""
    parts = []
    for start in range(0, len(blocks), _CHUNK_BLOCKS):
        chunk = blocks[start : start + _CHUNK_BLOCKS]
        places = chunk.astype(np.intp)
        places += np.arange(_BLOCK, dtype=np.intp) * 256
        parts.append(np.bitwise_xor.reduce(_block_table().ravel().take(places), axis=1))
    states = np.concatenate(parts)
    length = _BLOCK
    while len(states) > 1:
        if len(states) % 2:  # a zero state in front changes nothing
            states = np.concatenate([np.zeros(1, np.uint32), states])
        states = _shift(states[::2], length) ^ states[1::2]
        length *= 2
    return int(states[0])


def _shift(states: Words, length: int) -> Words:
    """Return what states become when ``length`` zero bytes follow; a power of two."""
    table = _shift_table(length)
    shifted: Words = (
        table[0][states & 0xFF]
        ^ table[1][states >> 8 & 0xFF]
        ^ table[2][states >> 16 & 0xFF]
        ^ table[3][states >> 24]
    )
    return shifted


def _shift_one(state: int, length: int) -> int:
    """Do the same to a single state, over any length."""
    states = np.array([state], np.uint32)
    bit = 1
    while bit <= length:
        if length & bit:
            states = _shift(states, bit)
        bit *= 2
    return int(states[0])


@cache
def _byte_table() -> Words:
    """Return what each byte does to a state of zero: [256]."""
    table: Words = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = table >> np.uint32(1) ^ (table & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    return table


@cache
def _shift_table(length: int) -> Words:
    """Return, for each byte of a state, what it becomes after ``length`` zero bytes: [4, 256]."""
    table: Words = np.arange(256, dtype=np.uint32) << np.arange(0, 32, 8, dtype=np.uint32)[:, None]
    if length == 1:
        table = _byte_table()[table & 0xFF] ^ table >> np.uint32(8)
        return table
    half = length // 2
    return _shift(_shift(table, half), half)


@cache
def _block_table() -> Words:
    """Return what byte values contribute at each place of a block: [64, 256]."""
    rows: list[Words] = [_byte_table()]
    for _ in range(_BLOCK - 1):
        rows.append(_shift(rows[-1], 1))
    return np.stack(rows[::-1])

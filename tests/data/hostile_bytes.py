"""Spoil the bytes of a dataset's file in many ways and read it, in a process that may crash.

    python tests/data/hostile_bytes.py DATASET SCRATCH COUNT SEED

A spoilt file must be refused with a DataError, or be read to the end: pixels may be wrong then (or
named as damaged), but LMDB must never be led out of the file. Prints how many were refused.
"""

import contextlib
import random
import shutil
import sys
from pathlib import Path

from stylecli.data.reader import open_dataset
from stylecli.errors import DataError


def spoil(content, rng):
    """Change a few bytes, words or pages, where structure is more likely than not."""
    content = bytearray(content)
    pages = len(content) // 4096
    for _ in range(rng.choice([1, 1, 2, 8])):
        page = rng.randrange(pages) * 4096
        kind = rng.randrange(6)
        if kind == 0:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[page + rng.randrange(40)] = rng.randrange(256)
        elif kind == 2:
            place = page + 2 * rng.randrange(2048)
            content[place : place + 2] = rng.randbytes(2)
        elif kind == 3:
            other = rng.randrange(pages) * 4096
            content[page : page + 4096] = content[other : other + 4096]
        elif kind == 4:
            content[page : page + 4096] = bytes(4096)
        else:
            content = content[: max(1, rng.randrange(len(content)))]
            pages = len(content) // 4096
        if not pages:
            break
    return bytes(content)


def read_all(path):
    """Touch everything a reader can touch."""
    dataset = open_dataset(path)
    for index in range(len(dataset)):
        for touch in (dataset.metadata, dataset.item_digest, dataset.__getitem__):
            with contextlib.suppress(DataError):
                touch(index)
    with contextlib.suppress(DataError):
        dataset.skipped()


def run(dataset, scratch, count, seed):
    rng = random.Random(seed)
    whole = (dataset / "data.mdb").read_bytes()
    refused = 0
    for number in range(count):
        path = scratch / f"{number}.lmdb"
        path.mkdir()
        (path / "data.mdb").write_bytes(spoil(whole, rng))
        print(number, file=sys.stderr)  # the last one before a crash
        try:
            read_all(path)
        except DataError:
            refused += 1
        shutil.rmtree(path)
    return refused


if __name__ == "__main__":
    print(run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))

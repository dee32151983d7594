"""What the storage codecs cost: CPU time to write and to read a picture, and bytes on the disk.

    python tests/benchmarks/storage_codecs.py PHOTOS

Takes 500 squares of 256 px from random places of the photographs in PHOTOS (a folder), writes them
with every codec, and reads them in random order, single ones and batches of 16, from the page
cache. Three interleaved rounds; the median is printed, as a table in Markdown. The last rows say
what syncing every transaction adds.
"""

import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from stylecli.data.reader import open_dataset
from stylecli.data.writer import DatasetWriter

COUNT, SIDE, ROUNDS = 500, 256, 3
CODECS = ("raw", "png", "webp")


def make_squares(folder):
    """Cut squares of 512 to 256 px at random and shrink them: uint8 [COUNT, 3, SIDE, SIDE]."""
    rng = random.Random(0)
    photos = [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())]
    photos = [photo for photo in photos if min(photo.size) >= SIDE]
    squares = []
    for number in range(COUNT):
        photo = photos[number % len(photos)]
        side = rng.randint(SIDE, min(512, *photo.size))
        left, top = rng.randint(0, photo.width - side), rng.randint(0, photo.height - side)
        box = (left, top, left + side, top + side)
        square = photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box)
        squares.append(np.asarray(square).transpose(2, 0, 1))
    return np.stack(squares)


def measure(squares, path, codec, identity=None):
    """Return CPU-ms per picture to write, and to read by one and by 16; wall ms; bytes."""
    shutil.rmtree(path, ignore_errors=True)
    info = {"settings": identity}
    wall, cpu = time.perf_counter(), time.process_time()
    with DatasetWriter(
        path, resolution=SIDE, channels=3, codec=codec, identity=identity, info=info
    ) as writer:
        for pixels in squares:
            writer.add(pixels)
    written = time.process_time() - cpu
    wall = time.perf_counter() - wall
    dataset = open_dataset(path)
    order = np.random.default_rng(0).permutation(COUNT)
    cpu = time.process_time()
    for index in order:
        dataset.read([index])
    single = time.process_time() - cpu
    cpu = time.process_time()
    for start in range(0, COUNT - 15, 16):
        dataset.read(order[start : start + 16])
    batched = (time.process_time() - cpu) / (COUNT // 16 * 16) * COUNT
    size = (path / "data.mdb").stat().st_size
    return [1000 * seconds / COUNT for seconds in (written, single, batched, wall)] + [size / COUNT]


def main():
    squares = make_squares(Path(sys.argv[1]))
    kinds = [(codec, None) for codec in CODECS] + [("raw", {"kind": "benchmark"})]
    results = {str(kind): [] for kind in kinds}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for _ in range(ROUNDS):
            for codec, identity in kinds:
                row = measure(squares, Path(folder) / "a.lmdb", codec, identity)
                results[str((codec, identity))].append(row)
    print("| codec | write, CPU ms | read one, CPU ms | read of 16, CPU ms | write, ms | bytes |")
    print("|---|---|---|---|---|---|")
    for codec, identity in kinds:
        columns = zip(*results[str((codec, identity))], strict=True)
        *times, size = (statistics.median(column) for column in columns)
        name = codec + (", every transaction synced" if identity else "")
        print(f"| {name} | " + " | ".join(f"{t:.2f}" for t in times) + f" | {size:,.0f} |")


if __name__ == "__main__":
    main()

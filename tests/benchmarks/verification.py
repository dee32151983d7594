"""What looking for changed pixels costs training: CPU time per picture, as part of a step.

    python tests/benchmarks/verification.py [RESOLUTION] [BATCH] [COUNT]

Writes COUNT noise pictures of RESOLUTION px (64 and 4,096 unless given), reads all in batches
without and then with comparison against their digests, three rounds each, and times training steps
of config f with BATCH pictures (8) on this CPU. The comparison is made once a picture, so later
epochs cost nothing. What is done once per opening is timed too: the walk over the pages, and the
check of digests and labels. Prints one JSON document.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import stylecli
from stylecli.bench import measure, training_case
from stylecli.data.lmdb_files import _walk
from stylecli.data.reader import open_dataset
from stylecli.data.writer import DatasetWriter


def cpu_seconds(function):
    started = time.process_time()
    function()
    return time.process_time() - started


def read_all(path, batch, verify):
    """Return CPU-seconds of reading each picture once; what is done once per opening apart."""
    dataset = open_dataset(path)
    opening = cpu_seconds(dataset.verify_rows)
    batches = np.arange(len(dataset)).reshape(-1, batch)
    reading = cpu_seconds(lambda: [dataset.read(part, verify=verify) for part in batches])
    return reading, opening


def run(resolution, batch, count):
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "a.lmdb"
        with DatasetWriter(path, resolution=resolution, channels=3) as writer:
            for index in range(count):
                pixels = rng.integers(0, 256, (3, resolution, resolution), dtype=np.uint8)
                writer.add(pixels, index % 10, {"source": f"{index}.png"})
        walk = cpu_seconds(lambda: _walk(path / "data.mdb", values=False))
        read_all(path, batch, False)  # the page cache
        rounds = [(read_all(path, batch, False), read_all(path, batch, True)) for _ in range(3)]
        plain = statistics.median(without[0] for without, _ in rounds) / count
        verified = statistics.median(compared[0] for _, compared in rounds) / count
        rows = statistics.median(compared[1] for _, compared in rounds) / count
    net = stylecli.new_network("f", resolution=resolution)
    step = measure([training_case(net, batch, torch.device("cpu"))], 3)[0]
    step_seconds = statistics.median(step.cpu)
    return {
        "resolution": resolution,
        "batch": batch,
        "microseconds_to_read_a_picture": round(1e6 * plain, 1),
        "microseconds_more_to_verify_it": round(1e6 * (verified - plain), 1),
        "microseconds_a_picture_for_the_walk": round(1e6 * walk / count, 2),
        "microseconds_a_picture_for_the_rows": round(1e6 * rows, 2),
        "cpu_seconds_a_step": round(step_seconds, 3),
        "percent_of_a_step": round(100 * (verified - plain) * batch / step_seconds, 4),
    }


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    print(json.dumps(run(*given, *(64, 8, 4096)[len(given) :])))

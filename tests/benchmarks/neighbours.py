"""Time precision and recall beside a blockwise ``torch.cdist`` of the same, with equal results.

    OMP_NUM_THREADS=1 python tests/benchmarks/neighbours.py --rows 50000 --width 4096 --repeats 3
    python tests/benchmarks/neighbours.py --rows 50000 --width 4096 --memory
    python tests/benchmarks/neighbours.py --rows 10240 --gaussian --repeats 1

The features are made: rectified, correlated, stored as float16; with ``--gaussian`` independent,
all about equally far from each other. The other route is what the official programs do: float32
``torch.cdist`` in blocks of rows against all columns, ``kthvalue`` for the radii, then
distances between the sets once for precision and once for recall.
Both are run in turn. ``--memory`` runs ours alone and prints how far the process's peak rose over
what it held with both sets in memory.
"""

import argparse
import resource
import statistics
import time
from typing import Any

import numpy as np
import torch
from frechet import make_features

from stylecli.statistics.neighbours import precision_recall

_MIB = 1024.0  # ru_maxrss counts KiB


def blockwise_cdist(real: Any, fake: Any, k: int, rows: int) -> tuple[float, float]:
    """Return (precision, recall) from ``torch.cdist`` of ``rows`` rows at a time."""
    sets = [torch.from_numpy(side) for side in (real, fake)]

    def blocks(points: Any, others: Any) -> Any:
        whole = others.float()
        for start in range(0, len(points), rows):
            yield torch.cdist(points[start : start + rows].float(), whole)

    radii = [torch.cat([b.kthvalue(k + 1, dim=1).values for b in blocks(s, s)]) for s in sets]
    shares = []
    for points, others, reach in ((sets[1], sets[0], radii[0]), (sets[0], sets[1], radii[1])):
        inside = [(block <= reach).any(dim=1) for block in blocks(points, others)]
        shares.append(float(torch.cat(inside).double().mean()))
    return shares[0], shares[1]


def make_gaussian(rows: int, width: int, seed: int) -> Any:
    """Return independent Gaussian features [rows, width]."""
    return np.random.default_rng(seed).standard_normal((rows, width), np.float32)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--block", type=int, default=2048, help="rows of a cdist block")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--gaussian", action="store_true", help="independent features")
    asked = parser.parse_args()
    make = make_gaussian if asked.gaussian else make_features
    real, fake = (make(asked.rows, asked.width, seed).astype(np.float16) for seed in (0, 1))
    if asked.memory:
        precision_recall(real[:100], fake[:100])  # what libraries take at their first use
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB
        start = time.process_time()
        found = precision_recall(real, fake)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB
        print(f"{found}: {time.process_time() - start:.1f} CPU s")
        print(f"peak {after:.0f} MiB; {after - before:.0f} MiB over what the features needed")
        return
    times: dict[str, list[float]] = {"ours": [], "cdist": []}
    for _ in range(asked.repeats):
        start = time.process_time()
        ours = precision_recall(real, fake)
        middle = time.process_time()
        theirs = blockwise_cdist(real, fake, 3, asked.block)
        times["ours"].append(middle - start)
        times["cdist"].append(time.process_time() - middle)
        print(
            f"ours {ours} {middle - start:.1f} CPU s, cdist {theirs} {times['cdist'][-1]:.1f}",
            flush=True,
        )
    ours_s, cdist_s = (statistics.median(times[name]) for name in ("ours", "cdist"))
    print(f"numpy {np.__version__}, torch {torch.__version__}, {asked.rows} x {asked.width}")
    print(f"median CPU s: ours {ours_s:.1f}, cdist {cdist_s:.1f}: {cdist_s / ours_s:.2f}x")


if __name__ == "__main__":
    main()

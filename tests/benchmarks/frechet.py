"""Time the Fréchet step beside the matrix-square-root route, at equal digits.

    OMP_NUM_THREADS=1 python tests/benchmarks/frechet.py --rows 50000 --width 2048 --repeats 3

The features are made: rectified, correlated, float32, with a spectrum over five decades as pooled
features of a network have. The other route is what most FID programs do: ``numpy.cov`` of each
side and ``scipy.linalg.sqrtm`` of the product (scipy comes with the ``dev`` extra). Both are run in
turn; medians of CPU seconds and of wall seconds are printed, for the covariances, for the trace
term alone, and for the whole step, with the relative difference of the results.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
import scipy.linalg

from stylecli.metrics.frechet import moments_of, statistics_distance

_CHUNK = 2000


def make_features(rows: int, width: int, seed: int) -> Any:
    """Return float32 [rows, width] of a mixture that depends on ``seed`` a little."""
    shared = np.random.default_rng(7)
    ranks = min(256, width)
    basis = shared.standard_normal((ranks, width)) * np.exp(-np.arange(ranks) / 60)[:, None]
    offset = shared.standard_normal(width) - 1.0
    random = np.random.default_rng(seed)
    features = np.empty((rows, width), np.float32)
    for start in range(0, rows, _CHUNK):
        count = min(_CHUNK, rows - start)
        hidden = random.standard_normal((count, ranks), np.float32) * np.float32(1 + 0.02 * seed)
        values = hidden @ basis.astype(np.float32) * 0.25 + offset.astype(np.float32)
        values += 0.5 * random.standard_normal((count, width), np.float32)
        features[start : start + count] = 0.3 * np.maximum(values, 0)
    return features


def timed(times: dict[str, list[tuple[float, float]]], name: str, work: Callable[[], Any]) -> Any:
    """Run ``work``, note (CPU, wall) seconds under ``name``, return what it returns."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return result


def root_distance(a: tuple[Any, Any], b: tuple[Any, Any]) -> float:
    """Return the distance by a matrix square root."""
    root = scipy.linalg.sqrtm(a[1] @ b[1])
    difference = a[0] - b[0]
    traces = np.trace(a[1]) + np.trace(b[1]) - 2 * np.trace(root).real
    return float(difference @ difference + traces)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    real, fake = (make_features(asked.rows, asked.width, seed) for seed in (0, 1))
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    worst = 0.0
    for _ in range(asked.repeats):
        ours = timed(
            times, "covariances: Moments", lambda: [moments_of(side) for side in (real, fake)]
        )
        statistics_ours = [(m.mean(), m.covariance()) for m in ours]
        quick = timed(
            times,
            "trace term: symmetric",
            lambda sides=statistics_ours: statistics_distance(*sides[0], *sides[1]),
        )
        theirs = timed(
            times,
            "covariances: numpy.cov",
            lambda: [
                (side.mean(axis=0, dtype=np.float64), np.cov(side, rowvar=False))
                for side in (real, fake)
            ],
        )
        root = timed(times, "trace term: sqrtm", lambda sides=theirs: root_distance(*sides))
        worst = max(worst, abs(quick - root) / abs(root))
        print(
            f"{quick!r} {root!r} relative difference {abs(quick - root) / abs(root):.1e}",
            flush=True,
        )
    print(f"numpy {np.__version__}, scipy {scipy.__version__}, {asked.rows} x {asked.width}\n")
    print("| step | CPU s | wall s |\n|---|---|---|")
    median = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in times.items()
    }
    for name, (cpu, wall) in median.items():
        print(f"| {name} | {cpu:.2f} | {wall:.2f} |")
    traces = median["trace term: sqrtm"], median["trace term: symmetric"]
    covariances = median["covariances: numpy.cov"], median["covariances: Moments"]
    for name, pick in (("CPU", 0), ("wall", 1)):
        whole = [traces[i][pick] + covariances[i][pick] for i in (0, 1)]
        print(
            f"{name}: trace term {traces[0][pick] / traces[1][pick]:.1f}x, "
            f"whole step {whole[0] / whole[1]:.1f}x"
        )
    print(f"worst relative difference {worst:.1e}")


if __name__ == "__main__":
    main()

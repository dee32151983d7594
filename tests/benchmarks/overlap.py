"""Measure whether drawing, features and statistics gain from running beside each other on a CPU.

First what each part costs alone, in CPU milliseconds of one thread: no overlap can save more.

Shows fakes of the shipped network to Inception (weights made by the formula of the test fixture),
by TensorFlow's and by the clean resize: one after the other, drawing ahead in a thread, adding to
the statistics in a thread, resizing in threads. Wall seconds; variants take turns, so that what
else runs on the machine disturbs all of them; medians of the ratios within a turn. On a busy
machine more threads get more of it, whatever they do: believe the parts first.

    OMP_WAIT_POLICY=PASSIVE PYTHONPATH=. python tests/benchmarks/overlap.py --threads 2
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from inception import made_weights
from numpy.typing import NDArray

import stylecli
from stylecli.features.inception import InceptionV3
from stylecli.features.resizing import resize_clean
from stylecli.hardware import resolve_device
from stylecli.metrics import frechet
from stylecli.metrics.collecting import stream_features
from stylecli.metrics.picture_sets import draw_samples
from stylecli.networks.stylegan1 import Generator
from stylecli.shipped import shipped_network

Extract = Callable[[NDArray[Any]], NDArray[Any]]


def main() -> None:
    """Print a table: how long each way takes beside the plain one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--count", type=int, default=96, help="pictures in a turn")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    resolve_device("cpu")
    path = shipped_network()
    assert path is not None
    generator = stylecli.load_network(path).generator
    inception = InceptionV3.from_state_dict(
        {name: value.numpy() for name, value in made_weights().items()}
    )
    show_parts(generator, inception, chosen.batch)
    torch.set_num_threads(chosen.threads)
    frechet.BLOCK = chosen.count // 2  # so that a short turn has its share of products
    pool = ThreadPoolExecutor(chosen.threads)

    def draw(numbers: range) -> list[NDArray[Any]]:
        drawn = draw_samples(
            generator, chosen.batch, seed=0, batch=chosen.batch, labels=None, first=numbers.start
        )
        return [sample.pictures for sample in drawn]

    def look(pictures: NDArray[Any]) -> NDArray[Any]:
        return inception(pictures, outputs=["2048"])["2048"]

    def resize_in_threads(pictures: NDArray[Any]) -> NDArray[Any]:
        parts = np.array_split(pictures, chosen.threads)
        return look(np.concatenate(list(pool.map(resize_clean, parts))))

    def measure(extract: Extract, ahead: bool, apart: bool) -> float:
        begun = time.perf_counter()
        stream = stream_features(
            draw, chosen.count, {"net": extract}, {"net": chosen.count},
            batch=chosen.batch, ahead=ahead,
        )  # fmt: skip
        collect(stream, apart)
        return time.perf_counter() - begun

    clean: Extract = lambda pictures: look(resize_clean(pictures))  # noqa: E731
    ways: dict[str, tuple[Extract, bool, bool]] = {
        "fid, one after the other": (look, False, False),
        "fid, drawing ahead in a thread": (look, True, False),
        "fid, statistics in a thread": (look, False, True),
        "fid-clean, one after the other": (clean, False, False),
        "fid-clean, drawing ahead in a thread": (clean, True, False),
        "fid-clean, resizing in threads": (resize_in_threads, False, False),
    }
    report(ways, measure, chosen.repeats, chosen.count)


def show_parts(generator: Generator, inception: InceptionV3, batch: int) -> None:
    """Print what a picture costs in every part."""
    torch.set_num_threads(1)
    draws = partial(draw_samples, generator, batch, seed=0, batch=batch, labels=None)
    pictures = next(iter(draws())).pictures
    large = np.random.default_rng(0).integers(0, 256, (4, 3, 1024, 1024), np.uint8)
    kept = frechet.Moments(2048)
    rows = np.random.default_rng(0).normal(size=(frechet.BLOCK, 2048)).astype(np.float32)
    parts: dict[str, tuple[Callable[[], Any], int]] = {
        "drawing": (lambda: [sample.pictures for sample in draws()], batch),
        "Inception": (lambda: inception(pictures, outputs=["2048"]), batch),
        "clean resize": (lambda: resize_clean(pictures), batch),
        "clean resize, 1024 px": (lambda: resize_clean(large), len(large)),
        "statistics": (lambda: kept.add(rows), len(rows)),
    }
    for name, (run, count) in parts.items():
        seconds = []
        for _ in range(6):
            begun = time.process_time()
            run()
            seconds.append(time.process_time() - begun)
        print(f"{name}: {1000 * statistics.median(seconds[1:]) / count:.2f} CPU ms a picture")
    print()


def collect(stream: Iterator[dict[str, NDArray[Any]]], apart: bool) -> None:
    """Add up what streams, in a thread of its own if asked for."""
    kept = frechet.Moments(2048)
    if not apart:
        for features in stream:
            kept.add(features["net"])
        return
    with ThreadPoolExecutor(1) as thread:
        for done in [thread.submit(kept.add, features["net"]) for features in stream]:
            done.result()


def report(
    ways: dict[str, tuple[Extract, bool, bool]],
    measure: Callable[[Extract, bool, bool], float],
    repeats: int,
    count: int,
) -> None:
    """Warm up, take turns, print medians."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            taken = measure(*way)
            if turn:
                seconds[name].append(taken)
    print("| way | wall ms a picture | beside the plain way |\n|---|---|---|")
    for name, taken_by in seconds.items():
        plain = seconds[f"{name.split(',')[0]}, one after the other"]
        ratio = statistics.median(p / t for p, t in zip(plain, taken_by, strict=True))
        print(f"| {name} | {1000 * statistics.median(taken_by) / count:.1f} | {ratio:.2f}x |")


if __name__ == "__main__":
    main()

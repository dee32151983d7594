"""Measure what moves a number without moving the pictures: counts, rounding, truncation.

    OMP_NUM_THREADS=1 python tests/benchmarks/counts.py faces.lmdb --faces 4000

Makes the demo faces of all styles (32 px, seeds 0 on) at the path, unless they are there, and looks
at them and at pictures of the network that comes with stylecli through EfficientNet-Lite0. Prints
the tables of docs/numbers.md:

* the Fréchet and kernel distances of two disjoint random parts of the faces, by their size, so
  that the truth is 0, with the divisors N - 1 and N; mean ± standard deviation over draws;
* the sliced Wasserstein distance of such parts;
* distances of fakes to the faces with fakes rounded to 8 bits and as they are;
* distances, precision, recall and path length by truncation.

Needs the ``demo`` and ``metrics`` extras; some minutes of one core.
"""

import argparse
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylecli import load_network, open_dataset
from stylecli.data.demo_faces import make_demo_dataset
from stylecli.features.efficientnet import EfficientNetLite0
from stylecli.features.extractors import PYRAMID, View, open_extractors
from stylecli.features.vgg16 import LPIPS
from stylecli.interop.feature_weights import obtain
from stylecli.metrics import frechet_distance, kernel_distance, ppl_trim, precision_recall
from stylecli.metrics.path_length import PathSetting, measure_path_distances
from stylecli.metrics.picture_sets import Sample, draw_samples
from stylecli.metrics.swd import SWD, Patches
from stylecli.shipped import shipped_network

BATCH = 32


def distances(reals: Any, fakes: Any, seed: int = 0) -> tuple[float, float, float]:
    """Return the Fréchet distances with N - 1 and N, and the kernel distance x 1000."""
    size = max(2, min(1000, len(fakes) // 2))
    kernel, _ = kernel_distance(
        reals, fakes, subsets=100, subset_size=size, rng=np.random.default_rng(seed)
    )
    return frechet_distance(reals, fakes), frechet_distance(reals, fakes, ddof=0), 1000 * kernel


def compare_parts(features: Any, draws: int) -> None:
    """Print distances of disjoint parts of the same faces."""
    print(f"{len(features)} faces, {draws} draws: Fréchet N - 1, Fréchet N, KID x 1000")
    count = 125
    while 2 * count <= len(features):
        found = []
        for draw in range(draws):
            order = np.random.default_rng(draw).permutation(len(features))
            parts = features[order[:count]], features[order[count : 2 * count]]
            found.append(distances(*parts, seed=draw))
        mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
        print(count, *(f"{m:.4f} ± {s:.4f}" for m, s in zip(mean, spread, strict=True)))
        count *= 2


def compare_patches(dataset: Any, count: int, draws: int) -> None:
    """Print sliced Wasserstein distances of disjoint parts of the same faces."""
    extract = open_extractors([View(PYRAMID)], torch.device("cpu"))[PYRAMID].extract
    size = 125
    while 2 * size <= count:
        found = []
        for draw in range(draws):
            order = np.random.default_rng(draw).permutation(count)
            sides = []
            for part in (order[:size], order[size : 2 * size]):
                kept = Patches(size)
                for start in range(0, size, BATCH):
                    kept.update(extract(dataset.read(part[start : start + BATCH])), start)
                sides.append(kept.compute())
            [(value, _)], _ = SWD.score(None, *sides, draw)  # type: ignore[arg-type]
            found.append(value)
        print(f"{size} pictures a side: SWD {np.mean(found):.3f} ± {np.std(found):.3f}")
        size *= 2


def compare_rounding(G: Any, network: EfficientNetLite0, reals: Any, count: int) -> None:
    """Print distances of fakes as they are saved, and before that."""
    rounded, exact = [], []
    with torch.inference_mode():
        for sample in samples(G, count):
            rounded.append(network.features(sample.pictures))
            exact.append(network._features((sample.images * 127.5 + 127.5).clamp(0, 255)))
    for name, parts in (("rounded", rounded), ("as they are", exact)):
        features = torch.cat(parts).numpy()
        print(f"{count} fakes, {name}:", *(f"{x:.5f}" for x in distances(reals, features)))


def compare_truncation(G: Any, network: EfficientNetLite0, reals: Any, count: int) -> None:
    """Print distances, precision, recall and path length at three truncations."""
    arrays, _ = obtain("vgg16-lpips")
    lpips = LPIPS.from_state_dict(arrays)
    mapping = G.mapping.forward
    for psi in (1.0, 0.7, 0.5):
        G.mapping.forward = functools.partial(mapping, truncation_psi=psi)
        features = torch.cat([network.features(s.pictures) for s in samples(G, count)]).numpy()
        precision, recall = precision_recall(
            reals[:count].astype(np.float16), features.astype(np.float16)
        )
        path = ppl_trim(measure_path_distances(G, lpips, PathSetting(), samples=count))
        frechet, _, kernel = distances(reals[:count], features)
        print(f"psi {psi:g}, {count} fakes: Fréchet {frechet:.3f}, KID x 1000 {kernel:.2f}, "
              f"precision {precision:.3f}, recall {recall:.3f}, PPL {path:.3f}")  # fmt: skip


def samples(G: Any, count: int) -> Iterator[Sample]:
    """Return generated pictures of seed 0."""
    return draw_samples(G, count, seed=0, batch=BATCH, labels=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--faces", type=int, default=4000)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--fakes", type=int, default=1000)
    chosen = parser.parse_args()
    if not chosen.dataset.exists():
        make_demo_dataset(chosen.dataset, count=chosen.faces, all_styles=True)
    dataset = open_dataset(chosen.dataset)
    arrays, _ = obtain("efficientnet-lite0")
    network = EfficientNetLite0.from_state_dict(arrays)
    numbers = np.arange(min(chosen.faces, len(dataset)))
    batches = np.array_split(numbers, -(-len(numbers) // BATCH))
    reals = torch.cat([network.features(dataset.read(part)) for part in batches]).numpy()
    compare_parts(reals, chosen.draws)
    compare_patches(dataset, len(numbers), chosen.draws)
    G = load_network(shipped_network()).generator
    compare_rounding(G, network, reals, len(reals) // 2)
    compare_truncation(G, network, reals, chosen.fakes)


if __name__ == "__main__":
    main()

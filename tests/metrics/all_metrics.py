"""Measure every metric of the registry with weights that a formula makes, here or on two ranks.

``python all_metrics.py FOLDER RANK COUNT`` is one rank's share; the main one prints the results.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylecli import weights
from stylecli.cache_folder import CACHE_VARIABLE
from stylecli.data.reader import open_dataset
from stylecli.data.writer import DatasetWriter
from stylecli.distributed.ranks import Ranks
from stylecli.features import efficientnet, inception, vgg16
from stylecli.metrics import NAMES
from stylecli.metrics.classifiers import (
    AttributeClassifier,
    AttributeClassifiers,
    new_classifier_network,
)
from stylecli.metrics.evaluation import compare, evaluate
from stylecli.metrics.picture_sets import DatasetPictures
from stylecli.networks.model import new_network
from stylecli.networks.registry import make_config

COUNT = 12  # pictures a side
SAMPLES = dict.fromkeys(("fid", "kid", "is", "pr", "swd", "diversity", "ppl"), COUNT) | {"ls": 120}
OF_ANY = tuple(name for name in NAMES if not name.startswith("eq"))  # not of StyleGAN3 alone
FEW = ("fid", "kid", "is", "pr", "swd", "diversity", "ppl", "ls")
SMALL: dict[str, Any] = {"resolution": 32, "fmap_base": 64, "fmap_max": 8}


def made(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return arrays that keep activations about as large as they were."""
    random = np.random.default_rng(0)
    return {
        name: random.standard_normal(shape, np.float32)
        * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        if len(shape) > 1
        else np.full(shape, 1 if name.endswith(("weight", "running_var")) else 0.02, np.float32)
        for name, shape in shapes.items()
    }


def narrow_vgg16(patch: pytest.MonkeyPatch) -> None:
    """Let VGG16 have a sixteenth of its width: the real one is half a gigabyte. LPIPS keeps its."""
    wide = vgg16.lpips_shapes()
    patch.setattr(vgg16, "lpips_shapes", lambda: wide)
    patch.setattr(vgg16, "_BLOCKS", tuple((width // 16, n) for width, n in vgg16._BLOCKS))
    narrow = {
        name: tuple({4096: 64, 25088: 32 * 49}.get(n, n) for n in shape)
        for name, shape in vgg16.tensor_shapes().items()
    }
    patch.setattr(vgg16, "tensor_shapes", lambda: narrow)


def narrow_inception(patch: pytest.MonkeyPatch) -> None:
    """Let Inception have an eighth of its width, and so about a sixty-fourth of its work."""
    narrow = {
        name: tuple(n // 8 if n >= 32 else n for n in shape)  # channels, not sides of kernels
        for name, shape in inception.conv_shapes().items()
    }
    patch.setattr(inception, "conv_shapes", lambda: narrow)
    patch.setattr(inception, "FEATURES", inception.FEATURES // 8)


def quick_networks(patch: pytest.MonkeyPatch) -> None:
    """Let all networks that look at pictures be narrow, or look at small ones."""
    narrow_vgg16(patch)
    narrow_inception(patch)
    patch.setattr(efficientnet, "SIDE", 64)


def make_inputs(folder: Path) -> None:
    """Write a cache of weights and two datasets of 20 and 16 pictures; VGG16 is narrow already."""
    source = folder / "made.bin"
    source.write_bytes(b"made up")
    for name, shapes in (
        ("inception-2015-12-05", inception.tensor_shapes()),
        ("vgg16-lpips", vgg16.lpips_shapes()),
        ("vgg16", vgg16.tensor_shapes()),
        ("efficientnet-lite0", efficientnet.tensor_shapes()),
    ):
        weights.store(name, made(shapes), file=source)
    random = np.random.default_rng(0)
    for name, count in (("reals", 20), ("others", 16)):
        with DatasetWriter(folder / f"{name}.lmdb", resolution=32, channels=3) as writer:
            for _ in range(count):
                picture = random.integers(0, 256, (3, 8, 8), np.uint8)
                writer.add(picture.repeat(4, 1).repeat(4, 2))


def measure_all(
    folder: Path,
    names: Sequence[str] = OF_ANY,
    *,
    ranks: Ranks | None = None,
    cache: bool = True,
) -> dict[str, Any]:
    """Return name -> [value, std] of metrics of a network and of two sets; {} off rank 0."""
    network = new_network("f", seed=0, z_dim=8, w_dim=8, mapping_layers=2, mapping_fmaps=8, **SMALL)
    for layer in network.generator.synthesis.layers:
        layer.noise_strength.data.fill_(0.1)  # even fields, normalised, would be rounding errors
    judge = make_config("f", **SMALL)
    judges = AttributeClassifiers(
        [AttributeClassifier(name, ("no", "yes"), new_classifier_network(judge, seed).eval())
         for seed, name in enumerate(("round", "wide"))]
    )  # fmt: skip
    reals, others = (open_dataset(folder / f"{name}.lmdb") for name in ("reals", "others"))
    how: dict[str, Any] = {"device": "cpu", "cache": cache, "ranks": ranks}
    results = evaluate(names, network, reals, samples=SAMPLES, batch=4, classifiers=judges,
                       network_digest="tiny", **how)  # fmt: skip
    results += evaluate(["fid", "pr"], network, reals, samples=COUNT, batch=4, psi=0.7,
                        precision="bf16", **how)  # fmt: skip
    found = {one.name: [one.value, one.std] for one in results}
    of_sets = [name for name in names if not name.startswith(("ppl", "ls"))]
    compared = compare(of_sets, DatasetPictures(others, 32), DatasetPictures(reals, 32),
                       samples=COUNT, **how)  # fmt: skip
    return found | {f"sets {one.name}": [one.value, one.std] for one in compared}


def _main(folder: Path, rank: int, count: int) -> None:
    import torch.distributed as dist

    os.environ[CACHE_VARIABLE] = str(folder / "cache")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=count)
    with pytest.MonkeyPatch.context() as patch:
        quick_networks(patch)
        found = measure_all(folder, FEW, ranks=Ranks(rank, count), cache=False)
    if not rank:
        print(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

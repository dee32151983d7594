"""Features of pictures: one way to call every feature network, and a cache for the real ones."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stylecli import weights
from stylecli.atomic import replacing
from stylecli.errors import DataError, UsageError
from stylecli.interop.feature_weights import obtain
from stylecli.metrics.fakes import Pictures, PictureSet, as_colour
from stylecli.progress import Progress, silent

Features = NDArray[np.float32]  # [N, d]

INCEPTION = "inception-2015-12-05"
STAND_IN = "efficientnet-lite0"
_BATCH = 32  # real pictures at a time


@dataclass(frozen=True)
class Extractor:
    """A feature network ready to be called, and what has to be said of it."""

    name: str
    sha256: str  # of the published weight file
    resize: str  # how pictures become its input
    extract: Callable[[Pictures], Features]  # uint8 [N, 3, H, W] -> [N, d]


def open_extractor(name: str, device: torch.device) -> Extractor:
    """Load a feature network by its registry name; raise WeightsError when it is not here."""
    arrays, sha256 = obtain(name)
    if name == INCEPTION:
        from stylecli.metrics.inception import InceptionV3

        inception = InceptionV3.from_state_dict(arrays).to(device)
        return Extractor(
            name,
            sha256,
            "TensorFlow 1 bilinear to 299 px, (x - 128)/128",
            lambda pictures: inception(torch.from_numpy(pictures))["2048"].cpu().numpy(),
        )
    if name == STAND_IN:
        from stylecli.metrics.efficientnet import RESIZE, EfficientNetLite0

        efficient = EfficientNetLite0.from_state_dict(arrays).to(device)
        return Extractor(
            name, sha256, RESIZE, lambda pictures: efficient.features(pictures).cpu().numpy()
        )
    raise UsageError(f"{name!r} gives no features: expected {INCEPTION} or {STAND_IN}")


def extract_all(extractor: Extractor, batches: Iterable[Pictures]) -> Features:
    """Return the features [N, d] of every picture of ``batches`` (uint8 [B, 3, H, W])."""
    return np.concatenate([
        extractor.extract(np.ascontiguousarray(batch)) for batch in batches
    ])  # fmt: skip


def choose_real(dataset: PictureSet, count: int) -> NDArray[np.int64]:
    """Return the numbers of ``count`` pictures: all, or the same random ones every time."""
    if count >= len(dataset):
        return np.arange(len(dataset))
    random = np.random.Generator(np.random.Philox(key=[0, len(dataset)]))
    return np.sort(random.permutation(len(dataset))[:count])


def level_for(dataset: PictureSet, resolution: int) -> int:
    """Return the pyramid level at which the dataset has ``resolution``; DataError if it has not."""
    level = (dataset.resolution // resolution).bit_length() - 1
    if level < 0 or dataset.resolution != resolution << level:
        raise DataError(
            f"the dataset has {dataset.resolution} px and the network {resolution} px: "
            f"run stylecli pack PICTURES/ --resolution {resolution}, or give another --data"
        )
    return level


def real_features(
    extractor: Extractor,
    dataset: PictureSet,
    *,
    resolution: int,
    count: int,
    progress: Progress = silent,
) -> Features:
    """Return the features of ``count`` real pictures, from the cache when they were made before.

    The cache's key is everything they depend on: dataset digest, weights, resize, numbers.
    """
    indices = choose_real(dataset, count)
    level = level_for(dataset, resolution)
    key = {
        "dataset": dataset.digest,
        "network": extractor.sha256,
        "resize": extractor.resize,
        "resolution": resolution,
        "indices": hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest(),
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    path = weights.cache_folder() / "features" / f"{name}.npy"
    cached = _read(path, len(indices))
    if cached is not None:
        progress(len(indices), len(indices), "reals cached")
        return cached
    parts = []
    for start in range(0, len(indices), _BATCH):
        pictures = as_colour(dataset.read(indices[start : start + _BATCH], level))
        parts.append(extractor.extract(np.ascontiguousarray(pictures)))
        progress(min(start + _BATCH, len(indices)), len(indices), "reals")
    features = np.concatenate(parts)
    if dataset.digest:
        _write(path, features)
    return features


def _read(path: Path, rows: int) -> Features | None:
    """Return cached features, or None when there are none or the file is damaged."""
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None
    fits = isinstance(stored, np.ndarray) and stored.ndim == 2 and len(stored) == rows
    return stored if fits and stored.dtype == np.float32 else None


def _write(path: Path, features: Features) -> None:
    try:
        with replacing(path) as temporary:
            np.save(temporary, features)
    except OSError:
        pass  # without a cache the next run takes longer, nothing else

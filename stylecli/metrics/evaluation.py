"""Measure a network: several metrics over the same fakes, every number with its definition."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from stylecli import __version__
from stylecli.devices import resolve_device
from stylecli.errors import UsageError
from stylecli.interop.feature_weights import obtain
from stylecli.metrics.fakes import LabelSource, Pictures, PictureSet, draw_fakes, label_source
from stylecli.metrics.features import (
    Extractor,
    Features,
    extract_all,
    level_for,
    open_extractor,
    real_features,
)
from stylecli.metrics.frechet import frechet_distance
from stylecli.metrics.kernel import kernel_distance
from stylecli.metrics.lpips import LPIPS, MIN_SIDE
from stylecli.metrics.path_length import measure_path_distances, ppl_trim
from stylecli.metrics.planning import PathTask, PictureTask, Samples, Task, plan
from stylecli.metrics.results import MetricResult
from stylecli.networks.bundle import Bundle
from stylecli.networks.stylegan1 import Generator
from stylecli.progress import Progress, silent
from stylecli.rendering import exact_kernels

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
_DIVERSITY_ROWS = 2000  # pairs grow with the square; the mean is settled long before


def evaluate(
    names: Sequence[str],
    bundle: Bundle,
    dataset: PictureSet | None,
    *,
    samples: Samples = None,
    seed: int = 0,
    batch: int | None = None,
    device: torch.device | str = "auto",
    network_digest: str | None = None,
    progress: Progress = silent,
) -> list[MetricResult]:
    """Measure ``names`` on a bundle's averaged generator; return one result per metric, in order.

    Names: fid, fid50k, fid50k_full, kid, kid@efficientnet-lite0, diversity, ppl and
    ppl_{z,w}{full,end}[-crop]. ``samples`` counts fakes (pairs for ppl): one number, numbers by
    name, or None for defaults that suit the device. Without Inception's weights fid and kid are
    answered by kid@efficientnet-lite0, under that name and with a note; what cannot be measured
    for lack of weights comes back as skipped, with the step that helps.

    Fakes are drawn without truncation, with random noise, labels as in the dataset, quantised to
    8 bits (path lengths see the float images). Nothing depends on the global random state. Only
    path lengths of an unconditional network do without a dataset. Raises UsageError for unknown
    names and for W paths of a network without w, DataError for a dataset that does not fit.
    """
    device = resolve_device(device) if isinstance(device, str) else device
    config = bundle.generator.config
    tasks = plan(
        names,
        samples,
        dataset_size=len(dataset) if dataset is not None else 0,
        has_w=config.has_w,
        preset=config.preset,
        gpu=device.type == "cuda",
    )
    pictures = [task for task in tasks if isinstance(task, PictureTask) and not task.skipped]
    paths = [task for task in tasks if isinstance(task, PathTask) and not task.skipped]
    if pictures and dataset is not None:
        level_for(dataset, config.resolution)  # refuse before hours of work
    # A copy: the caller's network keeps its device, its mode and its gradients.
    G = copy.deepcopy(bundle.generator).to(device).eval().requires_grad_(False)
    labels = label_source(G, dataset) if pictures or paths else None
    common: dict[str, Any] = {
        "seed": seed,
        "truncation_psi": 1.0,
        "dataset_digest": dataset.digest if dataset is not None else None,
        "network_digest": network_digest,
        "version": __version__,
    }
    meter = _Meter(progress, pictures, paths)
    results: dict[str, MetricResult] = {}
    with exact_kernels(device):
        if pictures and dataset is not None:
            size = batch or _picture_batch(config.resolution, device)
            batches = draw_fakes(
                G, max(task.fakes for task in pictures), seed=seed, batch=size, labels=labels
            )
            for result in _measure_pictures(pictures, batches, dataset, G, seed, common, meter):
                results[result.name] = result
        for task in paths:
            results[task.name] = _measure_path(task, G, seed, batch, labels, common, meter)
    return [results.get(task.name) or _skipped(task, common) for task in tasks]


def _skipped(task: Task, common: dict[str, Any]) -> MetricResult:
    reason = task.skipped or "it needs a dataset: give one with --data"
    return MetricResult(task.name, None, skipped=reason, note=task.note, definition=common)


def _measure_pictures(
    tasks: list[PictureTask],
    batches: Iterator[Pictures],
    dataset: PictureSet,
    G: Generator,
    seed: int,
    common: dict[str, Any],
    meter: "_Meter",
) -> Iterator[MetricResult]:
    """Draw the fakes once, show each batch to every feature network, then score."""
    device = next(G.parameters()).device
    extractors = {task.network: open_extractor(task.network, device) for task in tasks}
    wanted = {name: max(t.fakes for t in tasks if t.network == name) for name in extractors}
    fakes: dict[str, list[Features]] = {name: [] for name in extractors}
    drawn = 0
    for pictures in batches:
        for name, extractor in extractors.items():
            if drawn < wanted[name]:
                fakes[name].append(extract_all(extractor, [pictures]))
        drawn += len(pictures)
        meter.add(len(pictures), "fakes")
    for task in tasks:
        extractor = extractors[task.network]
        real = real_features(
            extractor,
            dataset,
            resolution=G.config.resolution,
            count=task.reals,
            progress=meter.part("reals"),
        )
        fake = np.concatenate(fakes[task.network])[: task.fakes]
        yield _score(task, extractor, real, fake, seed, common, len(dataset))


def _score(
    task: PictureTask,
    extractor: Extractor,
    real: Features,
    fake: Features,
    seed: int,
    common: dict[str, Any],
    dataset_size: int,
) -> MetricResult:
    definition = {
        **common,
        "noise_mode": "random, per picture",
        "features": extractor.name,
        "features_sha256": extractor.sha256,
        "resize": extractor.resize,
        "fakes": len(fake),
        "reals": len(real),
        "reals_chosen": "all" if len(real) == dataset_size else "the same random ones every time",
    }
    std: float | None = None
    if task.kind == "fid":
        definition["ddof"] = task.ddof
        value = frechet_distance(real, fake, task.ddof)
    elif task.kind == "kid":
        # Subsets of half the pictures at most: whole sets would show no spread.
        size = min(KID_SUBSET_SIZE, max(2, min(len(real), len(fake)) // 2))
        definition |= {"subsets": KID_SUBSETS, "subset_size": size}
        value, std = kernel_distance(
            real,
            fake,
            subsets=KID_SUBSETS,
            subset_size=size,
            rng=np.random.Generator(np.random.Philox(key=[seed, 2])),
        )
    else:
        spread = mean_pairwise_distance(real[:_DIVERSITY_ROWS])
        value = mean_pairwise_distance(fake[:_DIVERSITY_ROWS]) / max(spread, 1e-12)
    return MetricResult(task.name, value, std, note=task.note, definition=definition)


def mean_pairwise_distance(features: Features) -> float:
    """Return the mean Euclidean distance over all pairs of rows of features [N, d], N > 1."""
    if len(features) < 2:
        raise UsageError(f"{len(features)} rows have no pairs: expected at least 2")
    x = features.astype(np.float64)
    squares = np.square(x).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2.0 * (x @ x.T), 0.0))
    np.fill_diagonal(distances, 0.0)
    return float(distances.sum() / (len(x) * (len(x) - 1)))


def _measure_path(
    task: PathTask,
    G: Generator,
    seed: int,
    batch: int | None,
    labels: LabelSource | None,
    common: dict[str, Any],
    meter: "_Meter",
) -> MetricResult:
    device = next(G.parameters()).device
    seen = G.config.resolution // (2 if task.setting.crop else 1)
    if seen < MIN_SIDE:
        reason = f"LPIPS needs pictures of at least {MIN_SIDE} px, and here it would see {seen} px"
        return MetricResult(task.name, None, skipped=reason, definition=common)
    arrays, sha256 = obtain("vgg16-lpips")
    distances = measure_path_distances(
        G,
        LPIPS.from_state_dict(arrays).to(device),
        task.setting,
        samples=task.pairs,
        batch=batch or _pair_batch(G.config.resolution, device),
        seed=seed,
        labels=labels,
        progress=meter.part(task.name),
    )
    definition = {
        **common,
        "noise_mode": "random per pair, the same at both ends",
        "features": "vgg16-lpips",
        "features_sha256": sha256,
        "resize": "box mean to 256 px where larger, else none",
        "pairs": task.pairs,
        "space": task.setting.space,
        "sampling": task.setting.sampling,
        "crop": task.setting.crop,
        "epsilon": task.setting.epsilon,
        "trimmed": "below the 1st and above the 99th percentile",
    }
    return MetricResult(task.name, ppl_trim(distances), note=task.note, definition=definition)


def _picture_batch(resolution: int, device: torch.device) -> int:
    if device.type == "cuda" and resolution <= 256:
        return 64
    return max(2, min(16, 4096 // resolution))


def _pair_batch(resolution: int, device: torch.device) -> int:
    if device.type == "cuda" and resolution <= 256:
        return 32
    return max(1, min(8, 1024 // resolution))


class _Meter:
    """Adds up the pictures and pairs of all metrics into one progress."""

    def __init__(self, report: Progress, pictures: list[PictureTask], paths: list[PathTask]):
        self._report, self._done = report, 0.0
        self._total = max((task.fakes for task in pictures), default=0)
        self._total += sum(task.reals for task in pictures) + sum(task.pairs for task in paths)

    def add(self, count: float, note: str) -> None:
        self._done += count
        self._report(self._done, self._total, note)

    def part(self, note: str) -> Progress:
        """Return a progress callback for a part of the whole."""
        before = self._done

        def report(done: float, total: float, note: str = note) -> None:
            self._done = before + done
            self._report(self._done, self._total, note)

        return report

"""Measure a network, or two sets of pictures: several metrics, every number with its definition."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stylecli import __version__
from stylecli.checkpoint import Network, open_network
from stylecli.data.pictures import WHITE
from stylecli.data.reader import open_dataset
from stylecli.distributed import Ranks
from stylecli.hardware import resolve_device
from stylecli.metrics.classifiers import AttributeClassifiers
from stylecli.metrics.collecting import Collector, Meter
from stylecli.metrics.fakes import (
    LabelSource,
    PictureSet,
    Sample,
    as_colour,
    draw_samples,
    label_source,
    labels_digest,
    level_for,
)
from stylecli.metrics.path_length import PathTask, measure_path
from stylecli.metrics.picture_sets import DatasetPictures, MeasuredSet, agree_on_colours, choose
from stylecli.metrics.pictures import FakeSource, count_pictures, measure_pictures, places_of
from stylecli.metrics.planning import Samples, plan, plan_sets
from stylecli.metrics.results import MetricResult, MetricResults
from stylecli.metrics.separability import SHARE, SeparabilityTask, judge_spaces, keep_samples
from stylecli.metrics.statistics_cache import StatisticsCache, digest_of
from stylecli.metrics.tasks import PictureTask, Task
from stylecli.networks.model import Generator
from stylecli.progress import Progress, silent
from stylecli.sampling import Precision, check_precision, exact_kernels

_SET_BATCH = 32  # pictures of a compared set at a time
NOISE = "random, per picture"


def evaluate(
    names: str | Sequence[str],
    bundle: Network,
    dataset: PictureSet | Path | str | None = None,
    *,
    samples: Samples = None,
    seed: int = 0,
    psi: float = 1.0,
    precision: Precision = "float32",
    stand_in: bool = False,
    batch: int | None = None,
    device: torch.device | str = "auto",
    network_digest: str | None = None,
    classifiers: AttributeClassifiers | None = None,
    cache: bool = True,
    ranks: Ranks | None = None,
    progress: Progress = silent,
) -> MetricResults:
    """Measure ``names`` on a bundle's averaged generator; return the results, in order.

    ``bundle`` and ``dataset`` may be paths. Names: those of ``planning.NAMES``; ls, ls_z and ls_w
    need ``classifiers``. ``samples`` counts fakes (pairs for ppl): one number, numbers by name, or
    None for defaults that suit the device. Without its weights a metric is answered by a stand-in
    under its own name and with a note (fid and kid by kid@efficientnet-lite0), one with a published
    name (fid50k) only where ``stand_in`` allows it. What cannot be measured comes back without a
    value and says why.

    Fakes are drawn with random noise, labels as in the dataset, truncation ``psi``, quantised to
    8 bits (path lengths see the float images). ``precision`` bf16 is for Inception's and VGG16's
    convolutions, and the results' names say it. Nothing depends on the global random state. Only
    path lengths, separability and is of an unconditional network do without a dataset. With
    ``cache`` statistics of the reals are kept on disk, those of fakes too where ``network_digest``
    is given, so that the same call goes on where an interrupt stopped it. Over ``ranks`` all call
    this; the main one gets the results, the others nothing. Raises UsageError for unknown names and
    for metrics in w of a network without w, DataError for a dataset that does not fit.
    """
    check_precision(precision)
    names = [names] if isinstance(names, str) else names
    bundle = open_network(bundle)
    dataset = open_dataset(dataset) if isinstance(dataset, Path | str) else dataset
    device = resolve_device(device) if isinstance(device, str) else device
    config = bundle.generator.config
    classifiers = classifiers.recognising() if classifiers is not None else None
    size = len(dataset) if dataset is not None else 0
    tasks = plan(names, samples, dataset_size=size, config=config, gpu=device.type == "cuda",
                 classifiers=classifiers, psi=psi, precision=precision,
                 stand_in=stand_in)  # fmt: skip
    possible = [task for task in tasks if not task.skipped and _has_reals(task, dataset)]
    if dataset is not None and any(isinstance(task, PictureTask) for task in possible):
        level_for(dataset, config.resolution)  # refuse before hours of work
    # A copy: the caller's network keeps its device, its mode and its gradients.
    G = copy.deepcopy(bundle.generator).to(device).eval().requires_grad_(False)
    labels = label_source(G, dataset) if possible else None
    common: dict[str, Any] = {
        "seed": seed,
        "truncation_psi": psi,
        "dataset_digest": dataset.digest if dataset is not None else None,
        "network_digest": network_digest,
        "version": __version__,
    }
    if labels:
        common["labels_digest"] = labels_digest(dataset)
    how = Collector(device, Meter(progress, _total(possible, size)), StatisticsCache(cache),
                    ranks or Ranks())  # fmt: skip
    found = _measure_network(possible, G, labels, dataset, batch, common, classifiers, how)
    return MetricResults(_in_order(tasks, found, common))


def compare(
    names: Sequence[str],
    measured: MeasuredSet,
    reference: MeasuredSet,
    *,
    samples: Samples = None,
    seed: int = 0,
    precision: Precision = "float32",
    stand_in: bool = False,
    device: torch.device | str = "auto",
    cache: bool = True,
    ranks: Ranks | None = None,
    progress: Progress = silent,
) -> MetricResults:
    """Measure ``names`` on one set of pictures against another; return the results, in order.

    Both are decoded in one way (profiles, alpha, EXIF, grey), as the recipe of the dataset among
    them says. All pictures of both count unless ``samples`` or a published name say otherwise; of
    fewer, the same random ones are taken every time. Pictures go to the feature network at their
    own size, and its resize, which the definition names, makes them its input. Raises UsageError
    for unknown names and for metrics of networks.
    """
    check_precision(precision)
    device = resolve_device(device) if isinstance(device, str) else device
    measured, reference = agree_on_colours(measured, reference)
    tasks = plan_sets(names, samples, measured=len(measured), reference=len(reference),
                      precision=precision, stand_in=stand_in)  # fmt: skip
    possible = [task for task in tasks if not task.skipped]
    common: dict[str, Any] = {
        "seed": seed,
        "measured_digest": measured.digest,
        "measured_sizes": measured.sizes,
        "dataset_digest": reference.digest,
        "dataset_sizes": reference.sizes,
        "decoded": reference.settings.described(),
        "version": __version__,
    }
    how = Collector(device, Meter(progress, _total(possible, len(reference))),
                    StatisticsCache(cache), ranks or Ranks())  # fmt: skip
    most = max((task.fakes for task in possible), default=0)
    # The choice of more holds that of fewer: what metrics look at does not depend on each other.
    indices, _ = choose(most, len(measured), first=False)

    def choose_places(count: int) -> tuple[NDArray[np.int64] | None, str]:
        chosen, which = choose(count, len(measured), first=False)
        return places_of(chosen, indices), which

    source = FakeSource(
        lambda numbers: measured.read(indices[numbers.start : numbers.stop]),
        measured.digest, _SET_BATCH, ahead=True, choose=choose_places,
    )  # fmt: skip
    found = list(measure_pictures(possible, source, source.new_pass(), reference, common, how)
                 if possible else ())  # fmt: skip
    return MetricResults(_in_order(tasks, found, common))


def _measure_network(
    tasks: Sequence[Task],
    G: Generator,
    labels: LabelSource | None,
    dataset: PictureSet | None,
    batch: int | None,
    common: dict[str, Any],
    classifiers: AttributeClassifiers | None,
    how: Collector,
) -> list[MetricResult]:
    pictures = [task for task in tasks if isinstance(task, PictureTask)]
    spaces = [task for task in tasks if isinstance(task, SeparabilityTask)]
    size = batch or _picture_batch(G.config.resolution, how.device)
    seed, psi = common["seed"], common["truncation_psi"]
    digest = ""
    if common["network_digest"]:
        known = ("network_digest", "seed", "truncation_psi") + ("labels_digest",) * bool(labels)
        digest = digest_of(*(str(common[key]) for key in known), how.device.type)
    found: list[MetricResult] = []

    def draw(numbers: range) -> list[Sample]:
        # Whole batches: kernels differ with their size, and a picture is to have the same digits
        # whatever else is measured with it.
        return list(draw_samples(G, size, seed=seed, batch=size, labels=labels,
                                 first=numbers.start, psi=psi))  # fmt: skip

    reals = DatasetPictures(dataset, G.config.resolution) if dataset is not None else None
    facts = {**common, "noise_mode": NOISE}
    background = reals.settings.background if reals is not None else WHITE
    identity = digest
    if G.config.channels == 4:
        facts["background"] = list(background)
        identity = digest_of(digest, str(background)) if digest else ""
    source = FakeSource(
        draw, identity, size, pictures=lambda fakes: as_colour(fakes.pixels, background)
    )
    with exact_kernels(how.device):
        shown, kept = source.new_pass(), None
        if spaces and classifiers is not None:
            judges = classifiers.to(how.device)
            kept = keep_samples(shown, spaces, G.config, judges, digest)
        if pictures or kept:
            found += measure_pictures(pictures, source, shown, reals, facts, how)
        for task in tasks:
            if isinstance(task, PathTask):
                found.append(measure_path(task, G, labels, batch, digest, common, how))
        if kept and how.ranks.is_main:
            facts = {**common, "noise_mode": NOISE}
            found += judge_spaces(spaces, shown, *kept, G.config, facts, how)
    return found


def _has_reals(task: Task, dataset: PictureSet | None) -> bool:
    return dataset is not None or not isinstance(task, PictureTask) or not task.reals


def _in_order(
    tasks: Sequence[Task], found: Sequence[MetricResult], common: dict[str, Any]
) -> list[MetricResult]:
    by_name = {result.name: result for result in found}
    results = []
    for task in tasks:
        results += [by_name[name] for name in task.names if name in by_name] or [
            by_name.get(task.name) or _skipped(task, common)
        ]
    return results


def _skipped(task: Task, common: dict[str, Any]) -> MetricResult:
    reason = task.skipped or "it needs a dataset: give one with --data"
    return MetricResult(task.name, None, skipped=reason, note=task.note, definition=common)


def _total(tasks: Sequence[Task], reals: int) -> float:
    pictures = [task for task in tasks if isinstance(task, PictureTask)]
    total: float = count_pictures(pictures, reals)
    total += sum(task.pairs for task in tasks if isinstance(task, PathTask))
    samples = max((task.samples for task in tasks if isinstance(task, SeparabilityTask)), default=0)
    fakes = max((task.fakes for task in pictures), default=0)
    return total + max(samples - fakes, 0) + SHARE * samples  # drawn once; then the hyperplanes


def _picture_batch(resolution: int, device: torch.device) -> int:
    if device.type == "cuda" and resolution <= 256:
        return 64
    return max(2, min(16, 4096 // resolution))

"""Measure a network, or two sets of pictures: several metrics, every number with its definition.

All feature networks see the fakes once, then the reals, then come scores. Metrics choose real
pictures for themselves: all, the first, or the same random ones. What the metrics of one network
choose is joined, and each takes its own from what streams past.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stylecli import __version__
from stylecli.checkpoint import Network, open_network
from stylecli.data.pictures import WHITE
from stylecli.data.reader import open_dataset
from stylecli.distributed.ranks import Ranks
from stylecli.errors import StyleCLIError, UsageError
from stylecli.features.extractors import Extractor, open_extractors
from stylecli.hardware import Precision, check_precision, resolve_device
from stylecli.metrics import check_names
from stylecli.metrics.classifiers import AttributeClassifiers
from stylecli.metrics.collecting import (
    Accumulator,
    Collector,
    Extract,
    KeptReals,
    Meter,
    Pass,
    Read,
    StatisticsCache,
    digest_of,
)
from stylecli.metrics.equivariance import EquivarianceTask, measure_equivariance
from stylecli.metrics.path_length import PathTask, measure_path
from stylecli.metrics.picture_sets import (
    DatasetPictures,
    LabelSource,
    MeasuredSet,
    PictureSet,
    Sample,
    agree_on_colours,
    as_colour,
    choose,
    draw_samples,
    label_source,
    labels_digest,
    level_for,
)
from stylecli.metrics.planning import BY_NAME, Samples, plan, plan_sets
from stylecli.metrics.separability import SHARE, SeparabilityTask, judge_spaces, keep_samples
from stylecli.metrics.tasks import MetricResult, MetricResults, PictureTask, Task
from stylecli.networks.model import Generator
from stylecli.progress import Progress, silent
from stylecli.rendering import exact_kernels

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
    reals: KeptReals | None = None,
    progress: Progress = silent,
) -> MetricResults:
    """Measure ``names`` on a bundle's averaged generator; return the results, in order.

    ``bundle`` and ``dataset`` may be paths. Names: those of ``metrics.NAMES``; ls, ls_z and ls_w
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
    is given, so the same call continues where an interrupt stopped it. ``reals`` is filled with
    those of the reals, for other calls of the same process on the same dataset. Over ``ranks`` all
    call this; the main one gets the results, the others nothing. Raises UsageError for unknown
    names and for metrics in w of a network without w, DataError for a dataset that does not fit.
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
        level_for(dataset, config.resolution, config.grid)  # refuse before hours of work
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
                    ranks or Ranks(), reals)  # fmt: skip
    found = _measure_network(possible, G, labels, dataset, batch, common, classifiers, how)
    return MetricResults(_in_order(tasks, found, common))


def evaluate_over_psi(
    names: str | Sequence[str],
    bundle: Network,
    dataset: PictureSet | Path | str,
    psis: Sequence[float],
    *,
    progress: Progress = silent,
    **how: Any,
) -> MetricResults:
    """Measure ``names`` at every truncation of ``psis``, in one pass over the reals.

    ``how`` is that of ``evaluate``. Results are in the order of ``psis``, and the names of all but
    psi 1 say theirs. Raises UsageError for metrics that are defined without truncation.
    """
    names = [names] if isinstance(names, str) else names
    check_names(names)
    for name in names:
        if not BY_NAME[name].of_pictures:
            raise UsageError(
                f"{name} is defined without truncation: leave it out when giving several psi"
            )
    bundle, kept, results = open_network(bundle), KeptReals(), MetricResults()
    dataset = open_dataset(dataset) if isinstance(dataset, Path | str) else dataset
    for place, psi in enumerate(psis):

        def share(done: float, total: float, note: str = "", place: int = place) -> None:
            progress(place * total + done, len(psis) * total, note)

        results += evaluate(names, bundle, dataset, psi=psi, reals=kept, progress=share, **how)
    return results


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
                      sizes=(measured.sizes, reference.sizes), precision=precision,
                      stand_in=stand_in)  # fmt: skip
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
    moved = [task for task in tasks if isinstance(task, EquivarianceTask)]
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
        found += measure_equivariance(moved, G, labels, digest, common, how)
        if kept and how.ranks.is_main:
            facts = {**common, "noise_mode": NOISE}
            with how.ranks.alone():
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
    reason = task.skipped or "no dataset: give one with --data"
    return MetricResult(task.name, None, skipped=reason, note=task.note, definition=common)


def _total(tasks: Sequence[Task], reals: int) -> float:
    pictures = [task for task in tasks if isinstance(task, PictureTask)]
    total: float = count_pictures(pictures, reals)
    total += sum(task.pairs for task in tasks if isinstance(task, PathTask))
    total += max((task.samples for task in tasks if isinstance(task, EquivarianceTask)), default=0)
    samples = max((task.samples for task in tasks if isinstance(task, SeparabilityTask)), default=0)
    fakes = max((task.fakes for task in pictures), default=0)
    return total + max(samples - fakes, 0) + SHARE * samples  # drawn once; then the hyperplanes


def _picture_batch(resolution: int, device: torch.device) -> int:
    if device.type == "cuda" and resolution <= 256:
        return 64
    return max(2, min(16, 4096 // resolution))


Numbers = NDArray[np.int64]
_REAL_BATCH = 32  # real pictures at a time


def share_reals(
    tasks: Sequence[PictureTask], size: int
) -> list[tuple[Numbers, tuple[PictureTask, ...]]]:
    """Return which of ``size`` reals are read and shown together, and to which of ``tasks``.

    Numbers in their set ascend. Views that look at the same pictures share a pass, so that those
    are read once.
    """
    looking = [task for task in tasks if task.reals and size]
    joined: dict[str, Numbers] = {}
    for task in looking:
        chosen, _ = choose_reals(task, size)
        joined[task.view.key] = np.union1d(joined.get(task.view.key, chosen), chosen)
    shared: dict[bytes, tuple[Numbers, tuple[PictureTask, ...]]] = {}
    for task in looking:
        numbers = joined[task.view.key]
        _, others = shared.get(numbers.tobytes(), (numbers, ()))
        shared[numbers.tobytes()] = (numbers, (*others, task))
    return list(shared.values())


def choose_reals(task: PictureTask, size: int) -> tuple[Numbers, str]:
    """Return the numbers of the real pictures of a task, ascending, and in words which they are."""
    return choose(task.reals, size, first=task.published_count or task.full)


def places_of(chosen: Numbers, numbers: Numbers) -> Numbers | None:
    """Return where ``chosen`` stand in ``numbers``; None where they are the first of them."""
    places: Numbers = np.searchsorted(numbers, chosen)
    return None if places[-1] == len(places) - 1 else places


def count_pictures(tasks: Sequence[PictureTask], reals: int) -> int:
    """Return how many pictures a measurement of ``tasks`` reads or draws, for its progress.

    ``reals`` is the number of pictures in the set that is measured against.
    """
    fakes = max((task.fakes for task in tasks), default=0)
    return fakes + sum(len(numbers) for numbers, _ in share_reals(tasks, reals))


@dataclass(frozen=True)
class FakeSource:
    """The pictures that are measured: drawn by a network, or a set compared with another."""

    read: Read
    identity: str  # of all that they depend on but their numbers; empty: not known
    batch: int
    ahead: bool = False  # whether reading in a thread beside the networks helps
    # how a part that is read shows its pictures, uint8 [N, 3, H, W]
    pictures: Callable[[Any], NDArray[Any]] = lambda part: part
    # of so many of a set: their places in what is read, and in words which they are
    choose: Callable[[int], tuple[Numbers | None, str]] = lambda count: (None, "")

    def new_pass(self) -> Pass:
        """Return a pass over these pictures; others may have it keep something too."""
        return Pass(self.read, self.batch, "fakes", self.ahead)


def measure_pictures(
    tasks: Sequence[PictureTask],
    fakes: FakeSource,
    shown: Pass,
    reals: MeasuredSet | None,
    common: Mapping[str, Any],
    how: Collector,
) -> Iterator[MetricResult]:
    """Yield the results of every task. A set that cannot be read fails the tasks that need it.

    ``shown`` is the pass over ``fakes``. What others have it keep is complete when all results are
    taken, or its ``problem`` says why it is not.
    """
    extractors, unreadable = _open(tasks, how)
    yield from (failed(task, unreadable[task], common) for task in unreadable)
    tasks = [task for task in tasks if task not in unreadable]
    of_fakes: dict[PictureTask, Accumulator] = {}
    known = (fakes.identity, "fakes") if fakes.identity else None
    for task in tasks:
        places, _ = fakes.choose(task.fakes)
        extractor = extractors[task.view.key]
        looking = _showing(fakes, extractor)
        of_fakes[task] = _keep(shown, task, task.fakes, extractor, looking, known, how, places)
    try:
        how.run(shown)
    except StyleCLIError as error:
        if how.ranks.count > 1:
            raise  # the other ranks would wait for what does not come
        shown.problem = str(error)
        yield from (failed(task, str(error), common) for task in tasks)
        return
    of_reals: dict[PictureTask, Accumulator] = {}
    problems: dict[PictureTask, str] = {}
    for numbers, sharing in share_reals(tasks, len(reals) if reals is not None else 0):
        assert reals is not None
        of_reals |= _show_reals(numbers, sharing, reals, extractors, how, problems)
    if not how.ranks.is_main:
        return
    for task in tasks:
        if task in problems:
            yield failed(task, problems[task], common)
            continue
        _, which = choose_reals(task, len(reals)) if task in of_reals and reals else (None, None)
        facts = {**common, "reals_chosen": which}
        if measured := fakes.choose(task.fakes)[1]:
            facts["measured_chosen"] = measured
        extractor = extractors[task.view.key]
        yield from score(task, extractor, of_reals.get(task), of_fakes[task], facts)


def _open(
    tasks: Sequence[PictureTask], how: Collector
) -> tuple[dict[str, Extractor], dict[PictureTask, str]]:
    """Return the networks that tasks look with, and why some of them have none: damaged weights."""
    extractors: dict[str, Extractor] = {}
    unreadable: dict[PictureTask, str] = {}
    for network in dict.fromkeys(task.view.network for task in tasks):
        of_network = [task for task in tasks if task.view.network == network]
        try:
            extractors |= open_extractors([task.view for task in of_network], how.device)
        except StyleCLIError as error:
            if how.ranks.count > 1:
                raise  # the other ranks would wait for what does not come
            unreadable |= dict.fromkeys(of_network, str(error))
    return extractors, unreadable


def _showing(fakes: FakeSource, extractor: Extractor) -> Extract:
    return lambda part: extractor.extract(fakes.pictures(part))


def _keep(
    shown: Pass,
    task: PictureTask,
    count: int,
    extractor: Extractor,
    looking: Extract,
    known: tuple[str, ...] | None,
    how: Collector,
    places: Numbers | None,
) -> Accumulator:
    """Have a pass keep what a task needs of ``count`` pictures, which ``known`` tells apart."""
    accumulator, name = task.metric.accumulator(task, count, extractor), None
    if known is not None:
        look = (extractor.name, extractor.sha256, extractor.resize, extractor.precision)
        kept = (how.device.type, str(count), accumulator.key, __version__)
        name = digest_of(*known, *look, *kept)
    return shown.keep(task.view.key, looking, accumulator, name=name, places=places)


def _show_reals(
    numbers: Numbers,
    tasks: Sequence[PictureTask],
    reals: MeasuredSet,
    extractors: Mapping[str, Extractor],
    how: Collector,
    problems: dict[PictureTask, str],
) -> dict[PictureTask, Accumulator]:
    """Show the reals of these numbers to networks, unless the cache has what their tasks need.

    Where a picture cannot be read, metrics that do not look at it are measured all the same, and
    ``problems`` says why the others are not.
    """

    def pass_over(some: Numbers) -> Pass:
        return Pass(lambda places: reals.read(some[places.start : places.stop]), _REAL_BATCH,
                    "reals", ahead=True)  # fmt: skip

    shown, kept, places = pass_over(numbers), {}, {}
    for task in tasks:
        chosen, _ = choose_reals(task, len(reals))
        known = (reals.digest, "reals", digest_of(chosen.astype("<i8").tobytes().hex()))
        extractor = extractors[task.view.key]
        place = places[task] = _place(task, reals, chosen, extractor)
        if how.reals is not None and place in how.reals:
            kept[task] = how.reals[place]
            continue
        kept[task] = _keep(shown, task, len(chosen), extractor, extractor.extract,
                           known if reals.digest else None, how,
                           places_of(chosen, numbers))  # fmt: skip
    if not shown.kept:
        how.meter.add(len(numbers), "reals")
        return kept
    try:
        how.run(shown)
    except StyleCLIError:
        if how.ranks.count > 1:
            raise
        for one in shown.kept:
            alone = pass_over(numbers[: one.accumulator.count] if one.places is None
                              else numbers[one.places])  # fmt: skip
            alone.networks[one.network] = shown.networks[one.network]
            alone.kept.append(replace(one, places=None))
            try:
                how.run(alone, counted=False)
            except StyleCLIError as error:
                failing = [task for task in tasks if kept[task] is one.accumulator]
                problems |= dict.fromkeys(failing, str(error))
    if how.reals is not None:
        how.reals.update({places[task]: one for task, one in kept.items() if task not in problems})
    return kept


def _place(
    task: PictureTask, reals: MeasuredSet, chosen: Numbers, extractor: Extractor
) -> tuple[str, str, str, bytes]:
    """Return what a metric keeps of these reals is known by."""
    keeps = task.metric.accumulator(task, len(chosen), extractor).key
    return reals.digest, task.view.key, keeps, chosen.tobytes()


def score(
    task: PictureTask,
    extractor: Extractor,
    reals: Accumulator | None,
    fakes: Accumulator,
    common: Mapping[str, Any],
) -> list[MetricResult]:
    """Return the results of ``task``: one, or two for precision and recall.

    What cannot be computed from these features comes back as a result without a value that says
    why. ``common["seed"]`` chooses the subsets of a kernel distance.
    """
    definition = {
        **common,
        "features": extractor.name,
        "features_sha256": extractor.sha256,
        "features_precision": extractor.precision,
        "resize": extractor.resize,
        "fakes": task.fakes,
        "reals": task.reals or None,
    }
    metric = task.metric
    try:
        of_reals = None if reals is None else reals.compute()
        values, more = metric.score(task, of_reals, fakes.compute(), int(common["seed"]))
    except MemoryError:
        reason = f"{task.fakes} and {task.reals} pictures do not fit into memory: give --samples"
        return [failed(task, reason, definition)]
    except StyleCLIError as error:
        return [failed(task, str(error), definition)]
    return [
        MetricResult(name, value, std, note=task.note, definition=definition | more,
                     phrase=metric.meaning(name, value), higher_is_better=metric.higher_is_better,
                     instead_of=task.instead_of)
        for name, (value, std) in zip(task.names, values, strict=True)
    ]  # fmt: skip


def failed(task: PictureTask, reason: str, definition: Mapping[str, Any]) -> MetricResult:
    """Return a result without a number."""
    return MetricResult(task.name, None, skipped=reason, note=task.note, definition=definition)

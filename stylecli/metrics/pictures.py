"""Metrics on pictures: all feature networks see the fakes once, then the reals, then come scores.

The same for a generator's pictures and for two sets of pictures. Metrics choose real pictures for
themselves: all, the first, or the same random ones. What the metrics of one network choose is
joined, and each takes its own from what streams past.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stylecli import __version__
from stylecli.distributed import Ranks
from stylecli.errors import StyleCLIError, UsageError
from stylecli.features.extractors import STAND_IN, Extractor, Features, open_extractors
from stylecli.interop.feature_weights import obtain
from stylecli.metrics.collecting import (
    SMALL,
    Add,
    Classify,
    Collected,
    Extract,
    Read,
    StatisticsCache,
    Wanted,
    digest_of,
    needs_of,
    probabilities,
    run_pass,
)
from stylecli.metrics.frechet import frechet_distance, moments_distance
from stylecli.metrics.kernel import kernel_distance
from stylecli.metrics.picture_sets import MeasuredSet, choose
from stylecli.metrics.results import MetricResult
from stylecli.metrics.tasks import NEIGHBOURS, PictureTask
from stylecli.progress import Progress
from stylecli.statistics.neighbours import precision_recall

Numbers = NDArray[np.int64]
_REAL_BATCH = 32  # real pictures at a time
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000


class Meter:
    """Adds up pictures and pairs of every phase; ``total`` is known before."""

    def __init__(self, report: Progress, total: float) -> None:
        self._report, self._done, self._total = report, 0.0, total

    def add(self, count: float, note: str) -> None:
        """Say that ``count`` more are done."""
        if count:
            self._done += count
            self._report(self._done, self._total, note)

    def share(self, size: float) -> Progress:
        """Return a progress callback for a part of the whole, ``size`` of its units."""
        before = self._done

        def report(done: float, total: float, note: str = "") -> None:
            self._done = before + round(size * done / total)
            self._report(self._done, self._total, note)

        return report


@dataclass(frozen=True)
class RealPass:
    """Real pictures that are read and shown together, and the metrics that look at them."""

    numbers: Numbers  # in their set, ascending
    tasks: tuple[PictureTask, ...]


def share_reals(tasks: Sequence[PictureTask], size: int) -> list[RealPass]:
    """Return the passes over a set of ``size`` pictures that ``tasks`` need, in their order.

    Views that look at the same pictures share a pass, so that those are read once.
    """
    looking = [task for task in tasks if task.reals and size]
    joined: dict[str, Numbers] = {}
    for task in looking:
        chosen, _ = choose_reals(task, size)
        joined[task.view.key] = np.union1d(joined.get(task.view.key, chosen), chosen)
    passes: dict[bytes, RealPass] = {}
    for task in looking:
        numbers = joined[task.view.key]
        others = passes.get(numbers.tobytes(), RealPass(numbers, ())).tasks
        passes[numbers.tobytes()] = RealPass(numbers, (*others, task))
    return list(passes.values())


def choose_reals(task: PictureTask, size: int) -> tuple[Numbers, str]:
    """Return the numbers of the real pictures of a task, ascending, and in words which they are."""
    return choose(task.reals, size, first=task.published_count or task.full)


def places_of(chosen: Numbers, numbers: Numbers) -> Numbers | None:
    """Return where ``chosen`` stand in ``numbers``; None where they are the first of them."""
    places: Numbers = np.searchsorted(numbers, chosen)
    return None if places[-1] == len(places) - 1 else places


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


@dataclass
class Beside:
    """Something else that is collected from what a pass over the fakes reads."""

    extract: Extract
    wanted: Wanted
    problem: str | None = None  # why the pass could not be made


@dataclass(frozen=True)
class Measuring:
    """Where and how a measurement runs; nothing of it changes a number."""

    device: torch.device
    meter: Meter
    cache: StatisticsCache = field(default_factory=StatisticsCache)
    ranks: Ranks = field(default_factory=Ranks)


def measure_pictures(
    tasks: Sequence[PictureTask],
    fakes: FakeSource,
    reals: MeasuredSet | None,
    common: Mapping[str, Any],
    how: Measuring,
    beside: Beside | None = None,
) -> Iterator[MetricResult]:
    """Yield the results of every task. A set that cannot be read fails the tasks that need it.

    What is collected ``beside`` is complete when all results are taken, or its ``problem`` says why
    it is not.
    """
    extractors, unreadable = _open(tasks, how)
    yield from (failed(task, unreadable[task], common) for task in unreadable)
    tasks = [task for task in tasks if task not in unreadable]
    classifiers = {
        key: _classifier(extractors[key]) for key in {t.view.key for t in tasks if t.kind == "is"}
    }
    wanted: dict[PictureTask, Wanted] = {}
    known = (fakes.identity, "fakes") if fakes.identity else None
    for task in tasks:
        places, _ = fakes.choose(task.fakes)
        wanted[task] = _want(task, task.fakes, extractors, known, how, classifiers, places)
    looking = {key: _showing(fakes, extractor) for key, extractor in extractors.items()}
    filled = _shared(wanted)
    if beside is not None:
        looking[beside.wanted.network] = beside.extract
        filled.append(beside.wanted)
    try:
        run_pass(
            fakes.read,
            looking,
            filled,
            batch=fakes.batch,
            cache=how.cache,
            ranks=how.ranks,
            add=lambda count: how.meter.add(count, "fakes"),
            ahead=fakes.ahead,
        )
    except StyleCLIError as error:
        if how.ranks.count > 1:
            raise  # the other ranks would wait for what does not come
        if beside is not None:
            beside.problem = str(error)
        yield from (failed(task, str(error), common) for task in tasks)
        return
    collected: dict[PictureTask, Collected] = {}
    problems: dict[PictureTask, str] = {}
    for shown in share_reals(tasks, len(reals) if reals is not None else 0):
        assert reals is not None
        of_pass = _show_reals(shown, reals, extractors, how, problems)
        collected |= {task: one.collected for task, one in of_pass.items()}
    if not how.ranks.is_main:
        return
    for task in tasks:
        if task in problems:
            yield failed(task, problems[task], common)
            continue
        _, which = choose_reals(task, len(reals)) if task in collected and reals else (None, None)
        facts = {**common, "reals_chosen": which}
        if measured := fakes.choose(task.fakes)[1]:
            facts["measured_chosen"] = measured
        extractor = extractors[task.view.key]
        yield from score(task, extractor, collected.get(task), wanted[task].collected, facts)


def _open(
    tasks: Sequence[PictureTask], how: Measuring
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


def _show_reals(
    shown: RealPass,
    reals: MeasuredSet,
    extractors: Mapping[str, Extractor],
    how: Measuring,
    problems: dict[PictureTask, str],
) -> dict[PictureTask, Wanted]:
    """Show the reals of a pass to its networks, unless the cache has what they need.

    Where a picture cannot be read, metrics that do not look at it are measured all the same, and
    ``problems`` says why the others are not.
    """
    wanted: dict[PictureTask, Wanted] = {}
    for task in shown.tasks:
        chosen, _ = choose_reals(task, len(reals))
        known = (reals.digest, "reals", digest_of(chosen.astype("<i8").tobytes().hex()))
        places = places_of(chosen, shown.numbers)
        wanted[task] = _want(task, len(chosen), extractors, known if reals.digest else None, how,
                             {}, places)  # fmt: skip

    def collect(some: Sequence[Wanted], numbers: Numbers, add: Add) -> None:
        run_pass(
            lambda places: reals.read(numbers[places.start : places.stop]),
            {one.network: extractors[one.network].extract for one in some},
            some,
            batch=_REAL_BATCH,
            cache=how.cache,
            ranks=how.ranks,
            add=add,
            ahead=True,
        )

    distinct = _shared(wanted)
    try:
        collect(distinct, shown.numbers, lambda count: how.meter.add(count, "reals"))
    except StyleCLIError:
        if how.ranks.count > 1:
            raise
        for one in distinct:
            its = slice(one.collected.count) if one.places is None else one.places
            try:
                collect([replace(one, places=None)], shown.numbers[its], lambda count: None)
            except StyleCLIError as error:
                problems |= {task: str(error) for task in wanted if wanted[task] is one}
    return wanted


def _want(
    task: PictureTask,
    count: int,
    extractors: Mapping[str, Extractor],
    known: tuple[str, ...] | None,
    how: Measuring,
    classifiers: Mapping[str, Classify],
    places: Numbers | None = None,
) -> Wanted:
    key, extractor, needs = task.view.key, extractors[task.view.key], needs_of(task, count)
    name = None
    if known is not None:
        look = (extractor.name, extractor.sha256, extractor.resize, extractor.precision)
        name = digest_of(*known, *look, how.device.type, str(count), str(needs), __version__)
    return Wanted(key, Collected(count, needs, classifiers.get(key)), name, places)


def _shared(wanted: dict[PictureTask, Wanted]) -> list[Wanted]:
    """Let tasks that need the same of the same pictures share it; return each once."""
    distinct: dict[tuple[Any, ...], Wanted] = {}
    for task, one in wanted.items():
        places = None if one.places is None else one.places.tobytes()
        key = (one.network, one.collected.count, one.collected.needs, places)
        wanted[task] = distinct.setdefault(key, one)
    return list(distinct.values())


def _classifier(extractor: Extractor) -> Classify:
    """Return what makes class probabilities of features; Inception's without bias, as defined."""
    if extractor.classify is not None:
        return extractor.classify
    arrays, _ = obtain(STAND_IN)
    weight, bias = (np.asarray(arrays[f"_fc.{part}"], np.float32) for part in ("weight", "bias"))
    return lambda features: probabilities(features @ weight.T + bias)


def count_pictures(tasks: Sequence[PictureTask], reals: int) -> int:
    """Return how many pictures a measurement of ``tasks`` reads or draws, for its progress.

    ``reals`` is the number of pictures in the set that is measured against.
    """
    fakes = max((task.fakes for task in tasks), default=0)
    return fakes + sum(len(shown.numbers) for shown in share_reals(tasks, reals))


def score(
    task: PictureTask,
    extractor: Extractor,
    reals: Collected | None,
    fakes: Collected,
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
    try:
        values, more = _values(task, reals, fakes, int(common["seed"]))
    except MemoryError:
        reason = f"{task.fakes} and {task.reals} pictures do not fit into memory: give --samples"
        return [failed(task, reason, definition)]
    except StyleCLIError as error:
        return [failed(task, str(error), definition)]
    return [
        MetricResult(name, value, std, note=task.note, definition=definition | more)
        for name, (value, std) in zip(task.names, values, strict=True)
    ]


def failed(task: PictureTask, reason: str, definition: Mapping[str, Any]) -> MetricResult:
    """Return a result without a number."""
    return MetricResult(task.name, None, skipped=reason, note=task.note, definition=definition)


def _values(
    task: PictureTask, reals: Collected | None, fakes: Collected, seed: int
) -> tuple[list[tuple[float, float | None]], dict[str, Any]]:
    if task.kind == "is":
        assert fakes.scores is not None
        mean, std = fakes.scores.result()
        return [(mean, std)], {"splits": fakes.scores.splits, "std_over": "splits"}
    assert reals is not None
    if task.kind == "fid":
        if max(task.fakes, task.reals) <= SMALL:
            value = frechet_distance(reals.rows, fakes.rows, task.ddof)
        else:
            assert reals.moments is not None and fakes.moments is not None
            value = moments_distance(reals.moments, fakes.moments, task.ddof)
        return [(value, None)], {"ddof": task.ddof}
    if task.kind == "kid":
        # Subsets of half the pictures at most: whole sets would show no spread.
        size = min(KID_SUBSET_SIZE, max(2, min(task.fakes, task.reals) // 2))
        rng = np.random.Generator(np.random.Philox(key=[seed, 2]))
        mean, std = kernel_distance(
            reals.rows, fakes.rows, subsets=KID_SUBSETS, subset_size=size, rng=rng
        )
        return [(mean, std)], {"subsets": KID_SUBSETS, "subset_size": size, "std_over": "subsets"}
    if task.kind == "pr":
        precision, recall = precision_recall(reals.rows, fakes.rows, NEIGHBOURS)
        kept = {"k": NEIGHBOURS, "feature_type": str(fakes.rows.dtype)}
        return [(precision, None), (recall, None)], kept
    spread = mean_pairwise_distance(reals.rows)
    value = mean_pairwise_distance(fakes.rows) / max(spread, 1e-12)
    return [(value, None)], {"rows": len(fakes.rows), "rows_of_reals": len(reals.rows)}


def mean_pairwise_distance(features: Features) -> float:
    """Return the mean Euclidean distance over all pairs of rows of features [N, d], N > 1."""
    if len(features) < 2:
        raise UsageError(f"{len(features)} rows have no pairs: expected at least 2")
    x = features.astype(np.float64)
    squares = np.square(x).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2.0 * (x @ x.T), 0.0))
    np.fill_diagonal(distances, 0.0)
    return float(distances.sum() / (len(x) * (len(x) - 1)))

"""Metrics on pictures: all feature networks see the fakes once, then the reals, then come scores.

The same for a generator's pictures and for two sets of pictures.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stylecli import __version__
from stylecli.distributed import Ranks
from stylecli.errors import StyleCLIError
from stylecli.features.extractors import STAND_IN, Extractor, open_extractors
from stylecli.interop.feature_weights import obtain
from stylecli.metrics.collecting import (
    Classify,
    Collected,
    digest_of,
    needs_of,
    probabilities,
)
from stylecli.metrics.collection_pass import Add, Wanted, run_pass
from stylecli.metrics.feature_streams import Extract, Read
from stylecli.metrics.measuring_meter import Meter
from stylecli.metrics.metric_tasks import PictureTask
from stylecli.metrics.picture_scores import failed, score
from stylecli.metrics.picture_sets import MeasuredSet
from stylecli.metrics.real_passes import Numbers, RealPass, choose_reals, places_of, share_reals
from stylecli.metrics.results import MetricResult
from stylecli.metrics.statistics_cache import StatisticsCache

_REAL_BATCH = 32  # real pictures at a time


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

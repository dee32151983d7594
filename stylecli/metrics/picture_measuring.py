"""Metrics on pictures: all feature networks see the fakes once, then the reals, then come scores.

The same for a generator's pictures and for two sets of pictures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from stylecli import __version__
from stylecli.distributed import Ranks
from stylecli.errors import StyleCLIError
from stylecli.interop.feature_weights import obtain
from stylecli.metrics.collecting import (
    Classify,
    Collected,
    digest_of,
    needs_of,
    probabilities,
)
from stylecli.metrics.collection_pass import Wanted, run_pass
from stylecli.metrics.feature_streams import Read
from stylecli.metrics.features import STAND_IN, Extractor, open_extractor
from stylecli.metrics.measuring_meter import Meter
from stylecli.metrics.metric_tasks import PictureTask
from stylecli.metrics.picture_scores import failed, score
from stylecli.metrics.picture_sets import MeasuredSet, choose
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
) -> Iterator[MetricResult]:
    """Yield the results of every task. A set that cannot be read fails the tasks that need it."""
    extractors = {task.network: open_extractor(task.network, how.device) for task in tasks}
    classifiers = {
        task.network: _classifier(extractors[task.network]) for task in tasks if task.kind == "is"
    }
    wanted: dict[PictureTask, Wanted] = {}
    for task in tasks:
        extractor = extractors[task.network]
        parts = (fakes.identity, "fakes") if fakes.identity else None
        wanted[task] = _want(task, task.fakes, extractor, parts, how, classifiers)
    distinct = _shared(wanted)
    try:
        run_pass(
            fakes.read,
            {name: extractor.extract for name, extractor in extractors.items()},
            distinct,
            batch=fakes.batch,
            cache=how.cache,
            ranks=how.ranks,
            add=lambda count: how.meter.add(count, "fakes"),
            ahead=fakes.ahead,
        )
    except StyleCLIError as error:
        if how.ranks.count > 1:
            raise  # the other ranks would wait for what does not come
        yield from (failed(task, str(error), common) for task in tasks)
        return
    collected: dict[PictureTask, Collected | None] = {}
    chosen: dict[PictureTask, str] = {}
    problems: dict[PictureTask, str] = {}
    for task in tasks:
        collected[task] = None
        if task.reals and reals is not None:
            try:
                collected[task], chosen[task] = _collect_reals(task, reals, extractors, how)
            except StyleCLIError as error:
                if how.ranks.count > 1:
                    raise
                problems[task] = str(error)
    if not how.ranks.is_main:
        return
    for task in tasks:
        if task in problems:
            yield failed(task, problems[task], common)
            continue
        facts = {**common, "reals_chosen": chosen.get(task)}
        yield from score(
            task, extractors[task.network], collected[task], wanted[task].collected, facts
        )


def _collect_reals(
    task: PictureTask, reals: MeasuredSet, extractors: Mapping[str, Extractor], how: Measuring
) -> tuple[Collected, str]:
    """Show the reals of a task to its network, unless the cache has what it needs."""
    published = task.published_count or task.full
    indices, which = choose(task.reals, len(reals), first=published)
    extractor = extractors[task.network]
    parts = (reals.digest, "reals", digest_of(indices.astype("<i8").tobytes().hex()))
    wanted = _want(task, len(indices), extractor, parts if reals.digest else None, how, {})
    run_pass(
        lambda numbers: reals.read(indices[numbers.start : numbers.stop]),
        {extractor.name: extractor.extract},
        [wanted],
        batch=_REAL_BATCH,
        cache=how.cache,
        ranks=how.ranks,
        add=lambda count: how.meter.add(count, "reals"),
        ahead=True,
    )
    return wanted.collected, which


def _want(
    task: PictureTask,
    count: int,
    extractor: Extractor,
    parts: tuple[str, ...] | None,
    how: Measuring,
    classifiers: Mapping[str, Classify],
) -> Wanted:
    needs = needs_of(task, count)
    name = None
    if parts is not None:
        network = (extractor.name, extractor.sha256, extractor.resize, how.device.type)
        name = digest_of(*parts, *network, str(count), str(needs), __version__)
    return Wanted(task.network, Collected(count, needs, classifiers.get(task.network)), name)


def _shared(wanted: dict[PictureTask, Wanted]) -> list[Wanted]:
    """Let tasks that need the same of the same pictures share it; return each once."""
    distinct: dict[tuple[Any, ...], Wanted] = {}
    for task, one in wanted.items():
        key = (one.network, one.collected.count, one.collected.needs)
        wanted[task] = distinct.setdefault(key, one)
    return list(distinct.values())


def _classifier(extractor: Extractor) -> Classify:
    """Return what makes class probabilities of features; Inception's without bias, as defined."""
    if extractor.classify is not None:
        return extractor.classify
    arrays, _ = obtain(STAND_IN)
    weight, bias = (np.asarray(arrays[f"_fc.{part}"], np.float32) for part in ("weight", "bias"))
    return lambda features: probabilities(features @ weight.T + bias)


def count_pictures(tasks: Sequence[PictureTask]) -> int:
    """Return how many pictures a measurement of ``tasks`` shows to networks, for its progress."""
    return max((task.fakes for task in tasks), default=0) + sum(task.reals for task in tasks)

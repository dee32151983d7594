"""Metrics on pictures: all feature networks see the fakes once, then the reals, then come scores.

The same for a generator's pictures and for two sets of pictures. Metrics choose real pictures for
themselves: all, the first, or the same random ones. What the metrics of one network choose is
joined, and each takes its own from what streams past.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli import __version__
from stylecli.errors import StyleCLIError
from stylecli.features.extractors import Extractor, open_extractors
from stylecli.metrics.collecting import Accumulator, Collector, Extract, Pass, Read
from stylecli.metrics.picture_sets import MeasuredSet, choose
from stylecli.metrics.results import MetricResult
from stylecli.metrics.statistics_cache import digest_of
from stylecli.metrics.tasks import PictureTask

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

    shown, kept = pass_over(numbers), {}
    for task in tasks:
        chosen, _ = choose_reals(task, len(reals))
        known = (reals.digest, "reals", digest_of(chosen.astype("<i8").tobytes().hex()))
        extractor = extractors[task.view.key]
        kept[task] = _keep(shown, task, len(chosen), extractor, extractor.extract,
                           known if reals.digest else None, how,
                           places_of(chosen, numbers))  # fmt: skip
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
    return kept


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

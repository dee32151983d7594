"""One pass over pictures: what is kept, how it goes on, how much memory it takes."""

import numpy as np
import pytest
import torch

from stylecli.distributed.ranks import Ranks
from stylecli.features.extractors import VGG16_FC2
from stylecli.metrics.class_scores import ScoresSoFar, probabilities
from stylecli.metrics.collecting import Collector, Meter, Pass, Rows, StatisticsCache
from stylecli.metrics.frechet import BLOCK, MomentsSoFar
from stylecli.metrics.precision_and_recall import PR
from stylecli.metrics.tasks import PictureTask
from stylecli.progress import silent

COUNT, WIDTH = 2500, 12
ROWS = np.random.default_rng(0).normal(size=(COUNT, WIDTH)).astype(np.float32)
LAST_LAYER = np.random.default_rng(1).normal(size=(WIDTH, 5)).astype(np.float32)


def classify(features):
    return probabilities(features @ LAST_LAYER)


def accumulators(count=COUNT):
    return [MomentsSoFar(count), ScoresSoFar(count, classify), Rows(count), Rows(40)]


def collect(read=lambda numbers: [ROWS[numbers.start : numbers.stop]], batch=50, kept=False):
    """Return what a pass keeps, computed."""
    shown = Pass(read, batch)
    for place, accumulator in enumerate(accumulators()):
        name = f"{place}" if kept else None
        shown.keep("net", lambda rows: rows, accumulator, name=name)
    Collector(torch.device("cpu"), Meter(silent, 1.0), StatisticsCache(), Ranks()).run(shown)
    return [one.accumulator.compute() for one in shown.kept]


def test_collects_what_each_metric_needs():
    moments, scores, rows, few = collect()
    assert np.allclose(moments.covariance(), np.cov(ROWS.T))
    assert scores.result()[0] > 1
    assert (rows == ROWS).all() and (few == ROWS[:40]).all()


def test_what_will_hold_the_same_is_kept_once():
    shown, places = Pass(lambda numbers: [], 1), np.array([1, 3])
    first = shown.keep("net", len, Rows(2), places=places)
    assert shown.keep("net", len, Rows(2), places=places.copy()) is first
    others = [("net", Rows(2), None), ("net", Rows(2, half=True), places),
              ("net", MomentsSoFar(2), places), ("other", Rows(2), places)]  # fmt: skip
    for network, accumulator, its in others:
        assert shown.keep(network, len, accumulator, places=its) is accumulator


def test_rows_that_are_compared_in_half_precision_take_half_the_memory():
    task = PictureTask(PR, VGG16_FC2, COUNT, COUNT)
    kept = PR.accumulator(task, COUNT, None)
    kept.update(ROWS, 0)
    assert kept.compute().dtype == np.float16
    assert (kept.compute() == ROWS.astype(np.float16)).all()


@pytest.mark.parametrize("at", [0, 700, 2450])
def test_an_interrupted_pass_goes_on_where_it_stopped(empty_cache, at):
    read = []

    def interrupted(numbers):
        if numbers.start == at and at not in read:
            read.append(at)
            raise KeyboardInterrupt
        read.append(numbers.start)
        return [ROWS[numbers.start : numbers.stop]]

    with pytest.raises(KeyboardInterrupt):
        collect(interrupted, kept=True)
    again = collect(interrupted, kept=True)
    expected = [start for start in range(0, COUNT, 50) if start < at] + list(range(at, COUNT, 50))
    assert sorted(set(read)) == expected and len(read) == len(expected) + 1
    whole = collect()
    assert (again[0].covariance() == whole[0].covariance()).all()
    assert again[1].result() == whole[1].result()
    assert (again[2] == ROWS).all() and (again[3] == ROWS[:40]).all()
    del read[:]
    assert (collect(interrupted, kept=True)[2] == ROWS).all() and not read


def test_batches_do_not_matter():
    one, other = collect(batch=50), collect(batch=64)
    assert (one[0].covariance() == other[0].covariance()).all()
    assert one[1].result() == pytest.approx(other[1].result(), rel=1e-12)


@pytest.mark.parametrize("place", [0, 1])
def test_statistics_are_as_large_for_many_pictures_as_for_few(place):
    def size(count):
        accumulator = accumulators(count)[place]
        for start in range(0, count, 500):
            accumulator.update(ROWS[:500], start)
        return sum(array.nbytes for array in accumulator.state().values())

    assert size(2 * BLOCK) == size(8 * BLOCK)

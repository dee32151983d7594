"""One pass over pictures: what is kept, how it goes on, how much memory it takes."""

import numpy as np
import pytest

from stylecli.distributed import Ranks
from stylecli.features.extractors import VGG16_FC2
from stylecli.metrics.collecting import (
    Collected,
    Needs,
    StatisticsCache,
    Wanted,
    needs_of,
    probabilities,
    run_pass,
)
from stylecli.metrics.tasks import PictureTask

COUNT, WIDTH = 2500, 12
ROWS = np.random.default_rng(0).normal(size=(COUNT, WIDTH)).astype(np.float32)
LAST_LAYER = np.random.default_rng(1).normal(size=(WIDTH, 5)).astype(np.float32)
NEEDS = (Needs("moments"), Needs("scores"), Needs("rows", COUNT), Needs("rows", 40))


def classify(features):
    return probabilities(features @ LAST_LAYER)


def collect(read=lambda numbers: [ROWS[numbers.start : numbers.stop]], batch=50, kept=False):
    wanted = [
        Wanted("net", Collected(COUNT, need, classify), f"{place}" if kept else None)
        for place, need in enumerate(NEEDS)
    ]
    run_pass(read, {"net": lambda rows: rows}, wanted, batch=batch, cache=StatisticsCache(),
             ranks=Ranks(), add=lambda count: None)  # fmt: skip
    return [one.collected for one in wanted]


def test_collects_what_each_metric_needs():
    moments, scores, rows, few = collect()
    assert np.allclose(moments.moments.covariance(), np.cov(ROWS.T))
    assert scores.scores.result()[0] > 1
    assert (rows.rows == ROWS).all() and (few.rows == ROWS[:40]).all()


def test_rows_that_are_compared_in_half_precision_take_half_the_memory():
    task = PictureTask("pr", VGG16_FC2, COUNT, COUNT)
    collected = Collected(COUNT, needs_of(task, COUNT))
    collected.add(ROWS, 0)
    assert collected.rows.dtype == np.float16
    assert (collected.rows == ROWS.astype(np.float16)).all()


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
    assert (again[0].moments.covariance() == whole[0].moments.covariance()).all()
    assert again[1].scores.result() == whole[1].scores.result()
    assert (again[2].rows == ROWS).all() and (again[3].rows == ROWS[:40]).all()
    del read[:]
    assert (collect(interrupted, kept=True)[2].rows == ROWS).all() and not read


def test_batches_do_not_matter():
    one, other = collect(batch=50), collect(batch=64)
    assert (one[0].moments.covariance() == other[0].moments.covariance()).all()
    assert one[1].scores.result() == pytest.approx(other[1].scores.result(), rel=1e-12)


def test_statistics_are_as_large_for_many_pictures_as_for_few():
    def size(count, need):
        collected = Collected(count, need, classify)
        for start in range(0, count, 500):
            collected.add(ROWS[:500], start)
        return sum(array.nbytes for array in collected.state().values())

    for need in (Needs("moments"), Needs("scores"), Needs("rows", 40)):
        assert size(1000, need) == size(10_000, need)


def test_the_oldest_statistics_make_room(empty_cache, monkeypatch):
    monkeypatch.setattr("stylecli.metrics.collecting.MOST_BYTES", 40_000)
    cache = StatisticsCache()
    for name in "abc":
        collected = Collected(300, Needs("rows", 300))
        collected.add(ROWS[:300], 0)
        cache.save(name, collected)
    names = sorted(path.stem for path in (empty_cache / "features").iterdir())
    assert names == ["b", "c"]


def test_statistics_that_others_may_write_are_not_believed(empty_cache):
    collected = Collected(300, Needs("rows", 300))
    collected.add(ROWS[:300], 0)
    StatisticsCache().save("a", collected)
    path = empty_cache / "features" / "a.npz"
    assert StatisticsCache().load("a", Collected(300, Needs("rows", 300)))
    assert oct(path.stat().st_mode & 0o777) == "0o600"

    path.chmod(0o666)

    assert not StatisticsCache().load("a", Collected(300, Needs("rows", 300)))

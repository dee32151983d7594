"""One pass over pictures: what is kept, how it goes on, how much memory it takes."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from stylecli.data.reader import open_dataset
from stylecli.distributed.ranks import Ranks
from stylecli.errors import DataError
from stylecli.features.extractors import INCEPTION, STAND_IN, VGG16_FC2
from stylecli.metrics import evaluate
from stylecli.metrics.class_scores import IS, ScoresSoFar, probabilities
from stylecli.metrics.collecting import Collector, Meter, Pass, Rows, StatisticsCache
from stylecli.metrics.diversity import DIVERSITY
from stylecli.metrics.evaluation import choose_reals, places_of, share_reals
from stylecli.metrics.frechet import BLOCK, FID, MomentsSoFar
from stylecli.metrics.kernel import KID
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


SAMPLES = {"fid": 10, "kid": 6, "pr": 6, "diversity": 4}
NAMES = ["fid@efficientnet-lite0", "kid", "pr", "diversity"]


@pytest.fixture
def dataset(tiny_lmdb):
    return open_dataset(tiny_lmdb)


@pytest.fixture
def shown(dataset, monkeypatch):
    """The numbers of all pictures that are read, in order."""
    numbers, read = [], type(dataset).read
    monkeypatch.setattr(
        type(dataset),
        "read",
        lambda self, some, level=0: numbers.extend(map(int, some)) or read(self, some, level),
    )
    return numbers


def measure(names, network, dataset, **options):
    return evaluate(names, network, dataset, samples=SAMPLES, device="cpu", **options)


def test_each_real_is_read_once_and_the_numbers_are_those_of_each_alone(
    filled_cache, tiny_network, dataset, shown
):
    steps = []
    together = measure(
        NAMES, tiny_network, dataset, cache=False,
        progress=lambda done, total, note="": steps.append((done, total, note)),
    )  # fmt: skip
    assert len(shown) == len(set(shown)) == 10
    assert steps[-1][:2] == (10 + 10, 10 + 10)
    assert sum(b[0] - a[0] for a, b in pairwise(steps) if b[2] == "reals") == 10
    alone = [
        result for name in NAMES for result in measure([name], tiny_network, dataset, cache=False)
    ]
    for one, other in zip(together, alone, strict=True):
        assert one.definition == other.definition
        assert one.value == pytest.approx(other.value, rel=1e-4)


def test_networks_that_look_at_the_same_reals_share_the_reading():
    tasks = [
        PictureTask(FID, INCEPTION, 50_000, 900, full=True),
        PictureTask(KID, INCEPTION, 500, 500),
        PictureTask(PR, VGG16_FC2, 50_000, 900, full=True),
        PictureTask(DIVERSITY, STAND_IN, 500, 500),
        PictureTask(IS, INCEPTION, 500, 0),
    ]
    first, second = share_reals(tasks, 900)
    assert first[1] == (tasks[0], tasks[1], tasks[2]) and len(first[0]) == 900
    assert second[1] == (tasks[3],) and len(second[0]) == 500
    assert share_reals(tasks, 0) == []


def test_a_smaller_random_choice_is_part_of_a_larger_one_and_is_found_in_it():
    small, large = (PictureTask(KID, STAND_IN, n, n) for n in (50, 200))
    ((shared, _),) = share_reals([small, large], 900)
    chosen, which = choose_reals(small, 900)
    assert len(shared) == 200 and "random" in which
    places = places_of(chosen, shared)
    np.testing.assert_array_equal(shared[places], chosen)
    assert places_of(np.arange(20), np.arange(50)) is None


@pytest.mark.parametrize("at", [0, 30, 90])
def test_a_pass_takes_what_is_asked_for_and_goes_on_where_it_stopped(empty_cache, at):
    rows = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    places = np.array([3, 10, 11, 40, 41, 95])
    broken, asked = [], []

    def read(numbers):
        if numbers.start == at and not broken:
            broken.append(at)
            raise KeyboardInterrupt
        asked.append(numbers.start)
        return [rows[numbers.start : numbers.stop]]

    def collect():
        shown = Pass(read, 10, networks={"net": lambda part: part})
        some = shown.keep("net", len, Rows(6), name="some", places=places)
        whole = shown.keep("net", len, MomentsSoFar(60), name="whole")
        Collector(torch.device("cpu"), Meter(silent, 1.0), StatisticsCache(), Ranks()).run(shown)
        return some.compute(), whole.compute()

    with pytest.raises(KeyboardInterrupt):
        collect()
    some, whole = collect()
    np.testing.assert_array_equal(some, rows[places])
    np.testing.assert_allclose(whole.mean(), rows[:60].mean(0), rtol=1e-5)
    assert sorted(asked) == list(range(0, 100, 10))


def test_a_damaged_real_fails_only_the_metrics_that_look_at_it(
    filled_cache, tiny_network, dataset, monkeypatch
):
    fid = PictureTask(FID, STAND_IN, 14, 14)
    kid = PictureTask(KID, STAND_IN, 8, 8)
    only = set(choose_reals(fid, 24)[0]) - set(choose_reals(kid, 24)[0])
    read = type(dataset).read

    def refuse(self, numbers, level=0):
        if only & {int(number) for number in numbers}:
            raise DataError(f"picture {min(only)} is damaged")
        return read(self, numbers, level)

    monkeypatch.setattr(type(dataset), "read", refuse)
    broken, measured = measure(["fid@efficientnet-lite0", "kid"], tiny_network, dataset)
    assert broken.value is None and broken.skipped == f"picture {min(only)} is damaged"
    assert measured.value is not None


def test_the_oldest_statistics_make_room(empty_cache, monkeypatch):
    monkeypatch.setattr("stylecli.metrics.collecting.MOST_BYTES", 40_000)
    cache = StatisticsCache()
    for name in "abc":
        rows = Rows(300)
        rows.update(ROWS[:300], 0)
        cache.save(name, rows)
    names = sorted(path.stem for path in (empty_cache / "features").iterdir())
    assert names == ["b", "c"]


def test_statistics_that_others_may_write_are_not_believed(empty_cache):
    rows = Rows(300)
    rows.update(ROWS[:300], 0)
    StatisticsCache().save("a", rows)
    path = empty_cache / "features" / "a.npz"
    assert StatisticsCache().load("a", Rows(300))
    assert oct(path.stat().st_mode & 0o777) == "0o600"

    path.chmod(0o666)

    assert not StatisticsCache().load("a", Rows(300))

"""Reals of several metrics: every network sees each picture once, every metric takes its own."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from stylecli.data.reader import open_dataset
from stylecli.distributed.ranks import Ranks
from stylecli.errors import DataError
from stylecli.features.extractors import INCEPTION, STAND_IN, VGG16_FC2
from stylecli.metrics import evaluate
from stylecli.metrics.class_scores import IS
from stylecli.metrics.collecting import Collector, Meter, Pass, Rows, StatisticsCache
from stylecli.metrics.diversity import DIVERSITY
from stylecli.metrics.evaluation import choose_reals, places_of, share_reals
from stylecli.metrics.frechet import FID, MomentsSoFar
from stylecli.metrics.kernel import KID
from stylecli.metrics.precision_and_recall import PR
from stylecli.metrics.tasks import PictureTask
from stylecli.progress import silent

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

"""Statistics on disk: the oldest make room, and those that others may write are not believed."""

import numpy as np

from stylecli.metrics.collecting import Rows, StatisticsCache

ROWS = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)


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

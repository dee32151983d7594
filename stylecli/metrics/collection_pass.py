"""One pass over pictures: every feature network sees each once, every metric keeps what it needs.

What is finished is taken from the cache, what was begun goes on where it stopped: a pass that is
interrupted keeps what it has, and so does a long one every so often.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.distributed import Ranks
from stylecli.metrics.collecting import Collected
from stylecli.metrics.feature_streams import Extract, Read, stream_features
from stylecli.metrics.statistics_cache import StatisticsCache

SAVE_SECONDS = 120.0  # between looks at what a long pass has, so that little is lost

Add = Callable[[int], None]  # how many pictures more are done


@dataclass(frozen=True)
class Wanted:
    """Statistics to be collected from one network's features, and their name in the cache."""

    network: str
    collected: Collected
    name: str | None  # None: not kept
    places: NDArray[np.int64] | None = None  # of its pictures in the pass; None: the first ones

    @property
    def end(self) -> int:
        """How far the pass has to go for it."""
        return self.collected.count if self.places is None else int(self.places[-1]) + 1

    @property
    def next(self) -> int:
        """Where in the pass the next picture is that it needs; a complete one is not asked."""
        seen = self.collected.seen
        return seen if self.places is None else int(self.places[seen])

    def take(self, features: NDArray[Any], start: int) -> None:
        """Collect what is its own of the features [B, d] of pictures ``start`` on of the pass."""
        if self.places is None:
            self.collected.add(features, start)
            return
        low, high = np.searchsorted(self.places, (start, start + len(features)))
        self.collected.add(features[self.places[low:high] - start], int(low))


def run_pass(
    read: Read,
    extractors: Mapping[str, Extract],
    wanted: Sequence[Wanted],
    *,
    batch: int,
    cache: StatisticsCache,
    ranks: Ranks,
    add: Add,
    ahead: bool = False,
) -> None:
    """Fill everything ``wanted`` from the pictures that ``read`` returns.

    ``add`` is told of pictures as they are done, those from the cache at once. On ranks other than
    the main one nothing is filled.
    """
    if ranks.is_main:
        for one in wanted:
            if one.name is not None:
                cache.load(one.name, one.collected)
    total = max((one.end for one in wanted), default=0)
    open_ones = [one for one in wanted if one.collected.seen < one.collected.count]
    seen = min((one.next for one in open_ones), default=total)
    first = int(ranks.from_main(seen // batch * batch if seen < total else total))
    counts = ranks.from_main(
        {
            name: max((one.end for one in open_ones if one.network == name), default=0)
            for name in extractors
        }
    )
    add(first)
    saved = time.monotonic()
    end = max(counts.values(), default=0)
    try:
        start = first
        for features in stream_features(
            read, end, extractors, counts, batch=batch, first=first, ahead=ahead, ranks=ranks
        ):
            for one in open_ones:
                if one.network in features:
                    one.take(features[one.network], start)
            done = min(batch, end - start)
            start += done
            add(done)
            if time.monotonic() - saved > SAVE_SECONDS:
                _keep(open_ones, cache)
                saved = time.monotonic()
        add(total - max(end, first))
    except KeyboardInterrupt:
        if ranks.is_main and (failed := _keep(open_ones, cache)):
            raise KeyboardInterrupt(failed[0]) from None  # who says what is kept has to know
        raise
    except BaseException:
        if ranks.is_main:
            _keep(open_ones, cache)
        raise
    if ranks.is_main:
        _keep(open_ones, cache)


def _keep(wanted: Sequence[Wanted], cache: StatisticsCache) -> list[str]:
    """Write what there is to the cache; return why some of it is not kept."""
    whole = [one for one in wanted if one.collected.intact and one.collected.seen]
    said = [cache.save(one.name, one.collected) for one in whole if one.name is not None]
    return [why for why in said if why is not None]

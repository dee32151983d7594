"""Features of pictures in order, a batch at a time, shared out over ranks.

Batch n belongs to rank n modulo their count, which reads or draws it and shows it to the feature
networks; the main rank gets all features and adds them up in the order of the pictures. Nothing
depends on how many ranks there are: not the batches, not the order, not a digit.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stylecli.distributed import Ranks

# What has these numbers, in order, in one or more parts: pictures as uint8 [B, 3, H, W], an array
# per size, or samples of a network. There may be more in the last than was asked for.
Read = Callable[[range], list[Any]]
Extract = Callable[[Any], NDArray[Any]]  # a part to rows [B, d]


def stream_features(
    read: Read,
    count: int,
    extractors: Mapping[str, Extract],
    wanted: Mapping[str, int],
    *,
    batch: int,
    first: int = 0,
    ahead: bool = False,
    ranks: Ranks | None = None,
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the features of pictures ``first`` to ``count``, a batch at a time, by network.

    A network that is ``wanted`` for fewer pictures is not shown the rest. ``ahead`` reads the next
    batch in a thread meanwhile. On ranks other than the main one nothing is yielded, and iterating
    does their share.
    """
    ranks = ranks or Ranks()
    starts = range(first, count, batch)
    batches = [range(start, min(start + batch, count)) for start in starts]
    mine = [numbers for place, numbers in enumerate(batches) if place % ranks.count == ranks.rank]
    shown = _show(_reading(read, mine, ahead), extractors, wanted)
    if ranks.count == 1:
        yield from shown
        return
    if not ranks.is_main:
        for features in shown:
            for name in extractors:
                if name in features:
                    _send(features[name], ranks)
        return
    widths: dict[str, int] = {}
    types: dict[str, np.dtype[Any]] = {}
    for place, numbers in enumerate(batches):
        sender = place % ranks.count
        if sender == 0:
            features = next(shown)
            widths |= {name: rows.shape[1] for name, rows in features.items()}
            types |= {name: rows.dtype for name, rows in features.items()}
        else:
            looking = [name for name in extractors if numbers.start < wanted[name]]
            features = {
                name: _receive((_rows(numbers, wanted[name]), widths[name]), sender, ranks).astype(
                    types[name]
                )
                for name in looking
            }
        yield features


def _reading(read: Read, batches: list[range], ahead: bool) -> Iterator[tuple[range, list[Any]]]:
    if not ahead:
        for numbers in batches:
            yield numbers, read(numbers)
        return
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(read, batches[0]) if batches else None
        for place, numbers in enumerate(batches):
            assert following is not None
            pictures = following.result()
            if place + 1 < len(batches):
                following = thread.submit(read, batches[place + 1])
            yield numbers, pictures


def _show(
    reading: Iterator[tuple[range, list[Any]]],
    extractors: Mapping[str, Extract],
    wanted: Mapping[str, int],
) -> Iterator[dict[str, NDArray[Any]]]:
    for numbers, pictures in reading:
        yield {
            name: np.concatenate([extract(part) for part in pictures])[
                : _rows(numbers, wanted[name])
            ]
            for name, extract in extractors.items()
            if numbers.start < wanted[name]
        }


def _rows(numbers: range, wanted: int) -> int:
    return min(numbers.stop, wanted) - numbers.start


def _send(features: NDArray[Any], ranks: Ranks) -> None:
    import torch.distributed as dist

    with _watched(ranks):
        dist.send(torch.from_numpy(np.ascontiguousarray(features, np.float64)), 0)


def _receive(shape: tuple[int, int], sender: int, ranks: Ranks) -> NDArray[Any]:
    import torch.distributed as dist

    rows = torch.empty(shape, dtype=torch.float64)
    with _watched(ranks):
        dist.recv(rows, sender)
    return rows.numpy()


def _watched(ranks: Ranks) -> contextlib.AbstractContextManager[None]:
    return ranks.watch.exchange() if ranks.watch else contextlib.nullcontext()

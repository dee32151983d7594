"""One pass over pictures: every feature network sees each once, every metric keeps what it needs.

Features stream past in order, a batch at a time, shared out over ranks. Batch n belongs to rank n
modulo their count, which reads or draws it and shows it to the feature networks; the main rank gets
all features and adds them up in the order of the pictures. Nothing depends on how many ranks there
are: not the batches, not the order, not a digit.

A metric keeps moments, class scores, or the rows. Moments and class scores take the same memory for
any number of pictures. Rows are kept where a metric compares pictures with each other (kid, pr),
and for few of them.

What is finished is taken from the cache, what was begun goes on where it stopped: a pass that is
interrupted keeps what it has, and so does a long one every so often.
"""

import contextlib
import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stylecli.cache_folder import cache_folder, keep_private, private_folder, whose
from stylecli.distributed import Ranks
from stylecli.errors import UsageError
from stylecli.features.extractors import Features
from stylecli.files import replacing
from stylecli.metrics.class_scores import ClassScores
from stylecli.metrics.frechet import BLOCK, Moments
from stylecli.metrics.tasks import PictureTask

# What has these numbers, in order, in one or more parts: pictures as uint8 [B, 3, H, W], an array
# per size, or samples of a network. There may be more in the last than was asked for.
Read = Callable[[range], list[Any]]
Extract = Callable[[Any], NDArray[Any]]  # a part to rows [B, d]
# Features [N, d] -> class probabilities [N, classes]: what Inception Score looks at.
Classify = Callable[[Features], NDArray[Any]]

SMALL = 2048  # sets up to this size are kept whole for a Fréchet distance: exact and quicker
CACHE_FOLDER = "features"
MOST_BYTES = 4 << 30
SAVE_SECONDS = 120.0  # between looks at what a long pass has, so that little is lost

Add = Callable[[int], None]  # how many pictures more are done


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


@dataclass(frozen=True)
class Needs:
    """The one thing that is kept of one network's features of so many pictures."""

    kind: Literal["moments", "scores", "rows"]
    rows: int = 0  # of the first pictures
    half: bool = False  # rows are kept in float16


def needs_of(task: PictureTask, count: int) -> Needs:
    """Return what ``task`` needs of a set of ``count`` pictures."""
    if task.kind == "is":
        return Needs("scores")
    if task.kind == "fid" and max(task.fakes, task.reals) > SMALL:
        return Needs("moments")
    # Precision and recall are defined on half precision, as in the official programs.
    return Needs("rows", count, half=task.kind == "pr")


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the softmax of logits [N, classes]."""
    values = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    np.exp(values, out=values)
    values /= values.sum(axis=1, keepdims=True)
    return values


class Collected:
    """What was kept of the features of ``count`` pictures; complete when ``seen`` is ``count``."""

    def __init__(self, count: int, needs: Needs, classify: Classify | None = None) -> None:
        self.count, self.needs, self.seen = count, needs, 0
        self.intact = True  # False where an interrupt fell into the middle of adding
        self.moments: Moments | None = None
        self.scores: ClassScores | None = None
        self._classify = classify
        self._rows: NDArray[Any] | None = None
        self._pending: list[NDArray[Any]] = []  # rows of a block of moments that is not full yet

    @property
    def rows(self) -> NDArray[Any]:
        """The features [``needs.rows``, d] of the first pictures."""
        assert self._rows is not None
        return self._rows[: min(self.seen, self.needs.rows)]

    def add(self, features: NDArray[Any], first: int) -> None:
        """Take features [B, d] of pictures ``first`` on; what was seen is not taken twice."""
        features = features[self.seen - first : self.count - first]
        if not len(features):
            return
        self.intact = False
        if self.needs.kind == "rows":
            if self._rows is None:
                dtype = np.dtype(np.float16) if self.needs.half else features.dtype
                self._rows = _room_for_rows(self.needs.rows, features.shape[1], dtype)
            kept = features[: max(0, self.needs.rows - self.seen)]
            with np.errstate(over="ignore"):  # of half: who compares rows refuses infinite ones
                self._rows[self.seen : self.seen + len(kept)] = kept
        elif self.needs.kind == "moments":
            self.moments = self.moments or Moments(features.shape[1])
            self._add_blocks(self.moments, features)
        else:
            assert self._classify is not None
            found = self._classify(features)
            self.scores = self.scores or ClassScores(self.count, found.shape[1])
            self.scores.add(found)
        self.seen += len(features)
        self.intact = True

    def _add_blocks(self, moments: Moments, features: NDArray[Any]) -> None:
        """Hand on whole blocks only: so the state between them can be kept without a rounding."""
        self._pending.append(features)
        waiting = sum(map(len, self._pending))
        last = self.seen + len(features) == self.count
        if waiting < BLOCK and not last:
            return
        rows = np.concatenate(self._pending)
        whole = len(rows) if last else len(rows) // BLOCK * BLOCK
        moments.add(rows[:whole])
        self._pending = [rows[whole:].copy()] if whole < len(rows) else []

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all there is as arrays."""
        arrays: dict[str, NDArray[Any]] = {"seen": np.array(self.seen)}
        if self._rows is not None:
            arrays["rows"] = self.rows
        if self.moments is not None:
            arrays |= {f"moments.{key}": value for key, value in self.moments.state().items()}
        if self._pending:
            arrays["pending"] = np.concatenate(self._pending)
        if self.scores is not None:
            arrays |= {f"scores.{key}": value for key, value in self.scores.state().items()}
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from ``state()`` of an equal one. Raises UsageError where it does not fit."""
        try:
            seen = int(arrays["seen"])
            moments = scores = rows = None
            pending = [arrays["pending"]] if "pending" in arrays else []
            if self.needs.kind == "moments" and seen:
                moments = Moments.from_state(_part(arrays, "moments."))
            elif self.needs.kind == "scores" and seen:
                scores = ClassScores.from_state(_part(arrays, "scores."))
            elif seen:
                stored = arrays["rows"]
                rows = _room_for_rows(self.needs.rows, stored.shape[1], stored.dtype)
                rows[: len(stored)] = stored
                if len(stored) != min(seen, self.needs.rows) or not np.isfinite(stored).all():
                    raise ValueError
            held = sum(map(len, pending))
            if seen > self.count or (moments is not None and moments.count + held != seen):
                raise ValueError
        except (KeyError, ValueError, IndexError, TypeError):
            raise UsageError("stored statistics are damaged, or of other pictures") from None
        self.seen, self.moments, self.scores, self._rows = seen, moments, scores, rows
        self._pending = pending


def _room_for_rows(count: int, width: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        return np.empty((count, width), dtype)
    except (MemoryError, ValueError):  # ValueError: more than any address space
        size = count * width * dtype.itemsize / (1 << 30)
        raise UsageError(
            f"the features of {count} pictures, {size:.0f} GiB, do not fit into memory: give fewer "
            "--samples"
        ) from None


def digest_of(*parts: str) -> str:
    """Return a name for what was made from ``parts``: 32 hex digits."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _part(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}


class StatisticsCache:
    """A folder of statistics by name. ``use=False`` reads and keeps nothing.

    Those of real sets are made once, unfinished ones are gone on with. Files are npz archives,
    whose parts carry checksums: a damaged one is made again. One that cannot be written costs the
    next run time, nothing else. The folder is kept below ``MOST_BYTES``; what was not used for
    longest goes first.
    """

    def __init__(self, use: bool = True) -> None:
        self.use = use

    def load(self, name: str, into: Collected) -> bool:
        """Fill ``into`` from the file of this name; tell whether there was one that fits."""
        path = self._path(name)
        if not self.use or not path.is_file():
            return False
        try:
            if whose(path):  # numbers that somebody else may have written
                return False
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                into.restore(dict(stored))
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, UsageError, KeyError):
            return False
        with contextlib.suppress(OSError):
            os.utime(path)  # used: it goes last
        return True

    def save(self, name: str, collected: Collected) -> str | None:
        """Keep what was collected under this name; return why it is not kept, None if it is."""
        if not self.use:
            return "nothing is kept with --no-cache"
        arrays = collected.state()
        size = sum(array.nbytes for array in arrays.values())
        if size > MOST_BYTES:
            return f"{size} bytes of statistics are more than is kept ({MOST_BYTES})"
        path = self._path(name)
        try:
            private_folder(CACHE_FOLDER)
            self._make_room(size)
            with replacing(path) as temporary:
                np.savez(temporary, allow_pickle=False, **arrays)
            keep_private(path)
        except (OSError, ValueError) as error:  # zipfile closes a broken archive with a ValueError
            cause = error.strerror if isinstance(error, OSError) and error.strerror else "disk full"
            return f"{path.parent} cannot be written ({cause})"
        return None

    def drop(self, name: str) -> None:
        """Remove the file of this name, if there is one."""
        with contextlib.suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    @staticmethod
    def _path(name: str) -> Path:
        return cache_folder() / CACHE_FOLDER / f"{name}.npz"

    @staticmethod
    def _make_room(size: int) -> None:
        folder = cache_folder() / CACHE_FOLDER
        kept = sorted(folder.glob("*.np[yz]"), key=lambda path: path.stat().st_mtime)
        total = size + sum(path.stat().st_size for path in kept)
        for path in kept:
            if total <= MOST_BYTES:
                return
            total -= path.stat().st_size
            path.unlink(missing_ok=True)


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

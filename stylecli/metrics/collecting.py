"""One pass over pictures: every feature network sees each once, every metric keeps what it needs.

Features stream past in order, a batch at a time, shared out over ranks. Batch n belongs to rank n
modulo their count, which reads or draws it and shows it to the feature networks; the main rank gets
all features and adds them up in the order of the pictures. Nothing depends on how many ranks there
are: not the batches, not the order, not a digit.

A metric's accumulator keeps moments, class scores, or the rows. Moments and class scores take the
same memory for any number of pictures. Rows are kept where a metric compares pictures with each
other (kid, pr), and for few of them.

What is finished is taken from the cache, what was begun continues where it stopped: a pass that is
interrupted keeps what it has, and so does a long one every so often.
"""

import contextlib
import hashlib
import os
import time
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from stylecli.cache_folder import cache_folder, keep_private, private_folder, whose
from stylecli.distributed.ranks import Ranks
from stylecli.errors import UsageError, plural
from stylecli.files import replacing
from stylecli.progress import Progress, format_bytes

CACHE_FOLDER = "features"
MOST_BYTES = 4 << 30


class Stored(Protocol):
    """What can be written as arrays and filled from them again."""

    def state(self) -> dict[str, NDArray[Any]]: ...
    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None: ...


def digest_of(*parts: str) -> str:
    """Return a name for what was made from ``parts``: 32 hex digits."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class StatisticsCache:
    """A folder of statistics by name. ``use=False`` reads and keeps nothing.

    Files are npz archives,
    whose parts carry checksums: a damaged one is made again. One that cannot be written costs the
    next run time, nothing else. The folder is kept below ``MOST_BYTES``; what was not used for
    longest goes first.
    """

    def __init__(self, use: bool = True) -> None:
        self.use = use

    def load(self, name: str, into: Stored) -> bool:
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

    def save(self, name: str, collected: Stored) -> str | None:
        """Keep what was collected under this name; return why it is not kept, None if it is."""
        if not self.use:
            return "nothing is kept with --no-cache"
        arrays = collected.state()
        size = sum(array.nbytes for array in arrays.values())
        if size > MOST_BYTES:
            return f"{size} bytes of statistics are over the limit of {MOST_BYTES}"
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


# What has these numbers, in order, in one or more parts: pictures as uint8 [B, 3, H, W], an array
# per size, or samples of a network. There may be more in the last than was asked for.
Read = Callable[[range], list[Any]]
Extract = Callable[[Any], NDArray[Any]]  # a part to rows [B, d]

SAVE_SECONDS = 120.0  # between looks at what a long pass has, so that little is lost


class Accumulator(ABC):
    """What is kept of one network's features of ``count`` pictures, which arrive in order.

    ``update`` takes features, ``compute`` returns what a score is made from when all are seen.
    """

    key: str  # what is kept: of the same features, accumulators of one key hold the same

    def __init__(self, count: int) -> None:
        self.count, self.seen = count, 0
        self.intact = True  # False where an interrupt fell into the middle of an update

    def update(self, features: NDArray[Any], first: int) -> None:
        """Take features [B, d] of pictures ``first`` on; what was seen is not taken twice."""
        features = features[self.seen - first : self.count - first]
        if not len(features):
            return
        self.intact = False
        self._take(features)
        self.seen += len(features)
        self.intact = True

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all there is as arrays."""
        return {"seen": np.array(self.seen), **self._state()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from ``state()`` of an equal one. Raises UsageError where it does not fit."""
        try:
            seen = int(arrays["seen"])
            if seen > self.count:
                raise ValueError
            if seen:
                self._restore(arrays, seen)
        except (KeyError, ValueError, IndexError, TypeError):
            raise UsageError("the stored statistics are damaged, or of other pictures") from None
        self.seen = seen

    @abstractmethod
    def compute(self) -> Any:
        """Return what a score is made from."""

    @abstractmethod
    def _take(self, features: NDArray[Any]) -> None:
        """Take the features [B, d] of the next pictures."""

    @abstractmethod
    def _state(self) -> dict[str, NDArray[Any]]: ...

    @abstractmethod
    def _restore(self, arrays: Mapping[str, NDArray[Any]], seen: int) -> None:
        """Change nothing unless all fits; else raise."""


class Rows(Accumulator):
    """The features themselves, [count, d]; those of ``half`` in float16."""

    def __init__(self, count: int, *, half: bool = False) -> None:
        super().__init__(count)
        self.key = "half rows" if half else "rows"
        self._half = half
        self._rows: NDArray[Any] | None = None

    def compute(self) -> NDArray[Any]:
        """Return the features of the pictures seen, [seen, d]."""
        assert self._rows is not None
        return self._rows[: self.seen]

    def _take(self, features: NDArray[Any]) -> None:
        if self._rows is None:
            dtype = np.dtype(np.float16) if self._half else features.dtype
            self._rows = _room_for_rows(self.count, features.shape[1], dtype)
        with np.errstate(over="ignore"):  # of half: who compares rows refuses infinite ones
            self._rows[self.seen : self.seen + len(features)] = features

    def _state(self) -> dict[str, NDArray[Any]]:
        return {} if self._rows is None else {"rows": self.compute()}

    def _restore(self, arrays: Mapping[str, NDArray[Any]], seen: int) -> None:
        stored = arrays["rows"]
        rows = _room_for_rows(self.count, stored.shape[1], stored.dtype)
        rows[: len(stored)] = stored
        if len(stored) != seen or not np.isfinite(stored).all():
            raise ValueError
        self._rows = rows


def _room_for_rows(count: int, width: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        return np.empty((count, width), dtype)
    except (MemoryError, ValueError):  # ValueError: more than any address space
        size = format_bytes(count * width * dtype.itemsize)
        raise UsageError(
            f"the features of {plural(count, 'picture')} ({size}) do not fit into memory: "
            f"give fewer "
            "--samples"
        ) from None


@dataclass(frozen=True)
class Kept:
    """An accumulator of a pass: whose features it takes, of which pictures; its cached name."""

    network: str
    accumulator: Accumulator
    name: str | None = None  # None: not cached
    places: NDArray[np.int64] | None = None  # of its pictures in the pass; None: the first ones

    @property
    def end(self) -> int:
        """How far the pass has to go for it."""
        return self.accumulator.count if self.places is None else int(self.places[-1]) + 1

    @property
    def next(self) -> int:
        """Where in the pass the next picture is that it needs; a complete one is not asked."""
        seen = self.accumulator.seen
        return seen if self.places is None else int(self.places[seen])

    def take(self, features: NDArray[Any], start: int) -> None:
        """Take what is its own of the features [B, d] of pictures ``start`` on of the pass."""
        if self.places is None:
            self.accumulator.update(features, start)
            return
        low, high = np.searchsorted(self.places, (start, start + len(features)))
        self.accumulator.update(features[self.places[low:high] - start], int(low))


@dataclass
class Pass:
    """Pictures that are read once, the networks that look at them, and what is kept of each."""

    read: Read
    batch: int
    note: str = ""  # what its progress says
    ahead: bool = False  # the next batch is read in a thread meanwhile
    networks: dict[str, Extract] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)
    problem: str | None = None  # why it could not be made

    def keep(
        self,
        network: str,
        extract: Extract,
        accumulator: Accumulator,
        *,
        name: str | None = None,
        places: NDArray[np.int64] | None = None,
    ) -> Accumulator:
        """Have the features of a network kept; return by what.

        That is an accumulator which is in the pass already where it will hold the same.
        """
        self.networks.setdefault(network, extract)
        for one in self.kept:
            same = (one.network, one.accumulator.count, one.accumulator.key) == (
                network, accumulator.count, accumulator.key
            )  # fmt: skip
            if same and _equal(one.places, places):
                return one.accumulator
        self.kept.append(Kept(network, accumulator, name, places))
        return accumulator


def _equal(a: NDArray[np.int64] | None, b: NDArray[np.int64] | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


class Meter:
    """Adds up pictures and pairs of every phase; ``total`` is known before."""

    def __init__(self, report: Progress, total: float) -> None:
        self._report, self._done, self._total = report, 0.0, total

    def add(self, count: float, note: str) -> None:
        """Say that ``count`` more are done."""
        if count:
            self._done += count
            self._report(self._done, self._total, note)

    def share(self, size: float) -> Progress:
        """Return a progress callback for a part of the whole, ``size`` of its units."""
        before = self._done

        def report(done: float, total: float, note: str = "") -> None:
            self._done = before + round(size * done / total)
            self._report(self._done, self._total, note)

        return report


@dataclass(frozen=True)
class Collector:
    """Runs passes: where, over which ranks, with which cache. Nothing of it changes a number."""

    device: torch.device
    meter: Meter
    cache: StatisticsCache = field(default_factory=StatisticsCache)
    ranks: Ranks = field(default_factory=Ranks)
    reals: "KeptReals | None" = None  # what earlier measurements have of the same real pictures

    def run(self, shown: Pass, *, counted: bool = True) -> None:
        """Fill everything that a pass keeps; on ranks other than the main one nothing is filled.

        Unless it is not ``counted``, progress is told of pictures as they are done, of those from
        the cache at once.
        """
        ranks, kept = self.ranks, shown.kept
        if ranks.is_main:
            for one in kept:
                if one.name is not None:
                    self.cache.load(one.name, one.accumulator)
        total = max((one.end for one in kept), default=0)
        open_ones = [one for one in kept if one.accumulator.seen < one.accumulator.count]
        seen = min((one.next for one in open_ones), default=total)
        batch = shown.batch
        first = int(ranks.from_main(seen // batch * batch if seen < total else total))
        counts = ranks.from_main(
            {
                name: max((one.end for one in open_ones if one.network == name), default=0)
                for name in shown.networks
            }
        )
        end = max(counts.values(), default=0)
        self._count(first, shown, counted)
        try:
            self._stream(shown, open_ones, counts, first, counted)
            self._count(total - max(end, first), shown, counted)
        except KeyboardInterrupt:
            if ranks.is_main and (failed := self._save(open_ones)):
                raise KeyboardInterrupt(failed[0]) from None  # who says what is kept has to know
            raise
        except BaseException:
            if ranks.is_main:
                self._save(open_ones)
            raise
        if ranks.is_main:
            self._save(open_ones)

    def _stream(
        self,
        shown: Pass,
        open_ones: Sequence[Kept],
        counts: Mapping[str, int],
        first: int,
        counted: bool,
    ) -> None:
        end, start, saved = max(counts.values(), default=0), first, time.monotonic()
        for features in stream_features(
            shown.read, end, shown.networks, counts, batch=shown.batch, first=first,
            ahead=shown.ahead, ranks=self.ranks,
        ):  # fmt: skip
            for one in open_ones:
                if one.network in features:
                    one.take(features[one.network], start)
            done = min(shown.batch, end - start)
            start += done
            self._count(done, shown, counted)
            if time.monotonic() - saved > SAVE_SECONDS:
                self._save(open_ones)
                saved = time.monotonic()

    def _count(self, done: int, shown: Pass, counted: bool) -> None:
        if counted:
            self.meter.add(done, shown.note)

    def _save(self, kept: Sequence[Kept]) -> list[str]:
        """Write what there is to the cache; return why some of it is not kept."""
        whole = [one for one in kept if one.accumulator.intact and one.accumulator.seen]
        said = [self.cache.save(one.name, one.accumulator) for one in whole if one.name is not None]
        return [why for why in said if why is not None]


# By the set's digest, the view, what is kept and which pictures: complete accumulators.
KeptReals = dict[tuple[str, str, str, bytes], Accumulator]


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

    with ranks.exchange():
        dist.send(torch.from_numpy(np.ascontiguousarray(features, np.float64)), 0)


def _receive(shape: tuple[int, int], sender: int, ranks: Ranks) -> NDArray[Any]:
    import torch.distributed as dist

    rows = torch.empty(shape, dtype=torch.float64)
    with ranks.exchange():
        dist.recv(rows, sender)
    return rows.numpy()

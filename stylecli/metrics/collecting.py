"""What a metric keeps of features that stream past: their moments, class scores, or the rows.

Moments and class scores take the same memory for any number of pictures. Rows are kept where a
metric compares pictures with each other (kid, pr), and for few of them.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import UsageError
from stylecli.features.extractors import Features
from stylecli.metrics.class_scores import ClassScores
from stylecli.metrics.metric_tasks import PictureTask
from stylecli.metrics.moments import BLOCK, Moments

# Features [N, d] -> class probabilities [N, classes]: what Inception Score looks at.
Classify = Callable[[Features], NDArray[Any]]

SMALL = 2048  # sets up to this size are kept whole for a Fréchet distance: exact and quicker


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

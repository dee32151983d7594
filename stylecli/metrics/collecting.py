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
from stylecli.metrics.class_scores import ClassScores
from stylecli.metrics.features import Features
from stylecli.metrics.metric_tasks import PictureTask
from stylecli.metrics.moments import Moments

# Features [N, d] -> class probabilities [N, classes]: what Inception Score looks at.
Classify = Callable[[Features], NDArray[Any]]

SMALL = 2048  # sets up to this size are kept whole for a Fréchet distance: exact and quicker
DIVERSITY_ROWS = 2000  # pairs grow with the square; the mean is settled long before


@dataclass(frozen=True)
class Needs:
    """The one thing that is kept of one network's features of so many pictures."""

    kind: Literal["moments", "scores", "rows"]
    rows: int = 0  # of the first pictures


def needs_of(task: PictureTask, count: int) -> Needs:
    """Return what ``task`` needs of a set of ``count`` pictures."""
    if task.kind == "is":
        return Needs("scores")
    if task.kind == "fid" and max(task.fakes, task.reals) > SMALL:
        return Needs("moments")
    return Needs("rows", min(count, DIVERSITY_ROWS) if task.kind == "diversity" else count)


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
                self._rows = np.empty((self.needs.rows, features.shape[1]), features.dtype)
            kept = features[: max(0, self.needs.rows - self.seen)]
            self._rows[self.seen : self.seen + len(kept)] = kept
        elif self.needs.kind == "moments":
            self.moments = self.moments or Moments(features.shape[1])
            self.moments.add(features)
        else:
            assert self._classify is not None
            found = self._classify(features)
            self.scores = self.scores or ClassScores(self.count, found.shape[1])
            self.scores.add(found)
        self.seen += len(features)
        self.intact = True

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all there is as arrays."""
        arrays: dict[str, NDArray[Any]] = {"seen": np.array(self.seen)}
        if self._rows is not None:
            arrays["rows"] = self.rows
        if self.moments is not None:
            arrays |= {f"moments.{key}": value for key, value in self.moments.state().items()}
        if self.scores is not None:
            arrays |= {f"scores.{key}": value for key, value in self.scores.state().items()}
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from ``state()`` of an equal one. Raises UsageError where it does not fit."""
        try:
            seen = int(arrays["seen"])
            moments = scores = rows = None
            if self.needs.kind == "moments" and seen:
                moments = Moments.from_state(_part(arrays, "moments."))
            elif self.needs.kind == "scores" and seen:
                scores = ClassScores.from_state(_part(arrays, "scores."))
            elif seen:
                stored = arrays["rows"]
                rows = np.empty((self.needs.rows, stored.shape[1]), stored.dtype)
                rows[: len(stored)] = stored
                if len(stored) != min(seen, self.needs.rows) or not np.isfinite(stored).all():
                    raise ValueError
            if seen > self.count or (moments is not None and moments.count != seen):
                raise ValueError
        except (KeyError, ValueError, IndexError, TypeError):
            raise UsageError("stored statistics are damaged, or of other pictures") from None
        self.seen, self.moments, self.scores, self._rows = seen, moments, scores, rows


def digest_of(*parts: str) -> str:
    """Return a name for what was made from ``parts``: 32 hex digits."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _part(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}

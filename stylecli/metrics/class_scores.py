"""Inception Score: how sure and how varied a classifier finds the pictures."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import UsageError, plural
from stylecli.features.extractors import STAND_IN, Extractor, Features
from stylecli.interop.feature_weights import obtain
from stylecli.metrics import NAMES_OF
from stylecli.metrics.collecting import Accumulator
from stylecli.metrics.tasks import (
    PUBLISHED_FAKES,
    PictureMetric,
    PictureTask,
    Score,
    says_stand_in,
)
from stylecli.statistics.arrays import as_features

SPLITS = 10
# Features [N, d] -> class probabilities [N, classes].
Classify = Callable[[Features], NDArray[Any]]


def inception_score(probs: Any, splits: int = SPLITS) -> tuple[float, float]:
    """Return mean and population standard deviation of exp(E[KL(p(y|x) ‖ p(y))]) over splits.

    ``probs`` [N, classes] are class probabilities, rows summing to 1; split i takes rows
    i·N/splits to (i+1)·N/splits. Raises UsageError for other shapes, negative values, rows that
    do not sum to 1, or fewer rows than splits. Salimans et al. 2016.
    """
    table = as_features("probs", probs)
    scores = ClassScores(len(table), table.shape[1], splits)
    scores.add(table)
    return scores.result()


class ClassScores:
    """The Inception Score of a known number of pictures whose probabilities arrive in batches.

    A split needs its rows' Σp·log p, one number, and Σp, one row: E[KL] is their difference
    Σp·log p / n - Σ p̄·log p̄. Memory holds splits x classes numbers, whatever N is.
    """

    def __init__(self, total: int, classes: int, splits: int = SPLITS) -> None:
        if not 1 <= splits <= total:
            raise UsageError(
                f"splits {splits} does not fit {plural(total, 'row')}: expected 1 to that many"
            )
        self.total, self.splits = total, splits
        self._rows = np.zeros(splits, np.int64)
        self._information = np.zeros(splits)  # Σ p·log p
        self._sums = np.zeros((splits, classes))

    def add(self, probs: Any, numbers: Any = None) -> None:
        """Add rows [B, classes]; ``numbers`` [B] are their places in 0..N-1, None the next ones.

        Raises UsageError for shapes, places and values that do not fit.
        """
        table = as_features("probs", probs)
        if table.shape[1] != self._sums.shape[1]:
            raise UsageError(
                f"probs has {table.shape[1]} columns: expected "
                f"{plural(self._sums.shape[1], 'class', 'classes')}"
            )
        if (table < 0).any() or not np.allclose(table.sum(axis=1), 1.0, atol=1e-3):
            raise UsageError("probs are not class probabilities: expected rows that sum to 1")
        first = int(self._rows.sum())
        places = np.arange(first, first + len(table)) if numbers is None else np.asarray(numbers)
        if len(places) != len(table) or places.min() < 0 or places.max() >= self.total:
            raise UsageError(
                f"places {places.min()} to {places.max()} of {plural(len(table), 'row')} do not "
                f"fit "
                f"{plural(self.total, 'picture')}"
            )
        # Split i is rows i·N // splits up to (i+1)·N // splits.
        bounds = np.arange(1, self.splits) * self.total // self.splits
        of_row = np.searchsorted(bounds, places, side="right")
        # 0·log 0 is 0.
        information = (table * _log(table)).sum(axis=1)
        for split in np.unique(of_row):
            mine = of_row == split
            self._rows[split] += int(mine.sum())
            self._information[split] += information[mine].sum()
            self._sums[split] += table[mine].sum(axis=0)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all there is as arrays, for ``numpy.savez`` and the like."""
        return {"total": np.array(self.total), "rows": self._rows.copy(),
                "information": self._information.copy(), "sums": self._sums.copy()}  # fmt: skip

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "ClassScores":
        """Return class scores from ``state()``. Raises UsageError where arrays do not fit."""
        try:
            scores = cls(int(state["total"]), state["sums"].shape[1], len(state["rows"]))
            scores._rows[:] = state["rows"]
            scores._information[:] = state["information"]
            scores._sums[:] = state["sums"]
        except (KeyError, ValueError, IndexError, TypeError, AttributeError):
            raise UsageError("a state of class scores is damaged") from None
        return scores

    def result(self) -> tuple[float, float]:
        """Return (mean, population standard deviation) over splits. Raises when rows lack."""
        if int(self._rows.sum()) != self.total or not self._rows.all():
            raise UsageError(f"{int(self._rows.sum())} rows were added: expected {self.total}")
        means = self._sums / self._rows[:, None]
        divergence = self._information / self._rows - (means * _log(means)).sum(axis=1)
        scores = np.exp(divergence)
        return float(scores.mean()), float(scores.std())


def _log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(values, where=values > 0, out=np.zeros_like(values))


class ScoresSoFar(Accumulator):
    """Class scores of the features: the same memory for any number of pictures."""

    key = "class scores"

    def __init__(self, count: int, classify: Classify) -> None:
        super().__init__(count)
        self._classify = classify
        self._scores: ClassScores | None = None

    def compute(self) -> ClassScores:
        """Return the scores of all pictures."""
        assert self._scores is not None
        return self._scores

    def _take(self, features: NDArray[Any]) -> None:
        found = self._classify(features)
        self._scores = self._scores or ClassScores(self.count, found.shape[1])
        self._scores.add(found)

    def _state(self) -> dict[str, NDArray[Any]]:
        return {} if self._scores is None else self._scores.state()

    def _restore(self, arrays: Mapping[str, NDArray[Any]], seen: int) -> None:
        self._scores = ClassScores.from_state(arrays)


class InceptionScore(PictureMetric):
    """Inception Score, by its published name and with the stand-in's classes."""

    kind = "is"
    names = NAMES_OF["is"]
    higher_is_better = True
    cpu_samples, gpu_samples = 1000, PUBLISHED_FAKES
    looks_at_reals = False

    def why_too_few(self, least: int, *, asked: bool) -> str | None:
        """Refuse fewer pictures than splits."""
        if least >= SPLITS:
            return None
        return (
            f"{SPLITS} splits need as many pictures, not {least}: give --samples {SPLITS} or more"
        )

    def accumulator(self, task: PictureTask, count: int, extractor: Extractor) -> Accumulator:
        """Return class scores; Inception's classes are taken without bias, as defined."""
        return ScoresSoFar(count, extractor.classify or _stand_in_classes())

    def score(
        self, task: PictureTask, reals: Any, fakes: Any, seed: int
    ) -> tuple[list[Score], dict[str, Any]]:
        """Return the mean and the deviation over splits."""
        return [fakes.result()], {"splits": fakes.splits, "std_over": "splits"}

    def meaning(self, name: str, value: float) -> str:
        """Return which way is better."""
        return f"how sure and varied classes are, higher is better{says_stand_in(name)}"


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the softmax of logits [N, classes]."""
    values = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    np.exp(values, out=values)
    values /= values.sum(axis=1, keepdims=True)
    return values


def _stand_in_classes() -> Classify:
    arrays, _ = obtain(STAND_IN)
    weight, bias = (np.asarray(arrays[f"_fc.{part}"], np.float32) for part in ("weight", "bias"))
    return lambda features: probabilities(features @ weight.T + bias)


IS = InceptionScore()

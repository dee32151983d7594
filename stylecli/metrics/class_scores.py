"""Inception Score: how sure and how varied a classifier finds the pictures."""

from typing import Any

import numpy as np

from stylecli.errors import UsageError
from stylecli.metrics.arrays import as_features


def inception_score(probs: Any, splits: int = 10) -> tuple[float, float]:
    """Return mean and population standard deviation of exp(E[KL(p(y|x) ‖ p(y))]) over splits.

    ``probs`` [N, classes] are class probabilities, rows summing to 1; split i takes rows
    i·N/splits to (i+1)·N/splits. Raises UsageError for other shapes, negative values, rows that
    do not sum to 1, or fewer rows than splits. Salimans et al. 2016.
    """
    table = as_features("probs", probs)
    if not 1 <= splits <= len(table):
        raise UsageError(f"splits {splits} does not fit {len(table)} rows: expected 1 to that many")
    if (table < 0).any() or not np.allclose(table.sum(axis=1), 1.0, atol=1e-3):
        raise UsageError("probs are not class probabilities: expected rows that sum to 1")
    scores = []
    for i in range(splits):
        part = table[i * len(table) // splits : (i + 1) * len(table) // splits]
        mean = part.mean(axis=0)
        # 0·log 0 is 0; a class of mean 0 has probability 0 in every row.
        logs = np.log(part, where=part > 0, out=np.zeros_like(part))
        logs -= np.log(mean, where=mean > 0, out=np.zeros_like(mean))
        scores.append(np.exp((part * logs).sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))

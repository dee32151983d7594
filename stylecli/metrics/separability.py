"""The entropy behind linear separability: what is left to know of a label given a prediction."""

from typing import Any

import numpy as np

from stylecli.errors import UsageError


def conditional_entropy(table: Any) -> float:
    """Return H(Y | X) in bits of a joint table [X, Y] of counts or probabilities.

    Rows are X (the linear model's side), columns Y (the attribute); the table is normalised by
    its sum. The separability score of StyleGAN (section 4.2) is 2^(Σ of these over attributes).
    Raises UsageError for a table that is not 2-D, has negative values or sums to nothing.
    """
    joint = np.asarray(table, np.float64)
    if joint.ndim != 2 or not joint.size:
        raise UsageError(f"table has shape {list(joint.shape)}: expected a joint table [X, Y]")
    if not np.isfinite(joint).all() or (joint < 0).any() or joint.sum() <= 0:
        raise UsageError("table is not a joint distribution: expected counts, at least one above 0")
    joint = joint / joint.sum()
    given = np.broadcast_to(joint.sum(axis=1, keepdims=True), joint.shape)
    seen = joint > 0
    return max(0.0, float(-(joint[seen] * np.log2(joint[seen] / given[seen])).sum()))

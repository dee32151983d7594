"""Check what comes into the statistics: shapes and values, each refusal with both sides named."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import UsageError

Float64 = NDArray[np.float64]


def as_features(name: str, values: Any, least_rows: int = 1) -> Float64:
    """Return ``values`` as a finite float64 [N, d] array; raise UsageError when it is not one."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise UsageError(f"{name} has shape {list(array.shape)}: expected features [N, d]")
    if array.shape[0] < least_rows or array.shape[1] < 1:
        raise UsageError(
            f"{name} has shape {list(array.shape)}: expected at least {least_rows} rows "
            "and one column"
        )
    if not np.isfinite(array).all():
        raise UsageError(f"{name} holds values that are not finite: expected finite features")
    return array


def check_same_width(name_a: str, a: Float64, name_b: str, b: Float64) -> None:
    """Raise UsageError unless both [N, d] arrays have the same d."""
    if a.shape[1] != b.shape[1]:
        raise UsageError(
            f"{name_a} has {a.shape[1]} columns and {name_b} {b.shape[1]}: "
            "expected features of the same network"
        )

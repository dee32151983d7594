"""Check what comes into the statistics: shapes and values, each refusal with both sides named."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import UsageError

Float64 = NDArray[np.float64]

_ROWS = 4096  # looked at together


def as_features(name: str, values: Any, least_rows: int = 1) -> Float64:
    """Return ``values`` as a finite float64 [N, d] array; raise UsageError when it is not one."""
    array = np.asarray(values, dtype=np.float64)
    check_features(name, array, least_rows)
    return array


def check_features(name: str, array: NDArray[Any], least_rows: int = 1) -> None:
    """Raise UsageError unless ``array`` is [N, d] and finite; nothing is copied."""
    if array.ndim != 2:
        raise UsageError(f"{name} has shape {list(array.shape)}: expected features [N, d]")
    if array.shape[0] < least_rows or array.shape[1] < 1:
        raise UsageError(
            f"{name} has shape {list(array.shape)}: expected at least {least_rows} rows "
            "and one column"
        )
    for start in range(0, len(array), _ROWS):
        if not np.isfinite(array[start : start + _ROWS]).all():
            raise UsageError(f"{name} holds values that are not finite: expected finite features")


def check_same_width(name_a: str, a: NDArray[Any], name_b: str, b: NDArray[Any]) -> None:
    """Raise UsageError unless both [N, d] arrays have the same d."""
    if a.shape[1] != b.shape[1]:
        raise UsageError(
            f"{name_a} has {a.shape[1]} columns and {name_b} {b.shape[1]}: "
            "expected features of the same network"
        )

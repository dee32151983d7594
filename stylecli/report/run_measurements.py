"""The metrics of a run over its training, from the ``metric-NAME.jsonl`` beside it.

Rows come from training itself (which say the images shown) and from ``stylecli metrics`` (which
name the snapshot). Values taken with other numbers of pictures are other metrics: never one curve.
"""

import contextlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from stylecli.training.measuring import METRIC_PATTERN
from stylecli.training.retention import more_is_better

_NIMG = re.compile(r"-(\d{9,})\.")
_DECIDING = ("fakes", "reals", "samples", "features_sha256", "truncation_psi", "dataset_digest")


@dataclass(frozen=True)
class Measurement:
    """One value of a metric."""

    kimg: float
    value: float
    std: float = 0.0  # over subsets; 0 where there are none


@dataclass(frozen=True)
class Metric:
    """One metric over a run, by rising kimg."""

    name: str
    values: Sequence[Measurement]
    higher_is_better: bool
    samples: int | None = None  # pictures that each value stands on

    @property
    def title(self) -> str:
        """The name, with the number of pictures where it is known."""
        return f"{self.name}, {self.samples:,} pictures" if self.samples else self.name

    @property
    def best(self) -> int:
        """The index of the best value."""
        sign = -1 if self.higher_is_better else 1
        return min(range(len(self.values)), key=lambda index: sign * self.values[index].value)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: the newest and the best, and all of them."""
        best, newest = self.values[self.best], self.values[-1]
        return {
            "name": self.name, "samples": self.samples, "higher_is_better": self.higher_is_better,
            "best": best.__dict__, "newest": newest.__dict__,
            "values": [value.__dict__ for value in self.values],
        }  # fmt: skip


def read_metrics(run: Path) -> list[Metric]:
    """Return the metrics of a run, by name; of two values for one snapshot the later counts."""
    found: dict[tuple[Any, ...], dict[float, Measurement]] = {}
    better: dict[str, bool] = {}
    samples: dict[tuple[Any, ...], int | None] = {}
    for path in sorted(run.glob(METRIC_PATTERN)):
        for row in _rows(path):
            kimg = _kimg(row)
            definition = row.get("definition") or {}
            if kimg is None or not isinstance(definition, Mapping):
                continue
            kind = tuple(str(definition.get(key)) for key in _DECIDING)
            for name, value, std in _values(row):
                key = (name, *kind)
                found.setdefault(key, {})[kimg] = Measurement(kimg, value, std)
                samples[key] = _samples(definition)
                better[name] = more_is_better({**row, "name": name})
    return [
        Metric(key[0], [values[kimg] for kimg in sorted(values)], better[key[0]], samples[key])
        for key, values in sorted(found.items())
    ]


def _values(row: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Return (name, value, spread) of all finite numbers of a row."""
    name = str(row.get("name") or row.get("metric") or "")
    numbers = row.get("results")
    if not isinstance(numbers, Mapping):
        numbers = {name: row.get("value"), f"{name}_std": row.get("std")}
    found = []
    for key, value in numbers.items():
        spread = numbers.get(f"{key}_std")
        if not key or (key.endswith("_std") and key[:-4] in numbers) or not _finite(value):
            continue
        found.append((str(key), float(value), float(spread) if _finite(spread) else 0.0))
    return found


def _kimg(row: Mapping[str, Any]) -> float | None:
    nimg = row.get("nimg")
    if not _finite(nimg):
        named = _NIMG.search(str(row.get("snapshot") or ""))
        nimg = int(named[1]) if named else None
    return None if nimg is None else float(nimg) / 1000


def _samples(definition: Mapping[str, Any]) -> int | None:
    count = definition.get("fakes") or definition.get("samples")
    return int(count) if _finite(count) else None


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with contextlib.suppress(ValueError):  # torn by a crash, or just being written
                row = json.loads(line)
                if isinstance(row, dict):
                    rows.append(row)
    return rows

"""Metrics of a run while it trains: asked of a callable that can neither end nor change the run."""

import contextlib
import copy
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stylecli import files
from stylecli.data.reader import Dataset
from stylecli.networks.bundle import Bundle
from stylecli.training.run_folder import append_row

# Given a network and the data: rows of plain JSON values, {"name", "value", ...}, the first metric
# first. stylecli train makes it of stylecli.metrics, which training does not know.
Evaluate = Callable[[Bundle, Dataset], Sequence[Mapping[str, Any]]]

METRIC_PATTERN = "metric-*.jsonl"


def metric_path(run: Path, name: str) -> Path:
    """Return the file of a metric's values over the run."""
    return run / f"metric-{re.sub(r'[^A-Za-z0-9@_.+-]', '_', name)}.jsonl"


def is_due(tick: int, snapshot_ticks: int, every: int | None) -> bool:
    """Whether the snapshot at a tick is to be measured: the first from each multiple of ``every``.

    A function of the tick alone, so that a resumed run measures where an unbroken one does.
    """
    return every is None or tick // every > max(tick - snapshot_ticks, 0) // every


def measure_network(
    evaluate: Evaluate, bundle: Bundle, dataset: Dataset, where: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return what ``evaluate`` says of the averaged generator, each row with ``where`` it was.

    It is given a copy: whatever it does, training goes on with its own weights. What it raises
    comes through; so does KeyError or TypeError for rows that are not JSON with name and value.
    """
    started = time.monotonic()
    seen = Bundle(bundle.config, G_ema=copy.deepcopy(bundle.G_ema))
    results = [dict(result) for result in evaluate(seen, dataset)]
    seconds = round(time.monotonic() - started, 3)  # of all metrics together
    rows = [_row(result, where, seconds) for result in results]
    json.dumps(rows)
    return rows


def append_measurements(run: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add each row to the file of its metric; one without a value has nothing to keep."""
    for row in rows:
        if row["value"] is not None:
            append_row(metric_path(run, row["name"]), row)


def read_measurements(run: Path, name: str) -> list[dict[str, Any]]:
    """Return the rows of one metric that were measured while training, oldest first."""
    path = metric_path(run, name)
    rows = _rows(path) if path.exists() else []
    return [row for row in rows if "nimg" in row and "value" in row]


def is_measured(run: Path, nimg: int) -> bool:
    """Whether training has measured anything after so many images."""
    return any(row.get("nimg") == nimg for path in run.glob(METRIC_PATTERN) for row in _rows(path))


def rewind_measurements(run: Path, nimg: int) -> None:
    """Drop what was measured beyond ``nimg`` images: that training is undone.

    Rows of ``stylecli metrics``, which say no number of images, stay.
    """
    for path in run.glob(METRIC_PATTERN):
        kept = [row for row in _rows(path) if row.get("nimg", 0) <= nimg]
        files.write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def _row(result: dict[str, Any], where: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Lay a result out as ``stylecli metrics`` does in the same file, with where it was."""
    name, value, std = result["name"], result["value"], result.get("std")
    numbers = {name: value} if std is None else {name: value, f"{name}_std": std}
    return {
        **where,
        **result,
        "metric": name,
        "results": numbers,
        "timestamp": time.time(),
        "total_time": seconds,
    }


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        with contextlib.suppress(ValueError):  # torn by a crash
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows

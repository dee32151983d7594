"""Metrics of a run while it trains: asked of a callable that can neither end nor change the run."""

import copy
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stylecli import files
from stylecli.data.reader import Dataset
from stylecli.networks.bundle import Bundle

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
    files.to_json(rows)
    return rows


def append_measurements(run: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add each row to the file of its metric; one without a value has nothing to keep."""
    for row in rows:
        if row["value"] is not None:
            files.append_row(metric_path(run, row["name"]), row)


def read_measurements(run: Path, name: str) -> list[dict[str, Any]]:
    """Return the rows of one metric that were measured while training, oldest first."""
    path = metric_path(run, name)
    return [row for row in files.read_rows(path) if "nimg" in row and "value" in row]


def is_measured(run: Path, nimg: int) -> bool:
    """Whether training has measured anything after so many images."""
    return any(
        row.get("nimg") == nimg
        for path in run.glob(METRIC_PATTERN)
        for row in files.read_rows(path)
    )


def rewind_measurements(run: Path, nimg: int) -> None:
    """Drop what was measured beyond ``nimg`` images: that training is undone.

    Rows of ``stylecli metrics``, which say no number of images, stay.
    """
    for path in run.glob(METRIC_PATTERN):
        kept = [row for row in files.read_rows(path) if not files.row_number(row, "nimg") > nimg]
        files.write_rows(path, kept)


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

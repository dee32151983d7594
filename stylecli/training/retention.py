"""Which snapshots of a run stay: the newest ones, and the one that measured best.

``events.jsonl`` says which files training wrote; no other file is ever removed.
"""

import contextlib
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylecli import files
from stylecli.checkpoint import read_header
from stylecli.errors import NetworkError
from stylecli.training.run_folder import read_events
from stylecli.workspace import BEST_CHECKPOINT_FILE, BEST_FILE, CHECKPOINT_FILE

# Metrics of which more is better; of distances, path lengths and separability less is.
_MORE_IS_BETTER = re.compile(r"(is\d|is@|inception_score|precision|recall|pr\d|diversity)")
_WRITTEN = re.compile(r"(network-snapshot-\d{9,}\.safetensors|fakes\d{9,}\.png)")


def keep_best(run: Path, nimg: int, row: Mapping[str, Any]) -> bool:
    """Keep the full state of the snapshot just saved if ``row`` says it is the best so far.

    ``row`` is the first metric measured of it: {"name", "value", ...}; "higher_is_better" says
    which way is better where the name does not. Its network is named in ``best.json``, its state
    is in ``checkpoint-best.safetensors``. A run measured by another metric than before starts
    its comparison anew. Returns whether it was the best.
    """
    value = row.get("value")
    if not isinstance(value, int | float) or value != value:  # skipped, or not a number
        return False
    best = read_best(run)
    higher = more_is_better(row)
    if best and best["metric"] == row["name"] and best["nimg"] <= nimg:
        better = value > best["value"] if higher else value < best["value"]
        if not better:
            return False
    found = {
        "network": f"network-snapshot-{nimg:09d}.safetensors",
        "nimg": nimg, "kimg": nimg / 1000, "metric": row["name"], "value": value,
        "higher_is_better": higher,
    }  # fmt: skip
    files.write_json(run / BEST_FILE, found)
    _copy_best(run)
    return True


def more_is_better(row: Mapping[str, Any]) -> bool:
    """Whether a metric's value should rise: as its row says, else by its name."""
    return bool(row.get("higher_is_better", _MORE_IS_BETTER.match(row["name"])))


def mend_best(run: Path, nimg: int) -> None:
    """Finish what a crash interrupted: the best checkpoint of a run that goes on at ``nimg``."""
    best = read_best(run)
    if best and best["nimg"] == nimg and _state_nimg(run / BEST_CHECKPOINT_FILE) != nimg:
        _copy_best(run)


def read_best(run: Path) -> dict[str, Any] | None:
    """Return what ``best.json`` says: network, nimg, kimg, metric, value; None for none."""
    with contextlib.suppress(OSError, NetworkError):
        best: dict[str, Any] = files.read_json(run / BEST_FILE, error=NetworkError)
        numbers = [files.row_number(best, name) for name in ("nimg", "kimg", "value")]
        if isinstance(best.get("metric"), str) and all(map(math.isfinite, numbers)):
            return best
    return None


def remove_old_snapshots(run: Path, keep: int | None) -> list[Path]:
    """Remove networks and sheets older than the last ``keep`` snapshots; return what went.

    The best snapshot, the first sheet and whatever training did not write stay. None keeps all.
    """
    if keep is None:
        return []
    written: dict[int, set[str]] = {}
    for event in read_events(run):
        if event.get("event") == "saved":
            written.setdefault(event["nimg"], set()).update(event.get("files", ()))
    there = [
        nimg for nimg in sorted(written) if any((run / name).exists() for name in written[nimg])
    ]
    best = read_best(run)
    removed = []
    for nimg in there[:-keep]:
        if best and nimg == best["nimg"]:
            continue
        for name in sorted(written[nimg]):
            if _WRITTEN.fullmatch(name) and (run / name).exists():
                (run / name).unlink()
                removed.append(run / name)
    return removed


def _copy_best(run: Path) -> None:
    """Give the newest checkpoint a second name; where disks have no links, copy it."""
    source = run / CHECKPOINT_FILE
    with files.replacing(run / BEST_CHECKPOINT_FILE) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)  # a checkpoint is replaced, never written into
        except OSError:
            with files.room_for(run / BEST_CHECKPOINT_FILE, source.stat().st_size):
                shutil.copyfile(source, temporary)


def _state_nimg(path: Path) -> int | None:
    """Return where the run of a training checkpoint stood; None when there is no such file."""
    try:
        return int(read_header(path)["training"]["counters"]["nimg"])
    except (NetworkError, KeyError, TypeError):
        return None

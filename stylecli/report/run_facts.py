"""What the files of a run say, read while it may still be written: rows, events, measurements.

Nothing here takes a lock or changes a file. A torn last line, a missing column, a number that is
not finite or a picture that is gone leaves a gap, never an error.
"""

import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stylecli.data.ownership import LOCK_FILE
from stylecli.errors import NetworkError, UsageError
from stylecli.report.run_measurements import Metric, read_metrics
from stylecli.training.run_folder import RunSettings, load_settings, read_events, read_statistics
from stylecli.workspace import BEST_FILE, STATS_FILE, newest_snapshot, read_run

SHEET = re.compile(r"fakes(\d{9,})\.png")
_FRESH_SECONDS = 600.0  # a run written to so lately may be going on, whatever the lock says
QUIET_EVENTS = {"saved", "started"}  # what every healthy run has

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunFacts:
    """A run as its folder tells it."""

    path: Path
    name: str  # the folder's, to tell runs apart on one page
    settings: RunSettings
    record: Mapping[str, Any]  # run.json
    rows: Sequence[Row]  # stats.jsonl by rising kimg, one for each
    events: Sequence[Row]  # events.jsonl, oldest first
    metrics: Sequence[Metric]
    best: Mapping[str, Any] | None  # best.json
    sheets: Sequence[tuple[int, Path]]  # images shown, sample sheet
    newest: Path | None  # network snapshot
    state: str  # finished | going on | stopped
    reason: str  # why it stopped, or how that is known

    @property
    def kimg(self) -> float:
        """Thousands of images shown, by the last row or event."""
        last = [float(row["kimg"]) for row in (*self.rows[-1:], *self.events[-1:])]
        return last[0] if last else 0.0

    @property
    def seconds(self) -> float:
        """Time trained in all sessions, in seconds; NaN before the first tick."""
        return number(self.rows[-1], "seconds") if self.rows else math.nan

    @property
    def notable(self) -> list[Row]:
        """Events worth a line: all but saving and the first start."""
        return [
            row for index, row in enumerate(self.events)
            if row["event"] not in QUIET_EVENTS or (row["event"] == "started" and index)
        ]  # fmt: skip

    def column(self, name: str) -> list[float]:
        """Return a column of the statistics; NaN where a row lacks it."""
        return [number(row, name) for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """Return all facts as plain JSON values; numbers that are not finite become None."""
        last = self.rows[-1] if self.rows else None
        facts: dict[str, Any] = strict({
            "run": str(self.path), "state": self.state, "reason": self.reason,
            "kimg": self.kimg, "total_kimg": self.settings.training.total_kimg,
            "seconds": self.seconds, "ticks": len(self.rows), "last_tick": last,
            "best": self.best, "newest_network": str(self.newest) if self.newest else None,
            "metrics": [metric.to_dict() for metric in self.metrics],
            "events": list(self.notable), "sheets": len(self.sheets),
            "settings": dict(self.record),
        })  # fmt: skip
        return facts


def read_facts(run: Path) -> RunFacts:
    """Read a run folder; raise NetworkError where it is not one or its settings are unreadable."""
    if not run.is_dir():
        what = "is a file" if run.exists() else "does not exist"
        raise NetworkError(f"run {run} {what}: give the folder that holds its run.json")
    record = read_run(run)
    settings = load_settings(run)
    by_nimg = {int(row["nimg"]): row for row in read_statistics(run) if _placed(row)}
    rows = [by_nimg[nimg] for nimg in sorted(by_nimg)]
    events = [row for row in read_events(run) if _placed(row) and isinstance(row.get("event"), str)]
    sheets = [(int(found[1]), path) for path in run.iterdir()
              if (found := SHEET.fullmatch(path.name))]  # fmt: skip
    state, reason = _state(run, record, rows, events)
    return RunFacts(
        path=run,
        name=_name(run),
        settings=settings,
        record=record,
        rows=rows,
        events=events,
        metrics=read_metrics(run),
        best=_best(run),
        sheets=sorted(sheets),
        newest=newest_snapshot(run),
        state=state,
        reason=reason,
    )


def _name(run: Path) -> str:
    """Return a run's name: its folder's; the demo's, which is only ``run``, with its parent's."""
    path = run.resolve()
    return f"{path.parent.name}/{path.name}" if path.name == "run" else path.name


def read_all(runs: Sequence[Path]) -> list[RunFacts]:
    """Read several runs and give each a name of its own; raise UsageError for one given twice."""
    if len({run.resolve() for run in runs}) < len(runs):
        raise UsageError("a run is given twice: give each run once")
    facts = [read_facts(run) for run in runs]
    names = [item.name for item in facts]
    return [
        RunFacts(**{**item.__dict__, "name": str(item.path)})
        if names.count(item.name) > 1 else item
        for item in facts
    ]  # fmt: skip


def number(row: Row, name: str) -> float:
    """Return a number of a row; NaN for none."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else math.nan


def strict(value: Any) -> Any:
    """Return JSON values that every reader takes: None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _placed(row: Row) -> bool:
    return math.isfinite(number(row, "nimg")) and math.isfinite(number(row, "kimg"))


def _best(run: Path) -> dict[str, Any] | None:
    try:
        best = json.loads((run / BEST_FILE).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(best, dict) or not isinstance(best.get("metric"), str):
        return None
    return (
        best if all(math.isfinite(number(best, key)) for key in ("nimg", "kimg", "value")) else None
    )


def _state(run: Path, record: Row, rows: Sequence[Row], events: Sequence[Row]) -> tuple[str, str]:
    """Tell whether a run is finished, going on or stopped, and why it is believed to be."""
    if record.get("finished"):
        return "finished", "the whole schedule is trained"
    if _is_owned(run):
        return "going on", "a process trains it"
    last = next((row for row in reversed(events) if row["event"] != "saved"), None)
    if last is not None and last["event"] == "stopped":
        return "stopped", f"{last.get('text') or 'no reason was written down'}; it is saved"
    if last is not None and last["event"] == "warning" and events[-1] is not last:
        return "stopped", f"it was saved and ended after a warning: {last.get('text', '')}"
    written = _age_seconds(run)
    since = f"nothing was written for {describe_age(written)}"
    paces = [number(row, "sec_per_kimg") for row in rows[-3:]]
    tick = (rows[-1]["kimg"] - rows[-2]["kimg"]) * max(paces) if len(rows) > 1 else 0.0
    if written < max(_FRESH_SECONDS, 3 * tick if math.isfinite(tick) else 0.0):
        return "going on", f"as it seems: last written {describe_age(written)} ago"
    if not rows:
        return "stopped", f"before its first tick; {since}"
    return "stopped", f"{since}, and no reason for stopping was written down"


def _is_owned(run: Path) -> bool:
    """Whether the process that locked the run lives, without touching the lock."""
    try:
        owner = int((run / LOCK_FILE).read_text().strip())
    except (OSError, ValueError):
        return False
    if sys.platform == "win32":  # where the signal 0 would end it
        return True
    try:
        os.kill(owner, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _age_seconds(run: Path) -> float:
    paths = [path for path in (run / STATS_FILE, run / "run.json") if path.exists()]
    newest = max((path.stat().st_mtime for path in paths), default=0.0)
    return max(0.0, datetime.now(UTC).timestamp() - newest)


def describe_age(seconds: float) -> str:
    """Write a rough length of time: ``40 seconds``, ``12 minutes``, ``3 days``."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{int(seconds)} seconds"


def describe_duration(seconds: float) -> str:
    """Write a length of time in its two largest units: ``4 min 5 s``, ``2 h 10 min``."""
    whole = max(0, round(seconds))
    for size, unit, part, rest in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"),
                                   (60, "min", 1, "s")):  # fmt: skip
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {rest}"
    return f"{whole} s"

"""What the files of a run say, read while it may still be written: rows, events, measurements.

Nothing here takes a lock or changes a file. A torn last line, a missing column, a number that is
not finite or a picture that is gone leaves a gap, never an error. The settings stand beside those
of the nearest preset, with the command that means them.
"""

import contextlib
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeGuard

from stylecli.data.reader import open_dataset
from stylecli.errors import DataError, NetworkError, StyleCLIError, UsageError, plural
from stylecli.files import is_number, is_owned, read_rows, row_number
from stylecli.progress import describe_seconds
from stylecli.report.content import Table
from stylecli.settings import of_dataset, settings_of, write_by_resolution
from stylecli.training.plan import TrainingPlan, plan_training, show_value
from stylecli.training.presets import PRESET_TEXTS
from stylecli.training.run_folder import (
    METRIC_PATTERN,
    RunSettings,
    lesser_is_better,
    load_settings,
    read_events,
    read_statistics,
)
from stylecli.workspace import (
    STATS_FILE,
    list_sheets,
    missing,
    newest_snapshot,
    read_best,
    read_run,
    saved_at,
)

_NIMG = re.compile(r"-(\d{9,})\.")
_DECIDING = ("fakes", "reals", "samples", "features_sha256", "truncation_psi", "dataset_digest")
_FRESH_SECONDS = 600.0  # a run written to so lately may be in progress, whatever the lock says
QUIET_EVENTS = {"saved", "started"}  # what every healthy run has

Row = Mapping[str, Any]


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
        return f"{self.name}, {plural(self.samples, 'picture')}" if self.samples else self.name

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


def _rows_of(path: Path) -> list[dict[str, Any]]:
    try:
        return read_rows(path)
    except DataError:  # a gap, never an error
        return []


def read_metrics(run: Path) -> list[Metric]:
    """Return the metrics of a run, by name; of two values for one snapshot the later counts."""
    found: dict[tuple[Any, ...], dict[float, Measurement]] = {}
    better: dict[str, bool] = {}
    samples: dict[tuple[Any, ...], int | None] = {}
    for path in sorted(run.glob(METRIC_PATTERN)):
        for row in _rows_of(path):
            kimg = _kimg(row)
            definition = row.get("definition") or {}
            if kimg is None or not isinstance(definition, Mapping):
                continue
            kind = tuple(str(definition.get(key)) for key in _DECIDING)
            for name, value, std in _values(row):
                key = (name, *kind)
                found.setdefault(key, {})[kimg] = Measurement(kimg, value, std)
                samples[key] = _samples(definition)
                better[name] = not lesser_is_better(row)
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
    return is_number(value) and math.isfinite(value)


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
    state: str  # finished | in progress | stopped
    reason: str  # why it stopped, or how that is known

    @property
    def kimg(self) -> float:
        """Thousands of images shown, by the last row or event."""
        last = [float(row["kimg"]) for row in (*self.rows[-1:], *self.events[-1:])]
        return last[0] if last else 0.0

    @property
    def seconds(self) -> float:
        """Time trained in all sessions, in seconds; NaN before the first tick."""
        return row_number(self.rows[-1], "seconds") if self.rows else math.nan

    @property
    def notable(self) -> list[Row]:
        """Events worth a line: all but saving and the first start."""
        return [
            row for index, row in enumerate(self.events)
            if row["event"] not in QUIET_EVENTS or (row["event"] == "started" and index)
        ]  # fmt: skip

    def column(self, name: str) -> list[float]:
        """Return a column of the statistics; NaN where a row lacks it."""
        return [row_number(row, name) for row in self.rows]

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
        give = "give the folder that holds its run.json"
        raise NetworkError(
            f"run {run} is a file: {give}" if run.exists() else missing(run, give, "run")
        )
    record = read_run(run)
    settings = load_settings(run)
    by_nimg = {int(row["nimg"]): row for row in read_statistics(run) if _placed(row)}
    rows = [by_nimg[nimg] for nimg in sorted(by_nimg)]
    events = [row for row in read_events(run) if _placed(row) and isinstance(row.get("event"), str)]
    sheets = [(saved_at(path.name) or 0, path) for path in list_sheets(run)]
    state, reason = _state(run, record, rows, events)
    return RunFacts(
        path=run,
        name=_name(run),
        settings=settings,
        record=record,
        rows=rows,
        events=events,
        metrics=read_metrics(run),
        best=read_best(run),
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
        raise UsageError("the same run is given twice: give each run once")
    facts = [read_facts(run) for run in runs]
    names = [item.name for item in facts]
    return [
        RunFacts(**{**item.__dict__, "name": str(item.path)})
        if names.count(item.name) > 1 else item
        for item in facts
    ]  # fmt: skip


def strict(value: Any) -> Any:
    """Return JSON values that every reader takes: None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _placed(row: Row) -> bool:
    return math.isfinite(row_number(row, "nimg")) and math.isfinite(row_number(row, "kimg"))


def _state(run: Path, record: Row, rows: Sequence[Row], events: Sequence[Row]) -> tuple[str, str]:
    """Return whether a run is finished, in progress or stopped, and why."""
    if record.get("finished"):
        return "finished", "trained to the end of the schedule"
    if is_owned(run):
        return "in progress", "a process is training it"
    last = next((row for row in reversed(events) if row["event"] != "saved"), None)
    if last is not None and last["event"] == "stopped":
        return "stopped", f"{last.get('text') or 'no reason is recorded'}; it is saved"
    if last is not None and last["event"] == "warning" and events[-1] is not last:
        return "stopped", f"it was saved and ended after a warning: {last.get('text', '')}"
    written = _age_seconds(run)
    since = f"nothing was written for {describe_seconds(written)}"
    paces = [row_number(row, "sec_per_kimg") for row in rows[-3:]]
    tick = (rows[-1]["kimg"] - rows[-2]["kimg"]) * max(paces) if len(rows) > 1 else 0.0
    if written < max(_FRESH_SECONDS, 3 * tick if math.isfinite(tick) else 0.0):
        return "in progress", f"probably: last written {describe_seconds(written)} ago"
    if not rows:
        return "stopped", f"before its first tick; {since}"
    return "stopped", f"{since}, and no reason for stopping is recorded"


def _age_seconds(run: Path) -> float:
    paths = [path for path in (run / STATS_FILE, run / "run.json") if path.exists()]
    newest = max((path.stat().st_mtime for path in paths), default=0.0)
    return max(0.0, datetime.now(UTC).timestamp() - newest)


@dataclass(frozen=True)
class Origins:
    """Where a run's settings come from."""

    plan: TrainingPlan  # what the nearest preset alone means for this dataset and machine
    network: Mapping[str, tuple[Any, Any]]  # name -> (the run's value, the preset's) where they
    training: Mapping[str, tuple[Any, Any]]  # differ

    @property
    def changed(self) -> int:
        """How many settings differ from the preset's."""
        return len(self.network) + len(self.training)


def find_origins(settings: RunSettings) -> Origins | None:
    """Return the preset that comes nearest to a run, and what differs.

    The length is taken first, as presets scale their stages by it. ``run.json`` does not name the
    preset; of two equally near ones the first of the list counts. None where no preset fits.
    """
    candidates = []
    pictures = _count_pictures(settings)
    for preset in PRESET_TEXTS:
        try:
            alone = _plan(settings, preset, pictures)
            length = {"total_kimg": settings.training.total_kimg}
            scaled = _plan(settings, preset, pictures, training=length)
        except UsageError:  # not for this resolution or number of processes
            continue
        network = _differing(settings.network.to_dict(), scaled.network.to_dict())
        for name in ("preset", *of_dataset(settings.network)):  # not the preset's to say
            network.pop(name, None)
        training = _differing(settings.training.to_dict(), scaled.training.to_dict())
        if settings.training.total_kimg != alone.training.total_kimg:
            training["total_kimg"] = (settings.training.total_kimg, alone.training.total_kimg)
        candidates.append(Origins(scaled, network, training))
    return min(candidates, key=lambda origins: origins.changed, default=None)


def settings_table(origins: Origins) -> Table:
    """Return what differs from the preset: setting, the run's value, the preset's."""
    rows = [
        (name, show_value(own), show_value(other))
        for name, (own, other) in {**origins.network, **origins.training}.items()
    ]
    preset = origins.plan.preset
    return Table(
        ("changed setting", "this run", f"preset {preset}"), rows,
        "The times of the schedule are those of the preset at this length.",
        marked=range(len(rows)),
    )  # fmt: skip


def full_table(title: str, values: Mapping[str, Any], changed: Mapping[str, Any]) -> Table:
    """Return all settings of one kind, those changed from the preset marked; folded away."""
    rows = [(name, show_value(value)) for name, value in values.items() if name != "family"]
    marked = {index for index, (name, _) in enumerate(rows) if name in changed}
    return Table(("setting", "value"), rows, title, marked=marked, folded=True)


def differing_table(runs: Sequence[RunFacts]) -> Table:
    """Return the settings that the runs do not share, a column for each run."""
    flat = [_flat(facts) for facts in runs]
    names = list(dict.fromkeys(name for values in flat for name in values))
    rows = [
        (name, *cells) for name in names
        if len(set(cells := [values.get(name, "–") for values in flat])) > 1
    ]  # fmt: skip
    return Table(("setting", *(facts.name for facts in runs)), rows)


def train_command(facts: RunFacts, origins: Origins | None) -> str | None:
    """Return the ``stylecli train`` line that continues with a run; None where none is certain.

    The line is checked: its settings are derived again and must be those of the run.
    """
    settings = facts.settings
    if origins is None or settings.origin is not None:
        return None  # its weights came from a file, which decides settings too
    words = ["stylecli", "train", str(settings.dataset), "--preset", origins.plan.preset]
    if settings.network.preset != "f":
        words += ["--config", settings.network.preset]
    given: dict[str, dict[str, Any]] = {}
    for kind in ("network", "training"):
        config, changed = getattr(settings, kind), getattr(origins, kind)
        declared, asked = settings_of(type(config)), given.setdefault(kind, {})
        for name in changed:
            item, value = declared.get(name), getattr(config, name)
            if item is not None and item.flag and not item.base and value is not None:
                words += item.words(value)
                asked[name] = value
        for name, item in declared.items():
            if item.base and item.read and {name, item.base} & set(changed):
                text = write_by_resolution(getattr(config, name), getattr(config, item.base))
                words += [item.flag, text]
                asked[name] = item.read(text, item.flag)
    if settings.network.label_dim:
        words.append("--labels")
    words += ["--gpus" if settings.device == "cuda" else "--ranks", str(settings.ranks)]
    words += ["--device", settings.device, "--out", str(facts.path)]
    try:
        plan = _plan(settings, origins.plan.preset, _count_pictures(settings), **given)
    except UsageError:
        return None
    same = plan.network == settings.network and plan.training == settings.training
    return shlex.join(words) if same else None


def _plan(
    settings: RunSettings,
    preset: str,
    pictures: int | None,
    network: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> TrainingPlan:
    own = settings.network
    return plan_training(
        preset, config=own.preset, resolution=own.resolution, channels=own.channels,
        grid=own.grid, label_dim=own.label_dim, device=settings.device, ranks=settings.ranks,
        network=network, pictures=pictures, training=training,
    )  # fmt: skip


def _count_pictures(settings: RunSettings) -> int | None:
    """Return how many pictures a run has, which decides settings too; None where they are gone."""
    try:
        with contextlib.closing(open_dataset(settings.dataset)) as dataset:
            return len(dataset)
    except StyleCLIError:
        return None


def _differing(own: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        name: (value, other.get(name)) for name, value in own.items() if value != other.get(name)
    }


def _flat(facts: RunFacts) -> dict[str, str]:
    settings, environment = facts.settings, facts.record.get("environment") or {}
    show: Callable[[Any], str] = show_value
    values = {
        "dataset": facts.settings.dataset.name,
        "dataset digest": settings.dataset_digest[:12],
        **{name: show(value) for name, value in settings.network.to_dict().items()},
        **{name: show(value) for name, value in settings.training.to_dict().items()},
        "started from": settings.origin.source if settings.origin else "fresh weights",
        "processes": str(settings.ranks),
        "device": settings.device,
        **{name: str(value) for name, value in environment.items()},
        "stylecli": str(facts.record.get("stylecli", "–")),
    }
    values["configuration"] = values.pop("preset", "–")
    return values

"""A run on disk: its settings, its statistics, its events, its measurements.

Statistics, events and measurements are rows of JSON: ``stats.jsonl``, ``events.jsonl``,
``metric-NAME.jsonl``.
"""

import contextlib
import math
import os
import platform
import re
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stylecli import __version__, files
from stylecli.data.format import DATA_FILE
from stylecli.errors import DataError, NetworkError, UsageError
from stylecli.files import LOCK_FILE, OwnerLock
from stylecli.networks.config import NetworkConfig
from stylecli.networks.registry import config_from_dict
from stylecli.settings import settings_of
from stylecli.training.config import TrainingConfig, training_from_dict
from stylecli.workspace import (
    CHECKPOINT_FILE,
    EVENTS_FILE,
    INITIAL_FILE,
    RUN_FILE,
    STATS_FILE,
    list_runs,
    next_run,
    read_run,
)

RUN_FORMAT = 1
METRIC_PATTERN = "metric-*.jsonl"
_ROW_BYTES = 4096  # a row of JSON is shorter
_PATIENCE = 60.0  # seconds to wait for others that reserve a number
_HELD: set[tuple[int, Path]] = set()  # threads of this process and the folders they own


@dataclass(frozen=True)
class Origin:
    """The file that a run of ``--resume`` started from; the run has it as initial.safetensors."""

    source: str  # the path that was given
    digest: str  # SHA-256 of the file it led to
    continued: bool  # continues with its full state; else only weights were taken over
    resolution: int  # side in pixels that the weights taken over are grown to
    initial: str | None = None  # SHA-256 of initial.safetensors; None in runs of early versions


@dataclass(frozen=True)
class RunSettings:
    """What a run was started with; equal settings on equal data are the same run."""

    network: NetworkConfig
    training: TrainingConfig
    dataset: Path  # where it lies now
    dataset_digest: str
    ranks: int = 1  # processes that share the batch
    device: str = "cpu"
    origin: Origin | None = None  # None: fresh weights

    def same_run(self, other: "RunSettings") -> bool:
        """Whether training one continues with the other: all that decides the result is equal."""
        return (
            self.network == other.network
            and self.training == other.training
            and self.dataset_digest == other.dataset_digest
            and _identity(self.origin) == _identity(other.origin)
        )


def _identity(origin: Origin | None) -> tuple[str, bool] | None:
    """Return what decides the result: a file may be given by another path."""
    return None if origin is None else (origin.digest, origin.continued)


def create_run(run: Path, settings: RunSettings) -> None:
    """Make the run folder and write ``run.json``.

    Raises UsageError when there is one, DataError when another process makes or trains this run.
    """
    with making(run):
        _write(run, settings, finished=False)


@contextlib.contextmanager
def making(run: Path) -> Iterator[None]:
    """Make and own a run folder in which there is no run yet; ``run.json`` is to be written last.

    Raises UsageError when it is a run or cannot be made, DataError when another process has it.
    """
    _make_folder(run)
    with held(run):
        if (run / RUN_FILE).exists():
            raise UsageError(f"{run} is already a run: give another --out")
        yield


def _make_folder(folder: Path) -> None:
    if (folder / DATA_FILE).exists():
        raise UsageError(f"{folder} is a dataset, and no place for a run: give another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"run folder {folder} cannot be made ({error.strerror}): give another --out"
        ) from None


@contextlib.contextmanager
def next_numbered(description: str, root: Path = Path()) -> Iterator[Path]:
    """Reserve the next number in ``runs/`` and own its folder; it is removed if no run is made.

    However many do so at once, each has a number of its own. What sessions left that were killed
    before their run.json is cleared away. Raises UsageError when no folder can be made.
    """
    holding = contextlib.ExitStack()
    with _numbering(root):
        for left in list_runs(root):
            _remove_if_abandoned(left)
        run = next_run(description, root)
        try:
            run.mkdir()
        except OSError as error:
            raise UsageError(
                f"run folder {run} cannot be made ({error.strerror}): give another --out"
            ) from None
        holding.enter_context(held(run))
    try:
        with holding:
            yield run
    finally:
        if not (run / RUN_FILE).exists():
            with contextlib.suppress(UsageError), _numbering(root):
                _remove_if_abandoned(run)


@contextlib.contextmanager
def _numbering(root: Path) -> Iterator[None]:
    """Own ``runs/`` itself for as long as its numbers are read, given and taken back.

    A folder that one process makes and another clears away as abandoned cannot be told apart by
    looking at it, so the two never look at once. Raises UsageError when ``runs/`` is not writable.
    """
    _make_folder(root / "runs")
    try:
        lock = OwnerLock(root / "runs", patience=_PATIENCE)
    except DataError as error:
        raise UsageError(str(error)) from None
    try:
        yield
    finally:
        lock.release()


def _remove_if_abandoned(run: Path) -> None:
    """Remove a numbered folder whose session ended before there was a run in it."""

    def is_ours(name: str) -> bool:
        return name in (LOCK_FILE, INITIAL_FILE) or files.is_scratch(name)

    def is_abandoned() -> bool:
        return all(is_ours(path.name) for path in run.iterdir())

    with contextlib.suppress(DataError, OSError):  # in use, or just taken away
        if is_abandoned():
            with held(run):
                if is_abandoned():
                    (run / INITIAL_FILE).unlink(missing_ok=True)
            run.rmdir()


def record_dataset(run: Path, dataset: Path) -> bool:
    """Note in ``run.json`` where the run's dataset lies now; return whether that is news."""
    if load_settings(run).dataset.resolve() == dataset.resolve():
        return False
    with held(run):
        values = read_run(run)
        values["dataset"]["path"] = _from_run(dataset, run)
        with files.room_for(run / RUN_FILE, _ROW_BYTES):
            files.write_json(run / RUN_FILE, values)
    return True


def _from_run(dataset: Path, run: Path) -> str:
    """Return a path as run.json has it: from the run, so that both can be moved together."""
    try:
        return os.path.relpath(dataset, run)
    except ValueError:  # on another drive
        return str(dataset.resolve())


def mark_finished(run: Path, nimg: int) -> None:
    """Note in ``run.json`` that the whole schedule was trained, ``nimg`` images in all."""
    if not is_finished(run):
        append_event(run, {"nimg": nimg, "event": "finished"})
        with files.room_for(run / RUN_FILE, _ROW_BYTES):
            files.write_json(run / RUN_FILE, {**read_run(run), "finished": True})


@contextlib.contextmanager
def held(run: Path) -> Iterator[None]:
    """Own a run folder: no second session can write it, whatever became of an earlier one.

    Unfinished files that a crash left behind are removed. A thread that owns it already continues
    owning it. Raises DataError when another, of any process, has it.
    """
    key = threading.get_ident(), run.resolve()
    if key in _HELD:
        yield
        return
    lock = OwnerLock(run)
    _HELD.add(key)
    try:
        files.sweep(run)
        yield
    finally:
        _HELD.discard(key)
        lock.release()


def checkpoint_mark(run: Path) -> tuple[int, int, int] | None:
    """Return what changes when the run's checkpoint is replaced; None where there is none."""
    try:
        found = (run / CHECKPOINT_FILE).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def is_finished(run: Path) -> bool:
    """Whether the run trained its whole schedule."""
    return bool(read_run(run).get("finished"))


def load_settings(run: Path) -> RunSettings:
    """Read what a run was started with; raise NetworkError when the file is unusable."""
    values = read_run(run)
    if values.get("format") != RUN_FORMAT:
        raise NetworkError(
            f"{run / RUN_FILE} has format {values.get('format')!r}: this version reads {RUN_FORMAT}"
        )
    try:
        return RunSettings(
            network=config_from_dict(values["network"]),
            training=training_from_dict(values["training"]),
            dataset=Path(os.path.normpath(run / values["dataset"]["path"])),
            dataset_digest=values["dataset"]["digest"],
            ranks=values["ranks"],
            device=values["device"],
            origin=Origin(**values["origin"]) if values.get("origin") else None,
        )
    # ValueError is UsageError's too; a path may hold a null character.
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise NetworkError(f"{run / RUN_FILE} is not readable: {error}") from None


def append_statistics(run: Path, row: dict[str, Any]) -> None:
    """Add one line to ``stats.jsonl`` and make it durable."""
    files.append_row(run / STATS_FILE, row)


def read_statistics(run: Path) -> list[dict[str, Any]]:
    """Return the rows of ``stats.jsonl``, numbers all of them; what was not finite is NaN.

    Left out are torn lines and those that do not say how many images were shown.
    """
    return [
        {name: value if files.is_number(value) else math.nan for name, value in row.items()}
        for row in files.read_rows(run / STATS_FILE)
        if _is_placed(row)
    ]


def rewind_statistics(run: Path, nimg: int) -> None:
    """Drop rows written after the checkpoint that training continues from."""
    path = run / STATS_FILE
    if not path.exists():
        return
    content = path.read_bytes()
    rows = files.read_rows(path)
    kept = [row for row in rows if files.row_number(row, "nimg") <= nimg]
    if len(kept) < len(rows) or not content.endswith(b"\n"):
        with files.room_for(path, len(content)):
            files.write_rows(path, kept)


def metric_path(run: Path, name: str) -> Path:
    """Return the file of a metric's values over the run."""
    return run / f"metric-{re.sub(r'[^A-Za-z0-9@_.+-]', '_', name)}.jsonl"


def measurement_row(
    result: Mapping[str, Any], where: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """Lay out a metric's result, {"name", "value", ...}, as ``metric-NAME.jsonl`` has it.

    ``where`` says what was measured: the snapshot, and while training the number of images.
    ``seconds`` is the time of all metrics that were measured together.
    """
    name, value, std = result["name"], result["value"], result.get("std")
    return {
        **where,
        **result,
        "metric": name,
        "results": {name: value} if std is None else {name: value, f"{name}_std": std},
        "timestamp": time.time(),
        "total_time": round(seconds, 3),
    }


def lesser_is_better(row: Mapping[str, Any]) -> bool:
    """Say whether less is better of a row of a metric: yes, unless it says otherwise."""
    return not row.get("higher_is_better", False)


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


def append_event(run: Path, row: dict[str, Any]) -> None:
    """Add one line to ``events.jsonl``: {"nimg", "kimg", "event", "text", "time"}.

    ``event`` is started, resumed, saved, warning, rollback, stopped, finished or evaluation-failed;
    kimg and time are filled in. Events survive the rewinding of statistics.
    """
    filled = {
        "nimg": row["nimg"],
        "kimg": row["nimg"] / 1000,
        "event": row["event"],
        "text": row.get("text", ""),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    files.append_row(run / EVENTS_FILE, {**filled, **row})


def read_events(run: Path) -> list[dict[str, Any]]:
    """Return the rows of ``events.jsonl``, oldest first.

    Left out are torn lines and those that do not say what happened after how many images.
    """
    found = []
    for row in files.read_rows(run / EVENTS_FILE):
        if _is_placed(row) and isinstance(row.get("event"), str):
            row |= {"kimg": row["nimg"] / 1000, "text": str(row.get("text") or "")}
            names = row.pop("files", None)
            if isinstance(names, list):
                row["files"] = [name for name in names if isinstance(name, str)]
            found.append(row)
    return found


def _is_placed(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("nimg"), int) and 0 <= row["nimg"] < 1 << 50


def _write(run: Path, settings: RunSettings, *, finished: bool) -> None:
    import torch

    files.write_json(
        run / RUN_FILE,
        {
            "format": RUN_FORMAT,
            "stylecli": __version__,
            "network": settings.network.to_dict(),
            "training": settings.training.to_dict(),
            "dataset": {
                "path": _from_run(settings.dataset, run),
                "digest": settings.dataset_digest,
            },
            "ranks": settings.ranks,
            "device": settings.device,
            "origin": None if settings.origin is None else asdict(settings.origin),
            "environment": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "system": platform.platform(),
            },
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "finished": finished,
        },
    )


def _as_of_its_time(
    settings: RunSettings, run: Path, stored: RunSettings, given: Collection[str]
) -> RunSettings:
    """Return the settings with those of ``stored`` where ``run``'s record knows no such setting.

    And with what a trial came to there, which may come to something else the next time.
    """
    tried = {name for name, item in settings_of(TrainingConfig).items() if item.tried}
    known = {*read_run(run)["training"]} - tried | {*given}
    later = {
        item.name: getattr(stored.training, item.name)
        for item in fields(TrainingConfig)
        if item.name not in known
    }
    return replace(settings, training=replace(settings.training, **later))


@dataclass(frozen=True)
class RunChoice:
    """The run that settings lead to, and whether it begins, continues or is finished."""

    run: Path
    state: str  # begin | continue | finished
    description: str = ""  # what follows the number of a new run; "": --out names the folder
    unreadable: tuple[Path, ...] = ()  # runs whose settings cannot be read, passed over
    training: TrainingConfig | None = None  # of a run that is there: what it is trained with


def choose_run(settings: RunSettings, out: Path | None, given: Collection[str] = ()) -> RunChoice:
    """Return the run to train: the newest with equal settings, else a new one.

    A run begun before there was a setting continues without it, unless it is among those ``given``.
    A run that cannot be read is passed over. Raises UsageError when ``out`` is a run with other
    settings, or the run is to continue that was begun on another kind of device.
    """
    unreadable: list[Path] = []
    candidates = [out] if out is not None else list(reversed(list_runs()))
    for run in candidates:
        if not (run / "run.json").exists():
            continue
        try:
            stored = load_settings(run)
        except NetworkError:  # damaged, or of another version
            if out is not None:
                raise
            unreadable.append(run)
            continue
        wanted = _as_of_its_time(settings, run, stored, given)
        found: dict[str, Any] = {"unreadable": tuple(unreadable), "training": stored.training}
        if stored.same_run(wanted):
            if is_finished(run):
                return RunChoice(run, "finished", **found)
            if stored.device != settings.device:
                raise UsageError(
                    f"{run} has these settings but trains on {stored.device}, not on "
                    f"{settings.device}: give --device {stored.device} on a machine that has one, "
                    f"or continue here in a new run with --resume '{run}'"
                )
            return RunChoice(run, "continue", **found)
        if out is not None:
            raise UsageError(f"{run} was started with other settings: give another --out")
    network = settings.network
    name = f"{settings.dataset.stem}-{network.preset}{network.size}"
    if out is not None:
        return RunChoice(out, "begin", unreadable=tuple(unreadable))
    return RunChoice(next_run(name), "begin", name, tuple(unreadable))

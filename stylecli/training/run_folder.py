"""A run on disk: its settings, its statistics, its events.

Its statistics, events and measurements are rows of JSON: ``stats.jsonl``, ``events.jsonl``,
``metric-NAME.jsonl``.
"""

import contextlib
import math
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stylecli import __version__, files
from stylecli.data.ownership import OwnerLock
from stylecli.errors import NetworkError, UsageError
from stylecli.networks.config import StyleGAN1Config, config_from_dict
from stylecli.training.config import TrainingConfig, training_from_dict
from stylecli.workspace import CHECKPOINT_FILE, EVENTS_FILE, RUN_FILE, STATS_FILE, read_run

RUN_FORMAT = 1
_ROW_BYTES = 4096  # a row of JSON is shorter
# Temporary names: of stylecli.files for the files that training writes, and of safetensors.
_LEFTOVER = re.compile(
    r"\.(checkpoint|checkpoint-best|initial|network-snapshot-\d+|fakes\d+|reals|run|best|stats"
    r"|metric-.+)-[a-z0-9_]{8}\.part\.[a-z]+|\.tmp[A-Za-z0-9]{6}"
)


@dataclass(frozen=True)
class Origin:
    """The file that a run of ``--resume`` began with; it lies in the run as initial.safetensors."""

    source: str  # the path that was given
    digest: str  # SHA-256 of the file it led to
    continued: bool  # goes on with its full state; else only weights were taken over
    resolution: int  # side in pixels that the weights taken over are grown to


@dataclass(frozen=True)
class RunSettings:
    """What a run was started with; equal settings on equal data are the same run."""

    network: StyleGAN1Config
    training: TrainingConfig
    dataset: Path  # where it lies now
    dataset_digest: str
    ranks: int = 1  # processes that share the batch
    device: str = "cpu"
    origin: Origin | None = None  # None: fresh weights

    def same_run(self, other: "RunSettings") -> bool:
        """Whether training one goes on with the other: all that decides the result is equal."""
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
    """Make the run folder and write ``run.json``; raise UsageError when there is one."""
    if (run / RUN_FILE).exists():
        raise UsageError(f"{run} is a run already: choose another folder")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"run folder {run} cannot be made ({error.strerror}): give another --out"
        ) from None
    _write(run, settings, finished=False)


def mark_finished(run: Path, nimg: int) -> None:
    """Note in ``run.json`` that the whole schedule was trained, ``nimg`` images in all."""
    if not is_finished(run):
        append_event(run, {"nimg": nimg, "event": "finished"})
        with files.room_for(run / RUN_FILE, _ROW_BYTES):
            files.write_json(run / RUN_FILE, {**read_run(run), "finished": True})


@contextlib.contextmanager
def held(run: Path) -> Iterator[None]:
    """Own a run folder: no second training can write it, whatever became of an earlier one.

    Unfinished files that a crash left behind are removed. Raises DataError when another process
    trains this run.
    """
    lock = OwnerLock(run)
    try:
        for path in run.iterdir():
            if _LEFTOVER.fullmatch(path.name):
                path.unlink(missing_ok=True)
        yield
    finally:
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
    except (KeyError, TypeError, UsageError) as error:
        raise NetworkError(f"{run / RUN_FILE} is not readable: {error}") from None


def append_statistics(run: Path, row: dict[str, Any]) -> None:
    """Add one line to ``stats.jsonl`` and make it durable."""
    files.append_row(run / STATS_FILE, row)


def read_statistics(run: Path) -> list[dict[str, Any]]:
    """Return the rows of ``stats.jsonl``; a torn line is left out. What was not finite is NaN."""
    return [
        {name: math.nan if value is None else value for name, value in row.items()}
        for row in files.read_rows(run / STATS_FILE)
    ]


def rewind_statistics(run: Path, nimg: int) -> None:
    """Drop rows written after the checkpoint that training goes on from."""
    path = run / STATS_FILE
    if not path.exists():
        return
    content = path.read_bytes()
    rows = files.read_rows(path)
    kept = [row for row in rows if files.row_number(row, "nimg") <= nimg]
    if len(kept) < len(rows) or not content.endswith(b"\n"):
        with files.room_for(path, len(content)):
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
    """Return the rows of ``events.jsonl``, oldest first; a torn line is left out."""
    return files.read_rows(run / EVENTS_FILE)


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
                "path": os.path.relpath(settings.dataset, run),
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

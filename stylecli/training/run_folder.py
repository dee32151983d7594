"""A run on disk: its settings, its statistics, its sample sheets."""

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stylecli import __version__, atomic
from stylecli.errors import NetworkError, UsageError
from stylecli.networks.config import StyleGAN1Config, config_from_dict
from stylecli.training.config import TrainingConfig, training_from_dict
from stylecli.workspace import RUN_FILE, STATS_FILE, read_run

RUN_FORMAT = 1


@dataclass(frozen=True)
class RunSettings:
    """What a run was started with; equal settings on equal data are the same run."""

    network: StyleGAN1Config
    training: TrainingConfig
    dataset: Path  # where it lies now
    dataset_digest: str
    ranks: int = 1  # processes that share the batch
    device: str = "cpu"

    def same_run(self, other: "RunSettings") -> bool:
        """Whether training one goes on with the other: all that decides the result is equal."""
        return (
            self.network == other.network
            and self.training == other.training
            and self.dataset_digest == other.dataset_digest
        )


def create_run(run: Path, settings: RunSettings) -> None:
    """Make the run folder and write ``run.json``; raise UsageError when there is one."""
    if (run / RUN_FILE).exists():
        raise UsageError(f"{run} is a run already: choose another folder")
    run.mkdir(parents=True, exist_ok=True)
    _write(run, settings, finished=False)


def mark_finished(run: Path) -> None:
    """Note in ``run.json`` that the whole schedule was trained."""
    atomic.write_json(run / RUN_FILE, {**read_run(run), "finished": True})


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
        )
    except (KeyError, TypeError, UsageError) as error:
        raise NetworkError(f"{run / RUN_FILE} is not readable: {error}") from None


def append_statistics(run: Path, row: dict[str, Any]) -> None:
    """Add one line to ``stats.jsonl`` and make it durable."""
    with open(run / STATS_FILE, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_statistics(run: Path) -> list[dict[str, Any]]:
    """Return the rows of ``stats.jsonl``; a torn last line is left out."""
    return list(_rows(run / STATS_FILE))


def rewind_statistics(run: Path, nimg: int) -> None:
    """Drop rows written after the checkpoint that training goes on from."""
    path = run / STATS_FILE
    if path.exists():
        kept = [row for row in _rows(path) if row["nimg"] <= nimg]
        atomic.write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _write(run: Path, settings: RunSettings, *, finished: bool) -> None:
    import torch

    atomic.write_json(
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
            "environment": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "system": platform.platform(),
            },
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "finished": finished,
        },
    )

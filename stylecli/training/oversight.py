"""What watches over a run on its main rank: statistics, watchdog, metrics, TensorBoard.

Nothing here changes what is trained. A verdict says what the loop is to do.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from stylecli import files
from stylecli.data.reader import Dataset
from stylecli.images import Pictures
from stylecli.networks.bundle import Bundle
from stylecli.networks.model import Generator
from stylecli.training import checkpoints, run_folder
from stylecli.training.checkpoints import MAX_ROLLBACKS, Counters, rollback_source
from stylecli.training.diversity import DiversityGauge
from stylecli.training.run_folder import RunSettings
from stylecli.training.schedule import Stage
from stylecli.training.session import Session
from stylecli.training.tensorboard import EventWriter
from stylecli.training.watchdog import Finding, Watchdog

# Given a network and the data: rows of plain JSON values, {"name", "value", ...}, the first metric
# first. stylecli train makes it of stylecli.metrics, which training does not know.
Evaluate = Callable[[Bundle, Dataset], Sequence[Mapping[str, Any]]]


class Oversight:
    """Keeps the books of a run and judges it, tick by tick and snapshot by snapshot."""

    def __init__(
        self,
        run: Path,
        settings: RunSettings,
        session: Session,
        dataset: Dataset,
        label_table: torch.Tensor | None,
        evaluate: Evaluate | None,
    ) -> None:
        self.run, self.settings, self.session = run, settings, session
        self.dataset, self.evaluate = dataset, evaluate
        self.notice: Callable[[str], None] = unheard
        self._gauge: DiversityGauge | None = None
        if session.watch != "off":
            labels = label_table if settings.network.label_dim else None
            self._gauge = DiversityGauge(dataset, labels, settings.network.z_dim)
        self._writer: EventWriter | None = None
        self._watchdog = Watchdog(settings.training)
        self._reason: Finding | None = None  # of the last verdict
        self._exhausted = False  # no rollback is left
        self._skipped: set[str] = set()  # metrics without a value, told once

    def go_on_from(self, nimg: int) -> None:
        """Take up the run's past as its files tell it now; done before anything else."""
        self._watchdog = Watchdog(self.settings.training, run_folder.read_statistics(self.run))
        self.close()
        if self.session.tensorboard:
            self._writer = EventWriter(self.run, nimg)

    def close(self) -> None:
        """Finish the event file."""
        if self._writer:
            self._writer.close()
        self._writer = None

    def tick(self, row: dict[str, Any], G_ema: Generator, stage: Stage, rollbacks: int) -> str:
        """Write down a tick; return "" to go on, "stop" or "rollback"."""
        if self._gauge:
            row["diversity"] = round(self._gauge.measure(G_ema, stage), 4)
        run_folder.append_statistics(self.run, row)
        if self._writer:
            self._writer.add_tick(row)
        return self._judge(lambda dog: dog.look(row), row["nimg"], rollbacks)

    def snapshot(self, counters: Counters, bundle: Bundle, network: Path, *, last: bool) -> str:
        """Measure a snapshot when it is due, or the last; return a verdict as ``tick`` does."""
        config = self.settings.training
        every = self.session.evaluate_ticks
        due = last or is_due(counters.tick, config.snapshot_ticks, every)
        if self.evaluate is None or not due:
            return ""
        rows = self._measure(self.evaluate, counters, bundle, network)
        if not rows:
            return ""
        checkpoints.keep_best(self.run, counters.nimg, rows[0])
        first = run_folder.read_measurements(self.run, rows[0]["name"])
        return self._judge(
            lambda dog: dog.look_at_metric(first, counters.tick), counters.nimg, counters.rollbacks
        )

    def describe_stop(self) -> str:
        """Say why the watchdog stopped the run and how to go on all the same."""
        tried = f" after {MAX_ROLLBACKS} rollbacks" if self._exhausted else ""
        return (
            f"stopped and saved by the watchdog{tried}: {self._reason}; the same command with "
            "--watch off goes on as it is"
        )

    def rolled_back(self, left: int, nimg: int, rollbacks: int) -> None:
        """Take note that training from ``nimg`` to ``left`` images was undone."""
        self.warn(
            nimg,
            f"rolled back from {left / 1000:g} to {nimg / 1000:g} kimg, going on with other random "
            f"numbers (rollback {rollbacks} of at most {MAX_ROLLBACKS})",
            "rollback",
        )
        self.go_on_from(nimg)

    def add_sheet(self, sheet: Pictures, nimg: int) -> None:
        """Take in a sample sheet [H, W, C] that was just drawn."""
        if self._writer:
            self._writer.add_sheet(sheet, nimg)

    def warn(self, nimg: int, text: str, event: str = "warning") -> None:
        """Write an event down and tell whoever listens."""
        run_folder.append_event(self.run, {"nimg": nimg, "event": event, "text": text})
        self.notice(text)

    def _measure(
        self, evaluate: Evaluate, counters: Counters, bundle: Bundle, network: Path
    ) -> list[dict[str, Any]]:
        nimg = counters.nimg
        where = {"tick": counters.tick, "nimg": nimg, "kimg": nimg / 1000, "snapshot": network.name}
        try:
            rows = measure_network(evaluate, bundle, self.dataset, where)
        except Exception as error:  # whatever it is: measuring never ends a run
            text = f"measuring at {nimg / 1000:g} kimg failed, training goes on: {_brief(error)}"
            self.warn(nimg, text, "evaluation-failed")
            return []
        run_folder.append_measurements(self.run, rows)
        for row in rows:
            if self._writer:
                self._writer.add_metric(row)
            if row["value"] is None and row["name"] not in self._skipped:
                self._skipped.add(row["name"])
                reason = row.get("skipped") or "it has no value"
                self.warn(nimg, f"{row['name']} is not measured: {reason}", "evaluation-failed")
        return rows

    def _judge(self, look: Callable[[Watchdog], list[Finding]], nimg: int, rollbacks: int) -> str:
        if self.session.watch == "off":
            return ""
        findings = look(self._watchdog)
        for finding in findings:
            self.warn(nimg, str(finding))
        grave = [finding for finding in findings if finding.ends_run]
        if not grave or self.session.watch not in ("stop", "rollback"):
            return ""
        self._reason, self._exhausted = grave[0], False
        if self.session.watch == "rollback":
            self._exhausted = rollbacks >= MAX_ROLLBACKS
            if not self._exhausted and rollback_source(self.run) is not None:
                return "rollback"
        return "stop"


def _brief(error: Exception) -> str:
    """Say what was raised in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


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
    rows = [_metric_row(result, where, seconds) for result in results]
    files.to_json(rows)
    return rows


def _metric_row(result: dict[str, Any], where: Mapping[str, Any], seconds: float) -> dict[str, Any]:
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


def unheard(text: str) -> None:
    """Tell nobody."""

"""What the page may see of the working directory: networks, faces and runs, by listed names.

A name is looked up among what is listed, never opened as a path.
"""

import hashlib
import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylecli import shipped
from stylecli.errors import NetworkError
from stylecli.explorer.states import NotListedError
from stylecli.provenance import shown_path
from stylecli.workspace import (
    find_network,
    folder_of,
    list_sheets,
    list_snapshots,
    newest_snapshot,
    read_best,
    runs_newest_first,
    saved_at,
    sheet_path,
)

PROJECTED, KEPT = "projected", "faces"  # folders beside what is made of a network
_NAME = re.compile(r"[\w. -]{1,60}")  # of a face that is kept


_FRESH_SECONDS = 1.0  # during which the working directory is not listed again


@dataclass
class Workplace:
    """The working directory as the page sees it, and the network that the command named."""

    given: Path | None = None
    _listed: dict[str, Path] = field(default_factory=dict)  # "" is the chosen one
    _listed_at: float = -math.inf

    def networks(self, run: str = "") -> dict[str, Path]:
        """Return the networks that can be shown, by name: the newest and the best of each run.

        Of one ``run``, all its snapshots. Raises NotListedError for another run.
        """
        found: dict[str, Path] = {}
        if run:
            found.update(_named(list_snapshots(self.find_run(run))))
            return found
        if self.given is not None:
            found.update(_named([find_network(self.given).path]))
        for each in runs_newest_first():
            shown = [newest_snapshot(each), _best(each)]
            found.update(_named(path for path in shown if path is not None))
        if (path := shipped.shipped_network()) is not None:
            found.update(_named([path]))
        return found

    def list_networks(self, run: str = "") -> dict[str, Any]:
        """Return what the page lists: networks, and the one that is shown first."""
        rows = []
        for name, path in self.networks(run).items():
            nimg = saved_at(path.name)
            owner = path.parent if nimg is not None else None
            rows.append({
                "name": name, "run": None if owner is None else shown_path(owner),
                "kimg": None if nimg is None else nimg / 1000,
                "best": owner is not None and path == _best(owner),
            })  # fmt: skip
        return {"networks": rows, "chosen": shown_path(self.chosen)}

    @property
    def chosen(self) -> Path:
        """The network that is taken where a state names none."""
        return find_network(self.given).path

    def find_network(self, name: str) -> Path:
        """Return a listed network, also a snapshot of a listed run; none: the chosen one.

        Raises NotListedError for another name.
        """
        now = time.monotonic()
        if name not in self._listed or now - self._listed_at > _FRESH_SECONDS:
            self._listed, self._listed_at = {**self.networks(), "": self.chosen}, now
        path = self._listed.get(name)
        if path is None:
            run = Path(name).parent.as_posix()
            path = self.networks(run).get(name) if run in self.runs() else None
        if path is None:
            raise NotListedError(f"there is no network {name[:200]!r}: the list names them")
        return path

    def faces(self, network: Path) -> dict[str, Path]:
        """Return the files of styles that belong to a network, by name."""
        folder = folder_of(network)
        paths = [
            *sorted((folder / PROJECTED).glob("*.npz")),
            *sorted((folder / KEPT).glob("*.npz")),
        ]
        return _named(path for path in paths if not path.name.startswith("."))

    def list_faces(self, network: Path) -> dict[str, Any]:
        """Return what the page lists of the faces of a network."""
        return {
            "faces": [
                {"name": name, "title": path.stem, "projected": path.parent.name == PROJECTED}
                for name, path in self.faces(network).items()
            ]
        }

    def kept_face(self, network: Path, name: str) -> Path:
        """Return where a face is kept under a name; raise NotListedError for no such name."""
        if not _NAME.fullmatch(name) or not name.strip(". "):
            raise NotListedError(
                f"{name[:80]!r} is no name for a face: take letters, digits, spaces and dashes"
            )
        return folder_of(network) / KEPT / f"{name.strip()}.npz"

    def runs(self) -> dict[str, Path]:
        """Return the runs, the newest first, by name."""
        return _named(runs_newest_first())

    def find_run(self, name: str) -> Path:
        """Return a listed run; raise NotListedError for another name."""
        if (run := self.runs().get(name)) is None:
            raise NotListedError(f"there is no run {name[:200]!r}: the list of runs names them")
        return run

    def list_runs(self) -> dict[str, Any]:
        """Return what the page lists of the runs; what cannot be read says why."""
        from stylecli.report.run_facts import read_facts, strict

        rows: list[dict[str, Any]] = []
        for name, run in self.runs().items():
            try:
                facts = read_facts(run)
            except NetworkError as error:
                rows.append({"name": name, "title": run.name, "state": "unreadable",
                             "reason": str(error), "kimg": None, "total_kimg": None})  # fmt: skip
                continue
            rows.append({
                "name": name, "title": facts.name, "state": facts.state, "reason": facts.reason,
                "kimg": facts.kimg, "total_kimg": facts.settings.training.total_kimg,
            })  # fmt: skip
        listed: dict[str, Any] = strict({"runs": rows})
        return listed

    def describe_run(self, name: str) -> dict[str, Any]:
        """Return a run as the page draws it: curves as numbers, events, sheets, snapshots.

        Raises NotListedError, and NetworkError for settings that cannot be read.
        """
        from stylecli.report.run_curves import draw_curves, draw_metric
        from stylecli.report.run_facts import read_facts, strict

        run = self.find_run(name)
        facts = read_facts(run)
        charts = [
            *draw_curves(facts, large=True), *(draw_metric(one, facts) for one in facts.metrics),
            *draw_curves(facts, large=False),
        ]  # fmt: skip
        described: dict[str, Any] = strict({
            "name": name, "title": facts.name, "state": facts.state, "reason": facts.reason,
            "kimg": facts.kimg, "total_kimg": facts.settings.training.total_kimg,
            "seconds": facts.seconds,
            "charts": [_chart(chart) for chart in charts],
            "events": [_event(row) for row in facts.notable],
            "sheets": [nimg for nimg, _ in facts.sheets],
            "snapshots": list(_named(list_snapshots(run))),
            "best": None if (best := _best(run)) is None else shown_path(best),
            "metrics": [metric.to_dict() for metric in facts.metrics],
        })  # fmt: skip
        return described

    def run_state(self, name: str) -> str:
        """Return what changes whenever a run does."""
        run = self.find_run(name)
        kinds = ("*.json", "*.jsonl", "network-snapshot-*", "fakes*.png")
        found = sorted(path for kind in kinds for path in run.glob(kind))
        states = [(path.name, *_state(path)) for path in found]
        return hashlib.sha256(repr(states).encode()).hexdigest()[:32]

    def find_sheet(self, name: str, nimg: str) -> Path:
        """Return a sample sheet of a run; raise NotListedError where it has no such sheet."""
        run = self.find_run(name)
        path = sheet_path(run, int(nimg)) if nimg.isascii() and nimg.isdecimal() else None
        if path is None or path not in list_sheets(run):
            raise NotListedError(f"run {name} has no sheet of {nimg[:40]} images")
        return path


def file_state(path: Path) -> tuple[str, int, int]:
    """Return what tells one content of a file from another: its path, size and time of change."""
    return (str(path), *_state(path))


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _named(paths: Iterable[Path]) -> dict[str, Path]:
    return {shown_path(path): path for path in paths}


def _best(run: Path) -> Path | None:
    """Return the snapshot of a run that measured best, if it is still there."""
    best = read_best(run)
    listed = {saved_at(path.name): path for path in list_snapshots(run)}
    return None if best is None else listed.get(int(best["nimg"]))


def _chart(chart: Any) -> dict[str, Any]:
    return {
        "title": chart.title, "x_label": chart.x_label, "y_label": chart.y_label,
        "caption": chart.caption, "log_y": chart.log_y, "clip": chart.clip,
        "lines": [
            {"name": line.name, "xs": list(line.x), "ys": list(line.y), "dots": line.dots,
             "spread": list(line.spread), "best": line.best, "steps": line.steps,
             "smoothing": line.smoothing}
            for line in chart.lines
        ],
        "stages": [
            {"start": stage.start, "end": stage.end, "text": stage.label, "fading": stage.fading}
            for stage in chart.stages
        ],
        "marks": [
            {"x": mark.x, "label": mark.label, "text": mark.meaning, "grave": mark.grave}
            for mark in chart.marks
        ],
    }  # fmt: skip


def _event(row: Mapping[str, Any]) -> dict[str, Any]:
    from stylecli.report.run_curves import GRAVE

    return {
        "kimg": float(row["kimg"]), "event": str(row["event"]), "text": str(row.get("text") or ""),
        "grave": row["event"] in GRAVE,
    }  # fmt: skip

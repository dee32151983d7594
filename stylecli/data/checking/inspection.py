"""One check from end to end: recognise what lies there, look through it, judge, write pictures.

``Inspection.scan``, which may be interrupted, then ``compare``, then ``report``, which speaks of
what was looked at until then.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import Any, Self

import numpy as np

from stylecli import __version__
from stylecli.data.checking.findings import (
    MAX_NAMES,
    CheckReport,
    Findings,
    Pixels,
    Problem,
    Tally,
    worst_first,
)
from stylecli.data.checking.judgement import (
    Case,
    Duplicates,
    collect_facts,
    cuts_much_off,
    describe,
    join_advice,
    judge,
    suggest_resolution,
)
from stylecli.data.checking.near_duplicates import (
    THUMBNAIL_SIDE,
    find_near_duplicates,
    group_pairs,
    shrink,
)
from stylecli.data.checking.subjects import open_subject
from stylecli.data.lmdb_files import free_bytes
from stylecli.data.preparation import WITH_BARS, Transform
from stylecli.errors import plural
from stylecli.files import write_json
from stylecli.images import enlarge, make_grid, save_png
from stylecli.progress import Progress, format_bytes, silent

SAMPLE_COLUMNS, SAMPLE_ROWS = 10, 6
SHOWN_SIDE = 128  # px, of one picture on a sheet
GROUPS_SHOWN, GROUP_SHOWN = 12, 6
_GAP = 2  # px
_MADE = {"tool": f"stylecli {__version__}", "kind": "check"}  # what the pictures say of themselves

QUICK_SAMPLE = 500  # pictures
_SPARE_BYTES = 1 << 30  # for a run's snapshots


def choose_sample(usable: Sequence[int], seed: int = 0) -> list[int]:
    """Return up to 60 of the indices, drawn without repetition, in order."""
    wanted = min(len(usable), SAMPLE_COLUMNS * SAMPLE_ROWS)
    drawn = np.random.default_rng(seed).choice(usable, wanted, replace=False)
    return sorted(int(index) for index in drawn)


def save_mean(path: Path, mean: Pixels) -> None:
    """Write the mean picture [C, H, W]; small ones are enlarged by whole pixels."""
    save_png(path, _lay_over_white(mean[None], 256)[0], _MADE)


def save_sample(path: Path, pictures: Pixels) -> None:
    """Write pictures [B, C, H, W] side by side, ten in a row."""
    save_png(path, make_grid(_lay_over_white(pictures), SAMPLE_COLUMNS, padding=_GAP), _MADE)


def save_groups(
    path: Path,
    groups: Sequence[Sequence[int]],
    fetch: Callable[[Sequence[int]], Pixels],
) -> None:
    """Write a row for each of the first groups of near duplicates."""
    shown = [list(group[:GROUP_SHOWN]) for group in groups[:GROUPS_SHOWN]]
    pictures = _lay_over_white(fetch([index for group in shown for index in group]))
    columns = max(map(len, shown))
    cells, at = [], 0
    for group in shown:
        row = pictures[at : at + len(group)]
        blank = np.full((columns - len(group), *row.shape[1:]), 255, np.uint8)
        cells.append(np.concatenate([row, blank]))
        at += len(group)
    save_png(path, make_grid(np.concatenate(cells), columns, padding=_GAP), _MADE)


def _lay_over_white(pictures: Pixels, side: int = SHOWN_SIDE) -> Pixels:
    """Turn [B, C, H, W] into [B, H', W', 1 or 3] of about ``side`` px, without transparency."""
    cells = pictures.transpose(0, 2, 3, 1)
    if cells.shape[-1] == 4:
        alpha = cells[..., 3:].astype(np.float32) / 255
        cells = np.rint(cells[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return enlarge(np.ascontiguousarray(cells), max(1, side // max(cells.shape[1:3])))


def _find_pictures(header: dict[str, Any]) -> str:
    """Return what a dataset was packed from, where something of that name is here; else ""."""
    name = header.get("source")
    return name if isinstance(name, str) and name and Path(name).exists() else ""


class Inspection:
    """A check of a dataset or a source. ``quick`` looks at 500 pictures, spread evenly."""

    def __init__(
        self, path: Path, *, labels: Path | str | None = None, quick: bool = False
    ) -> None:
        self.subject = open_subject(path, labels)
        self.labels = "" if labels is None else str(labels)
        count = len(self.subject)
        self.indices: Sequence[int] = range(count)
        if quick and count > QUICK_SAMPLE:
            self.indices = [place * count // QUICK_SAMPLE for place in range(QUICK_SAMPLE)]
        self.tally = Tally(count)
        self._duplicates: Duplicates | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.tally.close()

    @property
    def complete(self) -> bool:
        """Whether every picture was looked at."""
        return self.tally.looked_at == self.tally.count

    @property
    def duplicates(self) -> Duplicates:
        """What was found to be double; equal pictures are found without ``compare``."""
        if self._duplicates is None:
            self._duplicates = Duplicates(self.tally.exact_groups(), [], searched=False)
        return self._duplicates

    def scan(self, *, workers: int | None = None, progress: Progress = silent) -> None:
        """Look at every picture, in ``workers`` processes."""
        scan = self.subject.scan(self.indices, workers)
        try:
            for findings in scan:
                self._add(findings, progress)
        finally:
            scan.close()

    def _add(self, findings: Findings, progress: Progress) -> None:
        self.tally.add(findings)
        bad = self.tally.faults.total()
        note = f"{bad} damaged or unusable" if bad else ""
        progress(self.tally.looked_at, len(self.indices), note)

    def compare(self, *, progress: Progress = silent) -> None:
        """Look for duplicates among what was scanned; for near ones only when that was all."""
        exact = self.duplicates.exact
        if self.complete:
            pairs = find_near_duplicates(
                self.tally.thumbnails(),
                self.tally.comparable(exact),
                lambda indices: shrink(self.subject.fetch(indices, THUMBNAIL_SIDE)),
                progress,
            )
            self._duplicates = Duplicates(exact, group_pairs(pairs))

    def report(self, out: Path | None = None) -> CheckReport:
        """Judge what was found; with ``out``, write mean.png, samples.png, check.json and, where
        there are some, near-duplicates.png into that folder.
        """
        files = self._write_pictures(out) if out is not None and self.tally.usable else []
        near = next((file for file in files if file.endswith("near-duplicates.png")), "")
        case = self._case(near, next((file for file in files if "samples" in file), ""))
        problems = [
            *self.subject.problems(self.complete),
            *judge(case, self.duplicates),
            *self._judge_disk(),
        ]
        report = CheckReport(
            path=str(self.subject.path),
            kind=self.subject.kind,
            name=self.subject.name,
            complete=self.complete,
            rows=describe(self.subject, self.tally, self.duplicates),
            facts=collect_facts(self.subject, self.tally, self.duplicates),
            problems=worst_first([self._with_names(problem) for problem in problems]),
            next=join_advice(case, problems) if self.tally.looked_at else "",
            files=[*files, str(out / "check.json")] if out is not None else [],
        )
        if out is not None:
            write_json(out / "check.json", {"tool": f"stylecli {__version__}", **report.to_dict()})
        return report

    def _case(self, sheet: str, samples: str) -> Case:
        info = self.subject.facts().get("header", {})
        settings = info.get("settings") or {}
        return Case(
            tally=self.tally,
            kind=self.subject.kind,
            path=self.subject.path,
            count=len(self.subject),
            name=self.subject.name,
            class_names=self.subject.class_names,
            keeps_duplicates=bool(settings.get("keep_duplicates")),
            padded=settings.get("transform") in WITH_BARS,
            sheet=sheet,
            samples=samples,
            labels=self.labels,
            source=_find_pictures(info) if self.subject.kind == "dataset" else "",
            packed=tuple(self.subject.packed()),
        )

    def _with_names(self, problem: Problem) -> Problem:
        """Name the pictures concerned, with the cause where each has its own."""
        group = {"duplicates": self.duplicates.exact, "near-duplicates": self.duplicates.near}
        indices = [index for group in group.get(problem.kind, []) for index in group]
        indices = indices or self.tally.examples.get(problem.kind.removeprefix("damaged-"), [])
        names = []
        for index in indices[:MAX_NAMES]:
            cause = self.tally.causes.get(index, "") if problem.severity != "note" else ""
            names.append(f"{self.subject.name_of(index)} {cause}".rstrip())
        return replace(problem, names=names)

    def _judge_disk(self) -> list[Problem]:
        """Say when there is no room for what comes next: packing, or the snapshots of a run."""
        free = free_bytes(Path.cwd())
        if self.subject.kind == "dataset":
            if free >= _SPARE_BYTES:
                return []
            text = f"{format_bytes(free)} are free here, little for a run and its networks"
            return [Problem("warning", "disk", text, "stylecli train --out RUN on another disk")]
        resolution = suggest_resolution(self.tally)
        needed = len(self.subject) * 3 * resolution**2
        if free >= needed:
            return []
        text = (
            f"packing {plural(len(self.subject), 'picture')} at {resolution} px needs "
            f"{format_bytes(needed)}; {format_bytes(free)} are free here"
        )
        pack = f"stylecli pack {quote(str(self.subject.path))}"
        fix = f"{pack} --resolution {resolution // 2}, or --max-images"
        return [Problem("error", "disk", text, fix, pack=(f"--resolution {resolution // 2}",))]

    def _write_pictures(self, out: Path) -> list[str]:
        out.mkdir(parents=True, exist_ok=True)
        files = []
        if (mean := self.tally.mean()) is not None:
            save_mean(out / "mean.png", mean)
            files.append("mean.png")
        sample = choose_sample(self.tally.measured().tolist())  # damaged ones have nothing to show
        transform: Transform = "subject" if cuts_much_off(self.tally) else "center-crop"
        pictures = self.subject.sample(sample, SHOWN_SIDE, transform)
        save_sample(out / "samples.png", pictures)
        files.append("samples.png")
        near = out / "near-duplicates.png"
        if self.duplicates.near:
            save_groups(near, self.duplicates.near, self._fetch_to_show)
            files.append(near.name)
        elif self.duplicates.searched:
            near.unlink(missing_ok=True)  # of an earlier check: it would be taken for this one's
        return [os.fspath(out / file) for file in files]

    def _fetch_to_show(self, indices: Sequence[int]) -> Any:
        return self.subject.fetch(indices, SHOWN_SIDE)

"""Small pictures and the faces that fit them, as files.

A picture NAME.png gives, in one folder,

    NAME-plausible-not-the-person-1.png         a candidate, and so on
    NAME-plausible-not-the-person-sheet.png     all of them, each shrunk again, beside the input
    NAME-plausible-not-the-person.npz           their styles w and noise maps

Names travel with files, records are lost: so the names say what these faces are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stylecli.images import Pictures, save_png
from stylecli.latents.searched_files import RESULTS, SearchJob, Unfinished, do_jobs
from stylecli.latents.sharpening import Candidate, Sharpener
from stylecli.progress import Progress, silent
from stylecli.saved_ws import save_ws

MARK = "plausible-not-the-person"
LayOut = Callable[[Pictures, Sequence[Candidate]], Pictures]  # of a sheet


@dataclass(frozen=True)
class SharpeningJob(SearchJob):
    """A small picture [h, w, C], and how many faces are wanted."""

    small: Pictures
    candidates: int

    @property
    def styles(self) -> Path:
        """Where the styles go."""
        return self.folder / f"{self.name}-{MARK}.npz"

    @property
    def pictures(self) -> list[Path]:
        """Where the candidates go."""
        numbers = range(1, self.candidates + 1)
        return [self.folder / f"{self.name}-{MARK}-{number}.png" for number in numbers]

    @property
    def sheet(self) -> Path:
        """Where the sheet goes."""
        return self.folder / f"{self.name}-{MARK}-sheet.png"

    @property
    def files(self) -> list[Path]:
        """All files of the result."""
        return [*self.pictures, self.sheet, self.styles]


def sharpen_jobs(
    sharpener: Sharpener, jobs: Sequence[SharpeningJob], lay_out: LayOut, *,
    progress: Progress = silent,
) -> Iterator[tuple[SharpeningJob, dict[str, Any]]]:  # fmt: skip
    """Sharpen one picture after the other; write their files and yield what was measured.

    What is done is yielded at once. A search that was interrupted continues.
    """

    def search(group: Sequence[SharpeningJob], report: Progress) -> list[dict[str, Any]]:
        (job,) = group
        kept = Unfinished(group)
        found = sharpener.sharpen(job.small, state=kept.state, save=kept.save, progress=report)
        return [write_candidates(job, found, sharpener.how.bound, lay_out)]

    return do_jobs(jobs, 1, progress, search)


def write_candidates(
    job: SharpeningJob, found: Sequence[Candidate], bound: float, lay_out: LayOut
) -> dict[str, Any]:
    """Write the files of some candidates; return what was measured."""
    errors = [round(one.error, 6) for one in found]
    results = {"errors": errors, "within": sum(one.error <= bound for one in found)}
    record = {**job.record, RESULTS: results}
    for path, one in zip(job.pictures, found, strict=True):
        save_png(path, one.picture, record)
    save_png(job.sheet, lay_out(job.small, found), record)
    noise = [torch.cat(layer) for layer in zip(*(one.noise for one in found), strict=True)]
    save_ws(job.styles, torch.stack([one.ws for one in found]), noise=noise, provenance=record)
    return results

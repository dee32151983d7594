"""Photographs and what they are projected to, as files: written, continued, and remembered.

A photograph NAME.jpg gives, in one folder,

    NAME.npz                 its styles w and noise maps, and the moments of the search
    NAME.png                 the picture that they draw
    NAME-sheet.png           photograph, picture and their difference
    NAME.mp4                 the search as a video, where wanted
    NAME.safetensors         the network that was tuned to it, where wanted

``searched_files.py`` knows which of them are done.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from stylecli.checkpoint import save_network
from stylecli.data.alignment.detectors import installed_detector
from stylecli.data.alignment.portrait import Portrait
from stylecli.errors import NetworkError
from stylecli.images import Pictures, enlarge, make_grid, save_png, visible_scale
from stylecli.latents.projector import Projection, Projector
from stylecli.latents.searched_files import (
    RESULTS,
    SearchJob,
    Unfinished,
    do_jobs,
    essence,
    recorded,
    results_of,
)
from stylecli.networks.model import Generator
from stylecli.progress import Progress, silent
from stylecli.rendering import render
from stylecli.saved_ws import load_noise, load_ws, save_ws
from stylecli.video import write_video

FPS = 30.0
_HELD_SECONDS = 1.0  # of the video, at its end
_SCREEN = 512  # px


@dataclass(frozen=True)
class Job(SearchJob):
    """A photograph to project."""

    portrait: Portrait
    video: bool = False
    tune: bool = False

    @property
    def styles(self) -> Path:
        """Where the styles go."""
        return self.folder / f"{self.name}.npz"

    @property
    def picture(self) -> Path:
        """Where the picture goes."""
        return self.folder / f"{self.name}.png"

    @property
    def sheet(self) -> Path:
        """Where photograph, picture and difference go."""
        return self.folder / f"{self.name}-sheet.png"

    @property
    def clip(self) -> Path:
        """Where the video of the search goes."""
        return self.folder / f"{self.name}.mp4"

    @property
    def network(self) -> Path:
        """Where the tuned network goes."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def files(self) -> list[Path]:
        """All files of the result."""
        more = [self.network] * self.tune + [self.clip] * self.video
        return [self.styles, self.picture, self.sheet, *more]

    def record_of(self, path: Path) -> dict[str, Any]:
        """Return the record of one of the files: only the video needs --video to be made again."""
        if path != self.clip:
            return self.record
        return {**self.record, "settings": {**self.record["settings"], "video": True}}


def project_jobs(
    projector: Projector, jobs: Sequence[Job], *, progress: Progress = silent
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Project photographs, some at a time; write their files and yield what was measured.

    A group of which all is done is yielded at once. A search that was interrupted continues.
    """

    def search(group: Sequence[Job], report: Progress) -> list[dict[str, Any]]:
        projections = _search(projector, group, report)
        return [
            write_projection(projector, job, projection)
            for job, projection in zip(group, projections, strict=True)
        ]

    return do_jobs(jobs, projector.batch, progress, search)


def _search(projector: Projector, group: Sequence[Job], progress: Progress) -> list[Projection]:
    # Without a video no moments of the beginning are kept.
    kept = Unfinished(group, videos=[job.video for job in group])
    return projector.project(
        np.stack([job.portrait.picture for job in group]),
        [job.portrait.mask for job in group],
        state=kept.state, save=kept.save, progress=progress,
    )  # fmt: skip


def write_projection(projector: Projector, job: Job, projection: Projection) -> dict[str, Any]:
    """Write the files of a projection; return what was measured."""
    results = measured(projection)
    record = {**job.record, RESULTS: results}
    if projection.network is not None:
        save_network(job.network, projection.network, extra={"projection": record})
    save_png(job.picture, projection.picture, record)
    save_png(job.sheet, lay_out_sheet(job.portrait, projection.picture), record)
    G = (projection.network or projector.net).generator
    if job.video:
        clip_record = {**job.record_of(job.clip), RESULTS: results}
        write_search_video(job.clip, G, job.portrait, projection, clip_record)
    save_ws(
        job.styles, projection.ws[None], noise=projection.noise, provenance=record,
    )  # fmt: skip
    return results


def measured(projection: Projection) -> dict[str, Any]:
    """Return the numbers that a projection comes with."""
    return {
        projection.distance_name: round(projection.distance, 6),
        "psnr_db": round(min(projection.psnr, 999.0), 4),
        "from_mean": None if projection.from_mean is None else round(projection.from_mean, 4),
        "steps": projection.steps,
    }


def lay_out_sheet(portrait: Portrait, picture: Pictures) -> Pictures:
    """Return photograph, picture and their absolute difference side by side.

    What a mask leaves out is darker in the photograph.
    """
    target = portrait.picture
    difference = np.abs(target.astype(np.int16) - picture).astype(np.uint8)
    if picture.shape[2] == 4:
        difference[..., 3] = 255
    if portrait.mask is not None:
        weight = (0.25 + 0.75 * portrait.mask)[..., None]
        target = (target * weight).astype(np.uint8)
    scale = visible_scale(max(picture.shape[:2]), at_least=256)
    return make_grid([target, picture, difference], 3, scale=scale)


def write_search_video(
    path: Path, G: Generator, portrait: Portrait, projection: Projection, record: dict[str, Any]
) -> None:
    """Write the search as a video, photograph on the left, with the noise maps of its end."""
    moments = projection.path if projection.path is not None else projection.ws[None]
    held = [projection.ws] * round(_HELD_SECONDS * FPS)
    noise = repeat(projection.noise) if projection.noise else None
    scale = visible_scale(max(portrait.picture.shape[:2]), at_least=_SCREEN)
    left = enlarge(portrait.picture, scale)

    def frames() -> Iterable[Pictures]:
        for picture in render(G, [*moments, *held], noise=noise):
            yield np.concatenate([left, enlarge(picture, scale)], axis=1)

    write_video(path, frames(), FPS, loop=False, provenance=record)


@dataclass(frozen=True)
class Remembered:
    """The styles of a photograph that was projected before."""

    ws: Tensor  # [num_ws, w_dim]
    noise: list[Tensor]  # [1, 1, h, w] of every layer; empty: the network's own
    path: Path


def find_projection(folder: Path, record: Mapping[str, Any], G: Generator) -> Remembered | None:
    """Return what a folder holds of the same photograph, network and settings, by their content.

    Names do not count: neither of the photograph nor of the network. Other files are passed over.
    """
    wanted = essence(record)
    for path in sorted(folder.glob("*.npz")):
        found = recorded(path)
        if results_of(found) is None or essence(found) != wanted:
            continue
        config = G.config
        try:
            (ws,) = load_ws(path, (config.num_ws, config.w_out_dim))
            noise = load_noise(path, config.noise_shapes(), 1)
        except (NetworkError, ValueError):  # whatever it says of itself, it is no projection
            continue
        return Remembered(ws, noise or [], path)
    return None


def project_settings(
    projector: Projector, device: str, *, align: bool, detector: str
) -> dict[str, Any]:
    """Return the options that give exactly these results.

    ``auto`` is the detector that it takes here: another one finds another square.
    """
    if detector == "auto":
        detector = installed_detector()
    how = projector.how
    many = projector.batch if projector.batch > 1 else None
    return {
        "space": projector.space, "tune": how.tune or None, "preset": how.preset,
        "steps": how.steps, "tune_steps": how.tune_steps, "noise": how.noise,
        "distance": projector.distance.name, "label": how.label, "seed": how.seed,
        "batch": many, "device": device, "align": align,
        "detector": (detector or None) if align else None,
    }  # fmt: skip

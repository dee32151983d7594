"""Photographs and what they are projected to, as files: written, continued, and remembered.

A photograph NAME.jpg gives, in one folder,

    NAME.npz                 its styles w and noise maps, and the moments of the search
    NAME.png                 the picture that they draw
    NAME-sheet.png           photograph, picture and their difference
    NAME.mp4                 the search as a video, where wanted
    NAME.safetensors         the network that was tuned to it, where wanted
    NAME.unfinished          while it is searched for, so that the same command continues

The .npz is written last: where it stands with the same record, all is done.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from stylecli.checkpoint import read_tensors, save_network, write_tensors
from stylecli.data.alignment.detectors import installed_detector
from stylecli.data.alignment.portrait import Portrait
from stylecli.errors import DataError, NetworkError, UsageError
from stylecli.images import (
    Pictures,
    enlarge,
    make_grid,
    read_provenance,
    save_png,
    visible_scale,
)
from stylecli.latents.projector import Projection, Projector, State
from stylecli.networks.headers import read_header
from stylecli.networks.model import Generator
from stylecli.progress import Progress, silent
from stylecli.sampling import render
from stylecli.saved_ws import load_noise, load_ws, read_ws_provenance, save_ws
from stylecli.video import read_video_provenance, write_video

RESULTS = "results"  # of a record: what was measured, which no command asks for
WEIGHTS = "weights"  # of a record: the SHA-256 of those that measured, by the distance's name
FPS = 30.0
_HELD_SECONDS = 1.0  # of the video, at its end
_SCREEN = 512  # px


@dataclass(frozen=True)
class Job:
    """A photograph to project: its picture, and the record of how, without results."""

    portrait: Portrait
    folder: Path
    name: str
    record: dict[str, Any]
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
    def unfinished(self) -> Path:
        """Where a search that is not over yet is kept."""
        return self.folder / f"{self.name}.unfinished"

    @property
    def files(self) -> list[Path]:
        """All files of the result."""
        more = [self.network] * self.tune + [self.clip] * self.video
        return [self.styles, self.picture, self.sheet, *more]

    @property
    def clip_record(self) -> dict[str, Any]:
        """The record of the video, without results: only it needs --video to be made again."""
        return {**self.record, "settings": {**self.record["settings"], "video": True}}

    @property
    def taken(self) -> Path | None:
        """The first of these files that stands there and is not this job's; None: all are free.

        A file of this job's own, which a search that was killed left, may be replaced.
        """
        for path in self.files:
            wanted = self.clip_record if path == self.clip else self.record
            if os.path.lexists(path) and _essence(_recorded(path)) != _essence(wanted):
                return path
        return None

    def check_free(self) -> None:
        """Raise UsageError where a file that is not this job's stands in the place of one."""
        if (path := self.taken) is not None:
            raise UsageError(
                f"{path} exists and was not made from this photograph with these settings: give "
                f"another --out, or --force"
            )

    @property
    def results(self) -> dict[str, Any] | None:
        """What was measured, where all is done; None where something is missing."""
        if not all(path.is_file() for path in self.files) or self.taken is not None:
            return None
        return _results(_recorded(self.styles))


def check_apart(jobs: Sequence[Job], given: Iterable[Path]) -> None:
    """Raise UsageError where a job would write over what it was given, or over another's files."""
    inputs = list(given)
    owners: dict[Path, Job] = {}
    for job in jobs:
        for path in job.files:
            for other in inputs:
                if _same_file(path, other):
                    raise UsageError(
                        f"{path} would be written over {other}, which was given: give another --out"
                    )
            owner = owners.setdefault(path, job)
            if owner is not job:
                raise UsageError(
                    f"{owner.name} and {job.name} would both write {path}: project them one after "
                    f"the other, each with its own --out"
                )


def _same_file(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def _recorded(path: Path) -> Any:
    """Return what a file of a result says of how it was made; None where it says nothing."""
    try:
        if path.suffix == ".npz":
            return read_ws_provenance(path)
        if path.suffix == ".mp4":
            return read_video_provenance(path)
        if path.suffix == ".safetensors":
            info = read_header(path).get("info")
            return info.get("projection") if isinstance(info, Mapping) else None
        return read_provenance(path)
    except (DataError, NetworkError):
        return None


def _results(record: Any) -> dict[str, Any] | None:
    """Return what a record says was measured; None where it says nothing."""
    found = record.get(RESULTS) if isinstance(record, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else None


def project_jobs(
    projector: Projector, jobs: Sequence[Job], *, progress: Progress = silent
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Project photographs, some at a time; write their files and yield what was measured.

    A group of which all is done is yielded at once. A search that was interrupted continues.
    """
    groups = [jobs[i : i + projector.batch] for i in range(0, len(jobs), projector.batch)]
    for number, group in enumerate(groups):
        done = [job.results for job in group]
        if any(results is None for results in done):
            report = _share(progress, number, len(groups))
            projections = _search(projector, group, report)
            done = [
                write_projection(projector, job, projection)
                for job, projection in zip(group, projections, strict=True)
            ]
            group[0].unfinished.unlink(missing_ok=True)
        yield from zip(group, (results or {} for results in done), strict=True)


def _share(progress: Progress, number: int, groups: int) -> Progress:
    """Return a progress of one group as part of that of all."""

    def report(done: float, total: float, note: str = "") -> None:
        progress(number * total + done, groups * total, note)

    return report


def _search(projector: Projector, group: Sequence[Job], progress: Progress) -> list[Projection]:
    group[0].folder.mkdir(parents=True, exist_ok=True)
    path = group[0].unfinished
    header = {
        "searches": [_essence(job.record) for job in group],
        "videos": [job.video for job in group],  # without, no moments of the beginning are kept
    }

    def save(state: State) -> None:
        write_tensors(path, state, header)

    return projector.project(
        np.stack([job.portrait.picture for job in group]),
        [job.portrait.mask for job in group],
        state=_unfinished(path, header), save=save, progress=progress,
    )  # fmt: skip


def _unfinished(path: Path, header: Mapping[str, Any]) -> State | None:
    """Return the state of a search of the same records; None where there is none."""
    if not path.is_file():
        return None
    try:
        found, state = read_tensors(path)
    except NetworkError:
        return None  # it is begun again
    same = all(found.get(name) == value for name, value in header.items())
    return state if same else None


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
        clip_record = {**job.clip_record, RESULTS: results}
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
    scale = visible_scale(picture.shape[0], at_least=256)
    return make_grid([target, picture, difference], 3, scale=scale)


def write_search_video(
    path: Path, G: Generator, portrait: Portrait, projection: Projection, record: dict[str, Any]
) -> None:
    """Write the search as a video, photograph on the left, with the noise maps of its end."""
    moments = projection.path if projection.path is not None else projection.ws[None]
    held = [projection.ws] * round(_HELD_SECONDS * FPS)
    noise = repeat(projection.noise) if projection.noise else None
    scale = visible_scale(portrait.picture.shape[0], at_least=_SCREEN)
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
    wanted = _essence(record)
    for path in sorted(folder.glob("*.npz")):
        found = _recorded(path)
        if _results(found) is None or _essence(found) != wanted:
            continue
        config = G.config
        try:
            (ws,) = load_ws(path, (config.num_ws, config.w_out_dim))
            noise = load_noise(path, config.noise_shapes(), 1)
        except (NetworkError, ValueError):  # whatever it says of itself, it is no projection
            continue
        return Remembered(ws, noise or [], path)
    return None


def _essence(record: Any) -> dict[str, Any] | None:
    """Return what of a record decides the result; None where it is no record of a projection.

    Names do not: equal photographs have equal results, wherever they lie. Records come from files,
    which may be anybody's.
    """
    if not isinstance(record, Mapping) or record.get("command") != "project":
        return None
    network, inputs = record.get("network"), record.get("inputs")
    if not isinstance(network, Mapping) or not isinstance(inputs, Mapping):
        return None
    return {
        "tool": record.get("tool"),
        "settings": record.get("settings"),
        WEIGHTS: record.get(WEIGHTS),
        "network": network.get("sha256"),
        "inputs": {
            name: file.get("sha256") if isinstance(file, Mapping) else None
            for name, file in inputs.items()
        },
    }


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

"""Searches and the files that come of them: which are done, which are in the way, which continue.

Every file records how it was made, so a job knows its own among others. The file of the styles is
written last: where it stands with the same record, all is done. While a search is not over, its
state is kept in NAME.unfinished, from which the same command continues.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from stylecli.checkpoint import read_tensors, write_tensors
from stylecli.errors import DataError, NetworkError, UsageError
from stylecli.images import read_provenance
from stylecli.networks.headers import read_header
from stylecli.progress import Progress
from stylecli.saved_ws import read_ws_provenance
from stylecli.video import read_video_provenance

RESULTS = "results"  # of a record: what was measured, which no command asks for
WEIGHTS = "weights"  # of a record: the SHA-256 of those that measured, by the distance's name


@dataclass(frozen=True)
class SearchJob(ABC):
    """A picture to search for, and the record of how, without results."""

    folder: Path
    name: str
    record: dict[str, Any]

    @property
    @abstractmethod
    def styles(self) -> Path:
        """Where the styles go."""

    @property
    @abstractmethod
    def files(self) -> list[Path]:
        """All files of the result."""

    @property
    def unfinished(self) -> Path:
        """Where a search that is not over yet is kept."""
        return self.folder / f"{self.name}.unfinished"

    def record_of(self, path: Path) -> dict[str, Any]:
        """Return the record of one of the files, without results."""
        return self.record

    @property
    def taken(self) -> Path | None:
        """The first of these files that stands there and is not this job's; None: all are free.

        A file of this job's own, which a search that was killed left, may be replaced.
        """
        for path in self.files:
            if os.path.lexists(path) and essence(recorded(path)) != essence(self.record_of(path)):
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
        return results_of(recorded(self.styles))


Job = TypeVar("Job", bound=SearchJob)


def check_apart(jobs: Sequence[SearchJob], given: Iterable[Path]) -> None:
    """Raise UsageError where a job would write over what it was given, or over another's files."""
    inputs = list(given)
    owners: dict[Path, SearchJob] = {}
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
                    f"{owner.name} and {job.name} would both write {path}: give them one after the "
                    f"other, each with its own --out"
                )


def _same_file(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def recorded(path: Path) -> Any:
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


def results_of(record: Any) -> dict[str, Any] | None:
    """Return what a record says was measured; None where it says nothing."""
    found = record.get(RESULTS) if isinstance(record, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else None


def essence(record: Any) -> dict[str, Any] | None:
    """Return what of a record decides the result; None where it is no record of a search.

    Names do not: equal photographs have equal results, wherever they lie. Records come from files,
    which may be anybody's.
    """
    if not isinstance(record, Mapping):
        return None
    network, inputs = record.get("network"), record.get("inputs")
    if not isinstance(network, Mapping) or not isinstance(inputs, Mapping):
        return None
    return {
        "command": record.get("command"),
        "tool": record.get("tool"),
        "settings": record.get("settings"),
        WEIGHTS: record.get(WEIGHTS),
        "network": network.get("sha256"),
        "inputs": {
            name: file.get("sha256") if isinstance(file, Mapping) else None
            for name, file in inputs.items()
        },
    }


class Unfinished:
    """The state of the search of some jobs, in the file of the first; ``more`` decides it too."""

    def __init__(self, group: Sequence[SearchJob], **more: Any) -> None:
        self._path = group[0].unfinished
        self._header = {"searches": [essence(job.record) for job in group], **more}
        group[0].folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: Mapping[str, Tensor]) -> None:
        """Keep a state."""
        write_tensors(self._path, dict(state), self._header)

    @property
    def state(self) -> dict[str, Tensor] | None:
        """What was kept of a search of the same records; None where there is nothing."""
        if not self._path.is_file():
            return None
        try:
            found, state = read_tensors(self._path)
        except NetworkError:
            return None  # it is begun again
        same = all(found.get(name) == value for name, value in self._header.items())
        return state if same else None


def do_jobs(
    jobs: Sequence[Job], at_once: int, progress: Progress,
    search: Callable[[Sequence[Job], Progress], list[dict[str, Any]]],
) -> Iterator[tuple[Job, dict[str, Any]]]:  # fmt: skip
    """Search for some jobs at a time; yield what was measured.

    ``search`` writes the files of a group and returns its numbers. A group of which all is done is
    yielded at once.
    """
    groups = [jobs[i : i + at_once] for i in range(0, len(jobs), at_once)]
    for number, group in enumerate(groups):
        done = [job.results for job in group]
        if any(results is None for results in done):
            done = list(search(group, _share(progress, number, len(groups))))
            group[0].unfinished.unlink(missing_ok=True)
        yield from zip(group, (results or {} for results in done), strict=True)


def _share(progress: Progress, number: int, groups: int) -> Progress:
    """Return a progress of one group as part of that of all."""

    def report(done: float, total: float, note: str = "") -> None:
        progress(number * total + done, groups * total, note)

    return report

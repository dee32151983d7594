"""Check a source before packing it: every picture decoded once, as packing would."""

from collections.abc import Generator, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from stylecli.data.checking.measuring import (
    SMALL_SIDE,
    Fault,
    Findings,
    Pixels,
    bury,
    measure_item,
)
from stylecli.data.checking.report import Problem
from stylecli.data.sources.base import Source
from stylecli.data.workers import count_workers, ordered_map


class SourceSubject:
    """A source of pictures to look through."""

    kind = "source"

    def __init__(self, path: Path, source: Source) -> None:
        self.path, self.source = path, source

    @property
    def name(self) -> str:
        """What files of the check are called after."""
        return self.source.name

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes."""
        return self.source.class_names

    def __len__(self) -> int:
        return len(self.source)

    def scan(self, indices: Sequence[int], workers: int | None) -> Generator[Findings]:
        """Yield what is found in the pictures at ``indices``, one by one, in order."""
        entries = ((index, self.source[index]) for index in indices)
        workers = count_workers(len(indices)) if workers is None else workers
        for result in ordered_map(measure_item, entries, workers=workers, chunk=8, on_death=bury):
            if isinstance(result, Fault):
                yield Findings(faults=[result], looked_at=1)
            else:
                measured, square = result
                yield Findings([measured], looked_at=1, total=square)

    def fetch(self, indices: Sequence[int], side: int) -> Pixels:
        """Return central squares uint8 [B, 3, 128, 128]; unreadable ones are black."""
        pictures = np.zeros((len(indices), 3, SMALL_SIDE, SMALL_SIDE), np.uint8)
        for row, index in enumerate(indices):
            result = measure_item((index, self.source[index]))
            if not isinstance(result, Fault):
                pictures[row] = result[1]
        return pictures

    def name_of(self, index: int) -> str:
        """Return where a picture lies in its source."""
        return self.source[index].name

    def rows(self) -> list[tuple[str, str]]:
        """Return what is known before any picture is opened."""
        return [("source", str(self.path))]

    def facts(self) -> dict[str, Any]:
        """Return the same for programs."""
        return {"notes": self.source.notes}

    def problems(self, complete: bool) -> list[Problem]:
        """Return what the source itself has to say."""
        return [
            Problem("note", "source", note.rstrip("."), f"stylecli pack {quote(str(self.path))}")
            for note in self.source.notes
        ]

"""Add up what was found, picture by picture, in memory that does not grow with them.

Digests and thumbnails (1 KiB a picture) go to a temporary file, which is mapped when duplicates
are looked for; one byte a picture stays here.
"""

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stylecli.data.checking.measuring import Fault, Findings, Measured
from stylecli.data.checking.perceptual_hash import THUMBNAIL_SIDE
from stylecli.data.checking.report import MAX_NAMES
from stylecli.data.layout import DIGEST_BYTES

_RECORD = np.dtype(
    [("digest", "u1", DIGEST_BYTES), ("thumbnail", "u1", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))]
)
ASPECTS = ((1.5, "wide"), (1.05, "slightly wide"), (0.95, "square"), (0.67, "slightly tall"))
_UNSEEN, _SEEN, _PLAIN = 0, 1, 2  # plain: nothing to compare by its looks


@dataclass
class Extreme:
    """The smallest or the largest picture."""

    index: int
    size: tuple[int, int]


@dataclass
class Tally:
    """Sums over the pictures seen so far. Use as a context: it owns a temporary file."""

    count: int  # pictures there are
    looked_at: int = 0
    sides: Counter[int] = field(default_factory=Counter)  # shorter side, px
    aspects: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    traits: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[int]] = field(default_factory=dict)  # trait or fault -> some indices
    causes: dict[int, str] = field(default_factory=dict)  # of those faults
    faults: Counter[str] = field(default_factory=Counter)
    classes: Counter[int] = field(default_factory=Counter)
    unlabelled: int = 0
    smallest: Extreme | None = None
    largest: Extreme | None = None
    total: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # closed by close()
        self._seen = bytearray(self.count)

    def add(self, findings: Findings) -> None:
        """Add what a worker found."""
        self.looked_at += findings.looked_at
        for fault in findings.faults:
            self._add_fault(fault)
        for measured in findings.measured:
            self._add_picture(measured)
        if findings.total is not None:
            if self.total is None:
                self.total = np.zeros(findings.total.shape)
            self.total += findings.total

    @property
    def usable(self) -> int:
        """Pictures that could be measured."""
        return self.modes.total()

    def mean(self) -> npt.NDArray[np.uint8] | None:
        """Return the mean picture, uint8 [C, S, S], if there is any."""
        if self.total is None or not self.usable:
            return None
        return np.rint(self.total / self.usable).astype(np.uint8)

    def thumbnails(self) -> npt.NDArray[np.uint8]:
        """Return the grey thumbnails [N, 32, 32], mapped from the file."""
        thumbnails: npt.NDArray[np.uint8] = self._records()["thumbnail"]
        return thumbnails

    def exact_groups(self) -> list[list[int]]:
        """Return groups of pictures with equal digests, each sorted, in order of the first."""
        seen = np.flatnonzero(np.frombuffer(bytes(self._seen), np.uint8))
        if len(seen) < 2:
            return []
        digests = np.array(self._records()["digest"][seen])
        starts = digests[:, :8].copy().view("<u8")[:, 0]
        order = np.argsort(starts, kind="stable")
        again = starts[order[1:]] == starts[order[:-1]]
        doubtful = order[np.flatnonzero(np.append(again, False) | np.append(False, again))]
        groups: dict[bytes, list[int]] = {}
        for place in np.sort(doubtful):
            groups.setdefault(digests[place].tobytes(), []).append(int(seen[place]))
        return [group for group in groups.values() if len(group) > 1]

    def comparable(self, exact: list[list[int]]) -> npt.NDArray[np.int64]:
        """Return the pictures to compare by their looks: not plain, and one of each equal ones."""
        seen = np.frombuffer(bytes(self._seen), np.uint8) == _SEEN
        seen[[index for group in exact for index in group[1:]]] = False
        return np.flatnonzero(seen)

    def close(self) -> None:
        """Let the temporary file go."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _records(self) -> Any:
        self._file.truncate(self.count * _RECORD.itemsize)
        return np.memmap(self._file, dtype=_RECORD, mode="r", shape=(self.count,))

    def _add_fault(self, fault: Fault) -> None:
        self.faults[fault.kind] += 1
        self._remember(fault.kind, fault.index)
        if fault.index in self.examples[fault.kind]:
            self.causes.setdefault(fault.index, fault.cause)

    def _add_picture(self, picture: Measured) -> None:
        width, height = picture.size
        self.sides[min(picture.size)] += 1
        self.aspects[_name_aspect(width / height)] += 1
        self.modes[picture.mode] += 1
        self.formats[picture.format] += 1
        for trait in picture.traits:
            self.traits[trait] += 1
            self._remember(trait, picture.index)
        if isinstance(picture.label, int):
            self.classes[picture.label] += 1
        elif picture.label is None:
            self.unlabelled += 1
            self._remember("unlabelled", picture.index)
        if self.smallest is None or min(picture.size) < min(self.smallest.size):
            self.smallest = Extreme(picture.index, picture.size)
        if self.largest is None or min(picture.size) > min(self.largest.size):
            self.largest = Extreme(picture.index, picture.size)
        self._seen[picture.index] = _PLAIN if "blank" in picture.traits else _SEEN
        self._file.seek(picture.index * _RECORD.itemsize)
        self._file.write(picture.digest + picture.thumbnail)

    def _remember(self, name: str, index: int) -> None:
        known = self.examples.setdefault(name, [])
        if len(known) < MAX_NAMES:
            known.append(index)


def _name_aspect(ratio: float) -> str:
    return next((name for least, name in ASPECTS if ratio >= least), "tall")

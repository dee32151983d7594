"""``detections.jsonl``: what the search of each photograph found, safe against a process that dies.

The first line says how was searched; then follows a line for each photograph, written when it is
done. A line that a death has cut short is left out, and its photograph is searched again.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from stylecli.data.alignment.detection import Detection
from stylecli.errors import DataError
from stylecli.files import parse_row, row_line

FOUND_FILE = "detections.jsonl"
VERSION = 1  # of the journal and of the search: another one searches anew


@dataclass(frozen=True)
class FoundFaces:
    """The faces of one photograph, in pixels of the upright picture, or why it has none."""

    photo: str  # its name below its folder
    stamp: tuple[int, int]  # size in bytes, date in ns
    size: tuple[int, int] | None = None  # width, height of the upright picture
    faces: tuple[Detection, ...] = ()
    credits: dict[str, str] = field(default_factory=dict)  # of its EXIF, by the keys of credits.py
    cause: str = ""  # why it could not be searched


class Journal:
    """The journal of a folder; use ``with``, or close it."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Read what earlier runs found with the same settings; begin anew with others.

        Raises DataError when the folder cannot be written.
        """
        self.path = folder / FOUND_FILE
        header = {"journal": VERSION, **settings}
        self.entries: dict[str, FoundFaces] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = self.path.read_bytes().split(b"\n") if self.path.exists() else [b""]
            if parse_row(lines[0]) == parse_row(row_line(header)):
                for line in lines[1:]:
                    if (entry := _entry(parse_row(line))) is not None:
                        self.entries[entry.photo] = entry
                self._file: BinaryIO = open(self.path, "ab")
                if lines[-1]:  # a torn line must not swallow the next
                    self._file.write(b"\n")
            else:
                self._file = open(self.path, "wb")
                self._write(header)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}") from None

    def add(self, found: FoundFaces) -> None:
        """Append what was found; it is on its way to the disk when this returns."""
        self.entries[found.photo] = found
        try:
            self._write(asdict(found))
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(row_line(record))
        self._file.flush()


def read_found(path: Path) -> Iterator[FoundFaces]:
    """Yield the photographs of a journal, the newest line of each last."""
    with open(path, "rb") as file:
        for line in file:
            if (entry := _entry(parse_row(line))) is not None:
                yield entry


def _entry(record: Any) -> FoundFaces | None:
    """Return a line's photograph; None for the header and for what is none."""
    try:
        size = record["size"]
        return FoundFaces(
            photo=str(record["photo"]),
            stamp=(int(record["stamp"][0]), int(record["stamp"][1])),
            size=None if size is None else (int(size[0]), int(size[1])),
            faces=tuple(_detection(face) for face in record["faces"]),
            credits={str(key): str(value) for key, value in record["credits"].items()},
            cause=str(record["cause"]),
        )
    except (TypeError, LookupError, ValueError, AttributeError):
        return None


def _detection(face: dict[str, Any]) -> Detection:
    x0, y0, x1, y1 = map(float, face["box"])
    landmarks = tuple((float(x), float(y)) for x, y in face["landmarks"])
    return Detection((x0, y0, x1, y1), landmarks, float(face["score"]))

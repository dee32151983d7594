"""``faces.jsonl``: a line for each aligned picture, safe against a process that dies.

While pictures are written, their lines are appended to ``faces.jsonl.part``; at the end the lines
of all pictures are put in order under the final name. A line that a death has cut short is left
out, and its picture is made again.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from stylecli.errors import DataError
from stylecli.files import parse_row, replacing, row_line

RECORDS_FILE = "faces.jsonl"
PART_FILE = RECORDS_FILE + ".part"
MAX_LINE = 1 << 20  # bytes; a record is some 4 kB


@dataclass(frozen=True)
class Entry:
    """Where a record stands, and what tells whether its picture can be kept."""

    path: Path
    offset: int
    recipe: str
    file_md5: str


class Records:
    """The records of a folder while it is being written; close it or use ``with``."""

    def __init__(self, folder: Path) -> None:
        """Read what earlier runs left. Raises DataError when the folder cannot be written."""
        self.folder = folder
        self.entries: dict[int, Entry] = {}
        for name in (RECORDS_FILE, PART_FILE):  # later lines stand for earlier ones
            for offset, record in read_records(folder / name):
                self._note(folder / name, offset, record)
        part = folder / PART_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = open(part, "ab")
            if self._file.tell() and not part.read_bytes().endswith(b"\n"):
                self._file.write(b"\n")  # so that the torn line does not swallow the next
        except OSError as error:
            raise DataError(f"{folder} cannot be written: {error.strerror}") from None

    def add(self, record: dict[str, Any]) -> None:
        """Append a picture's record; it is on its way to the disk when this returns."""
        offset = self._file.tell()
        try:
            self._file.write(row_line(record))
            self._file.flush()
        except OSError as error:
            raise DataError(f"{self.folder} cannot be written: {error.strerror}") from None
        self._note(self.folder / PART_FILE, offset, record)

    def finish(self, numbers: Iterable[int]) -> None:
        """Write the final file with the records of these pictures, in their order."""
        final = self.folder / RECORDS_FILE
        self._file.close()
        try:
            with contextlib.ExitStack() as stack, replacing(final) as temporary:
                sources = {
                    path: stack.enter_context(open(path, "rb"))
                    for path in {entry.path for entry in self.entries.values()}
                }
                out = stack.enter_context(open(temporary, "wb"))
                for number in numbers:
                    entry = self.entries[number]
                    sources[entry.path].seek(entry.offset)
                    out.write(sources[entry.path].readline())
                out.flush()
            (self.folder / PART_FILE).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{final} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Close the file; what was added stays for the next run."""
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

    def _note(self, path: Path, offset: int, record: dict[str, Any]) -> None:
        self.entries[record["number"]] = Entry(
            path, offset, str(record.get("recipe")), str(record.get("file_md5"))
        )


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (offset, record) for each whole line of a file; nothing when there is no file.

    Lines that are no record of a numbered picture are left out. Raises DataError when the file
    cannot be read.
    """
    try:
        with open(path, "rb") as file:
            offset = 0
            while line := file.readline(MAX_LINE):
                record = _parse(line)
                if record is not None:
                    yield offset, record
                offset += len(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    if (record := parse_row(line)) is None:
        return None
    number = record.get("number")
    return record if isinstance(number, int) and number >= 0 else None

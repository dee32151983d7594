"""What can be checked: a dataset of ours, or any source; both answer the same questions."""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Protocol

from stylecli.data import layout
from stylecli.data.checking.dataset_checks import DatasetSubject
from stylecli.data.checking.measuring import Findings, Pixels
from stylecli.data.checking.report import Problem
from stylecli.data.checking.source_checks import SourceSubject
from stylecli.data.database_file import check_pages
from stylecli.data.environments import open_environment
from stylecli.data.journal import read_state
from stylecli.data.sources.lmdb_pictures import PackedSource
from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError


class Subject(Protocol):
    """A set of pictures to look through."""

    @property
    def kind(self) -> str:
        """``dataset`` or ``source``."""
        ...

    @property
    def path(self) -> Path:
        """Where it lies."""
        ...

    @property
    def name(self) -> str:
        """What files of the check are called after."""
        ...

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes, or None."""
        ...

    def __len__(self) -> int: ...

    def scan(self, indices: Sequence[int], workers: int | None) -> Generator[Findings]:
        """Yield what is found in the pictures at ``indices``."""
        ...

    def fetch(self, indices: Sequence[int], side: int) -> Pixels:
        """Return pictures uint8 [B, C, S, S] of about ``side`` px; unreadable ones are black."""
        ...

    def name_of(self, index: int) -> str:
        """Return what a picture is called."""
        ...

    def rows(self) -> list[tuple[str, str]]:
        """Return what is known without looking at pictures, for people."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return the same for programs."""
        ...

    def problems(self, complete: bool) -> list[Problem]:
        """Return what is wrong with the whole, once it has been scanned."""
        ...


def open_subject(path: Path, labels: Path | str | None = None) -> Subject:
    """Return what lies at ``path``: a dataset of ours, else a source of pictures.

    Raises DataError when it is nothing known, damaged beyond reading, or an unfinished dataset.
    """
    if (path / layout.DATA_FILE).is_file():
        if path.suffix == ".part":
            raise DataError(_describe_part(path))
        try:
            return DatasetSubject(path)
        except DataError:
            if isinstance(source := find_source(path, labels=labels), PackedSource):
                raise
            return SourceSubject(path, source)
    return SourceSubject(path, find_source(path, labels=labels))


def _describe_part(path: Path) -> str:
    """Say how far an interrupted pack came."""
    check_pages(path / layout.DATA_FILE)
    environment = open_environment(path)  # it closes with its last reference
    with environment.lmdb.begin() as transaction:
        text = transaction.get(layout.STATE_KEY)
    so_far = f" with {read_state(path, text).count:,} pictures so far" if text else ""
    return (
        f"{path} is an unfinished dataset{so_far}: run the stylecli pack command that began it "
        "again, and it goes on"
    )

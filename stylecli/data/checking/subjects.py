"""What can be checked: a dataset of ours, each byte against its digests, or any source, as packing.

Both answer the same questions.
"""

import functools
import hashlib
from collections.abc import Generator, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, Protocol

import numpy as np

from stylecli.data.checking.findings import (
    SMALL_SIDE,
    Fault,
    Findings,
    Pixels,
    Problem,
    bury,
    measure_item,
    measure_pixels,
)
from stylecli.data.format import DATA_FILE, DIGEST_BYTES, STATE_KEY, box_mean, pixel_digest
from stylecli.data.lmdb_files import check_pages, open_environment
from stylecli.data.pack_settings import PackSettings, face_finder
from stylecli.data.packing import find_packed
from stylecli.data.preparation import Prepared, Transform, prepare
from stylecli.data.reader import Dataset, open_dataset
from stylecli.data.sources.base import Label, Source, keeps_as_stored
from stylecli.data.sources.lmdb_pictures import PackedSource
from stylecli.data.sources.recognition import find_source
from stylecli.data.unfinished import read_state
from stylecli.data.workers import count_workers, ordered_map
from stylecli.errors import DataError, plural
from stylecli.progress import format_bytes

_CHUNK_BYTES = 16 << 20
_MEAN_SIDE = 256  # px
_MODES = {1: "grey", 3: "RGB", 4: "RGBA"}
_NO_DIGEST = bytes(DIGEST_BYTES)


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
        measure = functools.partial(measure_item, upright=not keeps_as_stored(self.source))
        for result in ordered_map(measure, entries, workers=workers, chunk=8, on_death=bury):
            if isinstance(result, Fault):
                yield Findings(faults=[result], looked_at=1)
            else:
                measured, square = result
                yield Findings([measured], looked_at=1, total=square)

    def fetch(self, indices: Sequence[int], side: int) -> Pixels:
        """Return central squares uint8 [B, 3, 128, 128]; unreadable ones are black."""
        pictures = np.zeros((len(indices), 3, SMALL_SIDE, SMALL_SIDE), np.uint8)
        for row, index in enumerate(indices):
            result = measure_item((index, self.source[index]), not keeps_as_stored(self.source))
            if not isinstance(result, Fault):
                pictures[row] = result[1]
        return pictures

    def sample(self, indices: Sequence[int], side: int, transform: Transform) -> Pixels:
        """Return pictures uint8 [B, 3, S, S] as packing cuts them by a transform."""
        settings = PackSettings(transform=transform, enlarge=True, resolution=side, channels=3)
        settings = settings.completed(self.source)
        recipe, faces = settings.recipe(side, 3), face_finder(settings)
        prepared = (prepare(self.source[index], recipe, faces) for index in indices)
        cut = [picture.pixels for picture in prepared if isinstance(picture, Prepared)]
        return np.stack(cut) if cut else np.zeros((0, 3, side, side), np.uint8)

    def name_of(self, index: int) -> str:
        """Return where a picture lies in its source."""
        return self.source[index].name

    def rows(self) -> list[tuple[str, str]]:
        """Return what is known before any picture is opened."""
        return [("source", str(self.path))]

    def facts(self) -> dict[str, Any]:
        """Return the same for programs."""
        return {"notes": self.source.notes}

    def packed(self) -> list[Dataset]:
        """Return the datasets in datasets/ that were made of it, the newest first."""
        return find_packed(self.source)

    def problems(self, complete: bool) -> list[Problem]:
        """Return what the source itself has to say."""
        return [Problem("note", "source", note.rstrip("."), "") for note in self.source.notes]


class DatasetSubject:
    """A dataset to look through. Raises DataError when it cannot be read at all."""

    kind = "dataset"

    def __init__(self, path: Path) -> None:
        self.path = path
        if (path / DATA_FILE).is_file():
            check_pages(path / DATA_FILE)  # LMDB follows damaged pages wherever they lead
        self.dataset = open_dataset(path)
        self._digest = hashlib.sha256()
        self._labels_fault = ""
        try:
            _ = self.dataset.labels
        except DataError as error:
            self._labels_fault = str(error)

    @property
    def name(self) -> str:
        """What files of the check are called after."""
        return self.path.name  # with .lmdb: a check of its source goes beside it

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes."""
        if self.dataset.class_names is None and self.dataset.info["label_kind"] == "class":
            return [str(label) for label in range(self.dataset.label_dim)]
        return self.dataset.class_names

    def __len__(self) -> int:
        return len(self.dataset)

    def scan(self, indices: Sequence[int], workers: int | None) -> Generator[Findings]:
        """Yield what is found in the pictures at ``indices``, chunk by chunk, in order."""
        pixels = self.dataset.channels * self.dataset.size.pixels
        size = max(1, min(256, _CHUNK_BYTES // pixels))
        chunks = [indices[start : start + size] for start in range(0, len(indices), size)]
        function = functools.partial(
            check_pictures, dataset=open_dataset(self.path), labelled=not self._labels_fault
        )
        workers = count_workers(len(indices)) if workers is None else workers
        for findings in ordered_map(function, chunks, workers=workers):
            self._digest.update(findings.stored_digests)
            yield findings

    def fetch(self, indices: Sequence[int], side: int) -> Pixels:
        """Return pictures uint8 [B, C, H, W] at about ``side`` px; damaged ones are black."""
        level = max(0, (self.dataset.resolution // side).bit_length() - 1)
        shape = (self.dataset.channels, *self.dataset.grid.at(self.dataset.resolution >> level))
        pictures = np.zeros((len(indices), *shape), np.uint8)
        for row, index in enumerate(indices):
            try:
                pictures[row] = self.dataset.read([index], level, verify=False)[0]
            except DataError:
                continue  # it has been counted
        return pictures

    def sample(self, indices: Sequence[int], side: int, transform: Transform) -> Pixels:
        """Return pictures uint8 [B, C, H, W] of about ``side`` px as they were packed."""
        return self.fetch(indices, side)

    def name_of(self, index: int) -> str:
        """Return what a picture was called in its source, with its number."""
        try:
            source = self.dataset.metadata(index).get("source")
        except DataError:
            source = None
        return f"#{index} {source}" if source else f"#{index}"

    def rows(self) -> list[tuple[str, str]]:
        """Return what the header says."""
        info = self.dataset.info
        size = (self.path / DATA_FILE).stat().st_size
        levels = f", {info['levels']} levels" if info["levels"] > 1 else ""
        rows = [
            ("dataset", f"{self.path}, by {info['tool']}, {info['created'][:10]}"),
            ("pixels", f"{self.dataset.size} px, {_MODES[info['channels']]}, "
                       f"{info['codec']}{levels}, {format_bytes(size)}"),
        ]  # fmt: skip
        if info["label_kind"] == "vector":
            rows.append(("labels", f"vectors of {plural(info['label_dim'], 'number')}"))
        if info.get("skipped"):
            rows.append(("left out", f"{plural(info['skipped'], 'picture')}, when it was packed"))
        return rows

    def facts(self) -> dict[str, Any]:
        """Return the header's own words for programs."""
        return {"header": self.dataset.info}

    def packed(self) -> list[Dataset]:
        """Return nothing: it is a dataset itself."""
        return []

    def problems(self, complete: bool) -> list[Problem]:
        """Return what is wrong with the dataset as a whole."""
        again = f"stylecli pack SRC --out {quote(str(self.path))} --force"
        problems = []
        if self._labels_fault:
            sentence = self._labels_fault.partition(": ")[0]
            problems.append(Problem("error", "damaged-labels", sentence, again))
        if complete and self._digest.hexdigest() != self.dataset.digest:
            text = "the digest of the dataset differs from the pictures' digests"
            problems.append(Problem("error", "damaged-digest", text, again))
        return problems


def check_pictures(indices: Sequence[int], dataset: Dataset, labelled: bool) -> Findings:
    """Verify pictures of a dataset: pixels, digests, levels, labels, metadata; and measure them."""
    findings = Findings(looked_at=len(indices))
    good, rows, digests = [], [], []
    labels: list[Label | None] = []
    for index in indices:
        stored, pixels = _verify_pixels(dataset, index, findings.faults)
        digests.append(stored)
        label = _verify_label(dataset, index, findings.faults) if labelled else None
        _verify_metadata(dataset, index, findings.faults)
        if pixels is not None:
            _verify_levels(dataset, index, pixels, findings.faults)
            good.append(index)
            rows.append(pixels)
            labels.append(label)
    findings.stored_digests = b"".join(digests)
    if rows:
        batch = np.stack(rows)
        codec, mode = dataset.info["codec"], _MODES[dataset.channels]
        findings.measured = list(measure_pixels(good, batch, mode, codec, labels))
        findings.total = _reduce(batch, _MEAN_SIDE).sum(axis=0, dtype=np.float64)
    return findings


def _verify_pixels(
    dataset: Dataset, index: int, faults: list[Fault]
) -> tuple[bytes, Pixels | None]:
    """Return (stored digest, pixels); None where the pixels are not what was packed."""
    stored, pixels = _NO_DIGEST, None
    try:
        stored = dataset.item_digest(index)
        pixels = dataset.read([index], verify=False)[0]
        if pixel_digest(pixels.tobytes()) != stored:
            faults.append(Fault(index, "pixels", "its pixels differ from its digest"))
            pixels = None
    except DataError as error:
        faults.append(Fault(index, "pixels", str(error)))
    return stored, pixels


def _verify_label(dataset: Dataset, index: int, faults: list[Fault]) -> Label | None:
    if dataset.labels is None:
        return None
    label = dataset.labels[index]
    stored = dataset.item_label(index)
    if stored != label.astype(label.dtype.newbyteorder("<")).tobytes():
        own = "it has no label"
        if stored is not None:
            own = "the label of the picture differs"
            if label.ndim == 0 and len(stored) == 8:
                own = f"the label of the picture is {int.from_bytes(stored, 'little', signed=True)}"
        shown = int(label) if label.ndim == 0 else "a vector"
        faults.append(Fault(index, "label", f"the list of labels has {shown}; {own}"))
    return int(label) if label.ndim == 0 else tuple(label.tolist())


def _verify_metadata(dataset: Dataset, index: int, faults: list[Fault]) -> None:
    try:
        dataset.metadata(index)
    except DataError:
        faults.append(Fault(index, "metadata", "its metadata is not a JSON object"))


def _verify_levels(dataset: Dataset, index: int, pixels: Pixels, faults: list[Fault]) -> None:
    for level in range(1, dataset.info["levels"]):
        try:
            same = _level_is_sound(dataset, index, level, pixels)
        except DataError:
            same = False
        if not same:
            size = dataset.grid.at(dataset.resolution >> level)
            faults.append(Fault(index, "level", f"its level of {size} px"))
            return


def _level_is_sound(dataset: Dataset, index: int, level: int, pixels: Pixels) -> bool:
    stored = dataset.read([index], level, verify=False)[0]
    return np.array_equal(stored, box_mean(pixels, level))


def _reduce(pixels: Pixels, side: int) -> Pixels:
    """Shrink pictures to at most ``side`` px."""
    return box_mean(pixels, max(0, (pixels.shape[-1] // side).bit_length() - 1))


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
        """Return pictures uint8 [B, C, H, W] of about ``side`` px; unreadable ones are black."""
        ...

    def sample(self, indices: Sequence[int], side: int, transform: Transform) -> Pixels:
        """Return pictures uint8 [B, C, H, W] of about ``side`` px; a source cuts them so."""
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

    def packed(self) -> list[Dataset]:
        """Return the datasets in datasets/ that were made of a source, the newest first."""
        ...

    def problems(self, complete: bool) -> list[Problem]:
        """Return what is wrong with the whole, once it has been scanned."""
        ...


def open_subject(path: Path, labels: Path | str | None = None) -> Subject:
    """Return what lies at ``path``: a dataset of ours, else a source of pictures.

    Raises DataError when it is nothing known, damaged beyond reading, or an unfinished dataset.
    """
    if (path / DATA_FILE).is_file():
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
    check_pages(path / DATA_FILE)
    environment = open_environment(path)  # it closes with its last reference
    with environment.lmdb.begin() as transaction:
        text = transaction.get(STATE_KEY)
    so_far = f" with {plural(read_state(path, text).count, 'picture')} so far" if text else ""
    return (
        f"{path} is an unfinished dataset{so_far}: run the same stylecli pack command again to "
        f"continue"
    )

"""Check a dataset of ours: every byte of it against the digests it carries."""

import functools
import hashlib
from collections.abc import Generator, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from stylecli.data import layout
from stylecli.data.checking.measuring import Fault, Findings, Pixels, measure_pixels
from stylecli.data.checking.report import Problem
from stylecli.data.database_file import check_pages
from stylecli.data.pyramid import box_mean
from stylecli.data.reader import Dataset, open_dataset
from stylecli.data.sources.base import Label
from stylecli.data.workers import count_workers, ordered_map
from stylecli.errors import DataError

_CHUNK_BYTES = 16 << 20
_MEAN_SIDE = 256  # px
_MODES = {1: "grey", 3: "RGB", 4: "RGBA"}
_NO_DIGEST = bytes(layout.DIGEST_BYTES)


class DatasetSubject:
    """A dataset to look through. Raises DataError when it cannot be read at all."""

    kind = "dataset"

    def __init__(self, path: Path) -> None:
        self.path = path
        if (path / layout.DATA_FILE).is_file():
            check_pages(path / layout.DATA_FILE)  # LMDB follows damaged pages wherever they lead
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
        pixels = self.dataset.channels * self.dataset.resolution**2
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
        """Return pictures uint8 [B, C, S, S] at about ``side`` px; damaged ones are black."""
        level = max(0, (self.dataset.resolution // side).bit_length() - 1)
        shape = (self.dataset.channels, *2 * (self.dataset.resolution >> level,))
        pictures = np.zeros((len(indices), *shape), np.uint8)
        for row, index in enumerate(indices):
            try:
                pictures[row] = self.dataset.read([index], level, verify=False)[0]
            except DataError:
                continue  # it has been counted
        return pictures

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
        size = (self.path / layout.DATA_FILE).stat().st_size
        levels = f", {info['levels']} levels" if info["levels"] > 1 else ""
        rows = [
            ("dataset", f"{self.path}, by {info['tool']}, {info['created'][:10]}"),
            ("pixels", f"{info['resolution']} px, {_MODES[info['channels']]}, "
                       f"{info['codec']}{levels}, {size / 2**20:,.1f} MiB"),
        ]  # fmt: skip
        if info["label_kind"] == "vector":
            rows.append(("labels", f"vectors of {info['label_dim']} numbers"))
        if info.get("skipped"):
            rows.append(("left out", f"{info['skipped']:,} pictures, when it was packed"))
        return rows

    def facts(self) -> dict[str, Any]:
        """Return the header's own words for programs."""
        return {"header": self.dataset.info}

    def problems(self, complete: bool) -> list[Problem]:
        """Return what is wrong with the dataset as a whole."""
        again = f"stylecli pack SRC --out {quote(str(self.path))} --force"
        problems = []
        if self._labels_fault:
            sentence = self._labels_fault.partition(": ")[0]
            problems.append(Problem("error", "damaged-labels", sentence, again))
        if complete and self._digest.hexdigest() != self.dataset.digest:
            text = "the digest of the whole differs from the pictures' own digests"
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
        if layout.pixel_digest(pixels.tobytes()) != stored:
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
        own = "it has none of its own"
        if stored is not None:
            own = "its own differs"
            if label.ndim == 0 and len(stored) == 8:
                own = f"its own is {int.from_bytes(stored, 'little', signed=True)}"
        shown = int(label) if label.ndim == 0 else "a vector"
        faults.append(Fault(index, "label", f"the list of labels says {shown}, {own}"))
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
            faults.append(Fault(index, "level", f"its level of {dataset.resolution >> level} px"))
            return


def _level_is_sound(dataset: Dataset, index: int, level: int, pixels: Pixels) -> bool:
    stored = dataset.read([index], level, verify=False)[0]
    return np.array_equal(stored, box_mean(pixels, level))


def _reduce(pixels: Pixels, side: int) -> Pixels:
    """Shrink pictures to at most ``side`` px."""
    return box_mean(pixels, max(0, (pixels.shape[-1] // side).bit_length() - 1))

"""Sets of pictures that are measured: a packed dataset, or a folder of pictures as it is.

Pictures of a folder keep their own sizes: only the feature network's own resize changes them.
"""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import DataError
from stylecli.files import is_scratch
from stylecli.metrics.fakes import Pictures, PictureSet, as_colour, level_for

if TYPE_CHECKING:
    from stylecli.data.sources.base import Source

_LOOKED_AT = 16  # first pictures, for one whose size can be told
LEAST_SIDE = 8  # px; feature networks enlarge pictures, but less holds nothing to measure


class MeasuredSet(Protocol):
    """Pictures by number, and what tells them from all other pictures."""

    @property
    def digest(self) -> str: ...
    @property
    def sizes(self) -> str: ...
    @property
    def notes(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def read(self, numbers: NDArray[np.int64]) -> list[Pictures]: ...


@dataclass(frozen=True)
class DatasetPictures:
    """A packed dataset at one of its resolutions."""

    dataset: PictureSet
    resolution: int

    @property
    def digest(self) -> str:
        """Empty where the dataset has none."""
        return f"{self.dataset.digest} at {self.resolution}" if self.dataset.digest else ""

    @property
    def sizes(self) -> str:
        """Say how large the pictures are."""
        return f"{self.resolution} x {self.resolution} px"

    @property
    def notes(self) -> list[str]:
        """Say nothing: a dataset is used whole."""
        return []

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, numbers: NDArray[np.int64]) -> list[Pictures]:
        """Return pictures uint8 [N, 3, R, R]. Raises DataError for damaged ones."""
        level = level_for(self.dataset, self.resolution)
        return [as_colour(self.dataset.read(numbers, level))]


class FolderPictures:
    """A folder, a zip or any other source that can be packed, without packing it.

    Raises DataError when there is no picture.
    """

    def __init__(self, path: Path) -> None:
        from stylecli.data.sources.recognition import find_source

        self.path = path
        self._source: Source = find_source(path, own_labels=False)
        if not len(self._source):
            raise DataError(f"{path} holds no pictures: expected some to measure")
        self._digest = ""

    @property
    def digest(self) -> str:
        """SHA-256 of names and contents of all files: sizes and times can stay while pixels change.

        Reading them is cheap beside any feature network.
        """
        if not self._digest:
            found = hashlib.sha256(self._source.fingerprint().encode())
            for file in _files(self.path):
                name = os.fsencode(os.path.relpath(file, self.path))
                found.update(name + b"\0" + _content(file) + b"\n")
            self._digest = found.hexdigest()
        return self._digest

    @property
    def sizes(self) -> str:
        """Say how large the first readable picture is, which its header tells."""
        for number in range(min(len(self._source), _LOOKED_AT)):
            # What is damaged is named when its turn comes; Pillow's plugins raise anything.
            with contextlib.suppress(Exception), self._source[number].open() as picture:
                return f"{picture.width} x {picture.height} px"
        return "unknown size"

    @property
    def notes(self) -> list[str]:
        """Sentences about the pictures, such as which files are left out."""
        return self._source.notes

    def __len__(self) -> int:
        return len(self._source)

    def read(self, numbers: NDArray[np.int64]) -> list[Pictures]:
        """Return pictures uint8 [N, 3, H, W], one array for each run of equal sizes.

        Raises DataError naming a picture that cannot be read.
        """
        runs: list[list[NDArray[Any]]] = []
        for number in numbers:
            picture = self._decode(int(number))
            if not runs or runs[-1][0].shape != picture.shape:
                runs.append([])
            runs[-1].append(picture)
        return [np.stack(run) for run in runs]

    def _decode(self, number: int) -> Pictures:
        from stylecli.data.decoding import check_kind, name_cause, quiet, read_header
        from stylecli.data.preparation import DecodeSettings, decode_pixels

        item = self._source[number]
        try:
            with quiet(), item.open() as opened:
                header = read_header(opened)
                check_kind(header)
                picture, _ = decode_pixels(opened, header, DecodeSettings())
                pixels = np.asarray(picture, np.uint8)
        except Exception as error:  # Pillow's plugins raise anything on damaged files
            raise DataError(
                f"picture {item.name} of {self.path} {name_cause(error)}: take it out"
            ) from None
        if min(pixels.shape[:2]) < LEAST_SIDE:
            height, width = pixels.shape[:2]
            raise DataError(
                f"picture {item.name} of {self.path} is {width} x {height} px: "
                f"expected at least {LEAST_SIDE} px on a side"
            )
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _files(path: Path) -> list[Path]:
    """Return the files at or below ``path``; links are followed, each folder once."""
    if not path.is_dir():
        return [path]
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(path, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not is_scratch(name)]
        files += [Path(folder, name) for name in names]
    return sorted(file for file in files if file.is_file())


def _content(file: Path) -> bytes:
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:
        return b"unreadable"  # a picture is named when its turn comes, anything else is none


def open_set(path: Path) -> MeasuredSet:
    """Return what lies at ``path``: a packed dataset at its resolution, or loose pictures.

    Raises DataError when it is neither.
    """
    from stylecli.data.reader import open_dataset
    from stylecli.data.sources.lmdb_pictures import is_lmdb

    if path.is_dir() and is_lmdb(path):
        dataset = open_dataset(path)
        return DatasetPictures(dataset, dataset.resolution)
    return FolderPictures(path)


def choose(count: int, size: int, *, first: bool) -> tuple[NDArray[np.int64], str]:
    """Return the numbers of ``count`` of ``size`` pictures, and in words which they are.

    All, or the ``first`` ones as published definitions say, or the same random ones every time: a
    dataset may be sorted by class.
    """
    if count >= size:
        return np.arange(size), "all"
    if first:
        return np.arange(count), "the first"
    random = np.random.Generator(np.random.Philox(key=[0, size]))
    return np.sort(random.permutation(size)[:count]), "the same random ones every time"

"""Read a dataset: opened on first use, safe to pickle and to fork, quick to read in batches."""

import contextlib
import hashlib
import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import numpy.typing as npt

from stylecli.data.format import (
    DATA_FILE,
    DIGEST_BYTES,
    LABELS_KEY,
    META_KEY,
    box_mean,
    count_levels,
    decode,
    digest_key,
    grid_of,
    image_key,
    label_key,
    levels_key,
    metadata_key,
    parse_header,
    pixel_digest,
    skipped_key,
)
from stylecli.data.lmdb_files import SharedEnvironment, open_environment
from stylecli.errors import DataError, UsageError, plural
from stylecli.files import parse_json
from stylecli.progress import Progress, silent
from stylecli.shapes import Grid, Size
from stylecli.workspace import describe_unfinished

_COPY_AGAIN = "copy it again, or pack the pictures again"
_SHOWN = 8  # pictures that a notebook is shown
_VERIFIED_BYTES = 16 << 20  # read at a time

Pixels = npt.NDArray[np.uint8]
Shape = tuple[int, int, int]
Labels = npt.NDArray[np.int64] | npt.NDArray[np.float32]


def open_dataset(path: Path | str) -> "Dataset":
    """Open a dataset made by ``stylecli pack``.

    Raises DataError when it is missing, unfinished, of another version or damaged.
    """
    return Dataset(path)


class Dataset:
    """Pictures with labels: ``len()``, ``[i]`` -> (uint8 [C, H, W], label), batches by ``read``.

    Pixels never pass unseen if they are not those that were packed: each picture is compared with
    its digest the first time that it is read. Pictures that are added to the file later are not
    seen until it is opened again.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._environment: SharedEnvironment | None = None
        self._labels: Labels | None = None
        self._rows_verified = False
        self._verified: dict[int, bytearray] = {}  # level -> 1 for every picture that was compared
        self.info = parse_header(self.path, self._get(META_KEY))
        if self._get(digest_key(len(self) - 1)) is None:
            raise DataError(
                f"{self.path} holds fewer pictures than the {len(self):,} of its header: the file "
                f"is damaged, pack the pictures again"
            )

    def __len__(self) -> int:
        return int(self.info["count"])

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], int | Any | None]:
        """Return (pixels uint8 [C, H, W], label): an int, a float32 array [L], or None."""
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(
                f"{self.path} has {plural(len(self), 'picture')} and no number {index}"
            )
        index %= len(self)
        pixels = self.read([index])[0]
        if self.labels is None:
            return pixels, None
        label = self.labels[index]
        return pixels, int(label) if label.ndim == 0 else label

    def facts(self) -> dict[str, str]:
        """Return what people ask first, in words: how many pictures, of what size, classes."""
        colours = {1: "grey", 3: "RGB", 4: "RGBA"}.get(self.channels, f"{self.channels} channels")
        found = {
            "pictures": f"{len(self):,} of {self.size} px, {colours}",
            "classes": ", ".join(self.class_names or []) or str(self.label_dim or "none"),
            "digest": self.digest[:12],
        }
        return found

    def __repr__(self) -> str:
        """Return a few lines: where it is and what is in it."""
        lines = [f"  {name}: {value}" for name, value in self.facts().items()]
        return "\n".join([f"<dataset {self.path}", *lines]) + ">"

    def _repr_html_(self) -> str:
        """Return the same for a notebook, with the first pictures."""
        from stylecli.images import make_grid, notebook_html, resize, visible_scale  # loads torch

        first = self.read(range(min(len(self), _SHOWN))).transpose(0, 2, 3, 1)
        size = self.grid.at(min(self.resolution, 128))
        cells = [resize(picture, *size) for picture in first]
        sheet = make_grid(cells, len(cells), scale=visible_scale(max(size)))
        return notebook_html(f"dataset {self.path}", self.facts(), sheet)

    @property
    def resolution(self) -> int:
        """Side of square pictures, in pixels; of others, the level that they have (``shapes``)."""
        return int(self.info["resolution"])

    @property
    def grid(self) -> Grid:
        """What the pictures' height and width double: 4×4 for square ones."""
        return grid_of(self.info)

    @property
    def size(self) -> Size:
        """Height and width of the pictures."""
        return self.grid.at(self.resolution)

    @property
    def height(self) -> int:
        """Height of the pictures."""
        return self.size.height

    @property
    def width(self) -> int:
        """Width of the pictures."""
        return self.size.width

    @property
    def channels(self) -> int:
        """1 grey, 3 RGB, 4 RGBA."""
        return int(self.info["channels"])

    @property
    def label_dim(self) -> int:
        """Classes, or length of the label vectors; 0 when unlabelled."""
        return int(self.info["label_dim"])

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes, if they have any."""
        names: list[str] | None = self.info.get("class_names")
        return names

    @property
    def digest(self) -> str:
        """SHA-256 over the pictures' own digests, in order: what the pixels are known by."""
        return str(self.info["digest"])

    @property
    def labels(self) -> Labels | None:
        """All labels: int64 [N], float32 [N, L], or None."""
        if self._labels is None and self.label_dim:
            is_class = self.info["label_kind"] == "class"
            shape = (len(self),) if is_class else (len(self), self.label_dim)
            stored = self._get(LABELS_KEY)
            dtype = np.dtype("<i8" if is_class else "<f4")
            size = int(np.prod(shape)) * dtype.itemsize
            if stored is not None and len(stored) > size and self._has_grown():
                stored = stored[:size]  # ours come first
            if stored is None or len(stored) != size:
                raise DataError(f"the labels of {self.path} are damaged: pack the pictures again")
            labels: Labels = np.frombuffer(stored, dtype).reshape(shape)
            if is_class and not (labels.min() >= 0 and labels.max() < self.label_dim):
                raise DataError(
                    f"the labels of {self.path} exceed its "
                    f"{plural(self.label_dim, 'class', 'classes')}"
                )
            self._labels = labels.astype(dtype.newbyteorder("="))
        return self._labels

    def read(
        self, indices: Sequence[int] | npt.NDArray[Any], level: int = 0, *, verify: bool = True
    ) -> Pixels:
        """Read a batch: uint8 [B, C, H >> level, W >> level].

        A level is the float box mean of the full picture, rounded once. Raises UsageError for a
        level or an index that does not exist and DataError for pixels that are not those that were
        packed, unless ``verify`` is off.
        """
        if not 0 <= level < count_levels(self.resolution):
            raise UsageError(f"level {level} does not exist in {self.size} px pictures")
        stored_level = level if self.info["levels"] > level else 0
        shape = (self.channels, *self.grid.at(self.resolution >> stored_level))
        batch = np.empty((len(indices), *shape), np.uint8)
        if verify:
            self.verify_rows()
        verified = self._verified.setdefault(stored_level, bytearray(len(self)))
        with self._begin() as transaction:
            for row, index in enumerate(map(int, indices)):
                batch[row] = self._pixels(transaction, index, stored_level, shape)
                if verify and not verified[index]:
                    self._verify(transaction, index, stored_level, batch[row])
                    verified[index] = 1
        return box_mean(batch, level - stored_level)

    def verify(self, progress: Progress = silent) -> None:
        """Compare every picture with its digest; raise DataError at the first that differs."""
        size = max(1, _VERIFIED_BYTES // (self.channels * self.size.pixels))
        for start in range(0, len(self), size):
            end = min(start + size, len(self))
            self.read(range(start, end))
            progress(end, len(self))

    def verify_rows(self) -> None:
        """Compare the digests with the header's and the labels with the pictures' own, once.

        A second or less for a million pictures. Raises DataError when they differ.
        """
        if self._rows_verified:
            return
        digest, labels = hashlib.sha256(), hashlib.sha256()
        with self._begin() as transaction:
            for value in self._rows(transaction, digest_key(0)):
                digest.update(value)
            if self.label_dim:
                for value in self._rows(transaction, label_key(0)):
                    labels.update(value)
        if digest.hexdigest() != self.digest:
            raise DataError(
                f"{self.path} is damaged: its header's digest does not match its pictures; "
                f"{_COPY_AGAIN}"
            )
        if self.labels is not None:
            stored = self.labels.astype(self.labels.dtype.newbyteorder("<"))
            if hashlib.sha256(stored.tobytes()).digest() != labels.digest():
                raise DataError(
                    f"{self.path} is damaged: its list of labels differs from the pictures' "
                    f"labels; {_COPY_AGAIN}"
                )
        self._rows_verified = True

    def metadata(self, index: int) -> dict[str, Any]:
        """Return what is known of a picture: author, licence, source, attributes; may be empty.

        Raises DataError when it is damaged.
        """
        stored = self._get(metadata_key(operator.index(index)))
        known: dict[str, Any] = {}
        if stored:
            known = parse_json(stored, f"metadata of picture {index} in {self.path}")
        return known

    def item_digest(self, index: int) -> bytes:
        """Return the stored SHA-256 of a picture's pixels (32 bytes)."""
        stored = self._get(digest_key(operator.index(index)))
        if stored is None or len(stored) != DIGEST_BYTES:
            raise DataError(f"picture {index} of {self.path} has no digest: pack it again")
        return stored

    def item_label(self, index: int) -> bytes | None:
        """Return a picture's own label as it is stored: one int64 or float32 [L], or None."""
        return self._get(label_key(operator.index(index)))

    def skipped(self) -> list[tuple[str, str]]:
        """Return (name, cause) of every picture that packing left out."""
        found = []
        end = skipped_key(int(self.info.get("skipped", 0)))
        with self._begin() as transaction, transaction.cursor() as cursor:
            what = f"the list of skipped pictures in {self.path}"
            more = cursor.set_range(skipped_key(0))
            while more and bytes(cursor.key()) < end:
                entry = parse_json(bytes(cursor.value()), what)
                found.append((str(entry.get("name")), str(entry.get("cause"))))
                more = cursor.next()
        return found

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""
        self._environment = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_environment": None, "_verified": {}}

    def _get(self, key: bytes) -> bytes | None:
        with self._begin() as transaction:
            value = transaction.get(key)
            return None if value is None else bytes(value)

    def _has_grown(self) -> bool:
        """Tell whether pictures were added since this was opened."""
        header = parse_header(self.path, self._get(META_KEY))
        return int(header["count"]) > len(self)

    def _pixels(
        self, transaction: "lmdb.Transaction[memoryview[int]]", index: int, level: int, shape: Shape
    ) -> npt.NDArray[np.uint8]:
        if not 0 <= index < len(self):
            raise UsageError(f"picture {index} is not one of the {len(self)} in {self.path}")
        data = transaction.get(image_key(index, level))
        if data is None:
            raise DataError(f"picture {index} of {self.path} is missing: pack the pictures again")
        try:
            return decode(data, self.info["codec"], shape)
        except DataError as error:
            raise DataError(f"picture {index} of {self.path}: {error}") from None

    def _verify(
        self,
        transaction: "lmdb.Transaction[memoryview[int]]",
        index: int,
        level: int,
        pixels: Pixels,
    ) -> None:
        """Raise DataError unless a picture's pixels at a stored level are what was packed."""
        place = slice((level - 1) * DIGEST_BYTES, level * DIGEST_BYTES)
        if not level:
            same = bytes(transaction.get(digest_key(index), b"")) == pixel_digest(
                np.ascontiguousarray(pixels).data
            )
        elif (digests := transaction.get(levels_key(index))) is not None:
            stored = transaction.get(image_key(index, level), b"")
            same = digests[place] == pixel_digest(stored)
        else:  # packed before levels had digests
            full = self._pixels(transaction, index, 0, (self.channels, *self.size))
            self._verify(transaction, index, 0, full)
            same = np.array_equal(box_mean(full, level), pixels)
        if not same:
            side = f" at {self.grid.at(self.resolution >> level)} px" if level else ""
            raise DataError(
                f"picture {index} of {self.path} has changed since it was packed: its pixels{side} "
                f"differ from their digest; {_COPY_AGAIN}"
            )

    def _rows(
        self, transaction: "lmdb.Transaction[memoryview[int]]", first: bytes
    ) -> "Iterator[memoryview[int]]":
        """Yield the values of all pictures under keys of one kind, as far as they are there."""
        with transaction.cursor() as cursor:
            more = cursor.set_range(first)
            for index in range(len(self)):
                if not more or bytes(cursor.key()) != first[:-8] + index.to_bytes(8, "big"):
                    return
                yield cursor.value()
                more = cursor.next()

    @contextlib.contextmanager
    def _begin(self) -> "Iterator[lmdb.Transaction[memoryview[int]]]":
        """Begin a read; its values are views that end with it."""
        if self._environment is None or self._environment.process != os.getpid():
            self._environment = _open(self.path)
        environment = self._environment.lmdb
        try:
            try:
                transaction = environment.begin(buffers=True)
            except lmdb.MapResizedError:  # another process has added more than was mapped
                environment.set_mapsize(0)
                transaction = environment.begin(buffers=True)
            with transaction:
                yield transaction
        except lmdb.Error as error:
            raise DataError(
                f"{self.path} is damaged: {error}; copy it again, or pack the pictures again"
            ) from None


def _open(path: Path) -> SharedEnvironment:
    file = path / DATA_FILE
    if not file.exists():
        if path.exists():
            raise DataError(f"{path} is not a dataset: pack its pictures with stylecli pack {path}")
        raise DataError(
            describe_unfinished(path)
            or f"dataset {path} does not exist: make one with stylecli pack"
        )
    return open_environment(path)

"""Write a dataset: batched transactions, a map that grows on demand, the header last."""

import json
import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb
import numpy as np
import numpy.typing as npt

from stylecli import __version__
from stylecli.data import layout
from stylecli.data.codec import encode
from stylecli.data.layout import Codec, LabelKind
from stylecli.data.pyramid import box_mean, count_levels
from stylecli.errors import DataError, UsageError

Label = int | npt.NDArray[np.float32]

FIRST_MAP_BYTES = 16 << 20
BATCH_BYTES = 32 << 20  # a transaction holds its dirty pages in memory, so it is kept small
BATCH_ITEMS = 1000


class DatasetWriter:
    """Writes pictures in order into ``<path>.part``, which takes its name when all is done.

        with DatasetWriter(path, resolution=32, channels=3) as writer:
            writer.add(pixels, label=2, metadata={"author": "..."})

    Either every picture has a label (an int class, or a float32 vector) or none has. ``info``
    is merged into the header. When the block fails, nothing is left behind and what stood at
    ``path`` stays. Raises DataError when ``path`` exists and ``force`` is off.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        resolution: int,
        channels: int,
        codec: Codec = "raw",
        pyramid: bool = False,
        class_names: list[str] | None = None,
        info: dict[str, Any] | None = None,
        force: bool = False,
    ) -> None:
        self.path = Path(path)
        _check_settings(resolution, channels, codec)
        if self.path.exists() and not force:
            raise DataError(f"{self.path} exists: give another --out, or --force to replace it")
        if self.path.exists() and not _is_database(self.path):
            raise DataError(f"{self.path} is not a dataset and is not replaced: give another --out")
        self.shape = (channels, resolution, resolution)
        self.codec: Codec = codec
        self.levels = count_levels(resolution) if pyramid else 1
        self.class_names = class_names
        self.info = dict(info or {})
        self.count = 0
        self._labels: list[Label] = []
        self._digests: list[bytes] = []
        self._batch: list[tuple[bytes, bytes]] = []
        self._batch_bytes = 0
        self._part = self.path.with_name(self.path.name + ".part")
        shutil.rmtree(self._part, ignore_errors=True)  # what an interrupted command left
        try:
            self._part.mkdir(parents=True)
            self._env: lmdb.Environment = lmdb.open(
                str(self._part), map_size=FIRST_MAP_BYTES, sync=False, lock=False, meminit=False
            )
        except (OSError, lmdb.Error) as error:
            raise DataError(f"{self._part} cannot be written: {error}") from None

    def add(
        self,
        pixels: npt.NDArray[np.uint8],
        label: Label | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Append one picture: uint8 [C, H, W].

        Raises DataError when its shape or the kind of its label differs from the others'.
        """
        if pixels.shape != self.shape or pixels.dtype != np.uint8:
            raise DataError(
                f"picture {self.count} is {pixels.dtype} {list(pixels.shape)}: "
                f"expected uint8 {list(self.shape)}"
            )
        index = self.count
        digest = layout.pixel_digest(pixels.tobytes())
        self._put(layout.digest_key(index), digest)
        for level in range(self.levels):
            self._put(layout.image_key(index, level), encode(box_mean(pixels, level), self.codec))
        if metadata:
            self._put(layout.metadata_key(index), _to_json(metadata))
        if label is not None:
            label = _check_label(label, self._labels, index)
            self._labels.append(label)
            self._put(layout.label_key(index), _label_bytes(label))
        self._digests.append(digest)
        self.count += 1
        if self._batch_bytes >= BATCH_BYTES or len(self._batch) >= BATCH_ITEMS:
            self._commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._env.close()
            if kind is not None or not self._replace():
                shutil.rmtree(self._part, ignore_errors=True)

    def _finish(self) -> None:
        if self.count == 0:
            raise DataError(f"{self.path} would hold no picture: nothing was written")
        kind, label_dim = self._label_kind()
        if kind is not None:
            self._put(layout.LABELS_KEY, b"".join(map(_label_bytes, self._labels)))
        self._commit()
        self._env.sync(True)
        header = {
            **self.info,
            "format": layout.FORMAT,
            "version": layout.VERSION,
            "tool": f"stylecli {__version__}",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "count": self.count,
            "channels": self.shape[0],
            "height": self.shape[1],
            "width": self.shape[2],
            "resolution": self.shape[1],
            "codec": self.codec,
            "levels": self.levels,
            "colour_space": "sRGB",
            "label_kind": kind,
            "label_dim": label_dim,
            "class_names": self.class_names if kind == "class" else None,
            "digest": layout.dataset_digest(self._digests),
            "complete": True,
        }
        layout.parse_header(self.path, _to_json(header))  # never write what we would refuse
        self._put(layout.META_KEY, _to_json(header))
        self._commit()
        self._env.sync(True)

    def _label_kind(self) -> tuple[LabelKind | None, int]:
        if not self._labels:
            return None, 0
        if len(self._labels) != self.count:
            raise DataError(
                f"{self.count - len(self._labels)} of {self.count} pictures have no label: "
                "label all or none"
            )
        first = self._labels[0]
        if not isinstance(first, int):
            return "vector", len(first)
        highest = max(label for label in self._labels if isinstance(label, int))
        if self.class_names is not None and highest >= len(self.class_names):
            raise DataError(f"label {highest} has no name: {len(self.class_names)} classes named")
        return "class", len(self.class_names) if self.class_names else highest + 1

    def _put(self, key: bytes, value: bytes) -> None:
        self._batch.append((key, value))
        self._batch_bytes += len(value)

    def _commit(self) -> None:
        """Write the batch in one transaction, doubling the map until it fits."""
        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    for key, value in self._batch:
                        transaction.put(key, value)
                break
            except lmdb.MapFullError:
                self._env.set_mapsize(2 * self._env.info()["map_size"])
            except lmdb.Error as error:  # a full disk, mostly
                raise DataError(f"{self._part} cannot be written: {error}") from None
        self._batch, self._batch_bytes = [], 0

    def _replace(self) -> bool:
        """Give the finished folder its name; keep what stood there until then."""
        if not (self._part / layout.DATA_FILE).exists():
            return False
        if self.path.exists():
            with tempfile.TemporaryDirectory(dir=self.path.parent) as aside:
                os.replace(self.path, Path(aside) / "old")
                os.replace(self._part, self.path)
        else:
            os.replace(self._part, self.path)
        return True


def _is_database(path: Path) -> bool:
    """Tell whether a path holds an LMDB and nothing else, so that no one's photos are replaced."""
    return path.is_dir() and {entry.name for entry in path.iterdir()} in (
        {layout.DATA_FILE},
        {layout.DATA_FILE, "lock.mdb"},
    )


def _check_settings(resolution: int, channels: int, codec: str) -> None:
    low, high = layout.MIN_RESOLUTION, layout.MAX_RESOLUTION
    if not low <= resolution <= high or resolution & (resolution - 1):
        raise UsageError(f"resolution {resolution} is not a power of two from {low} to {high}")
    if channels not in (1, 3, 4):
        raise UsageError(f"channels {channels} is not 1 (grey), 3 (RGB) or 4 (RGBA)")
    if codec not in layout.CODECS:
        raise UsageError(
            f"codec {codec!r} is unknown: expected one of {', '.join(layout.CODECS)}; "
            "lossy ones would spoil FID"
        )


def _check_label(label: Any, others: list[Label], index: int) -> Label:
    if len(others) != index:
        raise DataError(f"picture {index} has a label, earlier ones have not: label all or none")
    checked: Label
    if isinstance(label, int | np.integer):
        checked = int(label)
        if not 0 <= checked < layout.MAX_LABEL_DIM:
            raise DataError(f"label {label} of picture {index} is not a class number")
    else:
        checked = np.asarray(label, np.float32)
        if checked.ndim != 1:
            raise DataError(f"label of picture {index} has shape {checked.shape}, expected [L]")
    if others and np.shape(checked) != np.shape(others[0]):
        raise DataError(f"the label of picture {index} is of another kind than the first one's")
    return checked


def _label_bytes(label: Label) -> bytes:
    return np.asarray(label, "<i8" if isinstance(label, int) else "<f4").tobytes()


def _to_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

"""CIFAR-10 and CIFAR-100 as published: ``cifar-10-python.tar.gz``, or the folder inside it.

The tarball holds pickles, which are read without running anything (``interop/batch_pickle.py``).
CIFAR-10: ``data_batch_1`` to ``data_batch_5``, ``test_batch``, ``batches.meta``; CIFAR-100:
``train``, ``test``, ``meta``. A row of 3072 bytes is a picture: 1024 red, green, blue, row by row.
"""

import gzip
import hashlib
import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.errors import DataError
from stylecli.interop.batch_pickle import MAX_BYTES, read_batch_pickle

_TRAINING = re.compile(r"data_batch_\d+|train")
_NAMES = {"batches.meta": "label_names", "meta": "fine_label_names"}
_MAX_TAR_BYTES = 1 << 30  # unpacked; the official ones have 186 MB
_SIDE = 32


@dataclass(frozen=True)
class CifarPicture:
    """One picture of a batch."""

    pixels: npt.NDArray[np.uint8]  # [3072]
    name: str
    label: int

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the batch and the picture's number in it."""
        return {"source": self.name}

    def open(self) -> Image.Image:
        """Return the picture, 32 x 32 px RGB."""
        planes = self.pixels.reshape(3, _SIDE, _SIDE)
        return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))


class CifarSource:
    """The training pictures, batch after batch, held in memory (150 MB).

    ``path`` is a tarball, the unpacked folder, or one batch in it (``test_batch``, to pack that).
    Raises DataError when a batch is damaged or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        contents = _read_tar(path) if is_tar(path) else _read_folder(path)
        meta = {name: content for name, content in contents.items() if name in _NAMES}
        batches = {name: content for name, content in contents.items() if name not in _NAMES}
        if path.is_dir() or is_tar(path):
            left = sorted(name for name in batches if not _TRAINING.fullmatch(name))
            batches = {name: batches[name] for name in sorted(batches) if name not in left}
            self.notes = [f"{name} is left out: unpack it and name it to take it" for name in left]
        else:
            self.notes = []
        if not batches:
            raise DataError(f"{path} holds no batch of CIFAR: expected data_batch_1 or train")
        self._batches = list(batches)
        read = [_read_batch(content, f"{path}: {name}") for name, content in batches.items()]
        self._pixels = [pixels for pixels, _ in read]
        self._labels = [labels for _, labels in read]
        self._starts = np.cumsum([0] + [len(labels) for labels in self._labels])
        highest = max(int(labels.max()) for labels in self._labels)
        self.class_names = _class_names(meta, path, highest)

    @property
    def name(self) -> str:
        """cifar-10 or cifar-100, by the number of classes."""
        return "cifar-100" if len(self.class_names) > 10 else "cifar-10"

    def fingerprint(self) -> str:
        """Return a digest over all labels and the first pixels of every batch."""
        digest = hashlib.sha256("\n".join([*self._batches, *self.class_names]).encode())
        for pixels, labels in zip(self._pixels, self._labels, strict=True):
            digest.update(labels.astype("<i8").tobytes())
            digest.update(pixels[:10].tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> CifarPicture:
        index = range(len(self))[index]
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[part])
        name = f"{self._batches[part]}#{row}"
        return CifarPicture(self._pixels[part][row], name, int(self._labels[part][row]))


def is_cifar(path: Path) -> bool:
    """Tell whether a path is a tarball, or a folder or file of CIFAR's batches."""
    if path.is_dir():
        return (path / "batches.meta").is_file() or (
            (path / "meta").is_file() and (path / "train").is_file()
        )
    beside = path.with_name("batches.meta").is_file() or path.with_name("meta").is_file()
    return is_tar(path) or (beside and _is_batch_name(path.name))


def is_tar(path: Path) -> bool:
    """Tell by content whether a file is a tar archive, gzipped or not."""
    if not path.is_file():
        return False
    try:
        with _open(path) as file:
            return file.read(262)[257:] == b"ustar"
    except (OSError, EOFError, ValueError, zlib.error):
        return False


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    with open(path, "rb") as start:
        zipped = start.read(2) == b"\x1f\x8b"
    return gzip.open(path) if zipped else open(path, "rb")


def _read_tar(path: Path) -> dict[str, bytes]:
    """Return the batches in a tarball by name, whatever folder they are in."""
    contents: dict[str, bytes] = {}
    total = 0
    try:
        with _open(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                total += member.size
                if total > _MAX_TAR_BYTES:
                    raise DataError(f"{path} unpacks to over {_MAX_TAR_BYTES:,} bytes: no CIFAR")
                name = member.name.rpartition("/")[2]
                if member.isreg() and member.size <= MAX_BYTES and _is_known(name):
                    opened = archive.extractfile(member)
                    contents[name] = opened.read() if opened else b""
    except DataError:
        raise
    except Exception as error:  # damaged archives raise nearly anything
        raise DataError(f"{path} is damaged or no CIFAR: {error}; get it again") from None
    return contents


def _read_folder(path: Path) -> dict[str, bytes]:
    folder = path if path.is_dir() else path.parent
    try:
        files = [file for file in sorted(folder.iterdir()) if file.is_file()]
        if not path.is_dir():
            files = [file for file in files if file.name in _NAMES or file == path]
        return {
            file.name: file.read_bytes()
            for file in files
            if _is_known(file.name) and file.stat().st_size <= MAX_BYTES
        }
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _is_known(name: str) -> bool:
    return name in _NAMES or _is_batch_name(name)


def _is_batch_name(name: str) -> bool:
    return _TRAINING.fullmatch(name) is not None or name in ("test_batch", "test")


def _read_batch(content: bytes, where: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return (pixels uint8 [N, 3072], labels int64 [N])."""
    batch = read_batch_pickle(content, where)
    pixels, labels = batch.get("data"), batch.get("fine_labels", batch.get("labels"))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise DataError(f"{where} holds no pixels: expected uint8 rows of {3 * _SIDE**2}")
    if not len(pixels) or pixels.shape[1] != 3 * _SIDE**2:
        raise DataError(f"{where} holds rows of {pixels.shape[1]} bytes: expected {3 * _SIDE**2}")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise DataError(f"{where} has not one label for each of its {len(pixels)} pictures")
    if not all(type(label) is int and 0 <= label < 1000 for label in labels):
        raise DataError(f"{where} holds labels that are no classes of CIFAR")
    return pixels, np.array(labels, np.int64)


def _class_names(meta: dict[str, bytes], path: Path, highest: int) -> list[str]:
    """Return the names in the meta file, else the classes' numbers."""
    for name, content in meta.items():
        names = read_batch_pickle(content, f"{path}: {name}").get(_NAMES[name])
        if isinstance(names, list) and highest < len(names) <= 1000:
            return [str(entry) for entry in names]
    return [str(label) for label in range(highest + 1)]

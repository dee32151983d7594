"""A dataset of ours as a source: to pack it again, smaller, in grey, or with other labels."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stylecli.data.codec import to_picture
from stylecli.data.reader import Dataset, open_dataset
from stylecli.data.sources.protocol import Label


@dataclass(frozen=True)
class PackedPicture:
    """One picture of a dataset; each process opens the dataset for itself."""

    dataset: Path
    index: int
    label: Label | None

    @property
    def name(self) -> str:
        """What the picture was called when it was packed, if that is known."""
        return str(self.metadata.get("source") or f"{self.dataset.name}#{self.index}")

    @property
    def metadata(self) -> dict[str, Any]:
        """Return what the dataset knows of it."""
        return _shared(self.dataset).metadata(self.index)

    def open(self) -> Image.Image:
        """Return the picture. Raises DataError when the dataset is damaged."""
        return to_picture(_shared(self.dataset).read([self.index])[0])


class PackedSource:
    """The pictures of a dataset with their labels. Raises DataError when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        _shared.cache_clear()  # the dataset at a path may be another one now
        self.path = path
        self._dataset = open_dataset(path)
        self._labels = self._dataset.labels

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.path.resolve().stem

    @property
    def class_names(self) -> list[str] | None:
        """The dataset's own."""
        names = self._dataset.class_names
        if names is None and self._labels is not None and self._labels.ndim == 1:
            return [str(label) for label in range(self._dataset.label_dim)]
        return names

    @property
    def notes(self) -> list[str]:
        """Say nothing: everything is used."""
        return []

    def fingerprint(self) -> str:
        """Return a digest over the pixels' and the labels."""
        digest = hashlib.sha256(f"{self._dataset.digest}{self.class_names}".encode())
        if self._labels is not None:
            digest.update(np.ascontiguousarray(self._labels).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> PackedPicture:
        index = range(len(self))[index]
        label: Label | None = None
        if self._labels is not None:
            value = self._labels[index].tolist()
            label = value if isinstance(value, int) else tuple(value)
        return PackedPicture(self.path, index, label)


@lru_cache(maxsize=4)
def _shared(path: Path) -> Dataset:
    """Return the dataset that this process's items share; it reopens itself after a fork."""
    return open_dataset(path)

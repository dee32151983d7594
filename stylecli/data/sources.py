"""Where pictures come from: anything that lists items which decode themselves when asked.

A new kind of source is one file with a class of this shape and a line in ``find_source``. Items
are small and can be pickled, so that decoding may happen in other processes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from stylecli.errors import DataError


class Item(Protocol):
    """One picture of a source, not yet decoded."""

    @property
    def name(self) -> str:
        """Where it lies within its source."""
        ...

    @property
    def label(self) -> int | None:
        """Its class, if the source has classes."""
        ...

    @property
    def metadata(self) -> dict[str, Any]:
        """What the dataset should remember of it: source, author, licence."""
        ...

    def open(self) -> Image.Image:
        """Open the picture; its pixels may be decoded later. Raises DataError with the cause."""
        ...


class Source(Protocol):
    """A list of pictures in a fixed order."""

    @property
    def name(self) -> str:
        """What a dataset made of it is called."""
        ...

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes that labels count through, or None when there are none."""
        ...

    def fingerprint(self) -> str:
        """Return a digest of what the source holds, by names and sizes, without decoding it."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...


def find_source(path: Path) -> Source:
    """Recognise what lies at ``path``: idx files (MNIST), else a folder of pictures.

    Raises DataError when it is missing or nothing known.
    """
    from stylecli.data.idx_files import IdxSource, find_idx_files
    from stylecli.data.image_folder import ImageFolder
    from stylecli.data.layout import DATA_FILE

    if not path.exists():
        raise DataError(f"{path} does not exist: give a folder of pictures or an idx file")
    if (path / DATA_FILE).exists():
        raise DataError(f"{path} is a database already: use it with --data {path}")
    if files := find_idx_files(path):
        return IdxSource(path, files)
    if path.is_dir():
        return ImageFolder(path)
    raise DataError(
        f"{path} is no source of pictures: expected a folder, or an idx file such as "
        "train-images-idx3-ubyte.gz"
    )


def spread(source: Source, count: int | None) -> Sequence[int]:
    """Return the indices of ``count`` items spread evenly over the source (None or more: all)."""
    total = len(source)
    if count is None or count >= total:
        return range(total)
    return [place * total // count for place in range(count)]

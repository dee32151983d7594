"""What a source is: anything that lists items which decode themselves when asked.

A new kind of source is one file with a class of this shape and a row in ``recognition.py``. Items
are small and can be pickled (a path and an offset, never an open file), so that decoding may
happen in other processes.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image

Label = int | tuple[float, ...]  # a class, or a vector: one value per attribute


class Item(Protocol):
    """One picture of a source, not yet decoded."""

    @property
    def name(self) -> str:
        """Where it lies within its source."""
        ...

    @property
    def label(self) -> Label | None:
        """Its class or its vector, if the source is labelled."""
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

    @property
    def notes(self) -> list[str]:
        """Sentences the user should read before packing: labels left out, lossy pictures."""
        ...

    def fingerprint(self) -> str:
        """Return a digest of what the source holds, by names and sizes, without decoding it."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...


def spread(source: Source, count: int | None) -> Sequence[int]:
    """Return the indices of ``count`` items spread evenly over the source (None or more: all)."""
    total = len(source)
    if count is None or count >= total:
        return range(total)
    return [place * total // count for place in range(count)]

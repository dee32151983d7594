"""A source that gets labels, metadata or notes from files beside or inside it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from stylecli.data.sources.protocol import Item, Label, Source

if TYPE_CHECKING:  # items travel to worker processes, which load no numpy for them
    from stylecli.data.sources.labels import Values


@dataclass(frozen=True)
class AnnotatedItem:
    """A picture with another label, and more known of it."""

    item: Item
    label: Label | None
    more: dict[str, Any]

    @property
    def name(self) -> str:
        """Where it lies within its source."""
        return self.item.name

    @property
    def metadata(self) -> dict[str, Any]:
        """Return what its source knows, and what was added."""
        return {**self.item.metadata, **self.more}

    def open(self) -> Image.Image:
        """Open the picture. Raises DataError with the cause."""
        return self.item.open()


class AnnotatedSource:
    """A source whose labels, metadata and notes come from files beside or inside it."""

    def __init__(
        self,
        source: Source,
        values: "Values | None",
        class_names: list[str] | None = None,
        *,
        notes: Sequence[str] = (),
        metadata: dict[int, dict[str, Any]] | None = None,
    ) -> None:
        self._source, self._values = source, values
        self._metadata = metadata or {}
        if values is not None and values.ndim == 1 and class_names is None:
            class_names = [str(label) for label in range(int(values.max()) + 1)]
        self.class_names = class_names
        self.notes = [*source.notes, *notes]

    @property
    def name(self) -> str:
        """The source's own name."""
        return self._source.name

    def fingerprint(self) -> str:
        """Return a digest over the source's and over the labels."""
        digest = hashlib.sha256(self._source.fingerprint().encode())
        if self._values is not None:
            digest.update(f"{self._values.shape}{self.class_names}".encode())
            digest.update(self._values.tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> AnnotatedItem:
        item = self._source[index]
        label: Label | None = None
        if self._values is not None:
            value = self._values[index].tolist()
            label = value if isinstance(value, int) else tuple(value)
        return AnnotatedItem(item, label, self._metadata.get(index, {}))

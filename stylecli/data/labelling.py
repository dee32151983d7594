"""The labels of a dataset while it is written: all of one kind, or none at all."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stylecli.data.format import MAX_LABEL_DIM, LabelKind
from stylecli.errors import DataError

Label = int | Sequence[float] | npt.NDArray[np.float32]


class LabelRows:
    """Collects labels as they are stored: int64, or float32 [L], little-endian, end to end."""

    def __init__(self, content: bytes = b"", count: int = 0, kind: LabelKind | None = None) -> None:
        """Go on after ``count`` pictures with these labels."""
        self.content = bytearray(content)
        self.kind = kind
        self._row_bytes = len(content) // count if count else 0

    def check(self, label: Label | None, index: int) -> bytes:
        """Return the row of picture ``index``, which must be of the same kind as all before it."""
        if label is None:
            if index and self.kind is not None:
                raise DataError(
                    f"picture {index} has no label, earlier ones have: label all or none"
                )
            return b""
        if index and self.kind is None:
            raise DataError(
                f"picture {index} has a label, earlier ones have not: label all or none"
            )
        kind: LabelKind
        if isinstance(label, int | np.integer):
            if not 0 <= label < MAX_LABEL_DIM:
                raise DataError(f"label {label} of picture {index} is not a class number")
            kind, row = "class", np.asarray(label, "<i8").tobytes()
        else:
            vector = np.asarray(label, "<f4")
            if vector.ndim != 1 or not 0 < len(vector) <= MAX_LABEL_DIM:
                raise DataError(
                    f"the label of picture {index} has shape {vector.shape}, expected [L]"
                )
            kind, row = "vector", vector.tobytes()
        if index and (kind, len(row)) != (self.kind, self._row_bytes):
            raise DataError(f"the label of picture {index} is of another kind than the first one's")
        self.kind, self._row_bytes = kind, len(row)
        return row

    def row(self, index: int) -> bytes:
        """Return the row of picture ``index``; empty when there are no labels."""
        return bytes(self.content[index * self._row_bytes : (index + 1) * self._row_bytes])

    def drop_unused(self, names: list[str], kept: int) -> tuple[list[str], dict[int, bytes]]:
        """Drop classes without pictures that come after the first ``kept``, and close the gaps.

        Return the names that stay and the rows that changed, by picture.
        """
        classes = np.frombuffer(bytes(self.content), "<i8")
        used = set(np.unique(classes).tolist())
        stay = [number for number in range(len(names)) if number < kept or number in used]
        numbers = np.zeros(len(names), "<i8")
        numbers[stay] = np.arange(len(stay))
        changed = np.flatnonzero(numbers[classes] != classes).tolist()
        self.content = bytearray(numbers[classes].tobytes())
        return [names[number] for number in stay], {index: self.row(index) for index in changed}

    def describe(self, class_names: list[str] | None) -> tuple[LabelKind | None, int]:
        """Return the kind of the labels and how many classes, or how long vectors, there are."""
        if self.kind is None:
            return None, 0
        if self.kind == "vector":
            return "vector", self._row_bytes // 4
        highest = int(np.frombuffer(self.content, "<i8").max())
        if class_names is not None and highest >= len(class_names):
            raise DataError(f"label {highest} has no name: {len(class_names)} classes named")
        return "class", len(class_names) if class_names else highest + 1

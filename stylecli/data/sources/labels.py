"""Labels of a whole source: how numbers become classes or vectors, and who gets which.

Integers are classes and count from 0. Rows of several numbers are vectors, except when each has
exactly one 1 among zeros: such a row is a class written out, and is taken as the class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stylecli.data.layout import MAX_LABEL_DIM
from stylecli.data.sources.naming import listing
from stylecli.errors import DataError

Values = npt.NDArray[np.int64] | npt.NDArray[np.float32]  # classes [N], or vectors [N, L]


@dataclass(frozen=True)
class LabelTable:
    """What a file of labels says: a row for each name, or for each picture in order."""

    values: Values
    names: list[str] | None = None  # of pictures, as the file spells them; None: in order
    class_names: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def classes_of(numbers: npt.NDArray[Any] | list[int], where: Path | str) -> npt.NDArray[np.int64]:
    """Check integers [N] as classes. Raises DataError for negative and absurd ones."""
    low, high = int(min(numbers)), int(max(numbers))
    if low < 0 or high >= MAX_LABEL_DIM:
        raise DataError(
            f"{where} holds the label {str(low if low < 0 else high)[:20]}: "
            f"expected classes from 0 to {MAX_LABEL_DIM - 1:,}"
        )
    return np.asarray(numbers, np.int64)


def interpret_rows(
    rows: npt.NDArray[Any],
    where: Path | str,
    *,
    names: list[str] | None = None,
    columns: list[str] | None = None,
    plain: bool = False,
) -> LabelTable:
    """Turn rows of numbers [N, L] into classes or vectors, and say which was done.

    ``columns`` names what the numbers stand for; with ``plain`` rows stay vectors as they are.
    Raises DataError for values that are not finite and for absurdly long rows.
    """
    if not 0 < rows.shape[1] <= MAX_LABEL_DIM:
        raise DataError(f"{where} holds label vectors of {rows.shape[1]} values")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        vectors = rows.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise DataError(f"{where} holds labels that are not finite numbers")
    if plain:
        return LabelTable(vectors, names)
    if rows.shape[1] > 1 and np.isin(vectors, (0, 1)).all() and (vectors.sum(1) == 1).all():
        found = columns or [str(label) for label in range(rows.shape[1])]
        note = f"{where}: every row has a single 1, so the labels are {len(found)} classes"
        return LabelTable(vectors.argmax(1).astype(np.int64), names, found, [note])
    notes = [f"{where}: labels are vectors of {rows.shape[1]} values"]
    if columns:
        notes[0] += f" ({listing(columns)})"
    if rows.shape[1] > 1 and np.isin(vectors, (-1, 1)).all():
        vectors = (vectors + np.float32(1)) * np.float32(0.5)
        notes.append(f"{where}: -1 and 1 are taken as 0 and 1")
    return LabelTable(vectors, names, None, notes)


def align_labels(table: LabelTable, names: Sequence[str], where: Path | str) -> Values:
    """Return the labels of the pictures called ``names``, one for each.

    A row belongs to the picture of that path, else to the only one of that file name. Raises
    DataError when a picture has no row or several that differ, naming the first ones.
    """
    if table.names is None:
        if len(table.values) != len(names):
            raise DataError(
                f"{where} holds {len(table.values):,} labels without names, but there are "
                f"{len(names):,} pictures"
            )
        return table.values
    find = picture_finder(names)
    rows = np.full(len(names), -1, np.int64)
    for row, label_name in enumerate(table.names):
        place = find(label_name)
        if place is None:
            continue  # the file may cover more pictures than are here
        if rows[place] >= 0 and not np.array_equal(table.values[rows[place]], table.values[row]):
            raise DataError(f"{where} gives {listing([names[place]])} two different labels")
        rows[place] = row
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        shown = listing(names[place] for place in missing[:5])
        raise DataError(
            f"{where} has no label for {len(missing):,} of {len(names):,} pictures ({shown}): "
            "label all or none, by path below the source or by a file name that occurs once"
        )
    return table.values[rows]


def picture_finder(names: Sequence[str]) -> Callable[[str], int | None]:
    """Return a function from a name in a file of labels to the picture's index, or None."""
    by_path = {name: place for place, name in enumerate(names)}
    by_file: dict[str, int | None] = {}
    for place, name in enumerate(names):
        file = name.rpartition("/")[2]
        by_file[file] = None if file in by_file else place

    def find(name: str) -> int | None:
        name = name.strip().replace("\\", "/").removeprefix("./")
        place = by_path.get(name)
        return by_file.get(name.rpartition("/")[2]) if place is None else place

    return find

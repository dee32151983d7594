"""Labels of a whole source, from the files people keep them in: CSV, JSON, npy, CelebA's lists.

Integers are classes and count from 0. Rows of several numbers are vectors, except when each has
exactly one 1 among zeros: such a row is a class written out, and is taken as the class.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stylecli.data.layout import MAX_LABEL_DIM
from stylecli.data.sources.base import AnnotatedSource, Source, listing
from stylecli.errors import DataError
from stylecli.files import parse_json

_MAX_BYTES = 1 << 32


Values = npt.NDArray[np.int64] | npt.NDArray[np.float32]  # classes [N], or vectors [N, L]
MAX_FILE_BYTES = 1 << 29


def read_npy(path: Path, *, empty: bool = False) -> npt.NDArray[Any]:
    """Return the array of integers, floats or booleans that an npy file holds; ``empty``: or none.

    Raises DataError when it is damaged or holds anything else; objects are never unpickled.
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read_header(file)
            size = math.prod(shape) * dtype.itemsize
            there = path.stat().st_size - file.tell()
            if dtype.kind not in "biuf" or min(shape, default=0) < (not empty):
                raise DataError(f"{path} holds {dtype} of shape {list(shape)}: expected numbers")
            if size != there or size > _MAX_BYTES:
                raise DataError(f"{path} says it holds {size:,} bytes, but {there:,} are there")
            array = np.frombuffer(file.read(size), dtype)
    except DataError:
        raise
    except Exception as error:  # the header is parsed as Python text and fails in many ways
        raise DataError(f"{path} is not a readable npy file: {error or type(error)}") from None
    return array.reshape(shape, order="F" if fortran else "C")


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


def label_source(source: Source, path: Path) -> AnnotatedSource:
    """Give every picture of ``source`` its label from the file at ``path``.

    Raises DataError when the file is unreadable or leaves a picture without a label.
    """
    names = [source[index].name for index in range(len(source))]
    table = read_labels(path, names)
    values = align_labels(table, names, path)
    notes = list(table.notes)
    if source.class_names or source[0].label is not None:
        notes.append(f"labels come from {path}; the source's own are not used")
    return AnnotatedSource(source, values, table.class_names, notes=notes)


def read_labels(path: Path, names: Sequence[str]) -> LabelTable:
    """Read a file of labels for the pictures called ``names``; its suffix says its kind.

    The names tell a header of a CSV from its first row. Raises DataError.
    """
    try:
        if path.suffix.lower() == ".npy":
            return _read_array(path)
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} has more than {MAX_FILE_BYTES >> 20} MiB of labels")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"labels {path} cannot be read: {error.strerror or error}") from None
    if path.suffix.lower() == ".json":
        found = parse_label_json(content, path)
        if found is None:
            raise DataError(f'{path} has no labels: expected {{"labels": [[name, label], ...]}}')
        return found
    try:
        text = content.decode(
            "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        )
    except UnicodeDecodeError:
        # File names that are not UTF-8 carry the same sign in the names of pictures.
        text = content.decode("utf-8", "replace")
    if path.suffix.lower() == ".txt":
        return parse_celeba(text, path)
    return parse_csv(text, names, path)


def parse_label_json(content: bytes, where: Path | str) -> LabelTable | None:
    """Read NVIDIA's ``{"labels": [[name, class or vector], ...]}``; None when labels are null.

    Class names as labels are taken too, and names for the classes under ``class_names``. Raises
    DataError for anything else.
    """
    found = parse_json(content, where)
    if "labels" not in found:
        raise DataError(f'{where} has no "labels": expected {{"labels": [[name, label], ...]}}')
    rows, class_names = found["labels"], found.get("class_names")
    if rows is None or rows == []:
        return None
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) for row in rows
    ):
        raise DataError(f"{where} does not list its labels as [name, label]")
    names, values = [row[0] for row in rows], [row[1] for row in rows]
    if all(type(value) is int for value in values):
        return _numbered(names, values, class_names, where)
    if all(isinstance(value, str) for value in values):
        return _named(names, values)
    if all(isinstance(value, list) and _all_numbers(value) for value in values):
        if len({len(value) for value in values}) > 1:
            raise DataError(f"{where} holds label vectors of different lengths")
        return interpret_rows(_floats(values, where), where, names=names, plain=True)
    raise DataError(f"{where} mixes kinds of labels: expected all integers or all lists of numbers")


def parse_csv(text: str, names: Sequence[str], where: Path | str) -> LabelTable:
    """Read ``name,label`` or ``name,value,value,...`` with or without a header.

    Commas, semicolons and tabs part the cells. Rows of numbers alone, as many as there are
    pictures, are labels in the pictures' order. Raises DataError.
    """
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        rows = [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row
        ]
    except csv.Error as error:
        raise DataError(f"{where} is not readable CSV: {error}") from None
    if not rows:
        raise DataError(f"{where} holds no labels")
    find = picture_finder(names)
    header: list[str] | None = None
    if find(rows[0][0]) is None and not _are_numbers(rows[0][1:] or rows[0]):
        header, rows = rows[0], rows[1:]
    elif find(rows[0][0]) is None and len(rows) == len(names) and _are_numbers(rows[0]):
        rows = [["", *row] for row in rows]  # no names: in order
    if not rows:
        raise DataError(f"{where} holds a header and no labels")
    width = len(rows[0])
    for number, row in enumerate(rows, 2 if header else 1):
        if len(row) != width or width < 2 or not all(cell.strip() for cell in row[1:]):
            raise DataError(
                f"{where} row {number} is {','.join(row)[:80]!r}: expected a name and "
                f"{max(width - 1, 1)} labels"
            )
    table = _interpret_cells(rows, header[1:] if header and len(header) == width else None, where)
    return table if rows[0][0] else LabelTable(table.values, None, table.class_names, table.notes)


def parse_celeba(text: str, where: Path | str) -> LabelTable:
    """Read CelebA's lists: attributes (a count, their names, rows of -1 and 1), or identities."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    columns = None
    if len(rows) > 2 and len(rows[0]) == 1 and rows[0][0].isdecimal():
        columns, rows = rows[1], rows[2:]
    width = len(columns) + 1 if columns else 2
    if not rows or any(len(row) != width for row in rows):
        raise DataError(f"{where} is not a list of pictures with {width - 1} values each")
    return _interpret_cells(rows, columns, where)


def _read_array(path: Path) -> LabelTable:
    array = read_npy(path)
    if array.ndim == 2 and array.shape[1] == 1 and array.dtype.kind in "iu":
        array = array[:, 0]
    if array.ndim == 1 and array.dtype.kind in "iu":
        return LabelTable(classes_of(array, path))
    if array.ndim in (1, 2):
        return interpret_rows(array.reshape(len(array), -1), path)
    raise DataError(f"{path} holds labels of shape {list(array.shape)}: expected [N] or [N, L]")


def _interpret_cells(
    rows: list[list[str]], columns: list[str] | None, where: Path | str
) -> LabelTable:
    """Turn [[name, cell, ...], ...] into labels: integers, names of classes, or vectors."""
    names = [row[0] for row in rows]
    cells = [row[1] for row in rows]
    if len(rows[0]) == 2:
        if all(_is_integer(cell) for cell in cells):
            return _numbered(names, [int(cell) for cell in cells], None, where)
        if not _are_numbers(cells):
            return _named(names, [cell.strip() for cell in cells])
    elif not all(_are_numbers(row[1:]) for row in rows):
        bad = next(row for row in rows if not _are_numbers(row[1:]))
        raise DataError(
            f"{where} has {','.join(bad)[:80]!r}: several labels of a picture have to be numbers"
        )
    values = _floats([row[1:] for row in rows], where)
    return interpret_rows(values, where, names=names, columns=columns)


def _numbered(
    names: list[str], labels: list[int], class_names: Any, where: Path | str
) -> LabelTable:
    values = classes_of(labels, where)
    named = isinstance(class_names, list) and all(isinstance(name, str) for name in class_names)
    if not named or not values.max() < len(class_names) <= MAX_LABEL_DIM:
        class_names = None
    return LabelTable(values, names, class_names)


def _named(names: list[str], labels: list[str]) -> LabelTable:
    class_names = sorted(set(labels), key=lambda name: name.encode("utf-8", "replace"))
    numbers = {name: number for number, name in enumerate(class_names)}
    values = np.array([numbers[label] for label in labels], np.int64)
    if len(class_names) > MAX_LABEL_DIM:
        raise DataError(f"the labels name {len(class_names):,} classes: at most {MAX_LABEL_DIM:,}")
    return LabelTable(values, names, class_names)


def _floats(rows: list[list[Any]], where: Path | str) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        return np.array(rows, np.float64)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where} holds labels that are no numbers: {error}") from None


def _is_integer(cell: str) -> bool:
    cell = cell.strip()
    return len(cell) < 12 and cell.removeprefix("-").isdecimal() and cell.isascii()


def _are_numbers(cells: list[str]) -> bool:
    try:
        return all(float(cell) is not None for cell in cells)
    except ValueError:
        return False


def _all_numbers(values: list[Any]) -> bool:
    return all(type(value) in (int, float) for value in values)

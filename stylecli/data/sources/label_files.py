"""Read labels from the files people keep them in: CSV, dataset.json, npy, CelebA's lists."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stylecli.data.layout import MAX_LABEL_DIM
from stylecli.data.sources.annotation import AnnotatedSource
from stylecli.data.sources.labels import (
    LabelTable,
    align_labels,
    classes_of,
    interpret_rows,
    picture_finder,
)
from stylecli.data.sources.npy import read_npy
from stylecli.data.sources.protocol import Source
from stylecli.errors import DataError

MAX_FILE_BYTES = 1 << 29


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
    try:
        found = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not readable JSON: {error}") from None
    if not isinstance(found, dict) or "labels" not in found:
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


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}")

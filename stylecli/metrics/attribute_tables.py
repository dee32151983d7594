"""What is known of every picture: attribute name -> value per picture, from a dataset or a CSV."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stylecli.data.reader import Dataset
from stylecli.errors import DataError

# Attribute name -> its value for every picture; None where it is not known.
AttributeTable = Mapping[str, Sequence[str | None]]

MAX_VALUES = 100  # more are names or dates, not an attribute
_PICTURE_COLUMNS = ("source", "picture", "image", "image_id", "file", "filename")


def read_attributes(dataset: Dataset) -> dict[str, list[str | None]]:
    """Return what the dataset itself knows: the pictures' ``attributes``, else their labels.

    Metadata come first (the demo faces have them: hair, mouth, skin, ...). Classes become one
    attribute ``class``; label vectors of zeros and ones one attribute per column with the values
    ``yes`` and ``no``, under the columns' names. What does not vary, or has more than 100 values,
    is left out. Raises DataError when nothing is left.
    """
    table = keep_usable(_from_metadata(dataset) or _from_labels(dataset))
    if not table:
        raise DataError(
            f"{dataset.path} tells no attribute of its pictures: give a table with --attributes "
            "FILE.csv (first column the pictures' names), or a dataset with classes"
        )
    return table


def read_attribute_csv(path: Path, dataset: Dataset) -> dict[str, list[str | None]]:
    """Return the attributes of a CSV file, in the order of the dataset's pictures.

    The first row names the columns. The first column holds each picture's name as it was packed
    (``source`` in its metadata) or its number in the dataset; empty cells mean not known. Raises
    DataError when the file is not such a table or no picture of the dataset is in it.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} is not a readable CSV file: {error}") from None
    header, rows = (lines[0], lines[1:]) if lines else ([], [])
    if len(header) < 2:
        raise DataError(f"{path} has {len(header)} columns: expected a picture and its attributes")
    if uneven := [number for number, row in enumerate(rows, 2) if row and len(row) != len(header)]:
        raise DataError(f"{path} line {uneven[0]} does not have {len(header)} cells as the header")
    by_name = {row[0]: row[1:] for row in rows if row}
    numbered = header[0].lower() not in _PICTURE_COLUMNS and all(n.isdecimal() for n in by_name)
    keys = [
        str(index) if numbered else str(dataset.metadata(index).get("source", index))
        for index in range(len(dataset))
    ]
    found = [by_name.get(key) or by_name.get(Path(key).name) for key in keys]
    if not any(found):
        raise DataError(
            f"{path} names no picture of {dataset.path}: its first column should hold names such "
            f"as {keys[0]}"
        )
    table = {
        name: [row[column] or None if row else None for row in found]
        for column, name in enumerate(header[1:])
    }
    if not (usable := keep_usable(table)):
        raise DataError(f"{path} has no attribute with two values or more, up to {MAX_VALUES}")
    return usable


def keep_usable(table: AttributeTable) -> dict[str, list[str | None]]:
    """Drop attributes with fewer than 2 or more than 100 values, a value counted from 2 pictures.

    A value seen once cannot be both learnt and tested: such pictures count as not known.
    """
    usable = {}
    for name, column in table.items():
        counts = Counter(value for value in column if value is not None)
        values = {value for value, count in counts.items() if count > 1}
        if 2 <= len(values) <= MAX_VALUES:
            usable[name] = [value if value in values else None for value in column]
    return usable


def _from_metadata(dataset: Dataset) -> dict[str, list[str | None]]:
    table: dict[str, list[str | None]] = {}
    for index in range(len(dataset)):
        known = dataset.metadata(index).get("attributes")
        for name, value in known.items() if isinstance(known, dict) else ():
            column = table.setdefault(str(name), [None] * len(dataset))
            column[index] = None if value is None else str(value)
    return table


def _from_labels(dataset: Dataset) -> dict[str, list[str | None]]:
    labels, names = dataset.labels, dataset.class_names
    if labels is None:
        return {}
    if labels.ndim == 1:
        texts = names or [str(number) for number in range(dataset.label_dim)]
        return {"class": [texts[int(label)] for label in labels]}
    texts = names or [f"label {number}" for number in range(labels.shape[1])]
    return {
        name: ["yes" if value else "no" for value in labels[:, column]]
        for column, name in enumerate(texts)
        if np.isin(labels[:, column], (0.0, 1.0)).all()
    }

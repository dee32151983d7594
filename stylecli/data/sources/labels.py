"""Labels of a whole source, from the files people keep them in: CSV, JSON, npy, CelebA's lists.

Integers are classes and count from 0. Rows of several numbers are vectors, except when each has
exactly one 1 among zeros: such a row is a class written out, and is taken as the class.
"""

import csv
import io
import math
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stylecli.data.format import MAX_LABEL_DIM
from stylecli.data.sources.base import (
    HEIF_SUFFIXES,
    SUFFIXES,
    AnnotatedSource,
    Source,
    common_folder,
    listing,
)
from stylecli.errors import DataError, plural
from stylecli.files import name_failed_download, parse_json

_MAX_BYTES = 1 << 32


Values = npt.NDArray[np.int64] | npt.NDArray[np.float32]  # classes [N], or vectors [N, L]
MAX_FILE_BYTES = 1 << 29
JSON_FORM = '{"labels": [["a.png", 0], ...]}'
LOOSEST = 7  # of the ways in which a name fits
_OTHER_KINDS = {b"PK\x03\x04": "a zip or a spreadsheet", b"PAR1": "a Parquet file"}
_NAME_KEYS = ("file_name", "filename", "name", "file", "image", "path")
_LABEL_KEYS = ("label", "class", "category")
_INDEX_COLUMNS = ("", "index", "unnamed: 0")  # what data frames call their row numbers
_SAMPLED_ROWS = 1000  # of a CSV, to find the column of names


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
                raise DataError(f"{path} should hold {size:,} bytes and holds {there:,}")
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
    first: int = 0  # how the file calls the class 0

    def named_classes(self) -> list[str] | None:
        """Return the names of the classes, their numbers where it has none; None for vectors."""
        if self.class_names or self.values.ndim > 1:
            return self.class_names
        return [str(label) for label in range(int(self.values.max()) + 1)]


def classes_of(numbers: npt.NDArray[Any] | list[int], where: Path | str) -> npt.NDArray[np.int64]:
    """Check integers [N] as classes. Raises DataError for negative and absurd ones."""
    low, high = int(min(numbers)), int(max(numbers))
    if low < 0 or high >= MAX_LABEL_DIM:
        raise DataError(
            f"{where} holds the label {str(low if low < 0 else high)[:20]}: "
            f"expected classes from 0 to {MAX_LABEL_DIM - 1:,}"
        )
    return np.asarray(numbers, np.int64)


def interpret_numbers(
    numbers: list[Any] | npt.NDArray[Any],
    where: Path | str,
    *,
    names: list[str] | None = None,
    class_names: Any = None,
) -> LabelTable:
    """Turn one number for each picture [N] into classes, or into vectors of one value.

    Whole numbers are classes, however they are written (1, 1.0, true), as NVIDIA's loader has them;
    classes that are counted from 1 are counted from 0, so that none is empty. Raises DataError for
    negative and absurd classes, and for numbers that are not finite.
    """
    found = list(numbers.tolist() if isinstance(numbers, np.ndarray) else numbers)
    if not found:
        raise DataError(f"{where} holds no labels")
    written_whole = all(isinstance(number, int) for number in found)  # true is an int, too
    if not written_whole:
        rows = _floats([[number] for number in found], where)
        whole = np.isfinite(rows).all() and (rows == np.rint(rows)).all()
        if not whole or rows.min() < -1 or rows.max() >= MAX_LABEL_DIM:
            return interpret_rows(rows, where, names=names)
        found = [int(number) for number in rows[:, 0]]
    notes = [] if written_whole else [f"{where}: whole numbers are taken as classes"]
    if set(found) == {-1, 1}:
        found = [max(number, 0) for number in found]
        notes.append(f"{where}: -1 and 1 are taken as classes 0 and 1")
    values = classes_of(found, where)
    named = isinstance(class_names, list) and all(isinstance(name, str) for name in class_names)
    fits = named and values.max() < len(class_names) <= MAX_LABEL_DIM
    if values.min() == 1 and not fits:
        values, highest = values - 1, int(values.max())
        named = named and len(class_names) == highest
        class_names = class_names if named else [str(label + 1) for label in range(highest)]
        notes.append(f"{where}: classes are counted from 1, so there is no empty class 0")
        return LabelTable(values, names, class_names, notes, first=1)
    return LabelTable(values, names, class_names if fits else None, notes)


def interpret_array(array: npt.NDArray[Any], where: Path | str) -> LabelTable:
    """Turn an array [N], [N, 1] or [N, L] into labels in the pictures' order."""
    if array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1):
        return interpret_numbers(array.ravel(), where)
    if array.ndim == 2:
        return interpret_rows(array, where)
    raise DataError(f"{where} holds labels of shape {list(array.shape)}: expected [N] or [N, L]")


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
        note = (
            f"{where}: every row has a single 1, so the labels are "
            f"{plural(len(found), 'class', 'classes')}"
        )
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

    A row belongs to the picture that ``PictureNames`` finds; of several the one that names it more
    closely. Raises DataError when a picture has no row or several that differ, naming the first.
    """
    if table.names is None:
        if len(table.values) != len(names):
            raise DataError(
                f"{where} holds {plural(len(table.values), 'label')} without names for "
                f"{plural(len(names), 'picture')}"
            )
        return table.values
    pictures = PictureNames(names)
    rows = np.full(len(names), -1, np.int64)
    closeness = np.full(len(names), LOOSEST + 1, np.int64)
    strangers = []
    for row, label_name in enumerate(table.names):
        place, close = pictures.look_up(label_name)
        if place is None:
            strangers.append(label_name)  # the file may cover more pictures than are here
            continue
        if close > closeness[place]:
            continue
        if close == closeness[place] and not np.array_equal(
            table.values[rows[place]], table.values[row]
        ):
            raise DataError(f"{where} gives {listing([names[place]])} two different labels")
        rows[place], closeness[place] = row, close
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        shown = listing(names[place] for place in missing[:5])
        beside = f"; the file names {listing(strangers)}, which matches none" if strangers else ""
        raise DataError(
            f"{where} has no label for {len(missing):,} of {plural(len(names), 'picture')} "
            f"({shown})"
            f"{beside}: label all or none, by path below the source or by a file name that occurs "
            "once"
        )
    return table.values[rows]


class PictureNames:
    """Finds a picture by what a file about pictures calls it.

    A name fits, from close to loose: the picture's path; an end of it, or a path that ends with it;
    the same without suffix, or with another one; the file name, where only one picture has it.
    Composed and decomposed accents are the same, and so are both slashes.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._exact = {name: place for place, name in enumerate(names)}
        self._paths: dict[str, int | None] = {}
        self._inner: dict[str, int | None] = {}  # without the folders around everything
        self._ends: dict[str, int | None] = {}
        self._stems: dict[str, int | None] = {}
        self._stem_ends: dict[str, int | None] = {}
        around = len(common_folder([_clean(name) for name in names]))
        for place, name in enumerate(names):
            path = _clean(name)
            _enter(self._inner, path[around:].lstrip("/"), place)
            stem = _stem(path)
            _enter(self._paths, path, place)
            _enter(self._stems, stem, place)
            for end in _ends(path):
                _enter(self._ends, end, place)
            for end in _ends(stem):
                _enter(self._stem_ends, end, place)

    def find(self, name: str) -> int | None:
        """Return the place of the one picture that is called so, or None."""
        return self.look_up(name)[0]

    def look_up(self, name: str) -> tuple[int | None, int]:
        """Return (place or None, how loosely the name fits: 0 is the path itself)."""
        if name in self._exact:
            return self._exact[name], 0
        path = _clean(name)
        stems = [path.casefold(), _stem(path)]
        trials: list[tuple[dict[str, int | None], list[str]]] = [
            (self._paths, [path]),
            (self._inner, [path]),
            (self._paths, _ends(path)),
            (self._ends, [path]),
            (self._stems, [end for stem in stems for end in _ends(stem)]),
            (self._stem_ends, stems),
            (self._ends, [path.rpartition("/")[2]]),
            (self._stem_ends, [stem.rpartition("/")[2] for stem in stems]),
        ]
        for loose, (known, keys) in enumerate(trials):
            for key in keys:
                if (place := known.get(key)) is not None:
                    return place, loose
        return None, LOOSEST


def _clean(name: str) -> str:
    """Return a path without what does not tell pictures apart."""
    parts = unicodedata.normalize("NFC", name.strip()).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def _stem(path: str) -> str:
    """Return a path without a picture's suffix, in lower case."""
    stem, suffix = os.path.splitext(path)
    return (stem if suffix.lower() in SUFFIXES | HEIF_SUFFIXES else path).casefold()


def _ends(path: str) -> list[str]:
    """Return a path, and it without its first folder, its first two, ..."""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _enter(known: dict[str, int | None], key: str, place: int) -> None:
    """Remember what a key names: nothing when it names several."""
    known[key] = None if known.get(key, place) != place else place


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
    """Read a file of labels for the pictures called ``names``: npy, JSON, CSV or CelebA's list.

    The names tell which column of a CSV holds them. Raises DataError.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"labels {path} cannot be read: it is not a file")
    try:
        with open(path, "rb") as file:
            if file.read(6) == b"\x93NUMPY":
                return interpret_array(read_npy(path), path)
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} has more than {MAX_FILE_BYTES >> 20} MiB of labels")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"labels {path} cannot be read: {error.strerror or error}") from None
    if cause := name_failed_download(content[:1024]):
        raise DataError(f"{path} {cause}")
    if kind := _OTHER_KINDS.get(content[:4]):
        raise DataError(f"{path} is {kind}: save the labels as CSV, JSON or npy")
    suffix = path.suffix.lower()
    if suffix == ".jsonl":  # an object a line
        content = b"[" + b",".join(line for line in content.splitlines() if line.strip()) + b"]"
    if suffix in (".json", ".jsonl") or (suffix != ".csv" and content.lstrip()[:1] in (b"{", b"[")):
        found = parse_label_json(content, path, names, in_order=True)
        if found is None:
            raise DataError(f"{path} has no labels: expected {JSON_FORM}")
        return found
    try:
        text = content.decode(
            "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        )
    except UnicodeDecodeError:
        # File names that are not UTF-8 carry the same sign in the names of pictures.
        text = content.decode("utf-8", "replace")
    first = text.lstrip().partition("\n")[0]
    if suffix == ".txt" and not any(mark in first for mark in ",;\t"):
        return parse_celeba(text, path)
    return parse_csv(text, names, path)


class ForeignJsonError(DataError):
    """JSON that holds no labels of pictures, but something of another program."""


def parse_label_json(
    content: bytes, where: Path | str, names: Sequence[str], *, in_order: bool = False
) -> LabelTable | None:
    """Read NVIDIA's ``{"labels": [[name, class or vector], ...]}``; None when labels are null.

    Names of classes are taken as labels too, and names for the classes under ``class_names``. So
    are objects that give each name its label, the list alone, and lists of objects with a file name
    and a label; with ``in_order`` a list of numbers, one for each picture. Raises ForeignJsonError
    when the JSON is about something other than the labels of the pictures ``names``, DataError when
    it is spoilt.
    """
    try:
        found = parse_json(content, where, of=object)
    except DataError as error:
        raise (DataError if b'"labels"' in content else ForeignJsonError)(str(error)) from None
    is_told = isinstance(found, dict) and "labels" in found
    rows, class_names = (found["labels"], found.get("class_names")) if is_told else (found, None)
    if is_told and not rows:
        return None
    if in_order and rows and isinstance(rows, list) and _all_numbers(rows):
        return interpret_numbers(rows, where, class_names=class_names)
    pairs, find = _pairs(rows), PictureNames(names).find
    if not pairs or not (is_told or any(find(name) is not None for name, _ in pairs)):
        what = "does not list its labels as [name, label]" if is_told else 'has no "labels"'
        raise ForeignJsonError(f"{where} {what}: expected {JSON_FORM}")
    pairs = [(name, label) for name, label in pairs if label is not None]
    found_names, values = [name for name, _ in pairs], [label for _, label in pairs]
    if not pairs:
        return None
    return interpret_values(values, where, names=found_names, class_names=class_names)


def interpret_values(
    values: list[Any],
    where: Path | str,
    *,
    names: Sequence[str] | None = None,
    class_names: Any = None,
) -> LabelTable:
    """Turn a label of each picture into classes or vectors; raise DataError for mixed kinds."""
    listed = list(names) if names is not None else None
    if all(isinstance(value, int | float) for value in values):
        return interpret_numbers(values, where, names=listed, class_names=class_names)
    if all(isinstance(value, str) for value in values):
        return _named(listed, values)
    if all(isinstance(value, list) and _all_numbers(value) for value in values):
        if len({len(value) for value in values}) > 1:
            raise DataError(f"{where} holds label vectors of different lengths")
        return interpret_rows(_floats(values, where), where, names=listed, plain=True)
    other = next((i for i, value in enumerate(values) if type(value) is not type(values[0])), 0)
    shown = [_shown(listed[i] if listed else f"picture {i}", values[i]) for i in (0, other)]
    raise DataError(
        f"{where} mixes kinds of labels: {' and '.join(shown)}; expected only numbers, only names "
        "of classes or only lists of numbers"
    )


def _pairs(rows: Any) -> list[tuple[str, Any]]:
    """Return (name, label) of each entry; nothing when these are no labels of pictures."""
    if isinstance(rows, dict):
        rows = list(rows.items())
    if not isinstance(rows, list):
        return []
    pairs = []
    for row in rows:
        if isinstance(row, dict):
            name = next((row[key] for key in _NAME_KEYS if key in row), None)
            row = (name, next((row[key] for key in _LABEL_KEYS if key in row), ()))
        if not isinstance(row, list | tuple) or len(row) != 2 or not isinstance(row[0], str):
            return []
        if not isinstance(row[1], int | float | str | list | None):
            return []
        pairs.append((row[0], row[1]))
    return pairs


def _shown(name: str, label: Any) -> str:
    return f"{label!r:.40} for {listing([name])}"


def parse_csv(text: str, names: Sequence[str], where: Path | str) -> LabelTable:
    """Read ``name,label`` or ``name,value,value,...`` with or without a header.

    Commas, semicolons and tabs part the cells. The column of names is the one that fits the
    pictures' names best; a column of row numbers before it is left out. Rows of numbers alone, as
    many as there are pictures, are labels in the pictures' order. Raises DataError.
    """
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        rows = [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row
        ]
    except csv.Error as error:
        raise DataError(f"cannot read {where} as CSV: {error}") from None
    if not rows:
        raise DataError(f"{where} holds no labels")
    pictures = PictureNames(names)
    column = _name_column(rows, pictures)
    header: list[str] | None = None
    is_stranger = pictures.find(rows[0][min(column, len(rows[0]) - 1)]) is None
    others = rows[0][:column] + rows[0][column + 1 :]
    if is_stranger and not _are_numbers(others or rows[0]):
        header, rows = rows[0], rows[1:]
    elif _are_numbers(rows[0]) and _in_order(rows, pictures, len(names)):
        rows, column = [["", *row] for row in rows], 0
    if not rows:
        raise DataError(f"{where} holds a header and no labels")
    width = len(rows[0])
    for number, row in enumerate(rows, 2 if header else 1):
        if len(row) != width or width < 2 or not all(cell.strip() for cell in row[1:]):
            raise DataError(
                f"{where} row {number} is {','.join(row)[:80]!r}: expected a name and "
                f"{plural(max(width - 1, 1), 'label')}"
            )
    columns = header if header and len(header) == width else None
    # What stands before the name numbers the rows, as data frames write it.
    start = 1 if column and _counts_rows(rows, columns) else 0
    cells = [[row[column], *row[start:column], *row[column + 1 :]] for row in rows]
    if columns:
        columns = columns[start:column] + columns[column + 1 :]
        cells, columns = _labels_among(cells, columns)
    table = _interpret_cells(cells, columns, where)
    return table if cells[0][0] else LabelTable(table.values, None, table.class_names, table.notes)


def _labels_among(rows: list[list[str]], columns: list[str]) -> tuple[list[list[str]], list[str]]:
    """Return the column that is called label, where others hold words as well; else all."""
    called = [place for place, name in enumerate(columns) if name.strip().lower() in _LABEL_KEYS]
    if len(columns) == 1 or len(called) != 1 or all(_are_numbers(row[1:]) for row in rows):
        return rows, columns
    return [[row[0], row[1 + called[0]]] for row in rows], [columns[called[0]]]


def _name_column(rows: list[list[str]], pictures: PictureNames) -> int:
    """Return the column whose cells fit names of pictures best; of equal ones the first.

    Row numbers fit pictures called 0.png, 1.png, ... as well: then it is the next column.
    """
    sample = rows[:: max(1, len(rows) // _SAMPLED_ROWS)]
    width = min(map(len, sample))
    scores = []
    for column in range(width):
        fits = [pictures.look_up(row[column]) for row in sample]
        found = [loose for place, loose in fits if place is not None]
        scores.append((len(found), -sum(found)))
    best = max(range(width), key=lambda column: scores[column])
    if best == 0 and width > 2 and _counts_rows(rows[1:], rows[0]):
        later = max(range(1, width), key=lambda column: scores[column])
        if scores[later][0] >= scores[0][0] > 0:
            best = later
    return best


def _counts_rows(rows: list[list[str]], header: list[str] | None) -> bool:
    """Tell whether the first column numbers the rows from 0 or 1, under no name of its own."""
    numbers = [row[0].strip() for row in rows]
    if header is not None:
        named = header[0].strip().lower()
        return named in _INDEX_COLUMNS and all(map(_is_integer, numbers))
    return any(numbers == [str(first + place) for place in range(len(rows))] for first in (0, 1))


def _in_order(rows: list[list[str]], pictures: PictureNames, count: int) -> bool:
    """Tell whether rows of numbers are labels alone: no first column that names every picture."""
    if len(rows) != count:
        return False
    places = [pictures.find(row[0]) for row in rows] if len(rows[0]) > 1 else [None]
    return None in places or len(set(places)) < count


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


def _interpret_cells(
    rows: list[list[str]], columns: list[str] | None, where: Path | str
) -> LabelTable:
    """Turn [[name, cell, ...], ...] into labels: integers, names of classes, or vectors."""
    names = [row[0] for row in rows]
    cells = [row[1] for row in rows]
    if len(rows[0]) == 2:
        if not _are_numbers(cells):
            return _named(names, [cell.strip() for cell in cells])
        numbers = [int(cell) if _is_integer(cell) else float(cell) for cell in cells]
        return interpret_numbers(numbers, where, names=names)
    elif not all(_are_numbers(row[1:]) for row in rows):
        bad = next(row for row in rows if not _are_numbers(row[1:]))
        raise DataError(
            f"{where} has {','.join(bad)[:80]!r}: several labels of one picture must be numbers"
        )
    values = _floats([row[1:] for row in rows], where)
    return interpret_rows(values, where, names=names, columns=columns)


def _named(names: list[str] | None, labels: list[str]) -> LabelTable:
    class_names = sorted(set(labels), key=lambda name: name.encode("utf-8", "replace"))
    numbers = {name: number for number, name in enumerate(class_names)}
    values = np.array([numbers[label] for label in labels], np.int64)
    if len(class_names) > MAX_LABEL_DIM:
        raise DataError(
            f"the labels name {plural(len(class_names), 'class', 'classes')}: at most "
            f"{MAX_LABEL_DIM:,}"
        )
    return LabelTable(values, names, class_names)


def _floats(rows: list[list[Any]], where: Path | str) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        return np.array(rows, np.float64)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where} holds labels that are not numbers: {error}") from None


def _is_integer(cell: str) -> bool:
    cell = cell.strip()
    return len(cell) < 12 and cell.removeprefix("-").isdecimal() and cell.isascii()


def _are_numbers(cells: list[str]) -> bool:
    try:
        return all(float(cell) is not None for cell in cells)
    except ValueError:
        return False


def _all_numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)

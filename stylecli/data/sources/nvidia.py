"""NVIDIA's zip or folder: pictures with ``dataset.json``, as StyleGAN2-ADA and StyleGAN3 train on.

``metadata.jsonl``, which ``stylecli pack --out X.zip`` adds, brings authors and licences back.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylecli.data.sources.annotation import AnnotatedSource
from stylecli.data.sources.folder import ImageFolder
from stylecli.data.sources.label_files import MAX_FILE_BYTES, parse_label_json
from stylecli.data.sources.labels import align_labels, picture_finder
from stylecli.data.sources.naming import listing
from stylecli.data.sources.protocol import Source
from stylecli.data.sources.zip_archive import ZipPictures, read_directory
from stylecli.errors import DataError

LABELS_NAME = "dataset.json"
METADATA_NAME = "metadata.jsonl"


def open_zip(path: Path) -> Source:
    """Open a zip of pictures, with the labels of its ``dataset.json`` if it has one."""
    members = read_directory(path)
    if LABELS_NAME not in members:
        return ZipPictures(path, members)
    files = {}
    for name in (LABELS_NAME, METADATA_NAME):
        if name in members:
            try:
                files[name] = members[name].read(MAX_FILE_BYTES)
            except DataError as error:
                raise DataError(f"{path}: {name} {error}") from None
    return _annotate(ZipPictures(path, members, classes=False), files, path)


def open_folder(path: Path) -> Source:
    """Open a folder of pictures with ``dataset.json``."""
    files = {}
    try:
        for name in (LABELS_NAME, METADATA_NAME):
            if (path / name).is_file():
                if (path / name).stat().st_size > MAX_FILE_BYTES:
                    raise DataError(f"{path / name} has more than {MAX_FILE_BYTES >> 20} MiB")
                files[name] = (path / name).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    return _annotate(ImageFolder(path, classes=False), files, path)


def _annotate(source: Source, files: dict[str, bytes], path: Path) -> Source:
    """Give pictures the labels and metadata of the files; say so when labels are incomplete."""
    where = f"{path}: {LABELS_NAME}"
    names = [source[index].name for index in range(len(source))]
    table = parse_label_json(files[LABELS_NAME], where)
    metadata = _parse_metadata(files.get(METADATA_NAME, b""), names, f"{path}: {METADATA_NAME}")
    if table is None or table.names is None:
        return AnnotatedSource(source, None, metadata=metadata)
    find = picture_finder(names)
    places = [find(name) for name in table.names]
    notes = list(table.notes)
    if absent := [name for name, place in zip(table.names, places, strict=True) if place is None]:
        notes.append(
            f"{where} labels {len(absent):,} pictures that are not there: {listing(absent)}"
        )
    if missing := set(range(len(names))).difference(places):
        shown = listing(names[place] for place in sorted(missing)[:5])
        notes.append(
            f"{where} has no label for {len(missing):,} of {len(names):,} pictures ({shown}), so "
            "its labels are not used: complete it, or give --labels"
        )
        return AnnotatedSource(source, None, notes=notes, metadata=metadata)
    values = align_labels(table, names, where)
    return AnnotatedSource(source, values, table.class_names, notes=notes, metadata=metadata)


def _parse_metadata(content: bytes, names: Sequence[str], where: str) -> dict[int, dict[str, Any]]:
    """Read lines of {"name": picture, ...}; lines for other pictures are passed over."""
    find = picture_finder(names)
    known: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(content.splitlines(), 1):
        try:
            fields = json.loads(line)
            place = find(fields.pop("name"))
        except (ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
            raise DataError(f"{where} line {number} is not readable: {error}") from None
        if place is not None:
            known[place] = fields
    return known

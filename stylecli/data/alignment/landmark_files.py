"""Landmarks that somebody has found already, read from JSON or JSON lines.

Taken are our own ``faces.jsonl`` and ``detections.jsonl``, FFHQ's metadata, and the plain form

    {"party.jpg": [face, face], "me.png": face}

where a face is 68 or 5 points [x, y], or an object with these as "landmarks" and maybe a "box".
Points count in the upright picture, turned as its EXIF tag says.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stylecli.data.alignment.detection import Detection
from stylecli.data.alignment.found_faces import FoundFaces, read_found
from stylecli.data.alignment.geometry import check_landmarks
from stylecli.data.alignment.photographs import Photograph
from stylecli.errors import DataError, UsageError
from stylecli.files import parse_json

_POINTS_KEYS = ("landmarks", "face_landmarks", "points")
_NUMBER_BEHIND = re.compile(r"#\d+$")
_EXPECTED = 'expected {"photo.jpg": [[x, y], ... 68 or 5 points]}, FFHQ\'s JSON, or faces.jsonl'


def read_landmarks(path: Path) -> dict[str, tuple[Detection, ...]]:
    """Return the faces of each photograph by the name the file gives it.

    Raises DataError naming the entry that cannot be understood.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"the landmarks {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"the landmarks {path} are not UTF-8 text: {_EXPECTED}") from None
    if text.startswith('{"journal"'):  # ours, and a death may have torn a line
        return {found.photo: found.faces for found in read_found(path) if not found.cause}
    faces: dict[str, list[Detection]] = defaultdict(list)
    for name, value in _entries(_document(text, path), path):
        try:
            faces[name] += _faces(value)
        except (DataError, UsageError, TypeError, ValueError, LookupError) as error:
            raise DataError(f"the landmarks of {name!r} in {path}: {error}") from None
    if not faces:
        raise DataError(f"{path} holds no landmarks: {_EXPECTED}")
    return {name: tuple(found) for name, found in faces.items()}


def given_faces(
    photos: Sequence[Photograph], landmarks: dict[str, tuple[Detection, ...]], path: Path
) -> tuple[list[FoundFaces], list[str]]:
    """Return what a file of landmarks says of each photograph, and the entries that fit none.

    A photograph is found by its path below its folder, else by its file name where only one
    photograph and one entry have it.
    """
    by_file: dict[str, set[str]] = defaultdict(set)
    photos_by_file: dict[str, int] = defaultdict(int)
    for name in landmarks:
        by_file[_file_name(name)].add(name)
    for photo in photos:
        photos_by_file[_file_name(photo.name)] += 1
    used: set[str] = set()
    found = []
    for photo in photos:
        entry = photo.name
        if entry not in landmarks:
            alike = by_file.get(_file_name(entry), set())
            if len(alike) == 1 and photos_by_file[_file_name(entry)] == 1:
                (entry,) = alike
        if entry in landmarks:
            used.add(entry)
            found.append(FoundFaces(photo.name, photo.stamp, faces=landmarks[entry]))
        else:
            cause = f"has no landmarks in {path.name}"
            found.append(FoundFaces(photo.name, photo.stamp, cause=cause))
    return found, [name for name in landmarks if name not in used]


def _document(text: str, path: Path) -> Any:
    """Parse a JSON document, or JSON lines as the list of their values."""
    try:
        return parse_json(text, path, of=object)
    except DataError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise DataError(f"{error}: {_EXPECTED}") from None
    return [
        parse_json(line, f"line {number} of {path}", of=object)
        for number, line in enumerate(lines, 1)
    ]


def _entries(document: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (name of the photograph, its faces as the file has them)."""
    if isinstance(document, dict) and "photo" not in document:
        for name, value in document.items():
            wild = value.get("in_the_wild") if isinstance(value, dict) else None
            if isinstance(wild, dict):
                yield str(wild.get("file_path") or name), wild
            else:
                yield name, value
        return
    for record in document if isinstance(document, list) else [document]:
        if not isinstance(record, dict):
            raise DataError(f"{path} holds {str(record)[:40]!r}: {_EXPECTED}")
        name = record.get("photo") or record.get("name")
        if "faces" not in record and record.get("name"):  # ours: the path, with #2 behind
            name = _NUMBER_BEHIND.sub("", str(record["name"]))
        if not name:
            raise DataError(f"{path} holds a line without the name of a photo: {_EXPECTED}")
        yield str(name), record.get("faces", record)


def _faces(value: Any) -> list[Detection]:
    if isinstance(value, dict):
        return [_face(value)]
    if not isinstance(value, list):
        raise DataError(f"{str(value)[:40]!r} is no list of points")
    if _is_point_list(value):
        return [_face({"landmarks": value})]
    return [_face(each if isinstance(each, dict) else {"landmarks": each}) for each in value]


def _is_point_list(value: list[Any]) -> bool:
    first = value[0] if value else None
    return isinstance(first, list) and len(first) == 2 and not isinstance(first[0], list)


def _face(value: dict[str, Any]) -> Detection:
    key = next((key for key in _POINTS_KEYS if key in value), None)
    if key is None:
        raise DataError(f"an object has no {' or '.join(_POINTS_KEYS)}")
    points = check_landmarks(value[key])
    box = value.get("box") or value.get("face_rect") or [*points.min(0), *points.max(0)]
    x0, y0, x1, y1 = (float(number) for number in box)
    if not np.isfinite([x0, y0, x1, y1]).all():
        raise DataError(f"the box {box} is none")
    return Detection(
        (x0, y0, x1, y1),
        tuple((float(x), float(y)) for x, y in points),
        float(value.get("score") or 0),
    )


def _file_name(name: str) -> str:
    """Return the last part of a path; composed and decomposed accents are the same."""
    return unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])

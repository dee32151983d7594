"""Anyone's photographs: list them, search each for faces, choose which faces are wanted.

What a search finds is written at once to ``detections.jsonl``, so the same call continues after
it was stopped, and another choice of faces needs no new search. Its first line says how was
searched; then follows a line for each photograph, written when it is done. A line that a death has
cut short is left out, and its photograph is searched again.

Landmarks that somebody has found already take the place of a search. Taken are our own
``faces.jsonl`` and ``detections.jsonl``, FFHQ's metadata, and the plain form

    {"party.jpg": [face, face], "me.png": face}

where a face is 68 or 5 points [x, y], or an object with these as "landmarks" and maybe a "box".
Points count in the upright picture, turned as its EXIF tag says.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from PIL import ExifTags, Image

from stylecli.data.alignment.aligned_folder import AUTHOR, LICENCE, SETTINGS_FILE, is_aligned_folder
from stylecli.data.alignment.detection import Detection, search_faces
from stylecli.data.alignment.detectors import load_detector
from stylecli.data.alignment.geometry import (
    Face,
    check_landmarks,
    decode_photo,
    face_square,
    fitting_workers,
)
from stylecli.data.format import DATA_FILE
from stylecli.data.pictures import INSTALL_HEIF, name_cause, open_picture, quiet, read_exif
from stylecli.data.preparation import Skipped
from stylecli.data.sources.base import HEIF_SUFFIXES
from stylecli.data.sources.folders import (
    describe_generated,
    describe_left_out,
    is_foreign,
    is_hidden,
    is_picture,
    split_generated,
    start_of,
    suffix_of,
)
from stylecli.data.workers import ordered_map
from stylecli.errors import DataError, UsageError, plural
from stylecli.files import parse_json, parse_row, row_line
from stylecli.progress import Progress, silent

FOUND_FILE = "detections.jsonl"
VERSION = 1  # of the journal and of the search: another one starts the search over

BYTES_EACH = 800 << 20  # of memory: a photograph of 24 megapixels in a few copies, and the models
PHOTOS_EACH = 4  # fewer are not worth another process, which loads the models again

_POINTS_KEYS = ("landmarks", "face_landmarks", "points")
_NUMBER_BEHIND = re.compile(r"#\d+$")
_EXPECTED = 'expected {"photo.jpg": [[x, y], ... 68 or 5 points]}, FFHQ\'s JSON, or faces.jsonl'


@dataclass(frozen=True)
class FoundFaces:
    """The faces of one photograph, in pixels of the upright picture, or why it has none."""

    photo: str  # its name below its folder
    stamp: tuple[int, int]  # size in bytes, date in ns
    size: tuple[int, int] | None = None  # width, height of the upright picture
    faces: tuple[Detection, ...] = ()
    credits: dict[str, str] = field(default_factory=dict)  # of its EXIF, by aligned_folder.py
    cause: str = ""  # why it could not be searched


class Journal:
    """The journal of a folder; use ``with``, or close it."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Read what earlier runs found with the same settings; start over with others.

        Raises DataError when the folder cannot be written.
        """
        self.path = folder / FOUND_FILE
        header = {"journal": VERSION, **settings}
        self.entries: dict[str, FoundFaces] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = self.path.read_bytes().split(b"\n") if self.path.exists() else [b""]
            if parse_row(lines[0]) == parse_row(row_line(header)):
                for line in lines[1:]:
                    if (entry := _entry(parse_row(line))) is not None:
                        self.entries[entry.photo] = entry
                self._file: BinaryIO = open(self.path, "ab")
                if lines[-1]:  # a torn line must not swallow the next
                    self._file.write(b"\n")
            else:
                self._file = open(self.path, "wb")
                self._write(header)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}") from None

    def add(self, found: FoundFaces) -> None:
        """Append what was found; it is on its way to the disk when this returns."""
        self.entries[found.photo] = found
        try:
            self._write(asdict(found))
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(row_line(record))
        self._file.flush()


def read_found(path: Path) -> Iterator[FoundFaces]:
    """Yield the photographs of a journal, the newest line of each last."""
    with open(path, "rb") as file:
        for line in file:
            if (entry := _entry(parse_row(line))) is not None:
                yield entry


def _entry(record: Any) -> FoundFaces | None:
    """Return a line's photograph; None for the header and for what is none."""
    try:
        size = record["size"]
        return FoundFaces(
            photo=str(record["photo"]),
            stamp=(int(record["stamp"][0]), int(record["stamp"][1])),
            size=None if size is None else (int(size[0]), int(size[1])),
            faces=tuple(_detection(face) for face in record["faces"]),
            credits={str(key): str(value) for key, value in record["credits"].items()},
            cause=str(record["cause"]),
        )
    except (TypeError, LookupError, ValueError, AttributeError):
        return None


def _detection(face: dict[str, Any]) -> Detection:
    x0, y0, x1, y1 = map(float, face["box"])
    landmarks = tuple((float(x), float(y)) for x, y in face["landmarks"])
    return Detection((x0, y0, x1, y1), landmarks, float(face["score"]))


@dataclass(frozen=True)
class Photograph:
    """A file that may hold faces; ``name`` is its path below its folder, fit for JSON."""

    path: Path
    name: str

    @property
    def stamp(self) -> tuple[int, int]:
        """Size in bytes and date: another stamp is another photograph."""
        try:
            stat = os.stat(self.path)
        except OSError:
            return -1, -1  # it is skipped with its cause when it is opened
        return stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True)
class Search:
    """Search one photograph; picklable, so that worker processes can do it."""

    detector: str  # dlib or mtcnn
    min_crop: float  # px: side of the smallest crop that is wanted

    def __call__(self, photo: Photograph) -> FoundFaces:
        """Return the faces of a photograph, or why there are none. Never raises for a picture."""
        stamp = photo.stamp
        if is_foreign(photo.name):
            cause = (
                f"is of a kind that stylecli does not read ({photo.path.suffix}): convert it "
                f"to JPEG"
            )
            if suffix_of(photo.name) in HEIF_SUFFIXES:
                cause = f"is HEIC: run {INSTALL_HEIF}, or convert it to JPEG"
            return FoundFaces(photo.name, stamp, cause=cause)
        try:
            with open_picture(photo.path) as picture, quiet():
                credited = _credits(picture)
                image = decode_photo(picture, upright=True)
        except Exception as error:  # decoders raise anything on damaged files
            return FoundFaces(photo.name, stamp, cause=name_cause(error))
        faces = search_faces(load_detector(self.detector), image, min_crop=self.min_crop)
        return FoundFaces(photo.name, stamp, image.size, tuple(faces), credited)


@dataclass(frozen=True)
class Choice:
    """Which of the faces that were found are wanted."""

    min_crop: float  # px: smaller squares are left out
    largest: bool = False  # only the largest face of each photograph


def list_photographs(path: Path, notes: list[str] | None = None) -> list[Photograph]:
    """Return the photographs below a folder in order of their paths' bytes, or the one file.

    Hidden files and folders that this program made are passed over. Files that are no pictures by
    their suffix are left out, which ``notes`` receives a sentence about; those that could be
    converted are listed, to be skipped with their cause. Raises DataError when there is none.
    """
    if path.is_file():
        return [Photograph(path, _printable(path.name))]
    if is_aligned_folder(path):
        raise DataError(f"{path} holds aligned faces already: run stylecli pack {path}")
    if not path.is_dir():
        raise DataError(f"{path} does not exist: give a folder of photographs or FFHQ's folder")
    names, others = _names_below(path)
    names.sort(key=os.fsencode)
    generated, names = split_generated(path, names, [])
    foreign = [name for name in names if is_foreign(name)]
    left_out = describe_left_out([*foreign, *others], lambda name: start_of(path / name))
    if generated:
        left_out.append(describe_generated(generated)[0].partition(": ")[0])
    if notes is not None:
        notes += left_out
    if not names:
        more = f" ({left_out[0]})" if left_out else ""
        raise DataError(
            f"{path} holds no photograph{more}: expected files such as .jpg, .png or .webp in it "
            "or in its sub-folders"
        )
    return [Photograph(path / name, _printable(name)) for name in names]


def find_faces(
    photos: Sequence[Photograph],
    folder: Path,
    search: Search,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> list[FoundFaces]:
    """Search all photographs, in order, and keep a journal in ``folder``.

    Photographs that the journal of an earlier call holds, unchanged and searched the same way, are
    not searched again. Raises DataError when the journal cannot be written.
    """
    found: dict[str, FoundFaces] = {}
    with Journal(folder, {"detector": search.detector, "min_crop": search.min_crop}) as journal:
        todo = []
        for photo in photos:
            earlier = journal.entries.get(photo.name)
            if earlier is not None and earlier.stamp == photo.stamp:
                found[photo.name] = earlier
            else:
                todo.append(photo)
        if workers is None:
            workers = fitting_workers(max(1, len(todo) // PHOTOS_EACH), BYTES_EACH)
        faces = sum(len(each.faces) for each in found.values())
        results = ordered_map(search, todo, workers=workers, on_death=_give_up)
        for result in results:
            journal.add(result)
            found[result.photo] = result
            faces += len(result.faces)
            progress(len(found), len(photos), f"{plural(faces, 'face')}")
    return [found[photo.name] for photo in photos]


def choose_faces(
    photos: Sequence[Photograph], found: Sequence[FoundFaces], choice: Choice
) -> tuple[list[Face], list[Skipped]]:
    """Return the wanted faces, photograph by photograph and left to right, and what was left out.

    A face is named as its photograph, with ``#2`` and so on where there are several.
    """
    faces: list[Face] = []
    skipped: list[Skipped] = []
    for photo, result in zip(photos, found, strict=True):
        if result.cause or not result.faces:
            skipped.append(Skipped(photo.name, result.cause or "shows no detectable face"))
            continue
        sides = [_side(face.landmarks) for face in result.faces]
        for place, (face, side) in enumerate(zip(result.faces, sides, strict=True)):
            name = photo.name if len(sides) == 1 else f"{photo.name}#{place + 1}"
            if choice.largest and place != sides.index(max(sides)):
                skipped.append(Skipped(name, "is not the largest face of its photograph"))
            elif side < choice.min_crop:
                cause = f"is too small: its square has {side:.0f} px and needs {choice.min_crop:g}"
                skipped.append(Skipped(name, cause))
            else:
                faces.append(
                    Face(photo.path, name, face.landmarks, face.box, result.credits, upright=True)
                )
    return faces, skipped


def _credits(picture: Image.Image) -> dict[str, str]:
    """Return author and licence as the photograph's EXIF has them."""
    exif = read_exif(picture)
    known = {AUTHOR: exif.get(ExifTags.Base.Artist), LICENCE: exif.get(ExifTags.Base.Copyright)}
    cleaned = {
        key: " ".join(str(value or "").replace("\0", " ").split()) for key, value in known.items()
    }
    return {key: value[:500] for key, value in cleaned.items() if value}


def _side(landmarks: Sequence[tuple[float, float]]) -> float:
    """Return the side of FFHQ's square around a face, in pixels; 0 where there is none."""
    try:
        return face_square(landmarks).side
    except (DataError, UsageError):
        return 0.0


def _give_up(photo: Photograph, cause: str) -> FoundFaces:
    """Return what stands for a photograph whose process ended."""
    return FoundFaces(photo.name, photo.stamp, cause=f"ended its process: {cause}")


def _printable(name: str) -> str:
    """Make a file name that is not UTF-8 fit for JSON; different names stay different."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _names_below(path: Path) -> tuple[list[str], list[str]]:
    """Return (photographs, other files) that are not hidden, in any order."""
    names: list[str] = []
    others: list[str] = []
    for folder, folders, files in os.walk(path):
        if not {FOUND_FILE, SETTINGS_FILE, DATA_FILE}.isdisjoint(files):
            folders.clear()  # ours: aligned faces, a dataset
            continue
        folders[:] = [name for name in folders if not is_hidden(name)]
        below = os.path.relpath(folder, path).replace(os.sep, "/")
        prefix = "" if below == "." else below + "/"
        for name in files:
            if not is_hidden(name):
                is_photo = is_picture(name) or is_foreign(name)
                (names if is_photo else others).append(prefix + name)
    return names, others


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
        raise DataError(f"{str(value)[:40]!r} is not a list of points")
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
        raise DataError(f"the box {box} is not a rectangle")
    return Detection(
        (x0, y0, x1, y1),
        tuple((float(x), float(y)) for x, y in points),
        float(value.get("score") or 0),
    )


def _file_name(name: str) -> str:
    """Return the last part of a path; composed and decomposed accents are the same."""
    return unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])

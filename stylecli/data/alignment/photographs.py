"""Anyone's photographs: list them, search each for faces, choose which faces are wanted.

What a search found is written to a journal at once (journal of detections, ``found_faces.py``), so
that the same call goes on after it was stopped, and another choice of faces needs no new search.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

from stylecli.data.alignment.aligned_folder import SETTINGS_FILE, is_aligned_folder
from stylecli.data.alignment.credits import AUTHOR, LICENCE
from stylecli.data.alignment.cropping import Face, decode_photo
from stylecli.data.alignment.detectors import load_detector
from stylecli.data.alignment.found_faces import FOUND_FILE, FoundFaces, Journal
from stylecli.data.alignment.geometry import face_square
from stylecli.data.alignment.searching import search_faces
from stylecli.data.alignment.worker_memory import fitting_workers
from stylecli.data.decoding import name_cause, open_picture, quiet, read_exif
from stylecli.data.layout import DATA_FILE
from stylecli.data.preparation import Skipped
from stylecli.data.sources.folders import (
    FOREIGN,
    describe_left_out,
    is_hidden,
    is_picture,
    start_of,
    suffix_of,
)
from stylecli.data.workers import ordered_map
from stylecli.errors import DataError, UsageError
from stylecli.progress import Progress, silent

BYTES_EACH = 800 << 20  # of memory: a photograph of 24 megapixels in a few copies, and the models
PHOTOS_EACH = 4  # fewer are not worth another process, which loads the models anew


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
        if suffix_of(photo.name) in FOREIGN:
            cause = f"is of a kind that is not read ({photo.path.suffix}): convert it to JPEG"
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
    foreign = [name for name in names if suffix_of(name) in FOREIGN]
    left_out = describe_left_out([*foreign, *others], lambda name: start_of(path / name))
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
            progress(len(found), len(photos), f"{faces} faces")
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
            skipped.append(Skipped(photo.name, result.cause or "shows no face that was found"))
            continue
        sides = [_side(face.landmarks) for face in result.faces]
        for place, (face, side) in enumerate(zip(result.faces, sides, strict=True)):
            name = photo.name if len(sides) == 1 else f"{photo.name}#{place + 1}"
            if choice.largest and place != sides.index(max(sides)):
                skipped.append(Skipped(name, "is not the largest face of its photograph"))
            elif side < choice.min_crop:
                cause = (
                    f"is too small: its square has {side:.0f} px, wanted are {choice.min_crop:g}"
                )
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
                is_photo = is_picture(name) or suffix_of(name) in FOREIGN
                (names if is_photo else others).append(prefix + name)
    return names, others

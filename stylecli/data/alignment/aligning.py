"""Lists of faces: as a source that aligns each when it is opened, as a folder of pictures."""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from stylecli import files
from stylecli.data.alignment.aligned_folder import (
    SETTINGS_FILE,
    THUMBNAIL_SIZE,
    Records,
    images_folder,
    picture_path,
    png_info,
    read_settings,
    thumbnails_folder,
)
from stylecli.data.alignment.geometry import (
    OUTPUT_SIZE,
    AlignSettings,
    Face,
    bytes_needed,
    face_quad,
    fitting_workers,
)
from stylecli.data.preparation import Skipped
from stylecli.data.workers import ordered_map
from stylecli.errors import DataError, UsageError
from stylecli.images import PNG_EFFORT
from stylecli.progress import Progress, silent


@dataclass(frozen=True)
class Task:
    """What is needed to make one picture; ``earlier`` is (recipe, md5) of the one there."""

    face: Face
    number: int
    folder: Path
    settings: AlignSettings
    thumbnails: bool
    earlier: tuple[str, str] | None

    @property
    def name(self) -> str:
        """The face's name, for the message when a worker dies of it."""
        return self.face.name

    @property
    def image(self) -> Path:
        """Where the picture goes."""
        return self.folder / images_folder(self.settings.size) / picture_path(self.number)

    @property
    def thumbnail(self) -> Path:
        """Where its thumbnail goes."""
        return self.folder / thumbnails_folder() / picture_path(self.number)


def make_picture(task: Task) -> dict[str, Any] | Skipped | None:
    """Make one picture and return its record; None when the one that is there is right.

    A face that cannot be aligned is returned as ``Skipped``. Raises DataError when the folder
    cannot be written.
    """
    recipe = task.settings.recipe(task.face)
    if task.earlier is not None and task.earlier[0] == recipe and _is_intact(task):
        return None
    try:
        picture = task.settings.align(task.face)
    except DataError as error:
        return Skipped(task.face.name, str(error))
    content = _to_png(picture, task.face.metadata)
    _write(task.image, content)
    if task.thumbnails:
        _write_thumbnail(task, picture)
    face = task.face
    points = [[float(x), float(y)] for x, y in face.landmarks]
    quad = face.quad or face_quad(points, rotate=task.settings.rotate)
    return {
        "number": task.number,
        "name": face.name,
        "photo": face.photo.name,
        "size": picture.width,
        "file_size": len(content),
        "file_md5": _md5(content),
        "pixel_md5": _md5(picture.tobytes()),
        "landmarks": points,
        "quad": [[float(x), float(y)] for x, y in quad],
        "metadata": face.metadata,
        "recipe": recipe,
    }


def _is_intact(task: Task) -> bool:
    """Tell whether the picture's file is as recorded; make its thumbnail if that is gone."""
    try:
        content = task.image.read_bytes()
    except OSError:
        return False
    if task.earlier is None or _md5(content) != task.earlier[1]:
        return False
    if task.thumbnails and not task.thumbnail.is_file():
        with Image.open(io.BytesIO(content)) as picture:
            _write_thumbnail(task, picture)
    return True


def _write_thumbnail(task: Task, picture: Image.Image) -> None:
    small = picture.resize((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.LANCZOS)
    _write(task.thumbnail, _to_png(small, task.face.metadata))


def _to_png(picture: Image.Image, metadata: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=png_info(metadata), **PNG_EFFORT)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    try:
        files.write_bytes(path, content)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror}; run the same command to continue "
            "from here"
        ) from None


def give_up(task: Task, cause: str) -> Skipped:
    """Return what stands for a picture whose process ended."""
    return Skipped(task.face.name, f"ended its process: {cause}")


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class FaceItem:
    """A face as a picture of a source: aligned when it is opened."""

    face: Face
    settings: AlignSettings
    label: None = None

    @property
    def name(self) -> str:
        """The face's name."""
        return self.face.name

    @property
    def metadata(self) -> dict[str, Any]:
        """What is known of the photograph, and its name."""
        return {"source": self.face.name, **self.face.metadata}

    def open(self) -> Image.Image:
        """Align the face. Raises DataError with the cause."""
        return self.settings.align(self.face)


class AlignedFaces:
    """A source of faces, each cut out of its photograph when its item is opened."""

    class_names: list[str] | None = None

    def __init__(
        self,
        faces: Sequence[Face],
        size: int = OUTPUT_SIZE,
        *,
        transform_size: int | None = None,
        twice: bool = False,
        padding: bool = True,
        rotate: bool = True,
        name: str = "faces",
        notes: Sequence[str] = (),
    ) -> None:
        """Take the faces; raise UsageError for sizes that are none, DataError for no faces."""
        self.settings = AlignSettings(size, transform_size, twice, padding, rotate)
        if not faces:
            raise DataError("there is no face to align")
        self.name = name
        self.notes = list(notes)
        self._faces = faces

    def fingerprint(self) -> str:
        """Return a digest of photographs' names and sizes, landmarks and settings."""
        digest = hashlib.sha256()
        for face in self._faces:
            digest.update(os.fsencode(face.name) + b"\0" + self.settings.recipe(face).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._faces)

    def __getitem__(self, index: int) -> FaceItem:
        return FaceItem(self._faces[index], self.settings)


@dataclass(frozen=True)
class AlignReport:
    """What ``write_aligned`` did."""

    folder: Path
    written: int
    kept: int  # pictures of an earlier run that are as they should be
    removed: int  # pictures of an earlier run whose faces are no longer asked for
    skipped: list[Skipped]

    @property
    def count(self) -> int:
        """How many pictures the folder holds now."""
        return self.written + self.kept


def write_aligned(
    faces: Sequence[Face],
    folder: Path | str,
    size: int = OUTPUT_SIZE,
    *,
    transform_size: int | None = None,
    twice: bool = False,
    padding: bool = True,
    rotate: bool = True,
    thumbnails: bool = True,
    source: str = "",
    force: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> AlignReport:
    """Align all faces into a folder of PNG files in FFHQ's layout (see aligned_folder.py).

    Stopped at any moment, the same call continues: pictures whose face, settings and MD5 are as
    recorded are kept. Pictures of an earlier run whose faces are not in the list any more are
    removed. Faces that cannot be aligned are skipped and listed. ``source`` names where the faces
    come from; a folder of another source or other settings is refused unless ``force``. ``workers``
    None takes as many processes as CPUs and memory allow. Raises DataError when there is no face,
    when none can be used, or when the folder cannot be written.
    """
    folder = Path(folder)
    settings = AlignSettings(size, transform_size, twice, padding, rotate)
    numbers = _numbers(faces)
    claim_folder(folder, settings, source, force=force)
    if workers is None:
        workers = fitting_workers(len(faces), max(bytes_needed(face, settings) for face in faces))
    done: list[int] = []
    skipped: list[Skipped] = []
    written = 0
    with Records(folder) as records:
        tasks = _Tasks(faces, numbers, folder, settings, thumbnails, records)
        results = ordered_map(make_picture, tasks, workers=workers, on_death=give_up)
        for position, result in enumerate(results):
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                done.append(numbers[position])
                if result is not None:
                    records.add(result)
                    written += 1
            note = f"{len(skipped)} skipped" if skipped else ""
            progress(position + 1, len(faces), note)
        if not done:
            raise DataError(
                f"no usable face among {len(faces):,}: {skipped[0].name} {skipped[0].cause}"
            )
        stale = records.entries.keys() - set(done)
        records.finish(sorted(done))
    _sweep(folder, settings, stale)
    return AlignReport(folder, written, len(done) - written, len(stale), skipped)


@dataclass(frozen=True)
class _Tasks:
    """The tasks of all faces, made as they are taken."""

    faces: Sequence[Face]
    numbers: Sequence[int]
    folder: Path
    settings: AlignSettings
    thumbnails: bool
    records: Records = field(repr=False)

    def __len__(self) -> int:
        return len(self.faces)

    def __iter__(self) -> Iterator[Task]:
        for face, number in zip(self.faces, self.numbers, strict=True):
            entry = self.records.entries.get(number)
            earlier = (entry.recipe, entry.file_md5) if entry else None
            yield Task(face, number, self.folder, self.settings, self.thumbnails, earlier)


def _sweep(folder: Path, settings: AlignSettings, stale: Iterable[int]) -> None:
    """Remove pictures that are no longer asked for, and what processes left that were killed."""
    kinds = (images_folder(settings.size), thumbnails_folder())
    for torn in (folder, *(path for kind in kinds for path in (folder / kind).glob("*/"))):
        files.sweep(torn)
    old = [folder / kind / picture_path(number) for kind in kinds for number in stale]
    for path in old:
        path.unlink(missing_ok=True)


def _numbers(faces: Sequence[Face]) -> list[int]:
    """Return every face's number. Raises DataError for no faces and for numbers used twice."""
    if not faces:
        raise DataError("there is no face to align")
    numbers = [place if face.number is None else face.number for place, face in enumerate(faces)]
    if len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise UsageError("two faces have the same number, or one a negative number")
    return numbers


def claim_folder(folder: Path, settings: AlignSettings, source: str, *, force: bool) -> None:
    """Write down whose folder it is; raise DataError when it is another's."""
    described = {
        "size": settings.size,
        "transform_size": settings.sampling,
        "padding": settings.padding,
        "rotate": settings.rotate,
        "source": source,
    }
    before = read_settings(folder)
    if before is None and not force and (folder / images_folder(settings.size)).exists():
        raise DataError(
            f"{folder / images_folder(settings.size)} was not made by stylecli, so --force does "
            f"not replace it: give another --out"
        )
    if before and not force:
        differing = [key for key, value in described.items() if before.get(key) != value]
        if differing:
            raise DataError(
                f"{folder} holds faces made with another {' and '.join(differing)}: give another "
                f"--out, or --force to replace them"
            )
    try:
        files.write_json(folder / SETTINGS_FILE, described)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror}") from None

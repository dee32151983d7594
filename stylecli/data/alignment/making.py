"""Make one aligned picture: the file, its thumbnail, its record. Runs in worker processes."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stylecli import files
from stylecli.data.alignment.aligned_folder import (
    THUMBNAIL_SIZE,
    images_folder,
    picture_path,
    thumbnails_folder,
)
from stylecli.data.alignment.credits import png_info
from stylecli.data.alignment.cropping import AlignSettings, Face
from stylecli.data.alignment.geometry import face_quad
from stylecli.data.preparation import Skipped
from stylecli.errors import DataError


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
    picture.save(buffer, "PNG", pnginfo=png_info(metadata))
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    try:
        files.write_bytes(path, content)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror}; the same command goes on from here"
        ) from None


def give_up(task: Task, cause: str) -> Skipped:
    """Return what stands for a picture whose process ended."""
    return Skipped(task.face.name, f"ended its process: {cause}")


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()

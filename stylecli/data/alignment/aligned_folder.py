"""A folder of aligned faces in FFHQ's layout, and the source that packs it with its metadata.

images1024x1024/00000/00042.png    the pictures, a thousand to a folder
thumbnails128x128/00000/00042.png
faces.jsonl                        a line for each: where from, whose, landmarks, digests
alignment.json                     the settings all were made with
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from stylecli.data.alignment.credits import licence_notes
from stylecli.data.alignment.records import PART_FILE, RECORDS_FILE, read_records
from stylecli.data.decoding import open_picture
from stylecli.errors import DataError
from stylecli.files import read_json

SETTINGS_FILE = "alignment.json"
THUMBNAIL_SIZE = 128  # px
PER_FOLDER = 1000


def picture_path(number: int) -> str:
    """Return where FFHQ's layout puts a picture: ``42000/42017.png`` for 42017."""
    return f"{number - number % PER_FOLDER:05d}/{number:05d}.png"


def images_folder(size: int) -> str:
    """Return the name of the folder of aligned pictures of ``size`` pixels."""
    return f"images{size}x{size}"


def thumbnails_folder() -> str:
    """Return the name of the folder of thumbnails."""
    return f"thumbnails{THUMBNAIL_SIZE}x{THUMBNAIL_SIZE}"


@dataclass(frozen=True)
class AlignedPicture:
    """One picture file and what is known of it."""

    path: Path
    name: str  # below its folder, with forward slashes
    metadata: dict[str, Any] = field(default_factory=dict)
    digest: str = ""  # of its content, as far as it is known without reading it
    label: None = None

    def open(self) -> Image.Image:
        """Open the file; only its header is read. Raises DataError with the cause."""
        return open_picture(self.path)


class AlignedPictures:
    """A source of pictures that are aligned already, each with its metadata; no classes."""

    class_names: list[str] | None = None

    def __init__(
        self, name: str, pictures: Sequence[AlignedPicture], notes: Sequence[str] = ()
    ) -> None:
        """Take the pictures; raise DataError when there are none."""
        if not pictures:
            raise DataError(f"{name} holds no aligned picture")
        self.name = name
        self._pictures = pictures
        self.remarks = list(notes)  # what was found on the way

    @property
    def notes(self) -> list[str]:
        """What was found on the way, and sentences about the licences."""
        return self.remarks + licence_notes(picture.metadata for picture in self._pictures)

    def fingerprint(self) -> str:
        """Return a digest over every picture's name and known digest, else its size in bytes."""
        digest = hashlib.sha256()
        for picture in self._pictures:
            known = picture.digest or str(_file_size(picture.path))
            digest.update(f"{picture.name}\0{known}\0".encode("utf-8", "replace"))
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> AlignedPicture:
        return self._pictures[index]


class AlignedFolder(AlignedPictures):
    """The source over a folder that ``write_aligned`` has finished.

    Raises DataError when it is unfinished or no such folder.
    """

    def __init__(self, folder: Path | str) -> None:
        self.path = Path(folder)
        if not (self.path / RECORDS_FILE).is_file():
            if (self.path / PART_FILE).is_file():
                raise DataError(
                    f"{folder} is not finished: run the same stylecli prepare-ffhq again"
                )
            raise DataError(f"{folder} is no folder of aligned faces: it has no {RECORDS_FILE}")
        pictures = [
            _picture(self.path, record) for _, record in read_records(self.path / RECORDS_FILE)
        ]
        super().__init__(self.path.resolve().name, pictures)


def is_aligned_folder(path: Path) -> bool:
    """Tell whether a folder is one of aligned faces, finished or not."""
    return (path / RECORDS_FILE).is_file() or (path / PART_FILE).is_file()


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return what a folder's pictures were made with; None for a folder that is none of ours."""
    path = folder / SETTINGS_FILE
    try:
        described: dict[str, Any] = read_json(path)
    except FileNotFoundError:
        return None
    return described


def _picture(folder: Path, record: dict[str, Any]) -> AlignedPicture:
    size, metadata = record.get("size"), record.get("metadata")
    if not isinstance(size, int) or not 0 < size < 1 << 20:
        raise DataError(f"{folder / RECORDS_FILE} holds a picture without a size: make it again")
    name = f"{images_folder(size)}/{picture_path(record['number'])}"
    known = metadata if isinstance(metadata, dict) else {}
    return AlignedPicture(
        folder / name,
        name,
        {"source": record.get("name", name), **known},
        str(record.get("pixel_md5", "")),
    )


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # it is skipped with its cause when it is opened

"""A folder of aligned faces in FFHQ's layout, and the source that packs it with its metadata.

    images1024x1024/00000/00042.png    the pictures, a thousand to a folder
    thumbnails128x128/00000/00042.png
    faces.jsonl                        a line for each: where from, whose, landmarks, digests
    alignment.json                     the settings all were made with

While pictures are written, their lines are appended to ``faces.jsonl.part``; at the end the lines
of all pictures are put in order under the final name. A line that a death has cut short is left
out, and its picture is made again. Authors and licences are kept under the keys below, in
``faces.jsonl`` as in a dataset's metadata.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stylecli.data.pictures import open_picture
from stylecli.errors import DataError, plural
from stylecli.files import parse_row, read_json, replacing, row_line

# What is known of a picture, in a dataset's metadata and in faces.jsonl.
AUTHOR, LICENCE, LICENCE_URL = "author", "licence", "licence_url"
TITLE, SOURCE_URL, CATEGORY = "title", "source_url", "category"

_PNG_KEYWORDS = {AUTHOR: "Author", LICENCE: "Copyright", SOURCE_URL: "Source", TITLE: "Title"}

RECORDS_FILE = "faces.jsonl"
PART_FILE = RECORDS_FILE + ".part"
MAX_LINE = 1 << 20  # bytes; a record is some 4 kB

SETTINGS_FILE = "alignment.json"
THUMBNAIL_SIZE = 128  # px
PER_FOLDER = 1000


def is_non_commercial(metadata: Mapping[str, Any]) -> bool:
    """Tell whether a picture's licence is one of Creative Commons' non-commercial ones."""
    name = str(metadata.get(LICENCE, "")).lower().replace("-", "").replace(" ", "")
    return "noncommercial" in name or "bync" in name or "/by-nc" in _url(metadata)


def licence_notes(pictures: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what a user must know of the licences: none, one or two sentences."""
    licences: Counter[str] = Counter()
    total = restricted = attributed = 0
    for metadata in pictures:
        total += 1
        restricted += is_non_commercial(metadata)
        attributed += "/by" in _url(metadata) or " BY" in str(metadata.get(LICENCE, ""))
        licences[str(metadata.get(LICENCE) or "not known")] += 1
    if not total or set(licences) == {"not known"}:
        return []
    counted = ", ".join(f"{name} ({count:,})" for name, count in licences.most_common(6))
    notes = [f"licences of {plural(total, 'picture')}: {counted}"]
    if restricted:
        notes.append(
            f"{restricted:,} for non-commercial use only; {max(attributed, restricted):,} with "
            f"credit to the author only"
        )
    return notes


def png_info(metadata: Mapping[str, Any]) -> PngInfo:
    """Return PNG text that names author, licence and origin, so that a file alone says them."""
    info = PngInfo()
    for key, keyword in _PNG_KEYWORDS.items():
        words = [str(metadata[key])] if metadata.get(key) else []
        if key == LICENCE and metadata.get(LICENCE_URL):
            words.append(str(metadata[LICENCE_URL]))
        if words:
            info.add_itxt(keyword, " ".join(words).encode("utf-8", "replace").decode())
    return info


def _url(metadata: Mapping[str, Any]) -> str:
    return str(metadata.get(LICENCE_URL, "")).lower()


@dataclass(frozen=True)
class Entry:
    """Where a record stands, and what tells whether its picture can be kept."""

    path: Path
    offset: int
    recipe: str
    file_md5: str


class Records:
    """The records of a folder while it is being written; close it or use ``with``."""

    def __init__(self, folder: Path) -> None:
        """Read what earlier runs left. Raises DataError when the folder cannot be written."""
        self.folder = folder
        self.entries: dict[int, Entry] = {}
        for name in (RECORDS_FILE, PART_FILE):  # later lines stand for earlier ones
            for offset, record in read_records(folder / name):
                self._note(folder / name, offset, record)
        part = folder / PART_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = open(part, "ab")
            if self._file.tell() and not part.read_bytes().endswith(b"\n"):
                self._file.write(b"\n")  # so that the torn line does not swallow the next
        except OSError as error:
            raise DataError(f"{folder} cannot be written: {error.strerror}") from None

    def add(self, record: dict[str, Any]) -> None:
        """Append a picture's record; it is on its way to the disk when this returns."""
        offset = self._file.tell()
        try:
            self._file.write(row_line(record))
            self._file.flush()
        except OSError as error:
            raise DataError(f"{self.folder} cannot be written: {error.strerror}") from None
        self._note(self.folder / PART_FILE, offset, record)

    def finish(self, numbers: Iterable[int]) -> None:
        """Write the final file with the records of these pictures, in their order."""
        final = self.folder / RECORDS_FILE
        self._file.close()
        try:
            with contextlib.ExitStack() as stack, replacing(final) as temporary:
                sources = {
                    path: stack.enter_context(open(path, "rb"))
                    for path in {entry.path for entry in self.entries.values()}
                }
                out = stack.enter_context(open(temporary, "wb"))
                for number in numbers:
                    entry = self.entries[number]
                    sources[entry.path].seek(entry.offset)
                    out.write(sources[entry.path].readline())
                out.flush()
            (self.folder / PART_FILE).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{final} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Close the file; what was added stays for the next run."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _note(self, path: Path, offset: int, record: dict[str, Any]) -> None:
        self.entries[record["number"]] = Entry(
            path, offset, str(record.get("recipe")), str(record.get("file_md5"))
        )


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (offset, record) for each whole line of a file; nothing when there is no file.

    Lines that are no record of a numbered picture are left out. Raises DataError when the file
    cannot be read.
    """
    try:
        with open(path, "rb") as file:
            offset = 0
            while line := file.readline(MAX_LINE):
                record = _parse(line)
                if record is not None:
                    yield offset, record
                offset += len(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    if (record := parse_row(line)) is None:
        return None
    number = record.get("number")
    return record if isinstance(number, int) and number >= 0 else None


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
            raise DataError(f"{name} holds no aligned picture: run stylecli prepare-ffhq")
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
            raise DataError(f"{folder} is not a folder of aligned faces: it has no {RECORDS_FILE}")
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

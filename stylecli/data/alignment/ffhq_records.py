"""``ffhq-dataset-v2.json``, 268 MB, read record by record, and files compared with what it says.

Only what is needed of a record is kept: its 68 points take 76 MB for 70,000 faces instead of 530.
"""

import codecs
import hashlib
import re
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

from stylecli.data.alignment.aligned_folder import (
    AUTHOR,
    CATEGORY,
    LICENCE,
    LICENCE_URL,
    SOURCE_URL,
    TITLE,
)
from stylecli.data.pictures import name_cause, open_picture, quiet
from stylecli.data.workers import ordered_map
from stylecli.errors import DataError, UsageError, plural
from stylecli.files import JSON_DECODER
from stylecli.progress import Progress, silent

OFFICIAL_MD5 = "425ae20f06a4da1d4dc0f46d40ba5fd6"
OFFICIAL_COUNT = 70_000
CHUNK = 4 << 20  # bytes
MAX_RECORD = 1 << 20  # characters; FFHQ's have some 4,000
MAX_NUMBER = 99_999_999

Kind = Literal["image", "thumbnail", "in_the_wild"]  # as the records call them

_KEY = re.compile(r'[\s,]*"((?:[^"\\]|\\.)*)"\s*:\s*')
_END = re.compile(r"\s*\}")
# our name -> theirs
_CREDITS = {
    AUTHOR: "author",
    LICENCE: "license",
    LICENCE_URL: "license_url",
    SOURCE_URL: "photo_url",
    TITLE: "photo_title",
}
_REPEATED = (LICENCE, LICENCE_URL)  # a few values for all pictures

Level = Literal["none", "size", "file", "pixels"]
LEVELS: tuple[Level, ...] = ("none", "size", "file", "pixels")
_BLOCK = 1 << 20


class Points(Sequence[tuple[float, float]]):
    """Points (x, y) that read like a tuple of pairs and are stored as plain float64."""

    __slots__ = ("_flat",)

    def __init__(self, pairs: Iterable[Iterable[float]]) -> None:
        """Take pairs; raise TypeError or ValueError where they are none."""
        self._flat = array("d")
        for x, y in pairs:
            self._flat.append(x)
            self._flat.append(y)

    def __len__(self) -> int:
        return len(self._flat) // 2

    @overload
    def __getitem__(self, index: int) -> tuple[float, float]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[tuple[float, float], ...]: ...
    def __getitem__(
        self, index: int | slice
    ) -> tuple[float, float] | tuple[tuple[float, float], ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        index = range(len(self))[index]  # negative indices, and IndexError
        return self._flat[2 * index], self._flat[2 * index + 1]

    def __iter__(self) -> Iterator[tuple[float, float]]:
        return zip(self._flat[::2], self._flat[1::2], strict=True)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Points):
            return self._flat == other._flat
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Points({list(self)!r})"


@dataclass(frozen=True, slots=True)
class Published:
    """What the record says of a file; None where it says nothing."""

    file_size: int | None
    file_md5: str | None
    pixel_size: tuple[int, int] | None  # width, height
    pixel_md5: str | None  # of the raw array, uint8 [H, W, 3]


@dataclass(frozen=True, slots=True)
class FfhqRecord:
    """One picture of FFHQ; landmarks and box in pixels of the in-the-wild photograph."""

    number: int
    category: str  # "training" or "validation"
    metadata: dict[str, Any]  # author, licence, ... by the names of aligned_folder.py
    published: Published
    landmarks: Points | None
    box: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class FfhqRecords:
    """All records in order of their numbers, and whether the file is the published one."""

    records: list[FfhqRecord]
    official: bool


def read_ffhq_records(path: Path, kind: Kind, progress: Progress = silent) -> FfhqRecords:
    """Read all records, with what they say of one kind of file.

    Raises DataError when the file is missing or no such metadata.
    """
    digest = hashlib.md5(usedforsecurity=False)
    records: dict[int, FfhqRecord] = {}
    try:
        total = path.stat().st_size
        with open(path, "rb") as file:
            chunks = _chunks(file.read, digest.update, total, progress)
            for key, value in _pairs(chunks, path):
                number = _number(key, path)
                if number in records:
                    raise DataError(f"{path} holds record {number} twice")
                try:
                    records[number] = _record(number, value, kind)
                except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
                    raise DataError(
                        f"record {number} of {path} is not as in FFHQ's metadata: {error!r}"
                    ) from None
            for _ in chunks:  # to the end, for the digest
                pass
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not JSON: it is not UTF-8 text") from None
    if not records:
        raise DataError(f"{path} holds no record of a picture")
    ordered = [records[number] for number in sorted(records)]
    return FfhqRecords(ordered, digest.hexdigest() == OFFICIAL_MD5)


def _chunks(
    read: Callable[[int], bytes],
    update: Callable[[bytes], None],
    total: int,
    progress: Progress,
) -> Iterator[str]:
    """Yield the file's text piece by piece."""
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    done = 0
    while chunk := read(CHUNK):
        update(chunk)
        done += len(chunk)
        progress(done, total, "reading the metadata")
        yield decode(chunk)
    yield decode(b"", final=True)


def _pairs(chunks: Iterator[str], path: Path) -> Iterator[tuple[str, Any]]:
    """Yield key and value of the one object that the text is, holding one value at a time."""
    decode = JSON_DECODER.raw_decode
    text = next(chunks, "").lstrip()
    if not text.startswith("{"):
        raise DataError(f"{path} is not FFHQ's metadata: expected a JSON object of records")
    place = 1
    count = 0
    while True:
        if key := _KEY.match(text, place):
            try:
                value, place = decode(text, key.end())
            except RecursionError:
                raise DataError(f"{path} is not FFHQ's metadata: it is nested deeply") from None
            except ValueError:
                pass  # cut off at the end of the chunk, or wrong
            else:
                yield key.group(1), value
                count += 1
                continue
        elif _END.match(text, place):
            return
        rest = text[place:]
        following = next(chunks, None) if len(rest) <= MAX_RECORD else None
        if following is None:
            raise DataError(
                f"{path} is damaged or cut off after {plural(count, 'record')}: download it again"
            )
        text, place = rest + following, 0


def _number(key: str, path: Path) -> int:
    if not (key.isascii() and key.isdigit() and len(key) <= 9 and int(key) <= MAX_NUMBER):
        raise DataError(
            f"{path} is not FFHQ's metadata: {key[:40]!r} is not the number of a picture"
        )
    return int(key)


def _record(number: int, value: Any, kind: Kind) -> FfhqRecord:
    category = sys.intern(str(value["category"]))
    theirs = value.get("metadata") or {}
    metadata: dict[str, Any] = {
        ours: _text(theirs[name]) for ours, name in _CREDITS.items() if theirs.get(name)
    }
    for name in _REPEATED:
        if name in metadata:
            metadata[name] = sys.intern(metadata[name])
    metadata[CATEGORY] = category
    file = value[kind]
    wild = file if kind == "in_the_wild" else {}
    points, box = wild.get("face_landmarks"), wild.get("face_rect")
    return FfhqRecord(
        number,
        category,
        metadata,
        Published(
            None if file.get("file_size") is None else int(file["file_size"]),
            _digest(file.get("file_md5")),
            None if file.get("pixel_size") is None else _pair(file["pixel_size"]),
            _digest(file.get("pixel_md5")),
        ),
        None if points is None else Points(points),
        None if box is None else _box(box),
    )


def _text(value: Any) -> str:
    """Return a string fit for UTF-8: JSON may hold halves of characters."""
    return str(value).encode("utf-8", "replace").decode()


def _digest(value: Any) -> str | None:
    return None if value is None else str(value).lower()


def _pair(value: Any) -> tuple[int, int]:
    width, height = value
    return int(width), int(height)


def _box(value: Any) -> tuple[float, float, float, float]:
    left, top, right, bottom = map(float, value)
    return left, top, right, bottom


@dataclass(frozen=True)
class Check:
    """A file, what it should be, and how closely to look."""

    path: Path
    name: str
    published: Published
    level: Level


def check_level(level: str) -> Level:
    """Return the level; raise UsageError when there is none of that name."""
    for known in LEVELS:
        if level == known:
            return known
    raise UsageError(f"unknown verification {level!r}: expected one of {', '.join(LEVELS)}")


def verify(
    checks: Sequence[Check], *, workers: int | None = None, progress: Progress = silent
) -> Iterator[str]:
    """Yield for each file what is wrong with it, "" when it is as published."""
    cheap = all(check.level in ("none", "size") for check in checks)
    results = ordered_map(find_fault, checks, workers=1 if cheap else workers, chunk=4)
    for done, fault in enumerate(results, 1):
        yield fault
        progress(done, len(checks), "verifying")


def find_fault(check: Check) -> str:
    """Return what is wrong with a file, in words that follow its name, or "".

    ``size``: its bytes are counted. ``file``: their MD5 is compared too. ``pixels``: it is decoded
    instead, so that a picture packed again without loss passes.
    """
    published = check.published
    try:
        if check.level == "pixels":
            return _pixel_fault(check.path, published)
        if check.level == "none":
            return ""
        size = check.path.stat().st_size
        if published.file_size is not None and size != published.file_size:
            return f"has {size:,} bytes; the published file has {published.file_size:,}"
        if check.level == "file" and published.file_md5 is not None:
            with open(check.path, "rb") as file:
                digest = hashlib.md5(usedforsecurity=False)
                while block := file.read(_BLOCK):
                    digest.update(block)
            if digest.hexdigest() != published.file_md5:
                return f"has MD5 {digest.hexdigest()}; the published file has {published.file_md5}"
    except Exception as error:  # decoders raise anything on damaged files
        return name_cause(error)
    return ""


def _pixel_fault(path: Path, published: Published) -> str:
    with quiet(), open_picture(path) as picture:
        if published.pixel_size is not None and picture.size != published.pixel_size:
            width, height = published.pixel_size
            return (
                f"is {picture.width} x {picture.height} px; the published picture is {width} x "
                f"{height}"
            )
        digest = hashlib.md5(picture.tobytes(), usedforsecurity=False).hexdigest()
    if published.pixel_md5 is not None and digest != published.pixel_md5:
        return f"has different pixels from the published picture: MD5 {digest}"
    return ""

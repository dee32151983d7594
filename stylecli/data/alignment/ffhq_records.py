"""``ffhq-dataset-v2.json``, 268 MB, read record by record: only what is needed is kept."""

import codecs
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stylecli.data.alignment import credits
from stylecli.data.alignment.points import Points
from stylecli.errors import DataError
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
    credits.AUTHOR: "author",
    credits.LICENCE: "license",
    credits.LICENCE_URL: "license_url",
    credits.SOURCE_URL: "photo_url",
    credits.TITLE: "photo_title",
}
_REPEATED = (credits.LICENCE, credits.LICENCE_URL)  # a few values for all pictures


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
    metadata: dict[str, Any]  # author, licence, ... by the names of credits.py
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
                f"{path} is damaged or cut off after {count:,} records: download it again"
            )
        text, place = rest + following, 0


def _number(key: str, path: Path) -> int:
    if not (key.isascii() and key.isdigit() and len(key) <= 9 and int(key) <= MAX_NUMBER):
        raise DataError(f"{path} is not FFHQ's metadata: {key[:40]!r} is no number of a picture")
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
    metadata[credits.CATEGORY] = category
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

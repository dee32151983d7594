"""FFHQ as it is published: its metadata, its folders of pictures, its split and its licences.

    ffhq-dataset-v2.json
    in-the-wild-images/00000/00042.png   the photographs, to be aligned
    images1024x1024/00000/00042.png      or the pictures that are aligned already
    thumbnails128x128/00000/00042.png

Pictures whose people asked that they be removed are left out by lists.

FFHQ-U (Karras et al. 2021) keeps the size of FFHQ's squares, turns none, pads none, and moves each
by a normal deviate of ``random_shift`` of its side until it lies inside its photograph. Which
numbers a face gets depends on all faces before it, so they are drawn for all at once, from sizes
and landmarks alone.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from stylecli.data.alignment.aligned_folder import (
    SOURCE_URL,
    AlignedPicture,
    AlignedPictures,
    picture_path,
)
from stylecli.data.alignment.ffhq_records import (
    OFFICIAL_COUNT,
    Check,
    FfhqRecord,
    FfhqRecords,
    Kind,
    Level,
    check_level,
    read_ffhq_records,
    verify,
)
from stylecli.data.alignment.geometry import (
    Face,
    FaceSquare,
    Float64,
    check_landmarks,
    face_square,
)
from stylecli.data.preparation import Skipped
from stylecli.errors import DataError, UsageError, plural
from stylecli.progress import Progress, silent

SEED = 12345
TRIES = 1000
RANDOM_SHIFT = 0.2  # of the square's side: FFHQ-U's own

Shift = tuple[float, float]


def random_shifts(
    landmarks: Sequence[Sequence[tuple[float, float]]],
    sizes: Sequence[tuple[int, int]],
    *,
    random_shift: float = RANDOM_SHIFT,
    rotate: bool = False,
    retry: bool = True,
) -> list[Shift | None]:
    """Return for each face how far its square moves, in fractions of its side, for ``face_quad``.

    ``sizes`` are the photographs' (width, height). The generator is numpy's RandomState(12345); as
    many pairs as there are faces are drawn and thrown away, then a pair for each try. With
    ``retry`` a face whose square never fits within its photograph in 1000 tries gets None, and so
    does one whose landmarks give no square, for which nothing is drawn.
    """
    if not np.isfinite(random_shift) or random_shift < 0:
        raise UsageError(f"--random-shift {random_shift} is out of range: expected 0 or more")
    stream = _Pairs(SEED)
    stream.skip(len(landmarks))
    shifts: list[Shift | None] = []
    for points, size in zip(landmarks, sizes, strict=True):
        try:
            square = face_square(check_landmarks(points), rotate=rotate)
        except (DataError, UsageError):
            shifts.append(None)
            continue
        if retry:
            shifts.append(_first_inside(square, size, stream, random_shift))
        else:
            shifts.append(_pair(random_shift * stream.peek(1)[0]))
            stream.skip(1)
    return shifts


def shifted(face: Face, shift: Shift, *, rotate: bool = False) -> Face:
    """Return the face with its square moved; see ``random_shifts``."""
    quad = face_square(face.landmarks, rotate=rotate, shift=shift).quad()
    return replace(face, quad=tuple((float(x), float(y)) for x, y in quad))


class _Pairs:
    """A stream of pairs of normal deviates that can be looked at before they are taken."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.RandomState(seed)
        self._ahead: Float64 = np.empty((0, 2))

    def peek(self, count: int) -> Float64:
        """Return the next pairs, [count, 2]."""
        if len(self._ahead) < count:
            drawn = self._generator.normal(0, 1, (max(count, TRIES), 2))
            self._ahead = np.concatenate([self._ahead, drawn])
        return self._ahead[:count]

    def skip(self, count: int) -> None:
        """Take pairs and throw them away."""
        self.peek(count)
        self._ahead = self._ahead[count:]


def _first_inside(
    square: FaceSquare, size: tuple[int, int], stream: _Pairs, random_shift: float
) -> Shift | None:
    """Take pairs up to the first whose square lies inside, at most TRIES.

    A square lies inside when all pixels that it touches are pixels of the photograph.
    """
    corners = square.quad()
    for count in (8, TRIES - 8):  # most fit soon; the rest at once for those that never do
        shifts = random_shift * stream.peek(count)
        moved = corners + square.side * shifts[:, None, :]  # [count, 4, 2]
        low, high = np.floor(moved.min(axis=1)), np.ceil(moved.max(axis=1))
        inside = ((low >= 0) & (high < size)).all(axis=1)
        place = int(inside.argmax())
        if inside[place]:
            stream.skip(place + 1)
            return _pair(shifts[place])
        stream.skip(count)
    return None


def _pair(shift: Float64) -> Shift:
    return float(shift[0]), float(shift[1])


# FFHQ's own names: 00042.png, in-the-wild-images/00000/00042.png, also of copies
_NUMBERED = re.compile(r"(?:(?:.*/)?\d{5}/)?(\d{5,8})\.\w+")
_MAX_ENTRY = 4096  # characters; longer are neither names nor addresses
_SCHEME = re.compile(r"^https?://(www\.)?", re.IGNORECASE)

METADATA_FILE = "ffhq-dataset-v2.json"
Pictures = Literal["in-the-wild-images", "images1024x1024", "thumbnails128x128"]
KINDS: dict[Pictures, Kind] = {
    "in-the-wild-images": "in_the_wild",
    "images1024x1024": "image",
    "thumbnails128x128": "thumbnail",
}
SUFFIXES = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG", ".webp")
SPLITS = ("all", "training", "validation")
MAX_SEARCHED = 1000  # sub-folders looked into for the metadata

_ALIGNED: tuple[Pictures, ...] = ("images1024x1024", "thumbnails128x128")


class Exclusions:
    """What a list names: pictures by number, by file name or by the address of the photograph.

    One entry a line; ``#`` begins a comment, but not within an address. Upper and lower case count
    as the same, and so do addresses with and without ``www`` and a last slash.
    """

    def __init__(self, entries: list[str]) -> None:
        self._entries = {_normal(entry): entry for entry in entries}
        self._numbered = {
            int(match.group(1)): key for key in self._entries if (match := _NUMBERED.fullmatch(key))
        }
        self._used: set[str] = set()

    def excludes(self, *, number: int | None = None, name: str = "", url: str = "") -> bool:
        """Tell whether a picture is named by its number, its name or path, or its address.

        ``number`` is FFHQ's; it is found in the list as such or as any of FFHQ's file names.
        """
        path = _normal(name)
        candidates = [path, path.rpartition("/")[2]]
        if number is not None:
            candidates += [str(number), self._numbered.get(number, "")]
        if url:
            candidates.append(_normal(url))
        found = [candidate for candidate in candidates if candidate in self._entries]
        self._used.update(found)
        return bool(found)

    def unused(self) -> list[str]:
        """Return the entries that named none of the pictures asked about."""
        return [entry for key, entry in self._entries.items() if key not in self._used]

    def __len__(self) -> int:
        return len(self._entries)


def read_exclusions(path: Path | str) -> Exclusions:
    """Read a list from a text file. Raises DataError when it cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"the list {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"the list {path} is not UTF-8 text: give one entry a line") from None
    entries = [re.split(r"(?:^|\s)#", line)[0].strip() for line in text.splitlines()]
    for number, entry in enumerate(entries, 1):
        if len(entry) > _MAX_ENTRY:
            raise DataError(
                f"the list {path} has {len(entry):,} characters in line {number}, "
                f"{entry[:20]}...: expected the number, the name or the address of a picture"
            )
    return Exclusions([entry for entry in entries if entry])


def _normal(entry: str) -> str:
    entry = entry.strip().replace("\\", "/")
    if _SCHEME.match(entry):
        return "//" + _SCHEME.sub("", entry).rstrip("/").lower()
    entry = unicodedata.normalize("NFC", entry).lower()  # macOS writes accents apart
    if entry.isascii() and entry.isdigit():
        return entry.lstrip("0") or "0"
    return entry


@dataclass(frozen=True)
class FfhqLayout:
    """Where FFHQ lies: its metadata and those of its folders that are there."""

    root: Path
    metadata_file: Path
    folders: dict[Pictures, Path]


@dataclass(frozen=True)
class FfhqOptions:
    """Which pictures are taken, and how closely their files are looked at."""

    split: str = "all"  # or training (60,000), validation (10,000); StyleGAN used all
    exclude: Exclusions = field(default_factory=lambda: Exclusions([]))
    verify: Level = "size"  # or none, file, pixels
    workers: int | None = None  # processes for verification

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        check_level(self.verify)
        if self.split not in SPLITS:
            raise UsageError(f"unknown split {self.split!r}: expected one of {', '.join(SPLITS)}")


@dataclass
class FfhqReport:
    """What was taken and what was not."""

    records: int  # in the metadata
    official: bool  # the metadata is the published file, by MD5
    taken: int = 0
    excluded: list[str] = field(default_factory=list)  # names of pictures
    missing: list[str] = field(default_factory=list)  # files that are not there
    failed: list[Skipped] = field(default_factory=list)  # files other than published
    rejected: list[Skipped] = field(default_factory=list)  # no landmarks, or no square that fits
    notes: list[str] = field(default_factory=list)  # sentences for the user


def find_ffhq(root: Path) -> FfhqLayout | None:
    """Return FFHQ's layout in a folder, in a folder just below it, or around a picture folder.

    None unless the metadata and at least one folder of pictures are there.
    """
    for folder in _candidates(root):
        if (folder / METADATA_FILE).is_file():
            folders = {name: folder / name for name in KINDS if (folder / name).is_dir()}
            if folders:
                return FfhqLayout(folder, folder / METADATA_FILE, folders)
    return None


def what_is_missing(root: Path) -> str:
    """Say in one sentence what a folder lacks to be FFHQ, for when ``find_ffhq`` finds nothing."""
    have = [name for name in (METADATA_FILE, *KINDS) if (root / name).exists()]
    wanted = f"{METADATA_FILE} and in-the-wild-images/ (or images1024x1024/)"
    where = "this folder" if root == Path() else str(root)
    if not have:
        return f"FFHQ is not in {where}: put {wanted} there, or give a folder of photographs"
    if METADATA_FILE in have:
        return f"{where} holds {METADATA_FILE} but no pictures: put in-the-wild-images/ beside it"
    return f"{where} holds {have[0]}/ without its metadata: put {METADATA_FILE} beside it"


def ffhq_faces(
    layout: FfhqLayout,
    options: FfhqOptions | None = None,
    *,
    unaligned: bool = False,
    random_shift: float = RANDOM_SHIFT,
    progress: Progress = silent,
) -> tuple[list[Face], FfhqReport]:
    """Return the faces of the in-the-wild photographs, and what was left out.

    Missing, excluded and damaged pictures are listed, not fatal. With ``unaligned`` every face has
    the upright, randomly moved square of FFHQ-U (see above; align these without padding);
    the random numbers count all records, so that what is left out changes no other square.
    Raises DataError when there is no such folder or the metadata cannot be used.
    """
    pictures: Pictures = "in-the-wild-images"
    options = options or FfhqOptions()
    found, report = _read(layout, pictures, progress)
    shifts = _shifts(found.records, random_shift) if unaligned else {}
    if unaligned and len(found.records) != OFFICIAL_COUNT:
        report.notes.append(
            f"the metadata holds {plural(len(found.records), 'record')}, not FFHQ's "
            f"{OFFICIAL_COUNT:,}: the random squares differ from FFHQ-U's"
        )
    faces = []
    for record, path in _select(found.records, layout.folders[pictures], options, report, progress):
        name = f"{pictures}/{picture_path(record.number)}"
        if record.landmarks is None:
            report.rejected.append(Skipped(name, "has no landmarks in the metadata"))
            continue
        face = Face(path, name, record.landmarks, record.box, record.metadata, number=record.number)
        if unaligned:
            shift = shifts[record.number]
            if shift is None:
                report.rejected.append(Skipped(name, "has no random square within the photograph"))
                continue
            face = shifted(face, shift)
        faces.append(face)
    report.taken = len(faces)
    return faces, report


def ffhq_pictures(
    layout: FfhqLayout,
    pictures: Pictures = "images1024x1024",
    options: FfhqOptions | None = None,
    *,
    progress: Progress = silent,
) -> tuple[AlignedPictures, FfhqReport]:
    """Return the pictures that are aligned already as a source with metadata, and what was left
    out. Raises DataError when there is no such folder, no picture, or no usable metadata.
    """
    options = options or FfhqOptions()
    found, report = _read(layout, pictures, progress)
    taken = [
        AlignedPicture(
            path,
            f"{pictures}/{picture_path(record.number)}",
            {"source": f"{pictures}/{picture_path(record.number)}", **record.metadata},
        )
        for record, path in _select(
            found.records, layout.folders[pictures], options, report, progress
        )
    ]
    report.taken = len(taken)
    if not taken:
        raise DataError(
            f"{layout.folders[pictures]} holds no usable picture: {len(report.missing):,} are "
            f"missing, {len(report.failed):,} not as published, {len(report.excluded):,} excluded"
        )
    name = "ffhq" if options.split == "all" else f"ffhq-{options.split}"
    return AlignedPictures(name, taken, report.notes), report


def _candidates(root: Path) -> Iterator[Path]:
    yield root
    try:
        below = sorted(path for path in root.iterdir() if path.is_dir())
    except OSError:
        below = []
    yield from below[:MAX_SEARCHED]
    if root.name in KINDS:
        yield root.parent


def _read(
    layout: FfhqLayout, pictures: Pictures, progress: Progress
) -> tuple[FfhqRecords, FfhqReport]:
    if pictures not in layout.folders:
        raise DataError(f"{layout.root} holds no {pictures}/: put FFHQ's folder there")
    found = read_ffhq_records(layout.metadata_file, KINDS[pictures], progress)
    report = FfhqReport(len(found.records), found.official)
    if not found.official:
        report.notes.append(
            f"{layout.metadata_file} is not the published file (its MD5 differs): "
            f"its {plural(len(found.records), 'record')} are used unchecked"
        )
    return found, report


def _shifts(records: list[FfhqRecord], random_shift: float) -> dict[int, Shift | None]:
    """Return every face's shift by number, over all records that can have one."""
    usable = [record for record in records if record.landmarks and record.published.pixel_size]
    shifts = random_shifts(
        [record.landmarks or [] for record in usable],
        [record.published.pixel_size or (0, 0) for record in usable],
        random_shift=random_shift,
    )
    return dict.fromkeys(record.number for record in records) | {
        record.number: shift for record, shift in zip(usable, shifts, strict=True)
    }


def _select(
    records: list[FfhqRecord],
    folder: Path,
    options: FfhqOptions,
    report: FfhqReport,
    progress: Progress,
) -> list[tuple[FfhqRecord, Path]]:
    """Return the records of the split with their files; note in the report what is left out."""
    chosen: list[tuple[FfhqRecord, Path]] = []
    for record in records:
        url = str(record.metadata.get(SOURCE_URL, ""))
        name = f"{folder.name}/{picture_path(record.number)}"
        # asked first, so that an entry for the other half of the split counts as used
        if options.exclude.excludes(number=record.number, name=name, url=url):
            report.excluded.append(name)
        elif options.split in ("all", record.category):
            path = _find_file(folder, record.number)
            if path is None:
                report.missing.append(name)
            else:
                chosen.append((record, path))
    if unused := options.exclude.unused():
        report.notes.append(
            f"{plural(len(unused), 'entry', 'entries')} of the exclude list without a picture: "
            f"{', '.join(unused[:5])}"
        )
    if others := sum(path.suffix.lower() != ".png" for _, path in chosen):
        report.notes.append(
            f"{plural(others, 'picture is', 'pictures are')} used unverified: "
            "FFHQ publishes PNG files"
        )
    checks = [
        Check(
            path,
            path.name,
            record.published,
            options.verify if path.suffix.lower() == ".png" else "none",
        )
        for record, path in chosen
    ]
    good = []
    faults = verify(checks, workers=options.workers, progress=progress)
    for (record, path), fault in zip(chosen, faults, strict=True):
        if fault:
            report.failed.append(Skipped(f"{folder.name}/{picture_path(record.number)}", fault))
        else:
            good.append((record, path))
    return good


def _find_file(folder: Path, number: int) -> Path | None:
    """Return a picture's file whatever its suffix; None when it is not there."""
    stem = folder / picture_path(number).removesuffix(".png")
    for suffix in SUFFIXES:
        if (path := stem.with_suffix(suffix)).is_file():
            return path
    return None


def open_published(path: Path) -> AlignedPictures | None:
    """Return the aligned pictures of an FFHQ folder with their metadata; None where it is none.

    ``path`` holds ``ffhq-dataset-v2.json`` and a folder of aligned pictures (the larger is taken),
    or is such a folder beside it. Files are compared by size. Raises DataError when only the
    in-the-wild photographs are there, and when no picture is usable.
    """
    path = path.resolve()
    layout = find_ffhq(path)
    if layout is None or layout.root not in (path, path.parent):
        return None
    there = [name for name in _ALIGNED if name in layout.folders]
    if layout.root == path.parent:
        there = [name for name in there if name == path.name]
    elif not there:
        raise DataError(
            f"{path} holds FFHQ's photographs, which are not aligned: run stylecli prepare-ffhq"
        )
    if not there:
        return None
    source, report = ffhq_pictures(layout, there[0])
    left_out = {"missing": len(report.missing), "not of the published size": len(report.failed)}
    for cause, count in left_out.items():
        if count:
            source.remarks.append(
                f"{count:,} of FFHQ's {plural(report.records, 'picture')} "
                f"{'is' if count == 1 else 'are'} {cause}"
            )
    return source

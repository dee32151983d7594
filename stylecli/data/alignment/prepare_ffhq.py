"""The recipe of ``stylecli prepare-ffhq``: FFHQ or photographs to aligned faces and a dataset."""

import contextlib
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from PIL import Image, ImageDraw, ImageFont

from stylecli import files
from stylecli.data import preparation
from stylecli.data.alignment import detectors, photographs
from stylecli.data.alignment.aligned_folder import (
    RECORDS_FILE,
    AlignedFolder,
    picture_path,
    read_records,
    read_settings,
    thumbnails_folder,
)
from stylecli.data.alignment.aligning import AlignedFaces, claim_folder, write_aligned
from stylecli.data.alignment.ffhq import (
    Exclusions,
    FfhqLayout,
    FfhqOptions,
    FfhqReport,
    Pictures,
    ffhq_faces,
    ffhq_pictures,
    read_exclusions,
)
from stylecli.data.alignment.geometry import AlignSettings, Face
from stylecli.data.alignment.photographs import (
    FOUND_FILE,
    Choice,
    FoundFaces,
    Photograph,
    choose_faces,
    given_faces,
    list_photographs,
    read_landmarks,
)
from stylecli.data.pack_settings import PackSettings
from stylecli.data.packing import pack
from stylecli.data.pictures import check_kind, open_picture, quiet, read_header
from stylecli.data.preparation import DecodeSettings, Skipped, decode_pixels
from stylecli.data.reader import open_dataset
from stylecli.data.sources.base import Source
from stylecli.errors import DataError, UsageError, plural
from stylecli.files import LOCK_FILE, OwnerLock, read_rows, replacing
from stylecli.progress import Progress, silent

T = TypeVar("T")

SKIPPED_FILE = "skipped.jsonl"
SHOWN_SKIPPED = 10  # named on stderr; skipped.jsonl and --json have all
MAX_SKIPPED_DRAWN = 240  # photographs on the sheets of what was skipped: five pages


class Teller(Protocol):
    """Where the recipe says what it does: ``cli.output.Output`` is one."""

    def note(self, text: str) -> None:
        """Tell something useful."""
        ...

    def warn(self, text: str) -> None:
        """Tell something that went wrong."""
        ...

    def progress(self, title: str, unit: str = "") -> AbstractContextManager[Progress]:
        """Return a context that gives the callback for one piece of work."""
        ...


@dataclass(frozen=True)
class Request:
    """What to prepare, and how; the fields are the options of the command."""

    source: Path
    size: int
    detector: str
    landmarks: Path | None
    largest: bool
    min_size: float | None
    unaligned: bool
    padding: bool
    rotate: bool
    split: str
    exclude: Path | None
    verify: str
    limit: int | None
    workers: int | None
    force: bool
    folder: Path = Path()  # of the aligned pictures
    dataset: Path | None = None
    pictures: bool = True
    twice: bool = False  # faces are sampled at twice their square, not at 4 x size as FFHQ's

    @property
    def squares(self) -> dict[str, bool]:
        """The options of AlignSettings but its size."""
        return {"twice": self.twice, "padding": self.padding, "rotate": self.rotate}

    @property
    def origin(self) -> str:
        """The source as seen from the folder of pictures, so that both can be moved together."""
        source, folder = self.source.resolve(), self.folder.resolve()
        try:
            return Path(os.path.relpath(source, folder)).as_posix()
        except ValueError:  # on another drive
            return source.as_posix()


@dataclass
class Outcome:
    """What was done; becomes the JSON document."""

    source: str
    faces: int = 0
    photographs: int | None = None
    size: int = 0
    images: str | None = None
    contact_sheets: list[str] = field(default_factory=list)
    dataset: str | None = None
    pictures: int | None = None  # in the dataset
    digest: str | None = None
    skipped: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def prepare_ffhq(request: Request, layout: FfhqLayout | None, name: str, teller: Teller) -> Outcome:
    """Cut faces out of FFHQ (``layout``) or photographs (None), and make the dataset ``name``.

    Continues where an earlier call was stopped. Raises UsageError for options that exclude each
    other, DataError when no face can be used or a folder or dataset of other faces is in the way.
    """
    outcome = Outcome(str(request.source), size=request.size)
    with owned_folder(request):
        request = replace(request, twice=layout is None and not _samples_as_ffhq(request))
        if layout is not None:
            _prepare_official(layout, name, request, outcome, teller)
        else:
            _prepare_photographs(name, request, outcome, teller)
        tell_skipped(request, outcome, teller)
    return outcome


def _samples_as_ffhq(request: Request) -> bool:
    """Tell whether an earlier version began this folder, which is continued in its way."""
    before = None if request.force else read_settings(request.folder)
    return before is not None and isinstance(before.get("transform_size"), int)


@contextlib.contextmanager
def owned_folder(request: Request) -> Iterator[None]:
    """Own the folder of aligned pictures: of two commands at once, one would clear up the other's.

    Raises DataError when another process has it.
    """
    folder = request.folder
    is_first = not folder.parent.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror}") from None
    lock = OwnerLock(folder)
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):  # there is something in it
            folder.rmdir()
            if is_first:
                folder.parent.rmdir()


def claim(request: Request) -> None:
    """Refuse a folder that holds other faces before any work is done."""
    if request.pictures:
        settings = AlignSettings(request.size, **request.squares)
        claim_folder(request.folder, settings, request.origin, force=request.force)


def check_dataset(faces: Sequence[Face], request: Request) -> None:
    """Refuse a dataset of other faces before the pictures of its own are replaced."""
    out, folder = request.dataset, request.folder
    if out is None or not out.exists() or request.force or not request.pictures:
        return
    dataset = open_dataset(out)
    before = dataset.info.get("settings") or {}
    dataset.close()
    is_same = before.get("source") == folder.resolve().name
    if is_same and (folder / RECORDS_FILE).is_file():
        settings = AlignSettings(request.size, **request.squares)
        there = {
            each["number"]: each.get("recipe") for _, each in read_records(folder / RECORDS_FILE)
        }
        unusable = _skipped_before(folder)
        wanted = {
            place if face.number is None else face.number: settings.recipe(face)
            for place, face in enumerate(faces)
            if face.name not in unusable
        }
        is_same = wanted == there and (
            before.get("fingerprint") == AlignedFolder(folder).fingerprint()
        )
    if not is_same:
        raise DataError(
            f"{out} exists and was made from another set of faces: give another --out, or --force "
            f"to replace it"
        )


def _skipped_before(folder: Path) -> set[str]:
    """Return the names of the faces and photographs that an earlier run could not use."""
    return {str(row["name"]) for row in read_rows(folder / SKIPPED_FILE) if "name" in row}


def faces_of_photographs(
    photos: list[Photograph], min_crop: float, request: Request, teller: Teller
) -> list[FoundFaces]:
    """Return what was found in each photograph, by a detector or in a file of landmarks."""
    if request.detector == "file" or request.landmarks is not None:
        if request.landmarks is None:
            raise UsageError("--detector file needs --landmarks FILE")
        if request.detector not in ("auto", "file"):
            raise UsageError(f"--landmarks takes the place of --detector {request.detector}")
        given = read_landmarks(request.landmarks)
        found, unused = given_faces(photos, given, request.landmarks)
        if unused and request.limit is None:
            teller.note(
                f"{plural(len(unused), 'entry', 'entries')} of {request.landmarks} without a "
                f"photograph: " + ", ".join(unused[:5])
            )
        return found
    detector = detectors.choose_detector(request.detector)
    if detector == "dlib" and not (request.folder / FOUND_FILE).exists():  # told once
        teller.note(detectors.DLIB_NOTICE)
    with teller.progress("finding faces", "photographs") as progress:
        return photographs.find_faces(
            photos,
            request.folder,
            photographs.Search(detector, min_crop),
            workers=request.workers,
            progress=progress,
        )


def make_pictures(
    faces: Sequence[Face], name: str, request: Request, outcome: Outcome, teller: Teller
) -> None:
    """Write the aligned pictures with their contact sheets, and the dataset."""
    options: dict[str, Any] = request.squares
    outcome.faces = len(faces)
    if not request.pictures:
        pack_faces(
            AlignedFaces(faces, request.size, name=name, **options), request, outcome, teller
        )
        return
    with teller.progress("aligning", "faces") as progress:
        report = write_aligned(
            faces,
            request.folder,
            request.size,
            source=request.origin,
            force=request.force,
            workers=request.workers,
            progress=progress,
            **options,
        )
    outcome.images, outcome.faces = str(request.folder), report.count
    record_skipped(report.skipped, outcome)
    if not report.written and not report.removed:
        teller.note(f"{request.folder} already holds these faces")
    draw_sheets(request, outcome, teller, redraw=bool(report.written or report.removed))
    if request.dataset is not None:
        pack_faces(AlignedFolder(request.folder), request, outcome, teller)


def pack_faces(
    source: Source,
    request: Request,
    outcome: Outcome,
    teller: Teller,
    *,
    max_images: int | None = None,
) -> None:
    """Pack faces into the dataset."""
    if request.dataset is None:
        raise UsageError("--no-dataset leaves nothing to do: the pictures are already aligned")
    settings = PackSettings(
        resolution=request.size, channels=3, labels=False, max_images=max_images
    )
    for note in source.notes:
        teller.note(note)
        outcome.notes.append(note)
    with teller.progress("packing", "faces") as progress:
        report = pack(
            source, request.dataset, settings, force=request.force, offers_append=False,
            workers=request.workers, progress=progress,
        )  # fmt: skip
    if report.was_there:
        teller.note(f"{report.path} already exists, made from the same faces")
    outcome.dataset, outcome.digest = str(report.path), report.digest
    outcome.pictures, outcome.size = report.count, report.resolution
    outcome.faces = outcome.faces or report.count
    record_skipped(report.skipped, outcome)


def note_official(report: FfhqReport, outcome: Outcome, teller: Teller) -> None:
    """Tell what FFHQ's metadata says, and record what was left out."""
    for note in report.notes:
        teller.note(note)
        outcome.notes.append(note)
    record_skipped([Skipped(name, "is on the exclude list") for name in report.excluded], outcome)
    record_skipped([Skipped(name, "is missing") for name in report.missing], outcome)
    record_skipped([*report.failed, *report.rejected], outcome)


def record_skipped(skipped: Sequence[Skipped], outcome: Outcome) -> None:
    """Add to what was skipped."""
    outcome.skipped += [asdict(each) for each in skipped]


def tell_skipped(request: Request, outcome: Outcome, teller: Teller) -> None:
    """Write skipped.jsonl beside the pictures, and name the first few on stderr."""
    skipped, file = outcome.skipped, request.folder / SKIPPED_FILE
    kept = any(item.name != LOCK_FILE for item in request.folder.iterdir())
    if kept:
        files.write_rows(file, skipped)
    if not skipped:
        return
    where = f"; the full list is in {file}" if kept else ""
    teller.warn(f"{plural(len(skipped), 'picture was', 'pictures were')} skipped{where}")
    for each in skipped[:SHOWN_SKIPPED]:
        teller.note(f"  {each['name']} {each['cause']}")
    if len(skipped) > SHOWN_SKIPPED:
        teller.note(f"  and {len(skipped) - SHOWN_SKIPPED:,} more")


def draw_sheets(request: Request, outcome: Outcome, teller: Teller, *, redraw: bool) -> None:
    """Draw contact sheets of the aligned pictures."""
    pages = sorted(request.folder.glob("contact-sheet-[0-9][0-9].png"))
    if redraw or not pages:
        folder = AlignedFolder(request.folder)
        cells = [
            Cell(
                request.folder / thumbnails_folder() / picture_path(int(item.path.stem)),
                (f"{int(item.path.stem)}", str(item.metadata["source"])),
            )
            for item in (folder[index] for index in range(len(folder)))
        ]
        with teller.progress("drawing contact sheets", "faces") as progress:
            pages = write_contact_sheets(request.folder, "contact-sheet", cells, progress=progress)
    outcome.contact_sheets = [str(page) for page in pages]


def draw_skipped(photos: Sequence[Photograph], request: Request, outcome: Outcome) -> None:
    """Draw a sheet of the photographs that were skipped, with their causes."""
    paths = {photo.name: photo.path for photo in photos}
    cells = []
    for each in outcome.skipped:
        name = each["name"]
        path = paths.get(name) or paths.get(name.rpartition("#")[0])
        if path is not None:
            cells.append(Cell(path, (name, each["cause"])))
    write_contact_sheets(request.folder, "skipped", limited(cells, MAX_SKIPPED_DRAWN))


def limited(things: Sequence[T], limit: int | None) -> Sequence[T]:
    """Return at most ``limit`` things, spread evenly."""
    if limit is None or limit >= len(things):
        return things
    return [things[place * len(things) // limit] for place in range(limit)]


def _prepare_official(
    layout: FfhqLayout, name: str, request: Request, outcome: Outcome, teller: Teller
) -> None:
    """Align FFHQ's in-the-wild photographs, or pack its pictures that are aligned already."""
    for option, given in (
        ("--landmarks", request.landmarks is not None or request.detector != "auto"),
        ("--largest", request.largest),
        ("--min-size", request.min_size is not None),
    ):
        if given:
            raise UsageError(f"{option} is for photographs: FFHQ's metadata holds its faces")
    options = FfhqOptions(
        split=request.split,
        exclude=read_exclusions(request.exclude) if request.exclude else Exclusions([]),
        verify=request.verify,  # type: ignore[arg-type]  # checked by FfhqOptions
        workers=request.workers,
    )
    if aligned := _aligned_already(layout, request):
        with teller.progress("reading FFHQ", "") as progress:
            pictures, report = ffhq_pictures(layout, aligned, options, progress=progress)
        note_official(report, outcome, teller)
        pack_faces(pictures, request, outcome, teller, max_images=request.limit)
        return
    with teller.progress("reading FFHQ", "") as progress:
        faces, report = ffhq_faces(layout, options, unaligned=request.unaligned, progress=progress)
    note_official(report, outcome, teller)
    if not faces:
        raise DataError(
            f"no face in {layout.root}: {plural(report.records, 'record')}, missing files: "
            f"{len(report.missing):,}, not as published: {len(report.failed):,}, excluded: "
            f"{len(report.excluded):,}"
        )
    faces = list(limited(faces, request.limit))
    check_dataset(faces, request)
    make_pictures(faces, name, request, outcome, teller)


def _aligned_already(layout: FfhqLayout, request: Request) -> Pictures | None:
    """Return the folder of pictures to pack as they are; None to align the photographs.

    Photographs come first, unless SRC is the folder of aligned pictures itself. Raises DataError
    when what is there cannot give what was asked for.
    """
    named = request.source.resolve().name
    choices: tuple[Pictures, ...] = ("images1024x1024", "thumbnails128x128")
    for choice in choices:
        if choice not in layout.folders:
            continue
        if "in-the-wild-images" in layout.folders and named != choice:
            continue
        if request.unaligned or not request.rotate or not request.padding:
            raise DataError(f"{layout.root} lacks in-the-wild-images/, which other squares need")
        if choice == "thumbnails128x128" and request.size > 128:
            raise DataError(f"{layout.root} holds pictures of 128 px only: add --size 128")
        return choice
    return None


def _prepare_photographs(name: str, request: Request, outcome: Outcome, teller: Teller) -> None:
    """Find faces in photographs, and align them."""
    if request.unaligned or request.split != "all":
        option = "--unaligned" if request.unaligned else "--split"
        raise UsageError(
            f"{option} is for the official FFHQ files, not for {request.source}: leave it out"
        )
    notes: list[str] = []
    listed = photos = list_photographs(request.source, notes)
    for note in notes:
        teller.note(f"{request.source}: {note}")
    left_out: list[Skipped] = []
    if request.exclude:
        exclusions = read_exclusions(request.exclude)
        excluded = {photo.name for photo in photos if exclusions.excludes(name=photo.name)}
        left_out = [Skipped(name, "is on the exclude list") for name in sorted(excluded)]
        photos = [photo for photo in photos if photo.name not in excluded]
        if unused := exclusions.unused():
            teller.note(
                f"{request.exclude} lists what no photograph matches: {', '.join(unused[:5])}"
            )
    photos = list(limited(photos, request.limit))
    claim(request)
    min_crop = request.size / 2 if request.min_size is None else request.min_size
    found = faces_of_photographs(photos, min_crop, request, teller)
    faces, skipped = choose_faces(photos, found, Choice(min_crop, request.largest))
    if faces:
        check_dataset(faces, request)
    outcome.photographs = len(photos)
    record_skipped(left_out + skipped, outcome)
    if request.pictures:
        draw_skipped(listed, request, outcome)
    if not faces:
        tell_skipped(request, outcome, teller)
        raise DataError(
            f"no usable face in {request.source}: {_first_cause(left_out + skipped)}; for pictures "
            f"of other subjects, run stylecli pack {shlex.quote(str(request.source))}"
        )
    make_pictures(faces, name, request, outcome, teller)


def _first_cause(skipped: list[Skipped]) -> str:
    """Return why nothing is left, faces that are too small first: that can be changed."""
    small = next((each for each in skipped if each.cause.startswith("is too small")), None)
    if small is not None:
        return f"{small.name} {small.cause}; give a smaller --size or --min-size"
    return f"{skipped[0].name} {skipped[0].cause}"


COLUMNS, ROWS = 8, 6
PICTURE = 128  # px
GAP = 8  # px
LINE = 13  # px
LETTERS = 24  # that fit below a picture
LINES = 4
FONT_SIZE = 10
PER_PAGE = COLUMNS * ROWS
MAX_PAGES = 50
INK, PAPER, FRAME = (20, 20, 20), (255, 255, 255), (225, 225, 225)

_CELL = (PICTURE + GAP, PICTURE + LINES * LINE + GAP)


@dataclass(frozen=True)
class Cell:
    """A picture and what stands below it."""

    path: Path
    words: Sequence[str]  # a line each; long ones are broken or shortened


def write_contact_sheets(
    folder: Path, stem: str, cells: Sequence[Cell], *, progress: Progress = silent
) -> list[Path]:
    """Write pages ``<stem>-00.png``, ... of 8 × 6 pictures into ``folder``; return their paths.

    From more than 50 pages' pictures those are shown that lie evenly among all. Pages of an earlier
    call that are too many are removed. A picture that cannot be read leaves its place grey.
    """
    shown = min(len(cells), MAX_PAGES * PER_PAGE)
    chosen = [cells[place * len(cells) // shown] for place in range(shown)]
    pages = []
    for page, start in enumerate(range(0, shown, PER_PAGE)):
        path = folder / f"{stem}-{page:02d}.png"
        with replacing(path) as temporary:
            draw_sheet(chosen[start : start + PER_PAGE]).save(temporary)
        pages.append(path)
        progress(min(start + PER_PAGE, shown), shown)
    for old in folder.glob(f"{stem}-[0-9][0-9].png"):
        if old not in pages:
            old.unlink()
    return pages


def draw_sheet(cells: Sequence[Cell]) -> Image.Image:
    """Draw one page, as high as its rows."""
    rows = -(-len(cells) // COLUMNS)
    columns = min(COLUMNS, len(cells))
    sheet = Image.new("RGB", (columns * _CELL[0] + GAP, rows * _CELL[1] + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    for place, cell in enumerate(cells):
        x, y = GAP + place % COLUMNS * _CELL[0], GAP + place // COLUMNS * _CELL[1]
        picture = _small(cell.path)
        sheet.paste(picture, (x + (PICTURE - picture.width) // 2, y + PICTURE - picture.height))
        for number, line in enumerate(_lines(cell.words)):
            draw.text((x, y + PICTURE + 1 + number * LINE), line, INK, font)
    return sheet


def _small(path: Path) -> Image.Image:
    """Return the picture upright and within 128 × 128 px; a grey square if it cannot be read."""
    try:
        with open_picture(path) as picture, quiet():
            header = read_header(picture, upright=True)
            check_kind(header)
            side = min(PICTURE, max(header.size))
            placement = preparation.place("letterbox", header.upright_size, *2 * ((side, side),))
            return decode_pixels(picture, header, DecodeSettings(exif=True), placement)[0]
    except Exception:  # decoders raise anything on damaged files; the cause stands below
        return Image.new("RGB", (PICTURE, PICTURE), FRAME)


def _lines(words: Sequence[str]) -> list[str]:
    """Break words into at most four lines that fit below a picture."""
    lines: list[str] = []
    for line in words:
        # Letters that the font lacks would be boxes, or an error with the plainest font.
        rest = line.encode("latin-1", "replace").decode("latin-1")
        while rest and len(lines) < LINES:
            cut = rest.rfind(" ", 0, LETTERS + 1) if len(rest) > LETTERS else len(rest)
            cut = cut if cut > 0 else LETTERS
            lines.append(rest[:cut])
            rest = rest[cut:].lstrip()
    return lines

"""The steps of ``stylecli prepare-ffhq`` and what it tells about each."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stylecli.cli.output import Output
from stylecli.errors import DataError, UsageError

if TYPE_CHECKING:
    from stylecli.data.alignment.ffhq import FfhqReport
    from stylecli.data.alignment.geometry import Face
    from stylecli.data.alignment.photographs import FoundFaces, Photograph
    from stylecli.data.preparation import Skipped
    from stylecli.data.sources.base import Source

T = TypeVar("T")

SKIPPED_FILE = "skipped.jsonl"
SHOWN_SKIPPED = 10  # named on stderr; skipped.jsonl and --json have all
MAX_SKIPPED_DRAWN = 240  # photographs on the sheets of what was skipped: five pages


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

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


@contextlib.contextmanager
def owned_folder(request: Request) -> Iterator[None]:
    """Own the folder of aligned pictures: of two commands at once, one would clear up the other's.

    Raises DataError when another process has it.
    """
    from stylecli.files import OwnerLock

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
    from stylecli.data.alignment.aligning import claim_folder
    from stylecli.data.alignment.geometry import AlignSettings

    if request.pictures:
        settings = AlignSettings(request.size, padding=request.padding, rotate=request.rotate)
        claim_folder(request.folder, settings, request.origin, force=request.force)


def check_dataset(faces: "Sequence[Face]", request: Request) -> None:
    """Refuse a dataset of other faces before the pictures of its own are replaced."""
    from stylecli.data.alignment.aligned_folder import RECORDS_FILE, AlignedFolder, read_records
    from stylecli.data.alignment.geometry import AlignSettings
    from stylecli.data.reader import open_dataset

    out, folder = request.dataset, request.folder
    if out is None or not out.exists() or request.force or not request.pictures:
        return
    dataset = open_dataset(out)
    before = dataset.info.get("settings") or {}
    dataset.close()
    is_same = before.get("source") == folder.resolve().name
    if is_same and (folder / RECORDS_FILE).is_file():
        settings = AlignSettings(request.size, padding=request.padding, rotate=request.rotate)
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
            "to replace it"
        )


def _skipped_before(folder: Path) -> set[str]:
    """Return the names of the faces and photographs that an earlier run could not use."""
    from stylecli.files import read_rows

    return {str(row["name"]) for row in read_rows(folder / SKIPPED_FILE) if "name" in row}


def find_faces(
    photos: "list[Photograph]", min_crop: float, request: Request, output: Output
) -> "list[FoundFaces]":
    """Return what was found in each photograph, by a detector or in a file of landmarks."""
    from stylecli.data.alignment import detectors, photographs
    from stylecli.data.alignment.photographs import FOUND_FILE, given_faces, read_landmarks

    if request.detector == "file" or request.landmarks is not None:
        if request.landmarks is None:
            raise UsageError("--detector file needs --landmarks FILE")
        if request.detector not in ("auto", "file"):
            raise UsageError(f"--landmarks takes the place of --detector {request.detector}")
        given = read_landmarks(request.landmarks)
        found, unused = given_faces(photos, given, request.landmarks)
        if unused and request.limit is None:
            output.note(
                f"{len(unused):,} entries of {request.landmarks} fit no photograph: "
                + ", ".join(unused[:5])
            )
        return found
    detector = detectors.choose_detector(request.detector)
    if detector == "dlib" and not (request.folder / FOUND_FILE).exists():  # told once
        output.note(detectors.DLIB_NOTICE)
    with output.progress("finding faces", "photographs") as progress:
        return photographs.find_faces(
            photos,
            request.folder,
            photographs.Search(detector, min_crop),
            workers=request.workers,
            progress=progress,
        )


def make_pictures(
    faces: "Sequence[Face]", name: str, request: Request, outcome: Outcome, output: Output
) -> None:
    """Write the aligned pictures with their contact sheets, and the dataset."""
    from stylecli.data.alignment.aligned_folder import AlignedFolder
    from stylecli.data.alignment.aligning import AlignedFaces, write_aligned

    options: dict[str, Any] = {"padding": request.padding, "rotate": request.rotate}
    outcome.faces = len(faces)
    if not request.pictures:
        pack_faces(
            AlignedFaces(faces, request.size, name=name, **options), request, outcome, output
        )
        return
    with output.progress("aligning", "faces") as progress:
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
        output.note(f"{request.folder} holds these faces already")
    draw_sheets(request, outcome, output, anew=bool(report.written or report.removed))
    if request.dataset is not None:
        pack_faces(AlignedFolder(request.folder), request, outcome, output)


def pack_faces(
    source: "Source",
    request: Request,
    outcome: Outcome,
    output: Output,
    *,
    max_images: int | None = None,
) -> None:
    """Pack faces into the dataset."""
    from stylecli.data.packing import PackSettings, pack

    if request.dataset is None:
        raise UsageError("--no-dataset leaves nothing to do: the pictures are aligned already")
    settings = PackSettings(
        resolution=request.size, channels=3, labels=False, max_images=max_images
    )
    for note in source.notes:
        output.note(note)
        outcome.notes.append(note)
    with output.progress("packing", "faces") as progress:
        report = pack(
            source, request.dataset, settings, force=request.force, offers_append=False,
            workers=request.workers, progress=progress,
        )  # fmt: skip
    if report.was_there:
        output.note(f"{report.path} is there already, made from the same faces")
    outcome.dataset, outcome.digest = str(report.path), report.digest
    outcome.pictures, outcome.size = report.count, report.resolution
    outcome.faces = outcome.faces or report.count
    record_skipped(report.skipped, outcome)


def note_official(report: "FfhqReport", outcome: Outcome, output: Output) -> None:
    """Tell what FFHQ's metadata says, and record what was left out."""
    from stylecli.data.preparation import Skipped

    for note in report.notes:
        output.note(note)
        outcome.notes.append(note)
    record_skipped([Skipped(name, "is on the exclude list") for name in report.excluded], outcome)
    record_skipped([Skipped(name, "is missing") for name in report.missing], outcome)
    record_skipped([*report.failed, *report.rejected], outcome)


def record_skipped(skipped: "Sequence[Skipped]", outcome: Outcome) -> None:
    """Add to what was skipped."""
    outcome.skipped += [asdict(each) for each in skipped]


def tell_skipped(request: Request, outcome: Outcome, output: Output) -> None:
    """Write skipped.jsonl beside the pictures, and name the first few on stderr."""
    from stylecli import files
    from stylecli.files import LOCK_FILE

    skipped, file = outcome.skipped, request.folder / SKIPPED_FILE
    kept = any(item.name != LOCK_FILE for item in request.folder.iterdir())
    if kept:
        files.write_rows(file, skipped)
    if not skipped:
        return
    output.warn(f"{len(skipped):,} were skipped" + (f" (all are in {file})" if kept else ""))
    for each in skipped[:SHOWN_SKIPPED]:
        output.note(f"  {each['name']} {each['cause']}")
    if len(skipped) > SHOWN_SKIPPED:
        output.note(f"  and {len(skipped) - SHOWN_SKIPPED:,} more")


def draw_sheets(request: Request, outcome: Outcome, output: Output, *, anew: bool) -> None:
    """Draw contact sheets of the aligned pictures."""
    from stylecli.data.alignment.aligned_folder import (
        AlignedFolder,
        picture_path,
        thumbnails_folder,
    )
    from stylecli.data.alignment.contact_sheet import Cell, write_contact_sheets

    pages = sorted(request.folder.glob("contact-sheet-[0-9][0-9].png"))
    if anew or not pages:
        folder = AlignedFolder(request.folder)
        cells = [
            Cell(
                request.folder / thumbnails_folder() / picture_path(int(item.path.stem)),
                (f"{int(item.path.stem)}", str(item.metadata["source"])),
            )
            for item in (folder[index] for index in range(len(folder)))
        ]
        with output.progress("drawing contact sheets", "faces") as progress:
            pages = write_contact_sheets(request.folder, "contact-sheet", cells, progress=progress)
    outcome.contact_sheets = [str(page) for page in pages]


def draw_skipped(photos: "Sequence[Photograph]", request: Request, outcome: Outcome) -> None:
    """Draw a sheet of the photographs that were skipped, with their causes."""
    from stylecli.data.alignment.contact_sheet import Cell, write_contact_sheets

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

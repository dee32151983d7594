"""``stylecli prepare-ffhq``: FFHQ or anyone's photographs → aligned faces → an LMDB dataset."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stylecli.cli import face_steps
from stylecli.cli.face_steps import Outcome, Request
from stylecli.cli.options import ForceOption, JsonOption, OutOption, QuietOption
from stylecli.cli.output import Output
from stylecli.errors import DataError, UsageError

if TYPE_CHECKING:
    from stylecli.data.alignment.ffhq import FfhqLayout, Pictures
    from stylecli.data.preparation import Skipped

DEFAULT_SIZE = 1024  # px


def command(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="SRC",
            help="Folder of photographs, one photograph, or FFHQ's folder. Default: FFHQ's files "
            "in this folder.",
        ),
    ] = None,
    out: OutOption = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder for the aligned pictures. Default: aligned/<name>."),
    ] = None,
    size: Annotated[int, typer.Option(help="Side in pixels, a power of two.")] = DEFAULT_SIZE,
    detector: Annotated[
        str,
        typer.Option(help="auto, dlib (68 points), mtcnn (5 points), or file (--landmarks)."),
    ] = "auto",
    landmarks: Annotated[
        Path | None, typer.Option(help="JSON of landmarks, instead of a detector.")
    ] = None,
    largest: Annotated[
        bool, typer.Option("--largest", help="Only the largest face of each photograph.")
    ] = False,
    min_size: Annotated[
        float | None,
        typer.Option(
            help="Smallest side in pixels of a face's square in its photograph. "
            "Default: half of --size."
        ),
    ] = None,
    unaligned: Annotated[
        bool,
        typer.Option("--unaligned", help="FFHQ-U: upright squares, moved at random, not padded."),
    ] = False,
    no_padding: Annotated[
        bool, typer.Option("--no-padding", help="Black beyond the photograph, not mirrored.")
    ] = False,
    no_rotation: Annotated[
        bool, typer.Option("--no-rotation", help="Do not turn faces upright.")
    ] = False,
    split: Annotated[str, typer.Option(help="FFHQ's: all, training or validation.")] = "all",
    exclude: Annotated[
        Path | None,
        typer.Option(
            help="Text file of pictures to leave out: numbers, names or URLs, one a line."
        ),
    ] = None,
    verify: Annotated[
        str, typer.Option(help="FFHQ's files: none, size, file (MD5) or pixels (MD5).")
    ] = "size",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take only so many, spread evenly.")
    ] = None,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Write the dataset only, no picture files.")
    ] = False,
    no_dataset: Annotated[
        bool, typer.Option("--no-dataset", help="Write picture files only, no dataset.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.")] = None,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Cut faces out of photographs as in FFHQ, and make a dataset of them.

    Example: stylecli prepare-ffhq photos/

    Without SRC it takes the official FFHQ files in this folder. Writes aligned/<name>/ (pictures,
    thumbnails, contact sheet, list of what was skipped) and datasets/<name>.lmdb. The same command
    again goes on, or finds it done.
    """
    from stylecli.data.alignment.ffhq import find_ffhq, what_is_missing

    if size & (size - 1) or not 4 <= size <= DEFAULT_SIZE:
        raise UsageError(f"size {size} is not a power of two from 4 to {DEFAULT_SIZE}")
    if no_images and no_dataset:
        raise UsageError("--no-images and --no-dataset together leave nothing to do")
    if min_size is not None and not 0 <= min_size < 1e6:
        raise UsageError(f"min size {min_size:g} is no side in pixels")
    if source is not None and not source.exists():
        raise DataError(f"{source} does not exist: give a folder of photographs or FFHQ's folder")
    layout = find_ffhq(source or Path()) if source is None or source.is_dir() else None
    if layout is None and source is None:
        raise DataError(what_is_missing(Path()))
    name = _name(source, layout is not None, split, unaligned, size, limit)
    request = Request(
        source or Path(), size, detector, landmarks, largest, min_size, unaligned,
        not no_padding and not unaligned, not no_rotation, split, exclude, verify, limit, workers,
        force, images or Path("aligned") / (out.stem if out else name),
        None if no_dataset else out or Path("datasets") / f"{name}.lmdb", not no_images,
    )  # fmt: skip
    output = Output(json=json, quiet=quiet)
    outcome = Outcome(str(request.source), size=size)
    with face_steps.owned_folder(request):
        if layout is not None:
            _prepare_official(layout, name, request, outcome, output)
        else:
            _prepare_photographs(name, request, outcome, output)
        face_steps.tell_skipped(request, outcome, output)
    output.result(vars(outcome), _lines(outcome))


def _name(
    source: Path | None,
    official: bool,
    split: str,
    unaligned: bool,
    size: int,
    limit: int | None,
) -> str:
    """Return what the dataset is called; a trial with --limit never replaces the whole."""
    parts = [
        "ffhq" if official else (source or Path()).resolve().stem or "photographs",
        "u" if unaligned else "",
        split if official and split != "all" else "",
        str(size) if size != DEFAULT_SIZE else "",
        f"sample{limit}" if limit else "",
    ]
    return "-".join(part for part in parts if part)


def _prepare_official(
    layout: "FfhqLayout", name: str, request: Request, outcome: Outcome, output: Output
) -> None:
    """Align FFHQ's in-the-wild photographs, or pack its pictures that are aligned already."""
    from stylecli.data.alignment.ffhq import (
        Exclusions,
        FfhqOptions,
        ffhq_faces,
        ffhq_pictures,
        read_exclusions,
    )

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
        with output.progress("reading FFHQ", "") as progress:
            pictures, report = ffhq_pictures(layout, aligned, options, progress=progress)
        face_steps.note_official(report, outcome, output)
        face_steps.pack_faces(pictures, request, outcome, output, max_images=request.limit)
        return
    with output.progress("reading FFHQ", "") as progress:
        faces, report = ffhq_faces(layout, options, unaligned=request.unaligned, progress=progress)
    face_steps.note_official(report, outcome, output)
    if not faces:
        raise DataError(
            f"{layout.root} gives no face: of {report.records:,} records {len(report.missing):,} "
            f"files are missing, {len(report.failed):,} not as published, "
            f"{len(report.excluded):,} excluded"
        )
    faces = list(face_steps.limited(faces, request.limit))
    face_steps.check_dataset(faces, request)
    face_steps.make_pictures(faces, name, request, outcome, output)


def _aligned_already(layout: "FfhqLayout", request: Request) -> "Pictures | None":
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


def _prepare_photographs(name: str, request: Request, outcome: Outcome, output: Output) -> None:
    """Find faces in photographs, and align them."""
    from stylecli.data.alignment.ffhq import read_exclusions
    from stylecli.data.alignment.photographs import (
        Choice,
        choose_faces,
        list_photographs,
    )
    from stylecli.data.preparation import Skipped

    if request.unaligned or request.split != "all":
        option = "--unaligned" if request.unaligned else "--split"
        raise UsageError(f"{option} is for the official FFHQ files, not for {request.source}")
    notes: list[str] = []
    listed = photos = list_photographs(request.source, notes)
    for note in notes:
        output.note(f"{request.source}: {note}")
    left_out: list[Skipped] = []
    if request.exclude:
        exclusions = read_exclusions(request.exclude)
        excluded = {photo.name for photo in photos if exclusions.excludes(name=photo.name)}
        left_out = [Skipped(name, "is on the exclude list") for name in sorted(excluded)]
        photos = [photo for photo in photos if photo.name not in excluded]
        if unused := exclusions.unused():
            output.note(f"{request.exclude} names no photograph with {', '.join(unused[:5])}")
    photos = list(face_steps.limited(photos, request.limit))
    face_steps.claim(request)
    min_crop = request.size / 2 if request.min_size is None else request.min_size
    found = face_steps.find_faces(photos, min_crop, request, output)
    faces, skipped = choose_faces(photos, found, Choice(min_crop, request.largest))
    if faces:
        face_steps.check_dataset(faces, request)
    outcome.photographs = len(photos)
    face_steps.record_skipped(left_out + skipped, outcome)
    if request.pictures:
        face_steps.draw_skipped(listed, request, outcome)
    if not faces:
        face_steps.tell_skipped(request, outcome, output)
        raise DataError(
            f"no face of {request.source} can be used: {_first_cause(left_out + skipped)}"
        )
    face_steps.make_pictures(faces, name, request, outcome, output)


def _first_cause(skipped: "list[Skipped]") -> str:
    """Return why nothing is left, faces that are too small first: that can be mended."""
    small = next((each for each in skipped if each.cause.startswith("is too small")), None)
    if small is not None:
        return f"{small.name} {small.cause}; give a smaller --size or --min-size"
    return f"{skipped[0].name} {skipped[0].cause}"


def _lines(outcome: Outcome) -> list[str]:
    lines = []
    if outcome.images:
        of = "" if outcome.photographs is None else f" of {outcome.photographs:,} photographs"
        lines += [outcome.images, f"{outcome.faces:,} faces{of}, {outcome.size} px"]
        lines += outcome.contact_sheets[:1]
    if outcome.dataset:
        lines += [outcome.dataset, f"{outcome.pictures:,} pictures, {outcome.size} px, RGB"]
    return lines

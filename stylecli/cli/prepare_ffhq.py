"""``stylecli prepare-ffhq``: FFHQ or anyone's photographs → aligned faces → an LMDB dataset."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stylecli.cli.options import ForceOption, JsonOption, OutOption, QuietOption
from stylecli.cli.output import Output
from stylecli.cli.refusals import check_files
from stylecli.errors import DataError, UsageError, plural
from stylecli.workspace import check_there

if TYPE_CHECKING:
    from stylecli.data.alignment.prepare_ffhq import Outcome

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
        Path | None, typer.Option(help="JSON file of landmarks, instead of a detector.")
    ] = None,
    largest: Annotated[
        bool, typer.Option("--largest", help="Take only the largest face of each photograph.")
    ] = False,
    min_size: Annotated[
        float | None,
        typer.Option(
            help="Leave out faces whose square in the photograph has fewer pixels on a side. "
            "Default: half of --size."
        ),
    ] = None,
    unaligned: Annotated[
        bool,
        typer.Option(
            "--unaligned", help="As FFHQ-U: upright squares, moved at random, not padded."
        ),
    ] = False,
    no_padding: Annotated[
        bool,
        typer.Option(
            "--no-padding",
            help="Fill with black beyond the edge of the photograph instead of mirroring.",
        ),
    ] = False,
    no_rotation: Annotated[
        bool, typer.Option("--no-rotation", help="Do not turn faces upright.")
    ] = False,
    split: Annotated[str, typer.Option(help="Part of FFHQ: all, training or validation.")] = "all",
    exclude: Annotated[
        Path | None,
        typer.Option(
            help="Text file of pictures to leave out: numbers, names or URLs, one a line."
        ),
    ] = None,
    verify: Annotated[
        str, typer.Option(help="How to check FFHQ's files: none, size, file (MD5) or pixels (MD5).")
    ] = "size",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take only this many, spread evenly.")
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

    Without SRC it reads the official FFHQ files in this folder. Writes aligned/<name>/ (pictures,
    thumbnails, contact sheet, list of what was skipped) and datasets/<name>.lmdb. Run the
    same command to continue.
    """
    if size & (size - 1) or not 4 <= size <= DEFAULT_SIZE:
        raise UsageError(f"size {size} is not a power of two from 4 to {DEFAULT_SIZE}")
    if no_images and no_dataset:
        raise UsageError(
            "--no-images and --no-dataset together leave nothing to do: leave out one of them"
        )
    if min_size is not None and not 0 <= min_size < 1e6:
        raise UsageError(f"--min-size {min_size:g} is out of range: expected a side in pixels")
    if source is not None:
        check_there(source, "a folder of photographs, or FFHQ's folder")
    check_files(DataError, landmarks=landmarks, exclude=exclude)
    from stylecli.data.alignment.ffhq import find_ffhq, what_is_missing
    from stylecli.data.alignment.prepare_ffhq import Request, prepare_ffhq

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
    outcome = prepare_ffhq(request, layout, name, output)
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


def _lines(outcome: "Outcome") -> list[str]:
    lines = []
    if outcome.images:
        of = ""
        if outcome.photographs is not None:
            of = f" of {plural(outcome.photographs, 'photograph')}"
        lines += [outcome.images, f"{plural(outcome.faces, 'face')}{of}, {outcome.size} px"]
        lines += outcome.contact_sheets[:1]
    if outcome.dataset:
        lines += [
            outcome.dataset,
            f"{plural(outcome.pictures or 0, 'picture')}, {outcome.size} px, RGB",
        ]
    return lines

"""``stylecli pack``: pictures in, an LMDB dataset out."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.options import ForceOption, JsonOption, QuietOption
from stylecli.cli.output import Output
from stylecli.cli.refusals import check_files, check_pictures
from stylecli.errors import DataError, UsageError, plural
from stylecli.shapes import SQUARE, Grid, parse_shape
from stylecli.workspace import find_dataset

if TYPE_CHECKING:
    from stylecli.data.pack_settings import PackSettings
    from stylecli.data.packing import PackReport, Plan
    from stylecli.data.preparation import Transform
    from stylecli.data.reader import Dataset
    from stylecli.data.sources.base import Source

SHOWN_CLASSES = 12
SHOWN_SKIPPED = 10  # skipped pictures named on stderr; --json lists all


def command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC",
            help="Folder, zip or tar of pictures (sub-folders become classes), tar shards, a set "
            "such as MNIST or CIFAR, TFRecords, or another tool's LMDB; with --out X.zip, also a "
            "dataset.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Dataset to write. Default: datasets/<name of SRC>.lmdb. A name that ends in "
            ".zip gives the format of NVIDIA's tools.",
        ),
    ] = None,
    resolution: Annotated[
        int | None,
        typer.Option(
            help="Side in pixels, a power of two; with --shape the shorter one. "
            "Default: the largest that 95 % of the pictures reach, at most 1024.",
        ),
    ] = None,
    shape: Annotated[
        str,
        typer.Option(
            help="Width to height of the pictures, such as 4:3. stylecli check proposes one."
        ),
    ] = "1:1",
    channels: Annotated[
        int | None,
        typer.Option(help="1 grey, 3 RGB, 4 RGBA. Default: 1 if all are grey, else 3."),
    ] = None,
    transform: Annotated[
        str,
        typer.Option(
            help="How to fit a picture: center-crop, subject (a square around faces or what "
            "stands out), wide, tall, letterbox, pad, stretch or celeba."
        ),
    ] = "center-crop",
    width: Annotated[
        int | None, typer.Option(help="Width in pixels with tall. Default: three quarters.")
    ] = None,
    height: Annotated[
        int | None, typer.Option(help="Height in pixels with wide. Default: three quarters.")
    ] = None,
    resample: Annotated[
        str, typer.Option("--filter", help="Resizing filter: lanczos, box or bicubic.")
    ] = "lanczos",
    enlarge: Annotated[
        bool,
        typer.Option(
            "--enlarge", help="Enlarge pictures that are too small instead of leaving them out."
        ),
    ] = False,
    as_stored: Annotated[
        bool,
        typer.Option(
            "--as-stored", help="Keep photographs as stored. Default: turn them upright by EXIF."
        ),
    ] = False,
    upright: Annotated[
        bool, typer.Option("--upright", help="The default; accepted for older scripts.")
    ] = False,
    icc: Annotated[
        str, typer.Option(help="Colour profiles: convert (to sRGB) or ignore.")
    ] = "convert",
    background: Annotated[
        str, typer.Option(help="Colour under transparent pictures: a name or #rrggbb.")
    ] = "white",
    labels: Annotated[
        Path | None,
        typer.Option(help="File of labels: dataset.json, CSV, or one-hot .npy. Default: SRC's."),
    ] = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Leave labels out.")] = False,
    include_generated: Annotated[
        bool,
        typer.Option("--include-generated", help="Also take pictures that stylecli made."),
    ] = False,
    max_images: Annotated[
        int | None, typer.Option(help="Take only this many, spread evenly over the source.")
    ] = None,
    keep_duplicates: Annotated[
        bool,
        typer.Option(
            "--keep-duplicates", help="Also store pictures with the same pixels as another."
        ),
    ] = False,
    codec: Annotated[
        str, typer.Option(help="How pixels are stored, always lossless: raw, png or webp.")
    ] = "raw",
    pyramid: Annotated[
        bool, typer.Option("--pyramid", help="Also store lower resolutions: a third more space.")
    ] = False,
    append: Annotated[
        bool, typer.Option("--append", help="Add the pictures to the dataset at --out.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that prepare pictures. Default: one per CPU, up to 8."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first unusable picture.")
    ] = False,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Pack pictures into a dataset for training.

    Example: stylecli pack photos/ --resolution 256

    Each picture is cut to its central square and resized. Unusable pictures are skipped and listed.
    Run the same command to continue after an interruption.
    """
    output = Output(json=json, quiet=quiet)
    check_pictures(source)
    check_files(DataError, labels=labels)
    from stylecli.data.pack_settings import MAX_PACKED_RESOLUTION, PackSettings

    if as_stored and upright:
        raise UsageError("--as-stored and --upright contradict each other: give one of them")
    grid = parse_shape(shape)
    if resolution is not None and not grid.is_usual:
        resolution = grid.level_with(resolution, MAX_PACKED_RESOLUTION)
    settings = PackSettings(
        resolution=resolution,
        base=grid,
        channels=channels,
        filter=resample,  # type: ignore[arg-type]  # checked by PackSettings
        transform=transform,  # type: ignore[arg-type]
        width=width,
        height=height,
        exif=False if as_stored else None,
        icc=icc,  # type: ignore[arg-type]
        background=_colour(background),
        enlarge=enlarge,
        codec=codec,  # type: ignore[arg-type]
        pyramid=pyramid,
        labels=not no_labels,
        max_images=max_images,
        keep_duplicates=keep_duplicates,
    )
    opening = {"labels": labels, "include_generated": include_generated}
    choices = {"strict": strict, "force": force, "append": append, "workers": workers}
    if out is not None and out.suffix.lower() == ".zip":
        _pack_zip(source, opening, out, settings, output, choices)
        return
    report = _pack(source, opening, out, settings, output, **choices)
    output.result({**asdict(report), "path": str(report.path)}, _lines(report))


def pack_to(
    out: Path | None,
    source: Path,
    resolution: int | None,
    output: Output,
    *,
    grid: Grid = SQUARE,
    transform: "Transform",
) -> Path:
    """Pack pictures as the command does, telling it on stderr only; return the dataset.

    ``resolution`` is a level of ``grid``.
    Raises DataError when there is nothing to pack or when a dataset of other pictures or settings
    is in the way.
    """
    from stylecli.data.pack_settings import PackSettings

    settings = PackSettings(resolution=resolution, base=grid, transform=transform)
    report = _pack(source, {}, out, settings, output)
    output.note(f"{report.path}: {', '.join(_lines(report)[1:])}")
    return report.path


def _as_they_are(path: Path, asked: Grid | None) -> tuple[Grid, int | None]:
    return asked or SQUARE, None


def prepare_dataset(
    data: Path | None,
    resolution: int | None,
    shape: str | None,
    preset: str | None,
    output: Output,
    *,
    only_packed: str = "",
    run: Path | None = None,
    usual: Callable[[Path, Grid | None], tuple[Grid, int | None]] = _as_they_are,
) -> "Dataset":
    """Return the dataset to train on; pictures are packed into datasets/ first.

    Without ``data`` it is the one that ``run`` was trained on, where there is such a run. They are
    packed in this ``shape`` (width:height) and at this ``resolution``, else in the ``usual`` grid
    and level for a folder and the grid that is asked for, or as the preset's own set was, where it
    has one. ``only_packed`` is who never packs:
    then pictures are a UsageError with the command that packs them.
    """
    from stylecli.data.reader import open_dataset
    from stylecli.training.presets import SETS, name_preset

    asked = None if shape is None else parse_shape(shape)
    found = find_dataset(data, run=run)
    if found.why:
        output.note(f"using {found.path}, {found.why}")
    path = found.path
    if not (path / "data.mdb").is_file():
        published = SETS.get(name_preset(preset)) if preset else None
        dataset, out = packed_from(path, resolution, asked, output)
        if dataset is not None:
            return dataset
        grid, level = usual(path, asked)
        if resolution is not None:
            from stylecli.data.pack_settings import MAX_PACKED_RESOLUTION

            level = resolution  # of squares, PackSettings checks it
            if not grid.is_usual:
                level = grid.level_with(resolution, MAX_PACKED_RESOLUTION)
        elif level is None and published and preset != "paper":
            level = published.resolutions[0]
        transform: Transform = "center-crop"
        if published and grid.is_usual:  # else with bars, which another shape does not need
            transform = published.transform
        if only_packed:
            words = ["stylecli", "pack", str(path)]
            words += [] if grid.is_usual else ["--shape", grid.ratio]
            words += ["--resolution", str(min(grid.at(level)))] if level else []
            words += ["--transform", transform] if transform != "center-crop" else []
            words += ["--out", str(out)] if out else []
            raise UsageError(f"{only_packed} does not pack: run {join(words)}")
        path = pack_to(out, path, level, output, grid=grid, transform=transform)
    dataset = open_dataset(path)
    if asked not in (None, dataset.grid):
        raise UsageError(
            f"--shape {shape} differs from {path}, which holds {dataset.size} px: leave it out, or "
            "pack the pictures again with it"
        )
    if resolution is not None and resolution != min(dataset.size):
        raise UsageError(
            f"--resolution {resolution} differs from {path}, which holds "
            f"{dataset.size} px: leave it out, or pack the pictures again with it"
        )
    return dataset


def own_level(path: Path, grid: Grid) -> int:
    """Return the level that pictures are packed at if no resolution is asked for."""
    from stylecli.data.pack_settings import PackSettings, choose_recipe
    from stylecli.data.sources.base import spread
    from stylecli.data.sources.recognition import find_source

    source = find_source(path)
    settings = PackSettings(base=grid).completed(source)
    return choose_recipe(source, spread(source, None), settings).resolution


def packed_from(
    path: Path, resolution: int | None, grid: Grid | None, output: Output
) -> tuple["Dataset | None", Path | None]:
    """Return (the dataset that was packed from pictures, where to pack them if not by default).

    It is the newest, whatever it was packed with, but for a ``resolution`` and a ``grid`` that are
    asked for; a note says which. Raises DataError for no pictures, and where the dataset of their
    name holds others.
    """
    from stylecli.data.pack_settings import options_of
    from stylecli.data.packing import find_packed
    from stylecli.data.sources.recognition import find_source

    source = find_source(path)
    out, found = default_out(source), find_packed(source)
    for dataset in found:
        if resolution in (None, min(dataset.size)) and grid in (None, dataset.grid):
            options = options_of(dataset.info.get("settings"))
            output.note(
                f"using {dataset.path}, packed from {path}: {plural(len(dataset), 'picture')}, "
                f"{dataset.size} px{''.join(f', {option}' for option in options)}"
            )
            return dataset, None
    if found:  # of other sizes or shapes
        shape = f"-{grid.ratio.replace(':', 'x')}" if grid else ""
        side = f"-{resolution}" if resolution else ""
        return None, out.with_name(f"{source.name}{shape}{side}.lmdb")
    if out.exists():
        from stylecli.data.reader import open_dataset

        words = " ".join(["", *options_of(open_dataset(out).info.get("settings"))])
        raise DataError(
            f"the pictures of {path} changed since {out} was packed: give {out} to use it as it "
            f"is, or replace it: stylecli pack {quote(str(path))}{words} --force"
        )
    return None, None


def default_out(source: "Source") -> Path:
    """Return where pictures are packed unless told otherwise."""
    return Path("datasets") / f"{source.name}.lmdb"


def _pack(
    source: Path,
    opening: dict[str, Any],
    out: Path | None,
    settings: "PackSettings",
    output: Output,
    **choices: Any,
) -> "PackReport":
    """Pack with progress and notes on stderr."""
    from stylecli.data.packing import pack
    from stylecli.data.preparation import WITH_BARS
    from stylecli.data.sources.recognition import find_source

    if choices.get("append") and out is None:
        raise UsageError("--append needs the dataset to add to: name it with --out")
    pictures = find_source(source, own_labels=settings.labels, **opening)
    out = out or default_out(pictures)
    for note in pictures.notes:
        output.note(f"{source}: {note}")
    with output.progress("packing", "pictures") as progress:
        report = pack(
            pictures,
            out,
            settings,
            progress=progress,
            announce=lambda plan: _announce(plan, source, output),
            **choices,
        )
    if settings.recipe(256, 3).transform in WITH_BARS:
        output.note(
            f"--transform {settings.transform} adds black bars to pictures of other shapes, and "
            "the network will draw them: --transform subject cuts towards the subject instead"
        )
    if report.was_there:
        output.note(f"{report.path} already exists, made from the same pictures")
    _tell_skipped(report, output)
    if report.enlarged:
        output.note(
            f"{plural(report.enlarged, 'picture was', 'pictures were')} smaller than "
            f"{report.size} px and enlarged"
        )
    return report


def _pack_zip(
    source: Path,
    opening: dict[str, Any],
    out: Path,
    settings: "PackSettings",
    output: Output,
    choices: dict[str, Any],
) -> None:
    """Write NVIDIA's format, from a dataset as it is, else by way of a temporary one."""
    import shutil

    from stylecli.data.exporting import export_nvidia, find_export
    from stylecli.data.pack_settings import PackSettings
    from stylecli.data.packing import identify
    from stylecli.data.reader import open_dataset
    from stylecli.data.sources.lmdb_pictures import PackedSource
    from stylecli.data.sources.recognition import find_source

    if choices["append"]:
        raise UsageError(f"--append adds to a dataset, and {out} is a zip: give --out X.lmdb")
    if not settings.base.is_usual:
        raise UsageError(
            f"the tools that read NVIDIA's format take square pictures only: leave out --shape "
            f"{settings.base.ratio}, or give --out X.lmdb"
        )
    if settings.channels == 4:
        raise UsageError(
            f"NVIDIA's format has no transparency, and {out} would lose it: give --channels 1 or 3"
        )
    pictures = find_source(source, **opening)
    temporary: Path | None = out.with_name(out.name + ".lmdb")
    if (
        opening["labels"] is None
        and settings == PackSettings()
        and isinstance(pictures, PackedSource)
    ):
        temporary = None
        work = {"kind": "export", "fingerprint": pictures.fingerprint()}
    else:
        work = identify(pictures, settings)
    report = None if choices["force"] else find_export(out, work)
    if report is not None:
        output.note(f"{out} already exists, made from the same pictures")
        if temporary is not None and not _is_left_of(temporary, work):
            temporary = None
    else:
        _check_zip(source, out, force=choices["force"])
        if temporary is not None:
            _pack(source, opening, temporary, settings, output, **{**choices, "force": False})
        with output.progress("exporting", "pictures") as progress:
            report = export_nvidia(
                open_dataset(temporary or source),
                out,
                made_from=work,
                force=choices["force"],
                progress=progress,
            )
    if temporary is not None:
        shutil.rmtree(temporary, ignore_errors=True)
    output.result(
        {**asdict(report), "path": str(report.path)},
        [str(report.path), f"{plural(report.count, 'picture')}, {report.resolution} px"],
    )


def _is_left_of(temporary: Path, work: dict[str, Any]) -> bool:
    """Whether a folder is what a killed command of the same work left, in part or as a whole."""
    from stylecli.data.reader import open_dataset
    from stylecli.data.unfinished import OWN_FILES

    try:
        return open_dataset(temporary).info.get("settings") == work
    except DataError:
        names = {path.name for path in temporary.iterdir()} if temporary.is_dir() else {""}
        return names < OWN_FILES and "data.mdb" not in names


def _check_zip(source: Path, out: Path, *, force: bool) -> None:
    """Raise unless ``out`` may be written: never over the source, nor over what is no export."""
    import zipfile

    if not out.exists():
        return
    if source.exists() and out.samefile(source):
        raise UsageError(f"--out {out} is the source itself: give another --out")
    if not force:
        raise DataError(f"{out} exists: give another --out, or --force to replace it")
    exported = False
    if out.is_file() and zipfile.is_zipfile(out):
        with zipfile.ZipFile(out) as archive:
            exported = "dataset.json" in archive.namelist()
    if not exported:
        raise DataError(
            f"{out} is not a dataset in NVIDIA's format, so --force does not replace it: give "
            f"another --out"
        )


def _announce(plan: "Plan", source: Path, output: Output) -> None:
    from stylecli.progress import format_bytes

    if plan.shape:
        output.note(f"{source}: {plan.shape}")
    if plan.position:
        output.note(f"continuing after picture {plan.position:,} of {plan.count:,}")
    output.note(
        f"{plan.path}: {plural(plan.count, 'picture')} of {plan.size} px, about "
        f"{format_bytes(plan.needed_bytes)} of {format_bytes(plan.free_bytes)} free"
    )


def _tell_skipped(report: "PackReport", output: Output) -> None:
    """Say how many pictures were left out, for which causes, and name the first."""
    if not report.skipped:
        return
    output.warn(f"{plural(len(report.skipped), 'picture was', 'pictures were')} skipped")
    if len(report.skipped) > SHOWN_SKIPPED:
        for cause, count in report.causes.items():
            output.note(f"  {count:,} x {cause}")
    for skipped in report.skipped[:SHOWN_SKIPPED]:
        output.note(f"  {skipped.name} {skipped.cause}")
    if len(report.skipped) > SHOWN_SKIPPED:
        output.note(f"  and {len(report.skipped) - SHOWN_SKIPPED:,} more (--json lists all)")


def _lines(report: "PackReport") -> list[str]:
    colours = {1: "grey", 3: "RGB", 4: "RGBA"}[report.channels]
    added = f" ({report.added:,} of them added)" if report.added < report.count else ""
    lines = [
        str(report.path),
        f"{plural(report.count, 'picture')}{added}, {report.size} px, {colours}",
    ]
    if report.classes:
        shown = list(report.classes.items())[:SHOWN_CLASSES]
        named = ", ".join(f"{name} ({count:,})" for name, count in shown)
        more = ", ..." if len(report.classes) > SHOWN_CLASSES else ""
        lines.append(f"{plural(len(report.classes), 'class', 'classes')}: {named}{more}")
    return lines


def _colour(text: str) -> tuple[int, int, int]:
    from PIL import ImageColor

    try:
        red, green, blue, *_ = ImageColor.getrgb(text)
    except ValueError:
        raise UsageError(
            f"background {text!r} is not a colour: give a name such as white, or #rrggbb"
        ) from None
    return red, green, blue

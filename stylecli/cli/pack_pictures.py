"""``stylecli pack``: pictures in, an LMDB dataset out."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stylecli.cli.options import ForceOption, JsonOption, OutOption, QuietOption
from stylecli.cli.output import Output

if TYPE_CHECKING:
    from stylecli.data.packing import PackReport, PackSettings

SHOWN_CLASSES = 12
SHOWN_SKIPPED = 10  # skipped pictures named on stderr; --json lists all


def command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC",
            help="Folder of pictures (sub-folders become classes), or MNIST-style idx files.",
        ),
    ],
    out: OutOption = None,
    resolution: Annotated[
        int | None,
        typer.Option(
            help="Side in pixels, a power of two. "
            "Default: the largest within the median picture, at most 1024.",
        ),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(help="1 grey, 3 RGB, 4 RGBA. Default: 1 if all are grey, else 3."),
    ] = None,
    resample: Annotated[
        str, typer.Option("--filter", help="Resizing filter: lanczos, box or bicubic.")
    ] = "lanczos",
    codec: Annotated[
        str, typer.Option(help="How pixels are stored, always lossless: raw, png or webp.")
    ] = "raw",
    pyramid: Annotated[
        bool, typer.Option("--pyramid", help="Store lower resolutions too: a third more space.")
    ] = False,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Leave classes out.")] = False,
    max_images: Annotated[
        int | None, typer.Option(help="Take only so many, spread evenly over the source.")
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

    Each picture is cut to its central square and resized. Unusable pictures are skipped and
    listed. Writes datasets/<name of SRC>.lmdb; the same command again finds it done.
    """
    from stylecli.data.packing import PackSettings

    output = Output(json=json, quiet=quiet)
    settings = PackSettings(
        resolution=resolution,
        channels=channels,
        filter=resample,  # type: ignore[arg-type]  # checked by PackSettings
        codec=codec,  # type: ignore[arg-type]
        pyramid=pyramid,
        labels=not no_labels,
        max_images=max_images,
    )
    report = _pack(source, out, settings, output, strict=strict, force=force)
    output.result({**asdict(report), "path": str(report.path)}, _lines(report))


def pack_to_default(source: Path, resolution: int | None, output: Output) -> Path:
    """Pack pictures as the bare command does, telling it on stderr only; return the dataset.

    Raises DataError when there is nothing to pack or when a dataset of other pictures or settings
    is in the way.
    """
    from stylecli.data.packing import PackSettings

    report = _pack(source, None, PackSettings(resolution=resolution), output)
    output.note(f"{report.path}: {', '.join(_lines(report)[1:])}")
    return report.path


def _pack(
    source: Path,
    out: Path | None,
    settings: "PackSettings",
    output: Output,
    *,
    strict: bool = False,
    force: bool = False,
) -> "PackReport":
    """Pack with progress and notes on stderr."""
    from stylecli.data.packing import pack
    from stylecli.data.sources import find_source

    pictures = find_source(source)
    out = out or Path("datasets") / f"{pictures.name}.lmdb"
    with output.progress("packing", "pictures") as progress:
        report = pack(pictures, out, settings, strict=strict, force=force, progress=progress)
    if report.was_there:
        output.note(f"{report.path} is there already, made from the same pictures")
    if report.skipped:
        output.warn(f"{len(report.skipped)} pictures were skipped")
        for skipped in report.skipped[:SHOWN_SKIPPED]:
            output.note(f"  {skipped.name} {skipped.cause}")
        if len(report.skipped) > SHOWN_SKIPPED:
            output.note(f"  and {len(report.skipped) - SHOWN_SKIPPED} more (--json lists all)")
    if report.enlarged:
        output.note(
            f"{report.enlarged} pictures are smaller than {report.resolution} px and were enlarged"
        )
    return report


def _lines(report: "PackReport") -> list[str]:
    colours = {1: "grey", 3: "RGB", 4: "RGBA"}[report.channels]
    lines = [str(report.path), f"{report.count:,} pictures, {report.resolution} px, {colours}"]
    if report.classes:
        shown = list(report.classes.items())[:SHOWN_CLASSES]
        named = ", ".join(f"{name} ({count:,})" for name, count in shown)
        more = ", ..." if len(report.classes) > SHOWN_CLASSES else ""
        lines.append(f"{len(report.classes)} classes: {named}{more}")
    return lines

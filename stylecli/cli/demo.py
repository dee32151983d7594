"""``stylecli demo``: the whole tool in one command."""

import os
from pathlib import Path
from typing import Annotated

import typer

from stylecli.cli.options import ForceOption, JsonOption, QuietOption, SeedOption, own_command
from stylecli.cli.output import Output
from stylecli.distributed.ranks import find_place, sharing_ranks
from stylecli.progress import format_seconds
from stylecli.workspace import check_demo_folder


def command(
    minutes: Annotated[
        float,
        typer.Option("--minutes", min=0.05, help="Training time; the rest takes about 2 minutes."),
    ] = 5.0,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("demo"),
    ranks: Annotated[
        int | None,
        typer.Option("--ranks", min=1, help="Training processes. Default: 2, or 1 on one core."),
    ] = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a StyleGAN on drawn faces and show it all on one page.

    Example: stylecli demo --minutes 5

    Needs no data and no GPU. Run the same command to continue after an interruption.
    """
    output = Output(json=json, quiet=quiet)
    if find_place(os.environ) is None:  # else the main process fills the folder by now
        check_demo_folder(out, minutes, seed, force=force)
    count = ranks or min(2, os.cpu_count() or 1)
    from stylecli.demo import follow_demo, run_demo, stored_ranks

    if find_place(os.environ) is None and not force:
        count = stored_ranks(out) or count
    with sharing_ranks(None if find_place(os.environ) else count, "cpu", own_command()) as group:
        if not group.is_main:
            follow_demo(group)
            return
        result = run_demo(
            out,
            minutes=minutes,
            seed=seed,
            ranks=group,
            force=force,
            progress=output.progress,
            say=output.note,
            show=output.picture,
        )
    rows = [
        (item["name"], "–" if item["value"] is None else f"{item['value']:.4g}", item["meaning"])
        for item in result.metrics
    ]
    lines = [*output.table(("metric", "value", "meaning"), rows), ""]
    lines += [f"done in {format_seconds(result.seconds)}; open {result.report}"]
    document = {
        "folder": str(result.folder),
        "network": str(result.network),
        "report": str(result.report),
        "finished": result.finished,
        "seconds": round(result.seconds, 1),
        "metrics": result.metrics,
    }
    output.result(document, lines)

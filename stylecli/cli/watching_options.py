"""The options of ``stylecli train`` that watch over a run without changing what it learns."""

from pathlib import Path
from typing import Annotated

import typer

from stylecli.cli.training_options import WATCHING

WatchOption = Annotated[
    str,
    typer.Option(
        "--watch",
        help="When a run goes wrong: warn, stop, rollback to the best or newest checkpoint, off.",
        rich_help_panel=WATCHING,
    ),
]
MetricsOption = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        help="Measure snapshots, such as kid,ppl; the first decides which is best.",
        rich_help_panel=WATCHING,
    ),
]
MetricSamplesOption = Annotated[
    int | None,
    typer.Option(
        "--metric-samples",
        min=2,
        help="Generated pictures (pairs for ppl) to measure. Default: by device.",
        rich_help_panel=WATCHING,
    ),
]
ClassifiersOption = Annotated[
    Path | None,
    typer.Option(
        "--classifiers",
        help="For --metrics ls: a file of classifiers, or the folder of the official ones. "
        "Default: the dataset's in the cache.",
        rich_help_panel=WATCHING,
    ),
]
MetricsEveryOption = Annotated[
    int | None,
    typer.Option(
        "--metrics-every",
        min=1,
        help="Measure the first snapshot of every so many ticks. Default: each snapshot.",
        rich_help_panel=WATCHING,
    ),
]
TensorboardOption = Annotated[
    bool,
    typer.Option(
        "--tensorboard", help="Write event files for TensorBoard too.", rich_help_panel=WATCHING
    ),
]

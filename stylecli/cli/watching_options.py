"""The options of ``stylecli train`` that watch over a run without changing what it learns."""

from pathlib import Path
from typing import Annotated

import typer

from stylecli.settings import WATCHING

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

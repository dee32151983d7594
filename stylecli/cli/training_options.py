"""The options of ``stylecli train`` that are no settings of a network, a run or a session."""

from pathlib import Path
from typing import Annotated

import typer

from stylecli.settings import MACHINE, NETWORK, PICTURES, RUN, SCHEDULE

DataArgument = Annotated[
    Path | None,
    typer.Argument(help="Dataset, or pictures to pack first. Default: the one in datasets/."),
]

ConfigOption = Annotated[
    str,
    typer.Option(
        "--config", help="Paper configuration: a b c d e f, traditional-8, ...",
        rich_help_panel=NETWORK,
    ),
]  # fmt: skip

PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="paper, celebahq, lsun-bedroom, lsun-car, lsun-cat, photos or small. "
        "Default: by device and pictures.",
        rich_help_panel=SCHEDULE,
    ),
]


ResolutionOption = Annotated[
    int | None,
    typer.Option(
        "--resolution", help="Pixels on a side; packs pictures to it.", rich_help_panel=PICTURES
    ),
]
LabelsOption = Annotated[
    bool | None,
    typer.Option(
        "--labels/--no-labels",
        help="Train on the dataset's classes. Default: no; with --resume, as there.",
        rich_help_panel=PICTURES,
    ),
]

ResumeOption = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Begin with a run, RUN/best, a checkpoint or any network file.",
        rich_help_panel=RUN,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Run folder. Default: the next in runs/.", rich_help_panel=RUN),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print all settings with their reasons and stop.", rich_help_panel=RUN
    ),
]


RanksOption = Annotated[
    int | None,
    typer.Option(
        "--ranks", min=1, help="Processes that share a batch (CPU).", rich_help_panel=MACHINE
    ),
]
GpusOption = Annotated[
    int | None,
    typer.Option(
        "--gpus", min=1, help="GPUs that share a batch, a process each.", rich_help_panel=MACHINE
    ),
]

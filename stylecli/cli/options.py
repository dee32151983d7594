"""Options that mean one thing everywhere, spelled once."""

from pathlib import Path
from typing import Annotated

import typer

NetworkOption = Annotated[
    Path | None,
    typer.Option("--network", help="Network file or run folder. Default: the newest run here."),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Dataset (LMDB folder). Default: the only one in datasets/."),
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Where to write.")]
PsiOption = Annotated[
    float | None,
    typer.Option("--psi", help="Truncation: 1 = none, 0 = the average face. Default 0.7."),
]
PsiCutoffOption = Annotated[
    int | None,
    typer.Option("--psi-cutoff", help="Truncate only the first N layers; 0 = all of them."),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or mps.", metavar="DEVICE")
]
BatchOption = Annotated[int | None, typer.Option("--batch", min=1, help="Pictures at a time.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite what exists.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No notes, no progress.")]

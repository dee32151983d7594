"""The options of ``stylecli train``, one alias each, under the heading they have in its help.

A new option is one alias here, under its theme, and one parameter of the command.
"""

from pathlib import Path
from typing import Annotated

import typer

from stylecli.errors import UsageError

# Headings of the help, in the order of the parameters of the command.
NETWORK = "Network"
SCHEDULE = "Schedule"
OPTIMIZERS = "Optimizers"
LOSS = "Losses"
PICTURES = "Pictures"
RUN = "Run"
WATCHING = "Watching and saving"
MACHINE = "Machine"

DataArgument = Annotated[
    Path | None,
    typer.Argument(help="Dataset, or pictures to pack first. Default: the one in datasets/."),
]

# Network
ConfigOption = Annotated[
    str,
    typer.Option(
        "--config", help="Paper configuration: a b c d e f, traditional-8, ...",
        rich_help_panel=NETWORK,
    ),
]  # fmt: skip
FmapBaseOption = Annotated[
    int | None,
    typer.Option(
        "--fmap-base", help="Feature maps: base / 2^stage, up to max.", rich_help_panel=NETWORK
    ),
]
FmapMaxOption = Annotated[
    int | None, typer.Option("--fmap-max", help="Most feature maps.", rich_help_panel=NETWORK)
]
ZDimOption = Annotated[
    int | None, typer.Option("--z-dim", help="Size of the latent z.", rich_help_panel=NETWORK)
]
WDimOption = Annotated[
    int | None, typer.Option("--w-dim", help="Size of the latent w.", rich_help_panel=NETWORK)
]
MappingLayersOption = Annotated[
    int | None,
    typer.Option("--mapping-layers", help="Layers from z to w.", rich_help_panel=NETWORK),
]
MappingFmapsOption = Annotated[
    int | None,
    typer.Option("--mapping-fmaps", help="Width of the mapping layers.", rich_help_panel=NETWORK),
]
FusedScaleOption = Annotated[
    str | None,
    typer.Option(
        "--fused-scale",
        help="Resampling inside convolutions: auto (from 128 px), on or off. Default auto.",
        rich_help_panel=NETWORK,
    ),
]
MbstdGroupOption = Annotated[
    int | None,
    typer.Option(
        "--mbstd-group",
        min=0,
        help="Pictures whose deviation D sees at once; 0 = none. Default 4.",
        rich_help_panel=NETWORK,
    ),
]

# Schedule
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="paper, celebahq, lsun-bedroom, lsun-car, lsun-cat, photos or small. "
        "Default: by device and pictures.",
        rich_help_panel=SCHEDULE,
    ),
]
KimgOption = Annotated[
    float | None,
    typer.Option(
        "--kimg", help="Length: thousands of real images shown.", rich_help_panel=SCHEDULE
    ),
]
BatchOption = Annotated[
    str | None,
    typer.Option(
        "--batch",
        help="Images per step over all processes: 16 everywhere, or 64:32,128:16 by resolution.",
        rich_help_panel=SCHEDULE,
    ),
]
MinibatchRepeatsOption = Annotated[
    int | None,
    typer.Option(
        "--minibatch-repeats",
        min=1,
        help="Steps between looks at the schedule. Default 4.",
        rich_help_panel=SCHEDULE,
    ),
]
InitialResolutionOption = Annotated[
    int | None,
    typer.Option("--initial-resolution", help="Where growth starts.", rich_help_panel=SCHEDULE),
]
HoldKimgOption = Annotated[
    float | None,
    typer.Option("--hold-kimg", help="Time at each grown resolution.", rich_help_panel=SCHEDULE),
]
FadeKimgOption = Annotated[
    float | None,
    typer.Option("--fade-kimg", help="Time to fade the next one in.", rich_help_panel=SCHEDULE),
]

# Optimizers
LrOption = Annotated[
    str | None,
    typer.Option(
        "--lr",
        help="Learning rate: 0.001 everywhere, or 128:0.0015,256:0.002 by resolution.",
        rich_help_panel=OPTIMIZERS,
    ),
]
Beta1Option = Annotated[
    float | None,
    typer.Option("--beta1", help="Adam's β1. Default 0.", rich_help_panel=OPTIMIZERS),
]
Beta2Option = Annotated[
    float | None,
    typer.Option("--beta2", help="Adam's β2. Default 0.99.", rich_help_panel=OPTIMIZERS),
]
EmaKimgOption = Annotated[
    float | None,
    typer.Option(
        "--ema-kimg",
        help="Half-life of the averaged generator. Default 10.",
        rich_help_panel=OPTIMIZERS,
    ),
]

# Losses
LossOption = Annotated[
    str | None,
    typer.Option(
        "--loss", help="logistic, logistic-saturating, wgan-gp, hinge or hinge-gp.",
        rich_help_panel=LOSS,
    ),
]  # fmt: skip
GammaOption = Annotated[
    float | None,
    typer.Option("--gamma", help="Weight of R1 (logistic losses).", rich_help_panel=LOSS),
]
GammaFakeOption = Annotated[
    float | None,
    typer.Option(
        "--gamma-fake", help="Weight of R2, R1 on fakes. Default 0.", rich_help_panel=LOSS
    ),
]
R1Option = Annotated[
    str | None,
    typer.Option(
        "--r1", help="exact, or fd: finite differences. Default exact.", rich_help_panel=LOSS
    ),
]
R1IntervalOption = Annotated[
    int | None,
    typer.Option("--r1-interval", min=1, help="R1 every so many steps.", rich_help_panel=LOSS),
]
ShareFakesOption = Annotated[
    bool | None,
    typer.Option(
        "--share-fakes/--own-fakes",
        help="Train D and G on the same fakes, or on their own.",
        rich_help_panel=LOSS,
    ),
]
MixingOption = Annotated[
    float | None,
    typer.Option("--mixing", help="Probability of style mixing.", rich_help_panel=LOSS),
]

# Pictures
ResolutionOption = Annotated[
    int | None,
    typer.Option(
        "--resolution", help="Pixels on a side; packs pictures to it.", rich_help_panel=PICTURES
    ),
]
MirrorOption = Annotated[
    bool | None,
    typer.Option(
        "--mirror/--no-mirror",
        help="Flip half of the pictures, or none.",
        rich_help_panel=PICTURES,
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

# Run
ResumeOption = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Begin with a run, RUN/best, a checkpoint or any network file.",
        rich_help_panel=RUN,
    ),
]
FreezeDOption = Annotated[
    int | None,
    typer.Option(
        "--freeze-d",
        min=0,
        help="With --resume: layers of D that stay as they are.",
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

# Watching and saving
TickKimgOption = Annotated[
    float | None,
    typer.Option("--tick-kimg", help="Reporting interval.", rich_help_panel=WATCHING),
]
SnapshotTicksOption = Annotated[
    int | None,
    typer.Option(
        "--snapshot-ticks", help="Save every so many ticks.", rich_help_panel=WATCHING
    ),
]  # fmt: skip
KeepOption = Annotated[
    int | None,
    typer.Option(
        "--keep",
        min=1,
        help="Snapshots to keep: the newest, and the best. Default: all.",
        rich_help_panel=WATCHING,
    ),
]

# Machine
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
BatchGpuOption = Annotated[
    int | None,
    typer.Option(
        "--batch-gpu",
        min=1,
        help="Most images of a process at a time; a batch takes several passes. Saves memory.",
        rich_help_panel=MACHINE,
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="float32, bf16 or, with CUDA, fp16. Default float32.",
        rich_help_panel=MACHINE,
    ),
]
Tf32Option = Annotated[
    bool,
    typer.Option(
        "--tf32", help="Round float32 products to 10 bits on CUDA.", rich_help_panel=MACHINE
    ),
]


def parse_fused_scale(text: str | None) -> str | bool | None:
    """Return the network's ``fused_scale`` for what was typed; raise UsageError otherwise."""
    values: dict[str | None, str | bool | None] = {
        None: None, "auto": "auto", "on": True, "off": False
    }  # fmt: skip
    if text not in values:
        raise UsageError(f"--fused-scale {text!r} is unknown: expected auto, on or off")
    return values[text]

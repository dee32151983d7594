"""Options that mean one thing everywhere, spelled once; options made of declared settings."""

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from stylecli.cli.output import Output
from stylecli.distributed.ranks import check_shared_device
from stylecli.errors import DeviceError, UsageError, plural
from stylecli.networks.registry import FAMILIES, list_presets
from stylecli.settings import (
    HEADINGS,
    MACHINE,
    NETWORK,
    PICTURES,
    RUN,
    SCHEDULE,
    Setting,
    asked_for,
    settings_of,
)
from stylecli.training.presets import PRESET_TEXTS

if TYPE_CHECKING:
    import torch

    from stylecli.data.reader import Dataset
    from stylecli.distributed.ranks import Ranks
    from stylecli.metrics.classifiers import AttributeClassifiers

NetworkOption = Annotated[
    Path | None,
    typer.Option("--network", help="Network file or run folder. Default: the newest run here."),
]
OutOption = Annotated[Path | None, typer.Option("--out", help="File or folder to write.")]
FolderOption = Annotated[Path | None, typer.Option("--out", help="Folder to write.")]
PsiOption = Annotated[
    float | None,
    typer.Option("--psi", help="Truncation: 1 = none, 0 = the average face. Default 0.7."),
]
PsiCutoffOption = Annotated[
    int | None,
    typer.Option("--psi-cutoff", help="Truncate only the first N layers; 0 = all."),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or mps.", metavar="DEVICE")
]
BatchOption = Annotated[int | None, typer.Option("--batch", min=1, help="Pictures at a time.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of all random numbers.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]
SlowerOption = Annotated[
    bool, typer.Option("--force", help="Use bf16 even if it is slower than float32.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print no notes and no progress.")]

ClassifiersOption = Annotated[
    Path | None,
    typer.Option(
        "--classifiers",
        help="A file of classifiers, or the folder of the official celebahq-classifier-NN-"
        "name.pkl. Default: those in the cache.",
    ),
]
TrainClassifiersOption = Annotated[
    bool,
    typer.Option(
        "--train-classifiers", help="First train classifiers on the dataset; kept in the cache."
    ),
]
AttributesOption = Annotated[
    Path | None,
    typer.Option(
        "--attributes",
        help="For --train-classifiers: CSV of picture and attributes. Default: the dataset's.",
    ),
]

ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        help=f"Which network: {', '.join(list_presets(trainable=True))}. Default: f, or the "
            f"source's with --resume.",
        rich_help_panel=NETWORK,
    ),
]  # fmt: skip
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help=f"How to train: {', '.join(PRESET_TEXTS)}. Each is for one family of networks, the "
        "last two for all. Default: by configuration, device and pictures.",
        rich_help_panel=SCHEDULE,
    ),
]
ShapeOption = Annotated[
    str | None,
    typer.Option(
        "--shape",
        help="Width to height of the pictures, such as 4:3; --resolution is the shorter side then.",
        rich_help_panel=PICTURES,
    ),
]
LabelsOption = Annotated[
    bool | None,
    typer.Option(
        "--labels/--no-labels",
        help="Train on the dataset's classes. Default: no, or as in the source with --resume.",
        rich_help_panel=PICTURES,
    ),
]
SettingsOption = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        help="Read settings from a file: from --dry-run --json, or a few in TOML or JSON. Options "
        "override it.",
        rich_help_panel=RUN,
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
        "--gpus", min=1, help="GPUs that share a batch, one process each.", rich_help_panel=MACHINE
    ),
]


NodesOption = Annotated[
    int | None,
    typer.Option(
        "--nodes",
        min=1,
        help="With --dry-run: number of machines with --gpus GPUs each. Train on them with "
        "torchrun or Slurm.",
        rich_help_panel=MACHINE,
    ),
]


def own_command() -> list[str]:
    """Return what ``python -P`` runs this command with, in each of several processes."""
    return ["-m", "stylecli", *sys.argv[1:]]


def count_ranks(ranks: int | None, gpus: int | None, device: str) -> int | None:
    """Return the number of processes asked for by --ranks or --gpus.

    Raises UsageError where --gpus meets another device, or several processes one GPU; DeviceError
    where there are fewer.
    """
    if max(ranks or 1, gpus or 1) > 1:
        check_shared_device(device)
    if gpus is None:
        return ranks
    if ranks not in (None, gpus):
        raise UsageError(f"--gpus {gpus} and --ranks {ranks} differ: give one of them")
    from stylecli.hardware import lacks_cuda, resolve_device

    found = 0
    if not lacks_cuda() and resolve_device(device).type == "cuda":
        import torch

        found = torch.cuda.device_count()
    if found < gpus:
        raise DeviceError(
            f"this machine has {plural(found, 'CUDA GPU') if found else 'no CUDA GPU'}, not "
            f"--gpus {gpus}: on CPUs, give the number of processes as --ranks"
        )
    return gpus


def network_settings() -> list[Setting]:
    """Return the settings of networks that are options, of all families, each name once."""
    found: dict[str, Setting] = {}
    for family in FAMILIES.values():
        for name, item in settings_of(family.config).items():
            found.setdefault(name, item)
    return _options(found.values())


def settings_for(config: type) -> list[Setting]:
    """Return the settings of a dataclass that are options."""
    return _options(settings_of(config).values())


def _options(declared: Iterable[Setting]) -> list[Setting]:
    return [item for item in declared if item.flag and not item.common]


def takes_settings(**groups: list[Setting]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every setting; it gets the values of a group by its keyword.

    Its own options stand in the order of their headings, and settings before them or where they
    are declared to. A group is a mapping of what was asked for, by the names of the settings.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter
            for name, parameter in inspect.signature(command).parameters.items()
            if name not in groups
        ]
        order: dict[str, list[inspect.Parameter]] = {heading: [] for heading in (*HEADINGS, "")}
        for parameter in own:
            order[_heading(parameter)].append(parameter)
        for declared in groups.values():
            _place(order, declared, {parameter.name for parameter in own})
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for placed in order.values()
            for parameter in placed
        ]

        @functools.wraps(command)
        def run(**options: Any) -> None:
            given = {name: asked_for(options, declared) for name, declared in groups.items()}
            command(**{item.name: options[item.name] for item in own}, **given)

        return with_parameters(run, parameters)

    return decorate


def with_parameters(
    run: Callable[..., None], parameters: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """Return ``run``, which typer now sees with these parameters."""
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {item.name: item.annotation for item in parameters}
    return run


def _heading(parameter: inspect.Parameter) -> str:
    """Return the heading that an option of a command's own stands under."""
    heading: str | None = None
    for info in get_args(parameter.annotation)[1:]:
        heading = getattr(info, "rich_help_panel", None)
    return heading or ""


def _place(
    order: Mapping[str, list[inspect.Parameter]], declared: Iterable[Setting], own: set[str]
) -> None:
    """Put the options of a dataclass under their headings."""
    before: dict[str, str] = {}  # by heading: the last of this dataclass
    for item in declared:
        placed = order[item.heading]
        names = [parameter.name for parameter in placed]
        after = item.after or before.get(item.heading, "")
        if after in names:
            place = names.index(after) + 1
        else:
            settings = [at for at, other in enumerate(placed) if other.name not in own]
            place = settings[-1] + 1 if settings else 0
        placed.insert(place, _parameter(item))
        before[item.heading] = item.name


def _parameter(item: Setting) -> inspect.Parameter:
    """Return the parameter that typer makes an option of."""
    kinds = [kind for kind in get_args(item.kind) or (item.kind,) if kind is not type(None)]
    typed: Any = str if item.read is not None else kinds[0]
    default = item.default if item.fixed else None  # else a preset decides
    info = typer.Option(item.flag, help=item.help, rich_help_panel=item.heading, min=item.least)
    typed = typed if default is not None else typed | None
    return inspect.Parameter(
        item.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[typed, info],
    )


@dataclass(frozen=True)
class ClassifierSource:
    """What the command line says of classifiers, and what that comes to."""

    given: Path | None  # --classifiers: a file, or a folder of official pickles
    train: bool = False  # --train-classifiers
    attributes: Path | None = None  # --attributes: a CSV to train from

    def check(self, names: Sequence[str]) -> None:
        """Raise UsageError for options that contradict each other or have nothing to act on."""
        if self.given is not None and self.train:
            raise UsageError("--classifiers and --train-classifiers exclude each other: give one")
        if self.attributes is not None and not self.train:
            raise UsageError("--attributes is for training classifiers: add --train-classifiers")
        if (self.given or self.train) and not asks_for(names):
            raise UsageError(
                "classifiers are for ls only: run stylecli metrics ls, or leave them out"
            )

    def obtain(
        self,
        names: Sequence[str],
        dataset: "Dataset | None",
        resolution: int,
        device: "torch.device",
        output: Output,
        ranks: "Ranks | None" = None,
    ) -> "AttributeClassifiers | None":
        """Return the classifiers for pictures of ``resolution`` px; None when there are none.

        Those given, else trained ones, else what the cache has: of this dataset, or official. Over
        ``ranks`` the main one finds or trains them, and all read the same.
        """
        if not asks_for(names):
            return None
        path = self.given
        if path is None and (ranks is None or ranks.is_main):
            if self.train and dataset is not None:
                with ranks.alone() if ranks is not None else contextlib.nullcontext():
                    path = self._train(dataset, resolution, device, output)
            else:
                from stylecli.metrics.classifier_training import find_in_cache

                if (path := find_in_cache(dataset, resolution, tell=output.warn)) is not None:
                    output.note(f"classifiers: {path}")
        if ranks is not None:
            found = ranks.from_main(str(path.resolve()) if path is not None else None)
            path = Path(found) if found is not None else None
        if path is None:
            return None
        from stylecli.metrics.classifiers import load_classifiers, load_official_classifiers

        return load_official_classifiers(path) if path.is_dir() else load_classifiers(path)

    def _train(
        self, dataset: "Dataset", resolution: int, device: "torch.device", output: Output
    ) -> Path:
        """Train, or finish, the classifiers of a dataset; return their file in the cache."""
        from stylecli.metrics.classifier_training import (
            read_attribute_csv,
            read_attributes,
            train_into_cache,
        )

        if self.attributes is not None:
            table = read_attribute_csv(self.attributes, dataset)
        else:
            table = read_attributes(dataset)
        with output.progress("classifiers", "attributes") as progress:
            path, found = train_into_cache(
                dataset, table, resolution, device=device, progress=progress
            )
        output.note(f"classifiers: {path}")
        for one in found.classifiers:
            output.note(
                f"  {one.name}: {100 * (one.accuracy or 0):.1f} % of {one.held_out} held-out "
                f"pictures right, {100 * (one.commonest or 0):.1f} % by always saying the commonest"
                f" of {len(one.values)} values"
            )
        return path


def asks_for(names: Sequence[str]) -> bool:
    """Tell whether separability is among the metrics."""
    return any(name == "ls" or name.startswith("ls_") for name in names)

"""``stylecli train``: train a network on a dataset, or continue a run."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.options import (
    ClassifierSource,
    ConfigOption,
    DeviceOption,
    GpusOption,
    JsonOption,
    LabelsOption,
    NodesOption,
    PresetOption,
    QuietOption,
    RanksOption,
    SeedOption,
    SettingsOption,
    ShapeOption,
    SlowerOption,
    asks_for,
    count_ranks,
    network_settings,
    own_command,
    settings_for,
    takes_settings,
)
from stylecli.cli.output import Output
from stylecli.cli.pack import own_level, prepare_dataset
from stylecli.cli.refusals import (
    check_files,
    check_numbers,
    check_pictures,
    check_resume,
    check_words,
    split_metrics,
)
from stylecli.distributed.ranks import find_place, sharing_ranks
from stylecli.errors import StyleCLIError, UsageError, WeightsError, plural
from stylecli.settings import PICTURES, RUN, WATCHING
from stylecli.shapes import SQUARE, Grid, parse_shape
from stylecli.training.config import Session, TrainingConfig
from stylecli.training.settings_file import AskedSettings, with_file
from stylecli.workspace import find_dataset, newest_snapshot

if TYPE_CHECKING:
    from stylecli.data.reader import Dataset
    from stylecli.distributed.ranks import Ranks
    from stylecli.networks.model import Bundle
    from stylecli.training.oversight import Evaluate
    from stylecli.training.plan import TrainingPlan
    from stylecli.training.run_folder import RunChoice, RunSettings
    from stylecli.training.run_setup import StartingNetwork
    from stylecli.training.schedule import PlannedStage

DataArgument = Annotated[
    Path | None,
    typer.Argument(help="Dataset, or pictures to pack first. Default: the one in datasets/."),
]
ResolutionOption = Annotated[
    int | None,
    typer.Option(
        "--resolution", help="Side in pixels; packs at this size.", rich_help_panel=PICTURES
    ),
]
ResumeOption = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Start from a run, RUN/best, a checkpoint or any network file.",
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
MetricsOption = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        help="Metrics of snapshots, such as kid,ppl; the first decides which is best.",
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

_PREPARED = "STYLECLI_PREPARED_RUN"
_STATES = {
    "begin": "would start: no run has these settings and this dataset",
    "continue": "would continue: it has these settings and this dataset",
    "finished": "is finished: it has these settings and this dataset",
}


@takes_settings(
    training=settings_for(TrainingConfig), network=network_settings(), session=settings_for(Session)
)
def command(
    data: DataArgument = None,
    config: ConfigOption = None,
    preset: PresetOption = None,
    resolution: ResolutionOption = None,
    shape: ShapeOption = None,
    labels: LabelsOption = None,
    resume: ResumeOption = None,
    out: OutOption = None,
    settings_file: SettingsOption = None,
    dry_run: DryRunOption = False,
    metrics: MetricsOption = None,
    metric_samples: MetricSamplesOption = None,
    classifiers: ClassifiersOption = None,
    ranks: RanksOption = None,
    gpus: GpusOption = None,
    nodes: NodesOption = None,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    force: SlowerOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    *,
    network: dict[str, Any],
    training: dict[str, Any],
    session: dict[str, Any],
) -> None:
    """Train a network on a dataset, or continue a run.

    Example: stylecli train datasets/faces.lmdb --kimg 500

    Ctrl-C saves; run the same command to continue.
    """
    output = Output(json=json, quiet=quiet)
    asked = with_file(
        AskedSettings(config, preset, labels, network, training, session), settings_file
    )
    launched = find_place(os.environ)
    elsewhere = dry_run and (gpus is not None or nodes is not None)  # GPUs need not be here
    count = (gpus or 1) * (nodes or 1) if elsewhere else ranks or gpus
    driving = Session(**asked.session)
    request = _Request(
        data, asked.config, asked.preset, resolution, shape, asked.labels, resume, out, dry_run,
        metrics, metric_samples, classifiers, ranks, gpus, nodes, None if elsewhere else device,
        seed, asked.network, asked.training, driving, force, output,
    )  # fmt: skip
    if not launched and not elsewhere:
        request.refuse()
        count = count_ranks(ranks, gpus, device)
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(sharing_ranks(count if launched else 1, device, ()))
        run, evaluate = group.main_alone(
            lambda: stack.enter_context(request.prepared(launched.count if launched else count))
        ) or (None, None)
        processes = 1 if launched or run is None else count_processes(run, count)
        told = group.from_main(str(run.resolve()) if run else None)
        if told is None:
            return
        if processes == 1:
            train_run(run or Path(told), group, output, driving, evaluate)
            return
    os.environ[_PREPARED] = str(run)  # what its processes train
    with sharing_ranks(processes, device, own_command()):
        raise AssertionError  # this process ends with theirs


@dataclass(frozen=True)
class _Request:
    """What the command line asks for."""

    data: Path | None
    config: str | None
    preset: str | None
    resolution: int | None
    shape: str | None
    labels: bool | None
    resume: Path | None
    out: Path | None
    dry_run: bool
    metrics: str | None
    metric_samples: int | None
    classifiers: Path | None
    ranks: int | None
    gpus: int | None
    nodes: int | None
    device: str | None  # None: GPUs that need not be here
    seed: int
    network: dict[str, Any]
    training: dict[str, Any]
    driving: Session
    force: bool
    output: Output

    def refuse(self) -> None:
        """Refuse what is wrong before torch loads."""
        words = {} if self.device is None else {"device": self.device}
        check_words(**words, config=self.config, preset=self.preset)
        if (wanted := split_metrics(self.metrics)) is not None:
            ClassifierSource(self.classifiers).check(wanted)
            check_files(classifiers=self.classifiers)
        if self.shape is not None:
            parse_shape(self.shape)
        check_numbers(self.training, settings_for(TrainingConfig))
        check_numbers(self.network, network_settings())
        check_resume(self.resume, self.output)
        check_pictures(find_dataset(self.data, run=self.resume).path)
        if self.driving.trackers:
            from stylecli.training.trackers import require_trackers

            require_trackers(self.driving.trackers)
        if self.output.json and self.driving.writes_lines:
            raise UsageError(
                "--json prints one document and --log jsonl prints lines: leave out one of them"
            )
        if self.nodes is not None and not self.dry_run:
            raise UsageError(
                "--nodes is for --dry-run: to train on several machines, start stylecli train on "
                "each with torchrun or Slurm"
            )

    def usual_size(self, pictures: Path, asked: Grid | None) -> tuple[Grid, int | None]:
        """Return grid and level to pack pictures at; None for as large as they are.

        They are those of the network to start from; on a CPU, at most what it can train in hours.
        """
        from stylecli.hardware import resolve_device
        from stylecli.training.presets import SMALL_SIDE, name_preset

        if self.resume is not None:
            from stylecli.training.run_setup import open_source

            config = open_source(self.resume).net.config
            grid, level = asked or config.grid, config.resolution
            if self.resolution is None and (own := own_level(pictures, grid)) < level:
                self.output.note(
                    f"packing {pictures} at the {grid.at(own)} px that its pictures reach: the "
                    f"{config.size} px of {self.resume} need stylecli pack --enlarge"
                )
                level = own
            return grid, level
        grid = asked or SQUARE
        other = self.preset is not None and name_preset(self.preset) != "small"
        if other or self.device is None or self.resolution is not None:
            return grid, None
        own = level = own_level(pictures, grid)
        while grid.square_level(level) > SMALL_SIDE:
            level //= 2
        if level == own or resolve_device(self.device).type != "cpu":
            return grid, None
        self.output.note(
            f"packing {pictures} at {grid.at(level)} px: without a GPU, the {grid.at(own)} px that "
            f"its pictures reach take about {(own // level) ** 2} times as long; --resolution "
            f"{min(grid.at(own))} takes them all the same"
        )
        return grid, level

    @contextlib.contextmanager
    def prepared(self, count: int | None) -> "Iterator[tuple[Path | None, Evaluate | None]]":
        """Own the run that is meant, with what measures it; None for a dry run."""
        from stylecli.training import run_folder

        output = self.output
        measured = (self.metrics, self.metric_samples, self.classifiers)
        launched = find_place(os.environ) is not None
        if launched and (path := os.environ.get(_PREPARED)):
            from stylecli.training.run_setup import open_matching

            with run_folder.held(run := Path(path)):
                dataset = open_matching(settings := run_folder.load_settings(run))
                yield run, make_evaluate(*measured, settings, dataset, output)
            return
        if launched or self.device is None:
            self.refuse()
        dataset = prepare_dataset(
            self.data,
            self.resolution,
            self.shape,
            self.preset,
            output,
            only_packed="--dry-run" if self.dry_run else "",
            run=self.resume,
            usual=self.usual_size,
        )  # may refuse or take an hour: torch loads after it
        from stylecli.training import run_setup

        source = None if self.resume is None else run_setup.open_source(self.resume)
        settings, plan = run_setup.make_settings(
            dataset, source, self.config, self.preset, self.device, count, self.labels,
            network=self.network, batch_gpu=self.driving.batch_gpu, force=self.force,
            training=self.training | ({"seed": self.seed} if self.seed else {}),
        )  # fmt: skip
        evaluate = make_evaluate(*measured, settings, dataset, output) if self.device else None
        choice, plan = run_setup.choose_planned_run(settings, plan, self.out)
        for sentence in find_advice(plan, dataset):
            output.warn(sentence)  # under --quiet too
        if choice.state == "begin":
            tell_start(source, settings, output)
        if self.device and settings.device.startswith("cuda") and not self.driving.exact:
            output.note("float32 products use TF32 on this GPU; --exact computes them in full")
        if self.dry_run:
            print_dry_run(plan, settings, dataset, choice, self.driving, output)
            yield None, None
            return
        with owned_run(choice, settings, plan, dataset, source, output) as run:
            yield run, evaluate


def tell_start(source: "StartingNetwork | None", settings: "RunSettings", output: Output) -> None:
    """Say on stderr what a new run takes over from its source, and what of D stays frozen."""
    if source is None or output.quiet:
        return
    from stylecli.training.optimizer import describe_frozen
    from stylecli.training.run_setup import describe_start, frozen_in
    from stylecli.training.transfer_table import HEADINGS

    rows = describe_start(source, settings)
    if rows:
        output.note(f"starting from the weights of {source.path}, at the first image:")
        for line in output.table(HEADINGS, [row.cells() for row in rows]):
            output.note(f"  {line}")
    else:
        output.note(
            f"continuing {source.path} at {source.nimg / 1000:g} kimg with its full state: "
            "optimizers, counters, place in the data"
        )
    if frozen := frozen_in(settings):
        output.note(f"frozen in D: {describe_frozen(frozen)}; all other layers are trained")


def find_advice(plan: "TrainingPlan", dataset: "Dataset") -> list[str]:
    """Return what looks wrong about training this plan on this dataset."""
    from stylecli.training.plan import advise

    return advise(
        plan,
        pictures=len(dataset),
        classes=dataset.label_dim,
        transform=str(dataset.info.get("transform", "")),
    )


@contextlib.contextmanager
def owned_run(
    choice: "RunChoice",
    settings: "RunSettings",
    plan: "TrainingPlan",
    dataset: "Dataset",
    source: "StartingNetwork | None",
    output: Output,
) -> Iterator[Path]:
    """Yield the run's folder, made where it is new; no other process can write it meanwhile.

    Says on stderr what happens. Raises DataError when another process has the run.
    """
    from stylecli.training import run_folder
    from stylecli.training.run_setup import begin_run, describe_begin

    for other in choice.unreadable:
        output.warn(f"skipping {other}: its run.json is damaged or of another version")
    if choice.state == "begin":
        with contextlib.ExitStack() as stack:
            run = choice.run
            if not choice.description:
                stack.enter_context(run_folder.making(run))
            else:
                run = stack.enter_context(run_folder.next_numbered(choice.description))
            if source is None:
                run_folder.create_run(run, settings)
            else:
                begin_run(run, settings, source)
            for line in describe_begin(run, settings, plan, dataset):
                output.note(line)
            yield run
        return
    with run_folder.held(choice.run):
        if choice.state == "finished":
            output.note(
                f"{choice.run} is finished with these settings; change --kimg or --seed for more"
            )
        else:
            output.note(f"continuing {choice.run}")
        if run_folder.record_dataset(choice.run, settings.dataset):
            output.note(f"  its dataset is now {settings.dataset}")
        yield choice.run


def count_processes(run: Path, wanted: int | None) -> int:
    """Return how many processes train a run: as many as it has, where not others are wanted."""
    from stylecli.training.run_folder import is_finished, load_settings

    return 1 if is_finished(run) else wanted or load_settings(run).ranks


def train_run(
    run: Path,
    group: "Ranks",
    output: Output,
    session: "Session",
    evaluate: "Evaluate | None" = None,
) -> None:
    """Train a run to its end in all processes of ``group``; the main one prints its network."""
    from stylecli.training.loop import TrainingLoop
    from stylecli.training.oversight import tell_nobody
    from stylecli.training.run_folder import is_finished, load_settings
    from stylecli.training.schedule import TimeLeft

    if not is_finished(run):
        settings = load_settings(run)
        left = TimeLeft(settings.training, settings.network)
        shown = output if group.is_main else Output(quiet=True)
        with shown.progress("training", "kimg", left) as report:
            TrainingLoop(run, group, session, evaluate).train(
                progress=report, notice=output.warn,
                tell=output.line if session.writes_lines and group.is_main else tell_nobody,
            )  # fmt: skip
    if group.is_main:
        network = newest_snapshot(run)
        result = {"run": str(run), "network": str(network)}
        if session.writes_lines:
            output.line({"event": "finished", **result})
        else:
            output.result(result, [str(network)])


def make_evaluate(
    names: str | None,
    samples: int | None,
    classifiers: Path | None,
    settings: "RunSettings",
    dataset: "Dataset",
    output: Output,
) -> "Evaluate | None":
    """Return what measures a network of this run, or None where no metrics are asked for.

    ``names`` is a list such as kid,ppl. Fakes come from the same latents each time, so that scores
    differ by the network alone. ls has its classifiers from the file, or the cache. Raises
    UsageError now for what would be refused at every snapshot.
    """
    if names is None:
        options = (("--metric-samples", samples, "kid"), ("--classifiers", classifiers, "ls"))
        for option, given, metric in options:
            if given is not None:
                raise UsageError(f"{option} needs metrics: add --metrics {metric}")
        return None
    from stylecli.hardware import resolve_device
    from stylecli.metrics import check_names
    from stylecli.metrics.evaluation import evaluate
    from stylecli.metrics.planning import plan
    from stylecli.metrics.tasks import is_published

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    source = ClassifierSource(classifiers)
    source.check(wanted)
    check_names(wanted)
    for name in wanted:
        for task in plan([name], samples, dataset_size=len(dataset), config=settings.network,
                         gpu=settings.device == "cuda"):  # fmt: skip
            if task.skipped is None or asks_for([name]):  # classifiers are looked for below
                continue
            said = f"{name} cannot be measured: {task.skipped}"
            if is_published(name):
                raise WeightsError(said)
            output.warn(said)

    resolution, device = settings.network.resolution, resolve_device(settings.device)
    try:
        judges = source.obtain(wanted, dataset, resolution, device, output)
    except StyleCLIError as error:
        if classifiers is not None:
            raise
        output.warn(f"ls will not be measured: {error}")  # a damaged cache is no reason to stop
        judges = None

    def measure(bundle: "Bundle", dataset: "Dataset") -> list[dict[str, Any]]:
        results = evaluate(
            wanted, bundle, dataset, samples=samples, device=settings.device, classifiers=judges
        )
        return [result.to_dict() for result in results]

    return measure


def print_dry_run(
    plan: "TrainingPlan",
    settings: "RunSettings",
    dataset: "Dataset",
    choice: "RunChoice",
    session: Session,
    output: Output,
) -> None:
    """Print the whole plan as tables, or as one document with --json."""
    from stylecli.training.plan import describe_plan

    description = describe_plan(plan)
    document = {
        "run": {"path": str(choice.run), "state": choice.state},
        "preset": plan.preset,
        "device": settings.device,
        "ranks": plan.ranks,
        "dataset": {
            "path": str(dataset.path), "digest": dataset.digest, "pictures": len(dataset),
            **dataset.grid.facts(dataset.resolution), "channels": dataset.channels,
            "classes": dataset.label_dim,
        },
        "network": plan.network.to_dict(),
        "training": plan.training.to_dict(),
        "session": asdict(session),
        "parameters": description.parameters,
        "stages": [stage.__dict__ for stage in description.stages],
        "derived": [item.__dict__ for item in plan.derived],
        "reasons": {
            "network": {item.name: item.reason for item in description.network},
            "training": {item.name: item.reason for item in description.training},
        },
        "advice": find_advice(plan, dataset),
    }  # fmt: skip
    if output.json:
        output.result(document, [])
        return
    reasons = {item.name: item.reason for item in plan.derived}
    classes = f", {plural(dataset.label_dim, 'class', 'classes')}" if dataset.label_dim else ""
    G, D = (f"{description.parameters[name]:,}" for name in ("G", "D"))
    rows = [
        ("run", str(choice.run), _STATES[choice.state]),
        ("dataset", str(dataset.path), f"{plural(len(dataset), 'picture')}{classes}"),
        ("digest", dataset.digest[:12], "of all pixels; a run continues only with this dataset"),
        ("device", settings.device, "--device, or the best available"),
        ("processes", str(plan.ranks), reasons.get("ranks", "asked for")),
        ("training preset", plan.preset, reasons["preset"]),
        ("parameters", f"G {G}, D {D}", "all resolutions of a full-grown network"),
    ]
    for title, items in (("network", description.network), ("training", description.training)):
        rows += [("", "", ""), (f"{title.upper()}", "", "")]
        rows += [
            (item.name if item.name != "preset" else "configuration", item.value, item.reason)
            for item in items
        ]
    lines = output.table(("setting", "value", "reason"), rows)
    output.result(document, [*lines, "", *_stage_lines(description.stages, dataset.grid, output)])


def _stage_lines(stages: "tuple[PlannedStage, ...]", grid: Grid, output: Output) -> list[str]:
    rows = [
        (
            f"{grid.at(stage.resolution)} px" + (", fading in" if stage.fading else ""),
            f"{stage.from_kimg:g}" if stage.reached else "not reached",
            f"{stage.to_kimg:g}" if stage.reached else "",
            str(stage.batch),
            f"{stage.lr:g}",
            f"{stage.tick_kimg:g}",
        )
        for stage in stages
    ]
    return output.table(("stage", "from kimg", "to kimg", "batch", "lr", "tick kimg"), rows)

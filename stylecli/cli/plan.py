"""``stylecli plan``: what a training run will cost on this machine, measured."""

import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.bars import format_seconds
from stylecli.cli.options import (
    ConfigOption,
    DeviceOption,
    GpusOption,
    JsonOption,
    PresetOption,
    QuietOption,
    RanksOption,
    network_settings,
    settings_for,
    takes_settings,
)
from stylecli.cli.output import Output
from stylecli.cli.refusals import check_dataset, check_numbers, check_words
from stylecli.cli.training_ranks import count_ranks
from stylecli.errors import Interrupted, UsageError
from stylecli.networks.registry import USUAL_CONFIG
from stylecli.settings import PICTURES, Setting
from stylecli.training.config import TrainingConfig
from stylecli.training.session import Session
from stylecli.workspace import Found, find_dataset

if TYPE_CHECKING:
    from stylecli.progress import Progress
    from stylecli.training.calibration import LargestBatch, StageBudget
    from stylecli.training.run_folder import RunSettings

DatasetArgument = Annotated[
    Path | None,
    typer.Argument(metavar="data", help="Dataset. Default: the one in datasets/."),
]
ResolutionOption = Annotated[
    int | None,
    typer.Option(
        "--resolution",
        help="Pixels on a side, instead of a dataset.",
        rich_help_panel=PICTURES,
    ),
]


def _costly(declared: Iterable[Setting]) -> list[Setting]:
    return [item for item in declared if item.costs]


@takes_settings(
    training=_costly(settings_for(TrainingConfig)),
    network=_costly(network_settings()),
    session=_costly(settings_for(Session)),
)
def command(
    data: DatasetArgument = None,
    config: ConfigOption = None,
    preset: PresetOption = None,
    resolution: ResolutionOption = None,
    ranks: RanksOption = None,
    gpus: GpusOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
    quiet: QuietOption = False,
    *,
    network: dict[str, Any],
    training: dict[str, Any],
    session: dict[str, Any],
) -> None:
    """Measure what training will cost: time, memory, the largest batch.

    Example: stylecli plan --resolution 256 --preset paper

    Takes the options of train that decide cost, and --resolution instead of a dataset. Writes
    nothing.
    """
    output = Output(json=json, quiet=quiet)
    check_words(device=device, config=config, preset=preset)
    check_numbers(training, settings_for(TrainingConfig))
    check_numbers(network, network_settings())
    if data is not None or resolution is None:
        check_dataset(find_dataset(data).path)
    driving = Session(**session)
    settings = _settings(
        data, resolution, output, config=config or USUAL_CONFIG, preset=preset, device=device,
        batch_gpu=driving.batch_gpu, ranks=count_ranks(ranks, gpus, device),
        network=network, training=training,
    )  # fmt: skip
    try:
        with output.progress("measuring", "stages") as report:
            budgets, kind, largest = _measure(settings, driving, report)
    except KeyboardInterrupt:
        raise Interrupted("stopped measuring; the same command measures anew") from None
    _print(settings, budgets, kind, largest, output)


def _settings(
    data: Path | None,
    resolution: int | None,
    output: Output,
    *,
    config: str,
    preset: str | None,
    device: str,
    batch_gpu: int | None,
    ranks: int | None,
    network: dict[str, Any],
    training: dict[str, Any],
) -> "RunSettings":
    """Return the settings that train would have with the same"""
    import os

    from stylecli.hardware import resolve_device
    from stylecli.training.plan import plan_training
    from stylecli.training.run_folder import RunSettings
    from stylecli.training.starting import check_batches, check_precision

    channels, pictures = 3, None
    if data is not None or resolution is None:
        from stylecli.data.reader import open_dataset

        found = find_dataset(data)
        if found.why:
            output.note(f"using {found.path}, {found.why}")
        if found.path.exists() and not (found.path / "data.mdb").is_file():
            from stylecli.cli.pack import packed_from

            packed, _ = packed_from(found.path, resolution, output)
            if packed is None:
                raise UsageError(
                    f"{found.path} is not packed: run stylecli pack {quote(str(found.path))}, or "
                    "give --resolution alone"
                )
            found = Found(packed.path)
        dataset = open_dataset(found.path)
        channels, pictures = dataset.channels, len(dataset)
        if resolution not in (None, dataset.resolution):
            raise UsageError(
                f"--resolution {resolution} differs from {found.path}, which holds "
                f"{dataset.resolution} px: leave one of them out"
            )
        resolution = dataset.resolution
    assert resolution is not None
    name = resolve_device(device).type
    plan = plan_training(
        preset,
        config=config,
        resolution=resolution,
        channels=channels,
        device=name,
        cpus=os.cpu_count() or 1,
        ranks=ranks,
        pictures=pictures,
        network=network,
        training=training,
    )
    settings = RunSettings(plan.network, plan.training, Path(), "", plan.ranks, name)
    check_batches(settings, batch_gpu)
    check_precision(settings)
    return settings


def _measure(
    settings: "RunSettings", session: Session, report: "Progress"
) -> tuple[list["StageBudget"], str, "LargestBatch | None"]:
    """Return what every stage takes, what memory was measured, and the largest batch."""
    import torch

    from stylecli.hardware import PeakMemory
    from stylecli.training.calibration import budget_stages, measure_largest_batch, measure_stages
    from stylecli.training.launch import rank_processes
    from stylecli.training.run_folder import create_run
    from stylecli.training.schedule import list_stages

    growth = list_stages(settings.training, settings.network.resolution)
    trained = {stage.key for stage in growth if stage.reached}
    with tempfile.TemporaryDirectory(prefix="stylecli-plan-") as folder:
        trial = Path(folder) / "run"
        create_run(trial, settings)
        with rank_processes(trial, settings.ranks, session=session, calibrate=True) as group:
            costs = measure_stages(
                trial, group, session=session, only=trained.__contains__, progress=report
            )
        largest = measure_largest_batch(trial, session, processes=settings.ranks)
    kind = PeakMemory(torch.device(settings.device)).kind
    return budget_stages(settings, costs), kind, largest


def _print(
    settings: "RunSettings",
    budgets: list["StageBudget"],
    kind: str,
    largest: "LargestBatch | None",
    output: Output,
) -> None:
    total = sum(budget.seconds for budget in budgets)
    document = {
        "device": settings.device,
        "processes": settings.ranks,
        "precision": settings.training.precision,
        "memory": kind,
        "stages": [asdict(budget) for budget in budgets],
        "kimg": settings.training.total_kimg,
        "seconds": total,
        "largest_batch": None if largest is None else asdict(largest),
    }
    header = ("stage", "batch", "passes", "memory", "sec/kimg", "kimg", "time")
    rows = [
        (
            budget.name, str(budget.batch), str(budget.passes), f"{budget.memory_mib:,.0f} MiB",
            f"{budget.sec_per_kimg:.2f}", f"{budget.kimg:g}", format_seconds(budget.seconds),
        )
        for budget in budgets
    ]  # fmt: skip
    each = f" of each of {settings.ranks} processes" if settings.ranks > 1 else ""
    lines = [
        *output.table(header, rows),
        f"whole schedule: {settings.training.total_kimg:g} kimg in {format_seconds(total)} "
        "(steps alone: saving and measuring come on top)",
        f"memory: {kind}{each}",
    ]
    if largest is not None:
        lines.append(_describe(largest, settings))
    output.result(document, lines)


def _describe(largest: "LargestBatch", settings: "RunSettings") -> str:
    side = settings.network.resolution
    where = f"{largest.memory_mib:,.0f} MiB free" + (" each" if settings.ranks > 1 else "")
    how = "an estimate: " if largest.estimated else ""
    return (
        f"largest batch of a pass at {side} px: {largest.images:,} images ({how}"
        f"{largest.mib_per_image:.1f} MiB an image, {where})"
    )

"""``stylecli plan``: what a training run will cost on this machine, measured."""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.options import (
    ConfigOption,
    DeviceOption,
    GpusOption,
    JsonOption,
    LabelsOption,
    PresetOption,
    QuietOption,
    RanksOption,
    SettingsOption,
    ShapeOption,
    SlowerOption,
    count_ranks,
    network_settings,
    own_command,
    settings_for,
    takes_settings,
)
from stylecli.cli.output import Output
from stylecli.cli.pack import prepare_dataset
from stylecli.cli.refusals import check_numbers, check_pictures, check_words
from stylecli.distributed.ranks import find_place, sharing_ranks
from stylecli.errors import Interrupted, UsageError
from stylecli.networks.config import MAX_RESOLUTION
from stylecli.progress import describe_seconds, format_seconds
from stylecli.settings import MACHINE, PICTURES, Setting
from stylecli.shapes import SQUARE, parse_shape
from stylecli.training.config import Session, TrainingConfig
from stylecli.training.settings_file import AskedSettings, with_file
from stylecli.workspace import find_dataset

if TYPE_CHECKING:
    from stylecli.distributed.ranks import Ranks
    from stylecli.progress import Progress
    from stylecli.training.costs import LargestBatch, StageBudget, StageCost
    from stylecli.training.run_folder import RunSettings
    from stylecli.training.schedule import StageKey

DatasetArgument = Annotated[
    Path | None,
    typer.Argument(metavar="data", help="Dataset. Default: the one in datasets/."),
]
ResolutionOption = Annotated[
    int | None,
    typer.Option(
        "--resolution",
        help="Side of the pictures in pixels, instead of a dataset.",
        rich_help_panel=PICTURES,
    ),
]
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="GPU",
        help="Estimate days and cost on a GPU that is not here, such as h100.",
        rich_help_panel=MACHINE,
    ),
]
PriceOption = Annotated[
    float | None,
    typer.Option(
        "--price-hour",
        min=0.0,
        help="With --on: price of one GPU for an hour.",
        rich_help_panel=MACHINE,
    ),
]
MEASURED_CPU_SECONDS = 35.0  # of measuring; the rest of a minute is torch and counting
CPU_SHARE = 0.25  # of a convolution's speed that training reaches at least


def _costly(declared: Iterable[Setting]) -> list[Setting]:
    return [item for item in declared if item.costs]


@takes_settings(
    training=_costly(settings_for(TrainingConfig)),
    network=network_settings(),
    session=_costly(settings_for(Session)),
)
def command(
    data: DatasetArgument = None,
    config: ConfigOption = None,
    preset: PresetOption = None,
    resolution: ResolutionOption = None,
    shape: ShapeOption = None,
    labels: LabelsOption = None,
    settings_file: SettingsOption = None,
    ranks: RanksOption = None,
    gpus: GpusOption = None,
    device: DeviceOption = "auto",
    on: OnOption = None,
    price_hour: PriceOption = None,
    force: SlowerOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    *,
    network: dict[str, Any],
    training: dict[str, Any],
    session: dict[str, Any],
) -> None:
    """Measure what training costs: time, memory, the largest batch.

    Example: stylecli plan --resolution 256 --preset paper

    On a CPU, stages that would take more than a minute to measure are computed and marked so. --on
    computes everything for a GPU that is not here.

    Takes the options of train that decide the network or the cost, and --resolution instead of a
    dataset. Writes no files.
    """
    output = Output(json=json, quiet=quiet)
    asked = with_file(
        AskedSettings(config, preset, labels, network, training, session), settings_file
    )
    words = {"device": device} if on is None else {}  # that GPU need not be here
    check_words(**words, config=asked.config, preset=asked.preset)
    check_numbers(asked.training, settings_for(TrainingConfig))
    check_numbers(asked.network, network_settings())
    if data is not None or resolution is None:
        check_pictures(find_dataset(data).path)
    driving = Session(**asked.session)
    if on is None and price_hour is not None:
        raise UsageError("--price-hour needs a GPU to rent: add --on GPU, such as --on h100")
    place = find_place(os.environ)
    count = gpus or ranks or 1
    if on is None:
        count = place.count if place else count_ranks(ranks, gpus, device)  # type: ignore[assignment]
    settings = _settings(
        data, resolution, shape, asked, Output(quiet=True) if place else output,
        device=device if on is None else None, batch_gpu=driving.batch_gpu, ranks=count,
        force=force,
    )  # fmt: skip
    if on is not None:
        _print_model(settings, driving, on, price_hour, output)
        return
    try:
        with sharing_ranks(settings.ranks, device, own_command()) as group:
            shown = output if group.is_main else Output(quiet=True)
            with shown.progress("measuring", "stages") as report:
                budgets, kind, largest = _measure(settings, driving, group, report)
    except KeyboardInterrupt:
        raise Interrupted("measuring stopped; run the command again to start over") from None
    if group.is_main:
        _print(settings, budgets, kind, largest, output)


def _settings(
    data: Path | None,
    resolution: int | None,
    shape: str | None,
    asked: AskedSettings,
    output: Output,
    *,
    device: str | None,
    batch_gpu: int | None,
    ranks: int | None,
    force: bool,
) -> "RunSettings":
    """Return the settings that train would have with the same; no ``device``: a GPU elsewhere."""
    dataset = None
    grid = SQUARE if shape is None else parse_shape(shape)
    if data is not None or resolution is None:
        dataset = prepare_dataset(data, resolution, shape, asked.preset, output, only_packed="plan")
    elif not grid.is_usual:
        resolution = grid.level_with(resolution, MAX_RESOLUTION)
    from stylecli.training.run_setup import NoDataset, make_settings

    settings, _ = make_settings(
        NoDataset(resolution or 0, grid=grid) if dataset is None else dataset, None, asked.config,
        asked.preset, device, ranks, asked.labels,
        network=asked.network, training=asked.training, batch_gpu=batch_gpu, force=force,
    )  # fmt: skip
    return settings


def _measure(
    settings: "RunSettings", session: Session, group: "Ranks", report: "Progress"
) -> tuple[list["StageBudget"], str, "LargestBatch | None"]:
    """Return what every stage takes, what memory was measured, and the largest batch."""
    import torch

    from stylecli.hardware import PeakMemory
    from stylecli.training.costs import budget_stages, measure_largest_batch, measure_stages
    from stylecli.training.run_folder import create_run
    from stylecli.training.schedule import list_stages

    growth = list_stages(settings.training, settings.network.resolution)
    trained = {stage.key for stage in growth if stage.reached}
    computed = {} if settings.device == "cuda" else _compute_costly(settings, session, trained)
    trained -= set(computed)
    largest = None
    with tempfile.TemporaryDirectory(prefix="stylecli-plan-") as folder:
        trial = Path(folder) / "run"
        create_run(trial, settings)  # each process its own
        costs = computed
        if trained:
            costs |= measure_stages(
                trial, group, session=session, only=trained.__contains__, progress=report
            )
        if group.is_main and not computed:  # it takes steps at full resolution
            largest = measure_largest_batch(trial, session, processes=settings.ranks)
    kind = PeakMemory(torch.device(settings.device)).kind
    return budget_stages(settings, costs), kind, largest


def _compute_costly(
    settings: "RunSettings", session: Session, trained: set["StageKey"]
) -> dict["StageKey", "StageCost"]:
    """Return the cost of the stages that would take too long to measure, from their operations.

    Every stage is tried from the smallest on while a minute of processor time lasts.
    """
    import torch

    from stylecli.bench import ceiling_case, measure
    from stylecli.training import costs
    from stylecli.training.costs import count_step
    from stylecli.training.schedule import count_passes, stage_of_key

    network, training, ranks = settings.network, settings.training, settings.ranks
    device = torch.device(settings.device)
    (ceiling,) = measure([ceiling_case(device, "float32")], 1, device=device)
    rate = ceiling.per_second * CPU_SHARE
    stages = {key: stage_of_key(training, network.resolution, key) for key in trained}
    largest = max(key[0] for key in trained)
    whole = stage_of_key(training, network.resolution, (largest, False))
    known = {largest: count_step(network, training, whole).flops}
    spent, computed = 0.0, {}
    for key in sorted(trained):
        stage = stages[key]
        likely = known[largest] * network.training_work(key[0]) / network.training_work(largest)
        step = likely * stage.batch / rate  # CPU-seconds of all ranks
        needed = max((costs.SECONDS_PER_STAGE + 1) * ranks, (1 + training.r1_interval) * step)
        if spent + needed <= MEASURED_CPU_SECONDS:
            spent += needed
            continue
        if key[0] not in known:
            plain = stage_of_key(training, network.resolution, (key[0], False))
            known[key[0]] = count_step(network, training, plain).flops
        passes = count_passes(stage.batch // ranks, session.batch_gpu, network.mbstd_group_size)
        seconds = known[key[0]] / rate / ranks
        computed[key] = costs.StageCost(*key, stage.batch, passes, seconds, 0.0, computed=True)
    return computed


def _print_model(
    settings: "RunSettings", session: Session, on: str, price: float | None, output: Output
) -> None:
    """Print what training takes on a GPU that is not here, by its data sheet."""
    from stylecli.training.costs import (
        ARITHMETIC_SHARE,
        MEMORY_SHARE,
        SHARED_SHARE,
        StageCost,
        budget_stages,
        find_gpu,
        price_stages,
    )
    from stylecli.training.schedule import count_passes, list_stages, stage_of_key

    gpu, training, network, count = (
        find_gpu(on), settings.training, settings.network, settings.ranks,
    )  # fmt: skip
    peak = gpu.peak(training.precision, exact=session.exact)
    keys = [stage.key for stage in list_stages(training, network.resolution) if stage.reached]
    stages = {key: stage_of_key(training, network.resolution, key) for key in keys}
    with output.progress("counting", "stages") as report:
        works = price_stages(network, training, stages.values(), progress=report)
    costs = {}
    for key, stage in stages.items():
        share = stage.batch // count
        seconds = works[stage].seconds(gpu, peak, share) / (SHARED_SHARE if count > 1 else 1.0)
        passes = count_passes(share, session.batch_gpu, network.mbstd_group_size)
        costs[key] = StageCost(*key, stage.batch, passes, seconds / stage.batch, 0.0, computed=True)
    budgets = budget_stages(settings, costs)
    total = sum(budget.seconds for budget in budgets)
    cost = None if price is None else round(total / 3600 * count * price, 2)
    document = {
        "gpu": asdict(gpu),
        "gpus": count,
        "precision": training.precision,
        "model": {"arithmetic_share": ARITHMETIC_SHARE, "memory_share": MEMORY_SHARE},
        "stages": [asdict(budget) for budget in budgets],
        "kimg": training.total_kimg,
        "seconds": round(total, 1),
        "cost": cost,
    }
    rows = [
        (b.name, str(b.batch), f"{b.sec_per_kimg:.2f}", f"{b.kimg:g}", format_seconds(b.seconds))
        for b in budgets
    ]
    product = "TF32" if peak == gpu.tf32 * 1e12 != gpu.float32 * 1e12 else training.precision
    lines = output.table(("stage", "batch", "sec/kimg", "kimg", "time"), rows)
    rented = f"{count} x {gpu.name}"
    lines.append(f"{training.total_kimg:,.10g} kimg on {rented}: about {describe_seconds(total)}")
    if cost is not None:
        lines.append(f"cost: about {cost:,.0f} at {price:g} an hour for each GPU")
    lines.append(
        f"computed, never run on this GPU; right within a factor of 2: the data sheet's "
        f"{peak / 1e12:,.0f} TFLOPS ({product}) at {ARITHMETIC_SHARE:.0%}, "
        f"{gpu.memory_gbs:,.0f} GB/s at {MEMORY_SHARE:.0%}"
    )
    output.result(document, lines)


def _print(
    settings: "RunSettings",
    budgets: list["StageBudget"],
    kind: str,
    largest: "LargestBatch | None",
    output: Output,
) -> None:
    from stylecli.hardware import bf16_gain, describe_precision

    total = sum(budget.seconds for budget in budgets)
    gain = round(bf16_gain(), 2) if settings.device == "cpu" else None
    document = {
        "device": settings.device,
        "processes": settings.ranks,
        "precision": settings.training.precision,
        "bf16_gain": gain,
        "memory": kind,
        "stages": [asdict(budget) for budget in budgets],
        "kimg": settings.training.total_kimg,
        "seconds": total,
        "largest_batch": None if largest is None else asdict(largest),
    }
    header = ("stage", "batch", "passes", "memory", "sec/kimg", "kimg", "time")
    rows = [
        (
            budget.name,
            str(budget.batch),
            str(budget.passes),
            "computed" if budget.computed else f"{budget.memory_mib:,.0f} MiB",
            f"{budget.sec_per_kimg:.2f}",
            f"{budget.kimg:g}",
            format_seconds(budget.seconds),
        )
        for budget in budgets
    ]
    each = f" of each of {settings.ranks} processes" if settings.ranks > 1 else ""
    lines = [
        *output.table(header, rows),
        f"full schedule: {settings.training.total_kimg:g} kimg in {format_seconds(total)} "
        "(steps only: saving and measuring take more)",
        f"memory: {kind}{each}",
    ]
    if any(budget.computed for budget in budgets):
        lines.append(
            "computed: from the operations of a step, at a quarter of the speed of a large "
            "convolution here; right within a factor of 2 or 3"
        )
    if gain is not None:
        lines.append(f"precision: {describe_precision(gain)}")
    if largest is not None:
        lines.append(_describe(largest, settings))
    output.result(document, lines)


def _describe(largest: "LargestBatch", settings: "RunSettings") -> str:
    size = settings.network.size
    where = f"{largest.memory_mib:,.0f} MiB free" + (" each" if settings.ranks > 1 else "")
    how = "an estimate: " if largest.estimated else ""
    return (
        f"largest batch of a pass at {size} px: {largest.images:,} images ({how}"
        f"{largest.mib_per_image:.1f} MiB an image, {where})"
    )

"""The curves of a run over kimg, growth stages shaded behind them and events marked."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from stylecli.report.content import Chart, Line, Mark, Shading
from stylecli.report.run_facts import Metric, Row, RunFacts
from stylecli.training.run_folder import RunSettings
from stylecli.training.schedule import list_stages

X_LABEL = "kimg (thousand images shown)"
GRAVE = {"warning", "rollback", "evaluation-failed"}
_GAP = 12.0  # a step of so many usual ones between rows is a gap, not a line

Column = Callable[[RunFacts], list[float]]


@dataclass(frozen=True)
class Quantity:
    """Something that every tick says: how it is named, drawn and read."""

    title: str
    unit: str
    curves: Sequence[tuple[str, Column]]
    caption: str = ""
    log_y: bool = False
    steps: bool = False  # a setting that holds, not a measurement
    smooth: bool = True  # draw a running mean over the values
    large: bool = False
    short: str = ""  # title where each curve has a chart of its own


def _column(name: str) -> Column:
    return lambda facts: facts.column(name)


def _gap(facts: RunFacts) -> list[float]:
    pairs = zip(facts.column("real_logits"), facts.column("fake_logits"), strict=True)
    return [real - fake for real, fake in pairs]


def _percent(facts: RunFacts) -> list[float]:
    return [100 * share for share in facts.column("loader_share")]


QUANTITIES = (
    Quantity(
        "Losses", "", [("generator", _column("loss_G")), ("discriminator", _column("loss_D"))],
        "The two play against each other, so neither falls to zero, and the losses do not measure "
        "how good the pictures are. Losses that stay level are healthy; losses that run away are "
        "not.",
        large=True,
    ),
    Quantity(
        "What the discriminator thinks", "logit",
        [("of real pictures", _column("real_logits")), ("of fakes", _column("fake_logits")),
         ("gap", _gap)],
        "Above zero means real. A gap near 0: D learns nothing. Above 10: G learns nothing.",
        large=True, short="Logits",
    ),
    Quantity("Overfitting", "",
             [("mean sign of D on reals", _column("real_signs")),
              ("augmentation p", _column("augment_p"))],
             "Adaptive augmentation holds the sign near 0.6. A sign near 1: D knows the pictures. "
             "p above 0.8: changes may show in fakes."),
    Quantity("Diversity", "1 = like the data", [("of fakes", _column("diversity"))],
             "Mean distance between fakes, divided by that between reals. Falling to 0: collapse."),
    Quantity("R1 penalty", "mean ‖∇D‖²", [("on real pictures", _column("r1_penalty"))],
             "Grows when gamma is too small."),
    Quantity("Path lengths", "pixels per step in w",
             [("running mean", _column("path_mean")), ("penalty", _column("path_penalty"))],
             "Of path-length regularisation: the mean settles, and the penalty falls towards 0."),
    Quantity("Weight of R1", "gamma", [("γ", _column("gamma"))], steps=True),
    Quantity("Time", "seconds per kimg", [("this run", _column("sec_per_kimg"))],
             "Without snapshots and metrics."),
    Quantity("Waiting for pictures", "% of the time", [("loader", _percent)],
             "From 25 %, training is loader-bound."),
    Quantity("Memory", "MiB",
             [("main process, peak", _column("memory_mib")),
              ("now", _column("memory_now_mib")),
              ("GPU, tensors", _column("gpu_allocated_mib")),
              ("GPU, reserved", _column("gpu_reserved_mib"))], smooth=False),
    Quantity("Skipped updates", "per tick", [("not finite", _column("skipped_steps"))],
             "Updates left out because a gradient was not finite.", smooth=False),
    Quantity("Learning rate", "", [("of G and D", _column("lr"))], steps=True),
    Quantity("Batch", "images per step", [("all processes", _column("batch"))], steps=True),
)  # fmt: skip
_SILENT_AT_ZERO = {"Skipped updates"}


def draw_curves(facts: RunFacts, *, large: bool) -> list[Chart]:
    """Return the large or the small charts of a run, but for those that have no values."""
    stages, marks = list_shading(facts.settings, facts.kimg), list_marks(facts)
    charts = []
    for quantity in QUANTITIES:
        if quantity.large != large:
            continue
        lines = [
            line for name, column in quantity.curves
            if (line := make_line(facts, name, column(facts), quantity)) is not None
        ]  # fmt: skip
        if lines:
            charts.append(
                Chart(
                    quantity.title, lines, X_LABEL if large else "kimg", quantity.unit, stages,
                    caption=quantity.caption, marks=marks, clip=not quantity.steps,
                )
            )  # fmt: skip
    return charts


def compare_curves(runs: Sequence[RunFacts]) -> list[Chart]:
    """Return one chart for each curve, with a line for each run in its own colour."""
    charts = []
    stages = common_shading(runs)
    for quantity in QUANTITIES:
        for name, column in quantity.curves:
            lines = [
                replace(line, colour=place) for place, facts in enumerate(runs)
                if (line := make_line(facts, facts.name, column(facts), quantity)) is not None
            ]  # fmt: skip
            title = (
                quantity.title
                if len(quantity.curves) == 1
                else f"{quantity.short or quantity.title}: {name}"
            )
            if lines:
                charts.append(
                    Chart(title, lines, "kimg", quantity.unit, stages, clip=not quantity.steps)
                )
    return charts


def make_line(
    facts: RunFacts, name: str, values: Sequence[float], quantity: Quantity
) -> Line | None:
    """Return a curve with its gaps; None where there is nothing to draw."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or (quantity.title in _SILENT_AT_ZERO and not any(finite)):
        return None
    xs, ys = _with_gaps([float(row["kimg"]) for row in facts.rows], list(values))
    smoothing = 1 if quantity.steps or not quantity.smooth else max(1, min(25, len(values) // 20))
    return Line(name, xs, ys, smoothing=smoothing, steps=quantity.steps)


def draw_metric(metric: Metric, facts: RunFacts) -> Chart:
    """Return the curve of a metric with its spread, the best value ringed."""
    best = metric.values[metric.best]
    way = "Higher" if metric.higher_is_better else "Lower"
    spread = " Bars: spread over subsets." if any(value.std for value in metric.values) else ""
    return Chart(
        metric.title, [metric_line(metric, metric.name)], "kimg", "",
        list_shading(facts.settings, facts.kimg),
        caption=f"{way} is better. Best: {best.value:.4g} at {best.kimg:g} kimg, ringed.{spread}",
        marks=list_marks(facts), clip=True,
    )  # fmt: skip


def metric_line(metric: Metric, name: str) -> Line:
    """Return a metric as a curve of single measurements."""
    return Line(
        name,
        [value.kimg for value in metric.values],
        [value.value for value in metric.values],
        spread=[value.std for value in metric.values],
        dots=True,
        best=metric.best,
    )


def list_marks(facts: RunFacts) -> list[Mark]:
    """Return a mark for each notable event, numbered as in the table of events."""
    return [
        Mark(float(row["kimg"]), str(index), describe_event(row), row["event"] in GRAVE)
        for index, row in enumerate(facts.notable, start=1)
    ]


def describe_event(row: Row) -> str:
    """Say what happened in a few words."""
    text = str(row.get("text") or "")
    return f"{row['event']}: {text}" if text else str(row["event"])


def list_shading(settings: RunSettings, kimg: float) -> list[Shading]:
    """Return the stages of growth that a run has reached at ``kimg``, the last cut where it is."""
    return [
        Shading(
            stage.from_kimg, min(stage.to_kimg, kimg),
            "" if stage.fading else f"{settings.network.size_at(stage.resolution)} px",
            stage.fading,
        )
        for stage in list_stages(settings.training, settings.network.resolution)
        if stage.reached and stage.from_kimg < kimg
    ]  # fmt: skip


def common_shading(runs: Sequence[RunFacts]) -> list[Shading]:
    """Return the stages of growth of runs that share them; none where they do not."""
    schedules = {
        (item.network.resolution, item.training.initial_resolution, item.training.hold_kimg,
         item.training.fade_kimg)
        for item in (facts.settings for facts in runs)
    }  # fmt: skip
    longest = max(runs, key=lambda facts: facts.kimg)
    return list_shading(longest.settings, longest.kimg) if len(schedules) == 1 else []


def _with_gaps(xs: list[float], ys: list[float]) -> tuple[list[float], list[float]]:
    """Break the curve where rows are missing: a point that is not finite between them."""
    if len(xs) < 4:
        return xs, ys
    steps = [after - before for before, after in pairwise(xs)]
    longest = _GAP * median(steps)
    out_x, out_y = xs[:1], ys[:1]
    for step, x, y in zip(steps, xs[1:], ys[1:], strict=True):
        if step > longest:
            out_x.append(x - step / 2)
            out_y.append(math.nan)
        out_x.append(x)
        out_y.append(y)
    return out_x, out_y

"""Several runs on one page: curves over each other, the settings in which they differ."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stylecli import __version__
from stylecli.errors import UsageError
from stylecli.progress import Progress, silent
from stylecli.report.charts import COLOURS
from stylecli.report.content import Block, Chart, Charts, Commands, Report, Section, Table
from stylecli.report.page import write_report
from stylecli.report.run_curves import common_shading, compare_curves, metric_line
from stylecli.report.run_facts import RunFacts, describe_duration
from stylecli.report.run_report import describe_state, slides_of
from stylecli.report.run_settings import differing_table
from stylecli.report.run_sheets import BUDGET_BYTES, MAX_SHEETS


def write_comparison(path: Path, runs: Sequence[RunFacts], *, progress: Progress = silent) -> None:
    """Write a page that compares runs, named as they are; raise UsageError for more than six."""
    if len(runs) > COLOURS:
        raise UsageError(f"{len(runs)} runs are too many for one page: give {COLOURS} at most")
    sections = [
        _summary(runs),
        _differences(runs),
        _metrics(runs),
        _curves(runs),
        _pictures(runs, progress),
    ]
    lines = [f"stylecli report {facts.path}" for facts in runs]
    sections.append(Section("What to type", [], [Commands(lines, "A page of each run alone.")]))
    write_report(
        path,
        Report(
            title=f"{len(runs)} runs compared",
            lead=", ".join(facts.name for facts in runs),
            sections=[section for section in sections if section is not None],
            footer=f"Written by stylecli {__version__} from the files of the runs; nothing in this "
            "page comes from elsewhere.",
        ),
    )


def _summary(runs: Sequence[RunFacts]) -> Section:
    names = list(dict.fromkeys(metric.title for facts in runs for metric in facts.metrics))
    rows = []
    for facts in runs:
        best = {metric.title: metric.values[metric.best] for metric in facts.metrics}
        values = [
            f"{best[name].value:.4g} at {best[name].kimg:,.6g}" if name in best else "–"
            for name in names
        ]
        seconds = describe_duration(facts.seconds).replace(" ", "\u00a0") if facts.rows else "–"
        rows.append((facts.name, facts.state, f"{facts.kimg:,.6g}", seconds, *values))
    header = ("run", "state", "kimg", "trained", *(f"best {name}" for name in names))
    texts = [f"{facts.name}: {describe_state(facts)}" for facts in runs]
    note = "Metrics: the best value, and the kimg it was measured at." if names else ""
    return Section("Where they stand", texts, [Table(header, rows, note)])


def _differences(runs: Sequence[RunFacts]) -> Section:
    table = differing_table(runs)
    if not table.rows:
        return Section("Settings", ["The runs have the same settings, data and machine."])
    text = "What is not listed is the same in all of them."
    return Section("Settings that differ", [text], [table])


def _metrics(runs: Sequence[RunFacts]) -> Section | None:
    charts = []
    stages = common_shading(runs)
    for title in dict.fromkeys(metric.title for facts in runs for metric in facts.metrics):
        found = [
            (place, metric)
            for place, facts in enumerate(runs)
            for metric in facts.metrics
            if metric.title == title
        ]
        way = "Higher" if found[0][1].higher_is_better else "Lower"
        lines = [
            replace(metric_line(metric, runs[place].name), colour=place) for place, metric in found
        ]
        caption = f"{way} is better; each run's best is ringed."
        charts.append(Chart(title, lines, "kimg", "", stages, caption=caption, clip=True))
    return Section("Metrics", [], [Charts(charts)]) if charts else None


def _curves(runs: Sequence[RunFacts]) -> Section:
    charts = compare_curves(runs)
    if not charts:
        return Section("Curves", ["No tick was written yet."])
    text = "All over the same kimg. Gaps are values that are missing or not finite."
    return Section("Curves", [text], [Charts(charts)])


def _pictures(runs: Sequence[RunFacts], progress: Progress) -> Section:
    share = len(runs)
    blocks: list[Block] = []
    for facts in runs:
        slides = slides_of(
            facts,
            count=max(5, MAX_SHEETS // share),
            budget=BUDGET_BYTES // share,
            beside=False,
            progress=progress,
        )
        if slides is not None:
            blocks.append(slides)
    texts = [] if blocks else ["No sample sheet was written yet."]
    return Section("What they draw", texts, blocks)

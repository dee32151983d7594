"""The page of a run, or of several: how it went, what it draws, what it was made with."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from stylecli import __version__
from stylecli.data.reader import open_dataset
from stylecli.errors import DataError, StyleCLIError, UsageError, plural
from stylecli.files import row_number
from stylecli.progress import Progress, describe_seconds, format_seconds, silent
from stylecli.report.charts import COLOURS
from stylecli.report.content import (
    Block,
    Chart,
    Charts,
    Commands,
    Number,
    Numbers,
    Picture,
    Report,
    Section,
    Slides,
    Table,
)
from stylecli.report.page import BUDGET_BYTES, MAX_SHEETS, prepare_sheets, recompress, write_report
from stylecli.report.run_curves import (
    GRAVE,
    common_shading,
    compare_curves,
    draw_curves,
    draw_metric,
    metric_line,
)
from stylecli.report.run_facts import (
    Origins,
    RunFacts,
    differing_table,
    find_origins,
    full_table,
    settings_table,
    train_command,
)
from stylecli.training.schedule import TimeLeft, stage_at

MAX_EVENTS = 60  # lines of the table; the newest
_REALS_BYTES = 400_000
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_RECENT = 10  # ticks


def write_run_report(path: Path, facts: RunFacts, *, progress: Progress = silent) -> None:
    """Write the page of one run to an HTML file atomically."""
    origins = find_origins(facts.settings)
    sections = [
        _pictures(facts, progress),
        _numbers(facts),
        _curves(facts),
        _events(facts),
        _settings(facts, origins),
        _source(facts),
        _next(facts, origins),
    ]
    write_report(
        path,
        Report(
            title=f"Run {facts.name}",
            lead=describe_state(facts),
            facts=list_facts(facts),
            sections=sections,
            footer=f"Written by stylecli {__version__} from the files of the run; this page loads "
            f"nothing from elsewhere.",
        ),
    )


def describe_state(facts: RunFacts) -> str:
    """Say in a sentence or two where a run stands and why."""
    total = facts.settings.training.total_kimg
    if facts.state == "finished":
        return f"Finished: trained for {facts.kimg:,.6g} kimg, the full schedule."
    share = f"{facts.kimg:,.6g} of {total:,.6g} kimg ({facts.kimg / total:.0%})"
    if facts.state == "in progress":
        return f"In progress: {share} when this page was written ({facts.reason})."
    return f"Stopped at {share}: {facts.reason}."


def slides_of(
    facts: RunFacts,
    *,
    count: int,
    budget: int,
    beside: bool = True,
    progress: Progress = silent,
) -> Slides | None:
    """Return the sample sheets of a run with a slider; None where it has none."""
    keep = {int(facts.best["nimg"])} if facts.best else set()
    sheets = prepare_sheets(facts.sheets, keep, count=count, budget=budget, progress=progress)
    if not sheets.nimg:
        return None
    settings = facts.settings
    labels = []
    for nimg in sheets.nimg:
        stage = stage_at(settings.training, settings.network.resolution, nimg)
        best = " · best" if nimg in keep else ""
        shown = settings.network.size_at(stage.resolution)
        labels.append(f"{nimg / 1000:,.6g} kimg · {shown} px{best}")
    return Slides(
        labels,
        sheets.pictures,
        f"Sample sheet of run {facts.name}, the same 64 seeds each time",
        f"The averaged generator draws the same seeds each time. {sheets.note}".strip(),
        _reals(facts) if beside else None,
    )


def _reals(facts: RunFacts) -> Picture | None:
    try:
        content, _ = recompress(facts.path / "reals.png", _REALS_BYTES)
    except DataError:
        return None
    return Picture(content, "The first pictures of the dataset", "Real pictures of the dataset")


def _pictures(facts: RunFacts, progress: Progress) -> Section:
    slides = slides_of(facts, count=MAX_SHEETS, budget=BUDGET_BYTES, progress=progress)
    if slides is None:
        return Section("What it draws", ["No sample sheets yet."])
    return Section("What it draws", [], [slides])


def _numbers(facts: RunFacts) -> Section:
    blocks: list[Block] = [Numbers(list_cards(facts))] if facts.rows else []
    if metrics := facts.metrics:
        cards = []
        for metric in metrics:
            newest, best = metric.values[-1], metric.values[metric.best]
            spread = f"± {best.std:.2g} over subsets. " if best.std else ""
            way = "higher" if metric.higher_is_better else "lower"
            cards.append(
                Number(
                    metric.title,
                    f"{best.value:.4g}",
                    f"The best of {len(metric.values)}, at {best.kimg:,.6g} kimg; {way} is better.",
                    f"{spread}Newest: {newest.value:.4g} at {newest.kimg:,.6g} kimg",
                )
            )
        blocks.append(Numbers(cards))
    texts = []
    if not facts.rows:
        texts.append("No ticks yet.")
    elif not facts.metrics:
        texts.append(
            "No metric was measured. `stylecli metrics` measures a run's newest network, and "
            "`--metrics kid` every snapshot while it trains."
        )
    return Section("Numbers", texts, blocks)


def _curves(facts: RunFacts) -> Section:
    metrics = [draw_metric(metric, facts) for metric in facts.metrics]
    blocks: list[Block] = [*draw_curves(facts, large=True)]
    blocks += [Charts(metrics)] if metrics else []
    small = draw_curves(facts, large=False)
    blocks += [Charts(small)] if small else []
    marks = " Vertical lines are events, numbered as in the table below." if facts.notable else ""
    texts = [
        f"Shaded: the resolution being trained; tinted while the next one fades in.{marks} "
        "Triangles at an edge mark values beyond it; gaps are values that are missing or not "
        "finite."
    ]
    lost = sum(
        not all(math.isfinite(float(row.get(name) or 0)) for name in ("loss_G", "loss_D"))
        for row in facts.rows
    )
    if lost:
        texts.append(f"In {lost} of {plural(len(facts.rows), 'tick')} a loss was not finite.")
    return Section("Curves", texts if facts.rows else ["No ticks yet."], blocks)


def _events(facts: RunFacts) -> Section:
    saved = sum(row["event"] == "saved" for row in facts.events)
    notable = list(enumerate(facts.notable, start=1))
    texts = []
    if not facts.events:
        return Section("Events", ["This run has no record of events."])
    first = facts.events[0]
    texts.append(f"Begun {_when(first.get('time'))} UTC; saved {saved} times.")
    if len(notable) > MAX_EVENTS:
        texts.append(f"The newest {MAX_EVENTS} of {len(notable)} events.")
        notable = notable[-MAX_EVENTS:]
    if not notable:
        return Section("Events", [*texts, "Nothing else happened: no warning, no interruption."])
    rows = [
        (str(index), f"{float(row['kimg']):,.6g}", _when(row.get("time")), str(row["event"]),
         str(row.get("text") or ""))
        for index, row in notable
    ]  # fmt: skip
    marked = {place for place, (_, row) in enumerate(notable) if row["event"] in GRAVE}
    return Section(
        "Events", texts, [Table(("", "kimg", "when (UTC)", "event", "what"), rows, marked=marked)]
    )


def _settings(facts: RunFacts, origins: Origins | None) -> Section:
    settings = facts.settings
    blocks: list[Block] = []
    text = f"Configuration {settings.network.preset}, "
    if origins is None:
        text += "which no preset has."
    elif origins.changed:
        blocks.append(settings_table(origins))
        differ = plural(origins.changed, "setting differs", "settings differ")
        text += f"nearest preset: {origins.plan.preset}; {differ} from it."
    else:
        text += f"preset {origins.plan.preset}, with no setting changed."
    training, network = (origins.training, origins.network) if origins else ({}, {})
    blocks += [
        full_table("All settings of the training", settings.training.to_dict(), training),
        full_table("All settings of the network", settings.network.to_dict(), network),
    ]
    return Section("Settings", [text], blocks)


def _source(facts: RunFacts) -> Section:
    settings, record = facts.settings, facts.record
    rows = [("dataset", str(settings.dataset)), ("its digest", f"{settings.dataset_digest[:16]}…")]
    try:
        dataset = open_dataset(settings.dataset)
    except StyleCLIError:
        rows.append(("", "missing now"))
    else:
        rows.append(("pictures", f"{len(dataset):,}, {dataset.size} px"))
        if dataset.label_dim:
            rows.append(("classes", str(dataset.label_dim)))
        for name in ("source", "licence", "license"):
            if dataset.info.get(name):
                rows.append((name, str(dataset.info[name])))
        if dataset.digest != settings.dataset_digest:
            rows.append(("", "the dataset there now is not the one that the run was trained on"))
        dataset.close()
    if settings.network.label_dim:
        rows.append(("trained on classes", str(settings.network.label_dim)))
    if settings.origin is not None:
        how = "its full state" if settings.origin.continued else "its weights"
        rows.append(("started from", f"{settings.origin.source}, {how}"))
    rows += [("device", settings.device), ("processes", str(settings.ranks))]
    rows += [(name, str(value)) for name, value in (record.get("environment") or {}).items()]
    rows += [
        ("stylecli", str(record.get("stylecli", "–"))),
        ("begun (UTC)", _when(record.get("started"))),
    ]
    return Section("Data and machine", [], [Table(("what", "value"), rows)])


def _next(facts: RunFacts, origins: Origins | None) -> Section:
    blocks: list[Block] = []
    if facts.state != "finished":
        line = train_command(facts, origins)
        note = "" if line else "With the options that started the run."
        blocks.append(
            Commands([line or f"stylecli train {facts.settings.dataset} …"], "To continue. " + note)
        )
    if facts.newest is not None:
        network = f"{facts.path}/best" if facts.best else str(facts.path)
        which = (
            f"the best network, by {facts.best['metric']}" if facts.best else "the newest network"
        )
        lines = [
            f"stylecli {verb} --network {network}"
            for verb in (
                "generate --seeds 0-15 --grid",
                "mix --rows 5",
                "interpolate",
                "metrics kid ppl",
            )
        ]
        blocks.append(Commands(lines, f"With {which}."))
    again = Commands([f"stylecli report {facts.path}"], "Writes this page again.")
    return Section("What to type", [], [*blocks, again])


def _when(time: object) -> str:
    """Write a time of the run's files for people, in UTC: ``22 Nov 2026 19:48``, unbreakable."""
    try:
        moment = datetime.fromisoformat(str(time)).astimezone(UTC)
    except ValueError:
        return "–"
    day = f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year} {moment:%H:%M}"
    return day.replace(" ", "\u00a0")


def list_facts(facts: RunFacts) -> list[tuple[str, str]]:
    """Return the short pairs under the title."""
    settings = facts.settings
    pairs = [
        ("state", facts.state),
        ("shown", f"{facts.kimg:,.6g} of {settings.training.total_kimg:,.6g} kimg"),
        ("network", f"{settings.network.preset}, {settings.network.size} px"),
        ("machine", f"{settings.device}, {_count(settings.ranks, 'process', 'processes')}"),
    ]
    if math.isfinite(facts.seconds):
        pairs.insert(2, ("trained", format_seconds(facts.seconds)))
    if settings.network.label_dim:
        pairs.append(("classes", str(settings.network.label_dim)))
    if facts.best:
        text = f"{facts.best['value']:.4g} at {facts.best['kimg']:,.6g} kimg"
        pairs.append((f"best {facts.best['metric']}", text))
    return pairs


def list_cards(facts: RunFacts) -> list[Number]:
    """Return the newest figures of the training with what they mean; needs a row."""
    row, recent = facts.rows[-1], facts.rows[-_RECENT:]
    cards = []
    gaps = [row_number(item, "real_logits") - row_number(item, "fake_logits") for item in recent]
    if (gap := _median(gaps)) is not None:
        meaning = "Near 0 the discriminator learns nothing, above 10 the generator."
        detail = f"median of the last {plural(len(recent), 'tick')}"
        cards.append(Number("Logit gap", f"{gap:.3g}", meaning, detail))
    if math.isfinite(diversity := row_number(row, "diversity")):
        meaning = "How different the fakes are: 1 like the data, 0 all alike."
        cards.append(Number("Diversity", f"{diversity:.2f}", meaning, "in the last tick"))
    pace = _median([row_number(item, "sec_per_kimg") for item in recent])
    if pace:
        left = seconds_left(facts)
        detail = "" if not left else f"about {describe_seconds(left)} left at the measured rates"
        meaning = "Seconds per thousand pictures shown, without snapshots."
        cards.append(Number("Rate", f"{pace:.3g} s", meaning, detail))
    if math.isfinite(memory := row_number(row, "memory_mib")):
        detail = ""
        if math.isfinite(gpu := row_number(row, "gpu_reserved_mib")):
            detail = f"{gpu:,.0f} MiB on the GPU"
        meaning = "Peak of the main process."
        cards.append(Number("Memory", f"{memory:,.0f} MiB", meaning, detail))
    return cards


def seconds_left(facts: RunFacts) -> float:
    """Return the estimated seconds to the end of the schedule; 0 where there is no telling."""
    settings = facts.settings
    paces: dict[tuple[int, bool], list[float]] = {}
    for row in facts.rows:
        pace, lod = row_number(row, "sec_per_kimg"), row_number(row, "lod")
        resolution = row_number(row, "resolution")
        if all(map(math.isfinite, (pace, lod, resolution))) and pace > 0:
            key = (int(resolution), lod != math.floor(lod))
            paces.setdefault(key, []).append(pace)
    estimate = TimeLeft(settings.training, settings.network)
    known = {stage.key for stage in estimate.stages}
    measured = {key: median(values) for key, values in paces.items() if key in known}
    if not measured or facts.kimg >= settings.training.total_kimg:
        return 0.0
    return estimate.seconds_from(facts.kimg, measured)


def _median(values: list[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return median(finite) if finite else None


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def write_comparison(path: Path, runs: Sequence[RunFacts], *, progress: Progress = silent) -> None:
    """Write a page that compares runs, named as they are; raise UsageError for more than six."""
    if len(runs) > COLOURS:
        raise UsageError(f"{len(runs)} runs are too many for one page: give at most {COLOURS}")
    sections = [
        _states_of_all(runs),
        _settings_of_all(runs),
        _metrics_of_all(runs),
        _curves_of_all(runs),
        _pictures_of_all(runs, progress),
    ]
    lines = [f"stylecli report {facts.path}" for facts in runs]
    sections.append(Section("What to type", [], [Commands(lines, "A page of each run alone.")]))
    write_report(
        path,
        Report(
            title=f"{len(runs)} runs compared",
            lead=", ".join(facts.name for facts in runs),
            sections=[section for section in sections if section is not None],
            footer=f"Written by stylecli {__version__} from the files of the runs; this page "
            f"loads nothing from elsewhere.",
        ),
    )


def _states_of_all(runs: Sequence[RunFacts]) -> Section:
    names = list(dict.fromkeys(metric.title for facts in runs for metric in facts.metrics))
    rows = []
    for facts in runs:
        best = {metric.title: metric.values[metric.best] for metric in facts.metrics}
        values = [
            f"{best[name].value:.4g} at {best[name].kimg:,.6g}" if name in best else "–"
            for name in names
        ]
        seconds = format_seconds(facts.seconds) if facts.rows else "–"
        rows.append((facts.name, facts.state, f"{facts.kimg:,.6g}", seconds, *values))
    header = ("run", "state", "kimg", "trained", *(f"best {name}" for name in names))
    texts = [f"{facts.name}: {describe_state(facts)}" for facts in runs]
    note = "Metrics: the best value, and the kimg it was measured at." if names else ""
    return Section("Where they stand", texts, [Table(header, rows, note)])


def _settings_of_all(runs: Sequence[RunFacts]) -> Section:
    table = differing_table(runs)
    if not table.rows:
        return Section("Settings", ["The runs have the same settings, data and machine."])
    text = "All other settings are the same."
    return Section("Settings that differ", [text], [table])


def _metrics_of_all(runs: Sequence[RunFacts]) -> Section | None:
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


def _curves_of_all(runs: Sequence[RunFacts]) -> Section:
    charts = compare_curves(runs)
    if not charts:
        return Section("Curves", ["No ticks yet."])
    text = "All curves are over kimg. Gaps are values that are missing or not finite."
    return Section("Curves", [text], [Charts(charts)])


def _pictures_of_all(runs: Sequence[RunFacts], progress: Progress) -> Section:
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
    texts = [] if blocks else ["No sample sheets yet."]
    return Section("What they draw", texts, blocks)

"""The page of a sweep over truncation: each number as a curve over psi, and all in a table."""

from collections.abc import Sequence
from pathlib import Path

from stylecli import __version__
from stylecli.metrics.results import MetricResult, values_by_psi
from stylecli.report.content import Chart, Charts, Line, Report, Section, Table
from stylecli.report.page import write_report

PAGE = "psi.html"
_LEAD = (
    "Smaller psi draws styles nearer to the average: precision (the share of fakes that look real) "
    "usually rises, recall (the share of reals that fakes reach) falls, and the distance to the "
    "dataset grows when variety is lost. 1 is no truncation."
)


def write_psi_page(
    path: Path, network: Path, dataset: Path | None, results: Sequence[MetricResult]
) -> None:
    """Write one self-contained HTML page of results measured at several psi, atomically."""
    psis, rows = values_by_psi(results)
    charts = []
    for name, found in rows.items():
        spread = [one.std or 0.0 if one is not None else 0.0 for one in found]
        values = [_value(one) for one in found]
        better = "higher" if any(one and one.higher_is_better for one in found) else "lower"
        line = Line(name, psis, values, spread=spread, dots=True)
        charts.append(Chart(name, [line], "psi", caption=f"{better} is better"))
    table = Table(
        ("metric", *(f"psi {psi:g}" for psi in psis)),
        [(name, *(one.text() if one else "-" for one in found)) for name, found in rows.items()],
    )
    facts = [("network", network.name), ("dataset", dataset.name if dataset else "none")]
    counts = {f"{one.definition.get('fakes')} / {one.definition.get('reals')}" for one in results
              if one.definition.get("fakes")}  # fmt: skip
    section = Section("Numbers over psi", blocks=[Charts(charts), table])
    footer = f"Written by stylecli {__version__}."
    if counts:
        footer = f"Fakes / reals: {', '.join(sorted(counts))}. {footer}"
    report = Report(f"Truncation of {network.name}", _LEAD, [section], facts=facts, footer=footer)
    write_report(path, report)


def _value(found: MetricResult | None) -> float:
    return float("nan") if found is None or found.value is None else found.value

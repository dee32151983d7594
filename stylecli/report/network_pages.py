"""Pages of a network: its figures, each with its words, and its numbers over psi."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stylecli import __version__
from stylecli.images import encode_picture, resize
from stylecli.metrics.tasks import MetricResult, values_by_psi
from stylecli.networks.config import NetworkConfig
from stylecli.provenance import remake_command
from stylecli.report.content import Chart, Charts, Commands, Line, Picture, Report, Section, Table
from stylecli.report.page import write_report
from stylecli.sheets.paper import Figure

FIGURES_PAGE = "index.html"
PREVIEW = (1600, 1800)  # pixels, width and height; larger sheets are shrunk to it, as JPEG
PREVIEW_QUALITY = 88


@dataclass(frozen=True)
class Drawn:
    """A figure on disk, or the reason why there is none."""

    figure: Figure
    path: Path | None
    provenance: dict[str, Any] | None = None
    lack: str = ""


def write_figures_page(
    path: Path, network: Path, digest: str, config: NetworkConfig, figures: Sequence[Drawn]
) -> None:
    """Write one self-contained HTML page of figures, atomically; large sheets as previews."""
    facts = [
        ("network", network.name),
        ("resolution", f"{config.size} px"),
        ("layers", str(config.num_layers)),
        ("configuration", f"{config.preset}: {config.preset_text or 'its own'}"),
        ("SHA-256", f"{digest[:16]}…"),
    ]
    sections = [_section(drawn) for drawn in figures]
    report = Report(
        f"The paper's figures for {network.name}",
        "The figures of Karras, Laine and Aila, A Style-Based Generator Architecture for "
        "Generative Adversarial Networks (2018), drawn with this network. All pictures are "
        "generated: nobody in them exists.",
        sections,
        facts=facts,
        footer=f"Written by stylecli {__version__}. Each PNG next to this page records how it was "
        f"made: `stylecli info FILE`.",
    )
    write_report(path, report)


def _section(drawn: Drawn) -> Section:
    figure = drawn.figure
    if drawn.path is None:
        return Section(figure.heading, [f"Left out: {drawn.lack}."])
    source, note = _preview(drawn.path)
    picture = Picture(source, f"{figure.title}, drawn with this network", note)
    again = remake_command(drawn.provenance or {})
    commands = [] if again is None else [Commands([again])]
    return Section(figure.heading, [figure.text], [picture, *commands])


def _preview(path: Path) -> tuple[Path | bytes, str]:
    """Return what the page shows of a sheet: the file itself, or a smaller JPEG."""
    with Image.open(path) as image:
        width, height = image.size
        factor = max(width / PREVIEW[0], height / PREVIEW[1])
        if factor <= 1:
            return path, f"`{path.name}`, {width} x {height} pixels"
        flat = np.asarray(image.convert("RGB"))
    small = resize(flat, round(height / factor), round(width / factor))
    content = encode_picture(small, {}, format="jpeg", quality=PREVIEW_QUALITY)
    return content, f"A smaller copy of `{path.name}`, {width} x {height} pixels"


PSI_PAGE = "psi.html"
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

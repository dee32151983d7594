"""The page beside a network's figures: every one with its words, seen without opening files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stylecli import __version__
from stylecli.images import encode_picture, resize
from stylecli.networks.config import NetworkConfig
from stylecli.provenance import remake_command
from stylecli.report.content import Commands, Picture, Report, Section
from stylecli.report.page import write_report
from stylecli.sheets.paper import Figure

PAGE = "index.html"
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
        ("resolution", f"{config.resolution} px"),
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

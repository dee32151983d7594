"""One self-contained HTML page: no request leaves it, and it reads well without scripts.

Its pictures are made small: those that were enlarged by whole pixels go back to their own size,
which loses nothing; the page enlarges them again. Large ones are shrunk and become JPEG.
"""

import base64
import io
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stylecli import __version__
from stylecli.data.pictures import check_kind, name_cause, open_picture, quiet, read_header
from stylecli.errors import DataError, plural
from stylecli.files import write_text
from stylecli.images import Pictures, encode_png
from stylecli.progress import Progress, silent
from stylecli.report.charts import colour_of, draw_chart
from stylecli.report.content import (
    Block,
    Chart,
    Charts,
    Clip,
    Commands,
    Numbers,
    Picture,
    PictureSource,
    Report,
    Section,
    Slides,
    Table,
)

# The browser itself refuses whatever would reach outside the file.
_POLICY = (
    "default-src 'none'; img-src data:; media-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
ROOM = (960, 620)  # small pictures are enlarged by whole pixels to at most this, in CSS pixels
WIDE_COLUMNS = 5  # a table with so many may grow past the column of text
_NUMBER = re.compile(r"^[-+−±~≈<>]?\s*[\d.,]+(e[-+]?\d+)?\s*([%×kMGs]|MB|GB|ms|kimg|px)?$")


def write_report(path: Path | str, report: Report) -> None:
    """Write a report to an HTML file atomically; pictures and video are inside it."""
    write_text(path, report_html(report))


def report_html(report: Report) -> str:
    """Return a report as the text of an HTML page."""
    sections = "\n".join(
        _section_html(section, f"s{index}") for index, section in enumerate(report.sections)
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="generator" content="stylecli {__version__}">
{_refresh(report.refresh_seconds)}<meta name="color-scheme" content="light dark">
<title>{escape(report.title)}</title>
<style>
{_part("page.css")}</style>
</head>
<body>
{_header_html(report)}
<main>
{sections}
</main>
<footer><p>{markup(report.footer or f"Written by stylecli {__version__}.")}</p></footer>
<script>
{_part("page.js")}</script>
</body>
</html>
"""


def _refresh(seconds: int) -> str:
    return f'<meta http-equiv="refresh" content="{seconds}">\n' if seconds else ""


def _header_html(report: Report) -> str:
    parts = [f"<h1>{escape(report.title)}</h1>", f'<p class="lead">{markup(report.lead)}</p>']
    if report.facts:
        facts = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
            for name, value in report.facts
        )
        parts.append(f'<dl class="facts">{facts}</dl>')
    if len(report.sections) > 2:
        links = "".join(
            f'<li><a href="#s{index}">{escape(section.heading)}</a></li>'
            for index, section in enumerate(report.sections)
        )
        parts.append(f'<nav aria-label="Sections"><ol>{links}</ol></nav>')
    if report.hero is not None:
        parts.append(picture_html(report.hero))
    return "<header>\n{}\n</header>".format("\n".join(parts))


def _section_html(section: Section, anchor: str) -> str:
    paragraphs = "\n".join(f"<p>{markup(text)}</p>" for text in section.paragraphs)
    blocks = "\n".join(block_html(block) for block in section.blocks)
    heading = escape(section.heading)
    return f'<section id="{anchor}">\n<h2>{heading}</h2>\n{paragraphs}\n{blocks}\n</section>'


def _part(name: str) -> str:
    return files("stylecli.report").joinpath(name).read_text(encoding="utf-8")


def markup(text: str) -> str:
    """Escape plain text; `backticks` become code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def block_html(block: Block) -> str:
    """Return one block as an HTML element."""
    return _WRITERS[type(block)](block)


def picture_html(block: Picture) -> str:
    """Return a figure with one picture."""
    image = _image(block.source, block.alt, block.provenance)
    kind = ' class="wide"' if block.wide else ""
    return f"<figure{kind}>{image}{_caption(block.caption)}</figure>"


def _slides_html(block: Slides) -> str:
    if len(block.labels) != len(block.sources):
        raise ValueError(f"{len(block.labels)} labels for {len(block.sources)} slides")
    if not block.sources:
        return '<p class="empty">No snapshots yet.</p>'
    items = "\n".join(
        f"<li>{_image(source, f'{block.alt}, {label}')}<span>{escape(label)}</span></li>"
        for label, source in zip(block.labels, block.sources, strict=True)
    )
    last = len(block.labels) - 1
    controls = (
        '<div class="controls"><button type="button">Play</button>'
        f'<input type="range" min="0" max="{last}" value="{last}" aria-label="Snapshot">'
        "<output></output></div>"
    )
    strip = f'<ol tabindex="0" aria-label="Snapshots">{items}</ol>'
    if block.beside is not None:
        still = _image(block.beside.source, block.beside.alt)
        words = f"<span>{markup(block.beside.caption)}</span>"
        strip = f'<div class="pair">{strip}<div class="still">{still}{words}</div></div>'
    return f'<figure class="slides wide">{strip}{controls}{_caption(block.caption)}</figure>'


def _clip_html(block: Clip) -> str:
    content = block.source.read_bytes() if isinstance(block.source, Path) else block.source
    return (
        '<figure class="wide"><video controls loop muted playsinline preload="metadata" '
        f'aria-label="{escape(block.alt, quote=True)}" src="{_address("video/mp4", content)}">'
        f"{escape(block.alt)}</video>{_caption(block.caption)}</figure>"
    )


def _charts_html(block: Charts) -> str:
    drawn = "".join(_chart_html(chart, small=True) for chart in block.charts)
    return f'<div class="charts wide">{drawn}</div>'


def _chart_html(block: Chart, *, small: bool = False) -> str:
    keys = "".join(
        f'<span class="key c{colour_of(line, index)}"><i></i>{escape(line.name)}</span>'
        for index, line in enumerate(block.lines)
    )
    title = f"<strong>{escape(block.title)}</strong><em>{escape(block.y_label)}</em>"
    head = f'{title}<div class="keys">{keys}</div>'
    return (
        f'<figure class="wide"><div class="chart-head">{head}</div>'
        f"{draw_chart(block, small=small)}{_caption(block.caption)}</figure>"
    )


def _numbers_html(block: Numbers) -> str:
    cards = []
    for number in block.numbers:
        detail = f'<p class="detail">{markup(number.detail)}</p>' if number.detail else ""
        cards.append(
            f'<div class="number"><h3>{escape(number.name)}</h3>'
            f'<div class="value">{escape(number.value)}</div>'
            f"<p>{markup(number.meaning)}</p>{detail}</div>"
        )
    return f'<div class="numbers wide">{"".join(cards)}</div>'


def _table_html(block: Table) -> str:
    columns = list(zip(*block.rows, strict=True)) or [()] * len(block.header)
    sides = [
        ' class="right"' if cells and all(_NUMBER.match(cell) or cell in "–-—" for cell in cells)
        else ""
        for cells in columns
    ]  # fmt: skip
    head = "".join(
        f'<th scope="col"{side}>{markup(cell)}</th>'
        for cell, side in zip(block.header, sides, strict=True)
    )
    body = "\n".join(
        ('<tr class="marked">' if index in block.marked else "<tr>") + "".join(
            f"<td{side}>{markup(cell)}</td>" for cell, side in zip(row, sides, strict=True)
        ) + "</tr>"
        for index, row in enumerate(block.rows)
    )  # fmt: skip
    table = (
        '<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(block.caption or block.header[0] or "Table", quote=True)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    if block.folded:
        title = markup(block.caption or "Table")
        return f"<details><summary>{title}</summary>{table}</details>"
    kind = ' class="wide"' if len(block.header) >= WIDE_COLUMNS else ""
    return f"<figure{kind}>{table}{_caption(block.caption)}</figure>"


def _commands_html(block: Commands) -> str:
    lines = escape("\n".join(block.lines))
    return f"<figure><pre><code>{lines}</code></pre>{_caption(block.caption)}</figure>"


def _image(source: PictureSource, alt: str, provenance: dict[str, Any] | None = None) -> str:
    if isinstance(source, Path):
        content = source.read_bytes()
    elif isinstance(source, bytes):
        content = source
    else:
        content = encode_png(source, provenance)
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
    scale = max(1, min(ROOM[0] // width, ROOM[1] // height))
    return (
        f'<img class="pixels" width="{width * scale}" height="{height * scale}" '
        f'alt="{escape(alt, quote=True)}" src="{_address(_kind(content), content)}">'
    )


def _kind(content: bytes) -> str:
    """Return the media type of a picture: large ones come as JPEG."""
    return "image/jpeg" if content.startswith(b"\xff\xd8") else "image/png"


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _caption(text: str) -> str:
    return f"<figcaption>{markup(text)}</figcaption>" if text else ""


_WRITERS: dict[type, Callable[[Any], str]] = {
    Picture: picture_html,
    Slides: _slides_html,
    Clip: _clip_html,
    Chart: _chart_html,
    Charts: _charts_html,
    Numbers: _numbers_html,
    Table: _table_html,
    Commands: _commands_html,
}


MAX_SHEETS = 40  # a slider has no use for more
BUDGET_BYTES = 8_000_000  # of all sheets together; text in base64 takes a third more
_MAX_SIDE, _LEAST_SIDE = 1024, 128  # pixels
_PNG_PIXELS = 512 * 512  # of one sheet; beyond it becomes JPEG
_QUALITIES = (90, 80, 65, 50)


@dataclass(frozen=True)
class PageSheets:
    """The sheets of a page, and what was done to them in words."""

    nimg: Sequence[int]
    pictures: Sequence[bytes]  # PNG or JPEG
    note: str


def prepare_sheets(
    sheets: Sequence[tuple[int, Path]],
    keep: Collection[int] = (),
    *,
    count: int = MAX_SHEETS,
    budget: int = BUDGET_BYTES,
    progress: Progress = silent,
) -> PageSheets:
    """Choose at most ``count`` sheets and recompress them to about ``budget`` bytes in all.

    ``sheets`` are (images shown, path) by rising number; those in ``keep`` are among the chosen.
    Sheets that cannot be read are left out.
    """
    chosen = choose_evenly([nimg for nimg, _ in sheets], keep, count)
    paths = dict(sheets)
    share = budget // max(1, len(chosen))
    pictures: dict[int, bytes] = {}
    changed = 0
    for done, nimg in enumerate(chosen, start=1):
        progress(done, len(chosen))
        try:
            pictures[nimg], lossy = recompress(paths[nimg], share)
        except DataError:
            continue
        changed += lossy
    notes = []
    if len(chosen) < len(sheets):
        notes.append(f"{len(chosen)} of {plural(len(sheets), 'sheet')}, evenly chosen")
    if changed:
        notes.append(f"{changed} of those here are shrunk or compressed as JPEG")
    if missing := len(chosen) - len(pictures):
        notes.append(f"{missing} could not be read")
    note = f"To keep the page small: {'; '.join(notes)}. The run folder has them all in full."
    return PageSheets(list(pictures), list(pictures.values()), note if notes else "")


def choose_evenly(values: Sequence[int], keep: Collection[int], count: int) -> list[int]:
    """Return at most ``count`` of the rising values: the first, the last, ``keep``, and between."""
    if len(values) <= count:
        return list(values)
    kept = [value for value in values if value in keep][: max(0, count - 2)]
    places = max(2, count - len(kept))
    step = (len(values) - 1) / (places - 1)
    return sorted({values[round(index * step)] for index in range(places)} | set(kept))


def recompress(path: Path, most_bytes: int) -> tuple[bytes, bool]:
    """Return a sheet as PNG or JPEG of about ``most_bytes``, and whether it lost anything.

    Raises DataError for a file that is no picture.
    """
    try:
        with quiet(), open_picture(path) as opened:
            check_kind(read_header(opened))
            opened.load()
            image = opened if opened.mode in ("RGB", "L") else _on_white(opened)
    except Exception as error:  # Pillow's plugins raise anything on damaged files
        raise DataError(f"{path} {name_cause(error)}") from None
    # Training enlarges what is under 64 px, to sheets of 512: larger ones are as they were drawn.
    scale = whole_enlargement(np.asarray(image)) if max(image.size) <= _MAX_SIDE else 1
    if scale > 1:
        image = image.resize(
            (image.width // scale, image.height // scale), Image.Resampling.NEAREST
        )
    lossy = max(image.size) > _MAX_SIDE
    if lossy:
        factor = _MAX_SIDE / max(image.size)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    if image.width * image.height <= _PNG_PIXELS:
        packed = _encoded(image, "PNG")
        if len(packed) <= most_bytes:
            return packed, lossy
    for quality in _QUALITIES:
        packed = _encoded(image, "JPEG", quality)
        if len(packed) <= most_bytes:
            return packed, True
    while len(packed) > most_bytes and min(image.size) >= 2 * _LEAST_SIDE:  # noise, mostly
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
        packed = _encoded(image, "JPEG", _QUALITIES[-1])
    return packed, True


def whole_enlargement(picture: Pictures) -> int:
    """Return by how much a picture [H, W] or [H, W, C] was enlarged by repeating pixels.

    The largest power of two, 8 at most, that undoing loses nothing; 1 for none.
    """
    height, width = picture.shape[:2]
    scale = 1
    while scale < 8 and not (height % (2 * scale) or width % (2 * scale)):
        now = picture[::scale, ::scale]
        if not (np.array_equal(now[::2], now[1::2]) and np.array_equal(now[:, ::2], now[:, 1::2])):
            break
        scale *= 2
    # A sheet must stay large enough to be one.
    return scale if math.gcd(height, width) // scale >= 8 else 1


def _on_white(image: Image.Image) -> Image.Image:
    picture = image.convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(ground, picture).convert("RGB")


def _encoded(image: Image.Image, kind: str, quality: int = 0) -> bytes:
    file = io.BytesIO()
    if kind == "PNG":
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", quality=quality, subsampling=0 if quality >= 80 else 2)
    return file.getvalue()

"""What a report is made of: plain frozen dataclasses, filled by whoever has something to tell.

Text is plain; in it, `backticks` mark what a reader could type.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylecli.images import Pictures

PictureSource = Pictures | bytes | Path  # [H, W, C], or the content or path of a PNG or JPEG


@dataclass(frozen=True)
class Picture:
    """One picture with the words for those who see it (caption) and those who do not (alt)."""

    source: PictureSource
    alt: str
    caption: str = ""
    provenance: dict[str, Any] | None = None  # for arrays: makes the inlined PNG say how it arose
    wide: bool = True  # may grow past the column of text


@dataclass(frozen=True)
class Slides:
    """Pictures of equal size over time, with a slider; without scripts, a strip to scroll."""

    labels: Sequence[str]  # such as "120 kimg · 16 px"
    sources: Sequence[PictureSource]
    alt: str
    caption: str = ""
    beside: Picture | None = None  # stays in view while the slides change


@dataclass(frozen=True)
class Clip:
    """A looping MP4, as bytes or path."""

    source: bytes | Path
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Line:
    """One curve of a chart. Points that are not finite leave a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    smoothing: int = 1  # points of the running mean; above 1 the raw curve stays, faint
    spread: Sequence[float] = ()  # of each point, both ways; drawn where it is above zero
    dots: bool = False  # single measurements, not a dense curve: a dot at each
    steps: bool = False  # a value holds until the next
    best: int | None = None  # the point to ring
    colour: int | None = None  # None: by its place in the chart


@dataclass(frozen=True)
class Shading:
    """A stretch of the x axis: one resolution of progressive growing, fading in or stable."""

    start: float
    end: float
    label: str = ""  # such as "16 px"
    fading: bool = False


@dataclass(frozen=True)
class Mark:
    """A moment on the x axis: a thin upright line with a short label."""

    x: float
    label: str  # a number or letter that a table explains
    meaning: str = ""  # shown when pointed at
    grave: bool = False  # in the colour of warnings


@dataclass(frozen=True)
class Chart:
    """Curves over a common x axis, growth stages shaded behind them."""

    title: str
    lines: Sequence[Line]
    x_label: str
    y_label: str = ""
    stages: Sequence[Shading] = ()
    log_y: bool = False
    caption: str = ""
    marks: Sequence[Mark] = ()
    clip: bool = False  # rare values far beyond the others leave the plot, as triangles at its edge


@dataclass(frozen=True)
class Charts:
    """Small charts side by side."""

    charts: Sequence[Chart]


@dataclass(frozen=True)
class Number:
    """A result, shown large, with what it means to somebody who never met it."""

    name: str
    value: str
    meaning: str
    detail: str = ""  # how it was measured: sample counts, features, the file it came from


@dataclass(frozen=True)
class Numbers:
    """Results side by side."""

    numbers: Sequence[Number]


@dataclass(frozen=True)
class Table:
    """Rows under a header. Cells that read as numbers stand right-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    marked: Collection[int] = ()  # rows that stand out
    folded: bool = False  # behind its caption, opened by a click; needs no script


@dataclass(frozen=True)
class Commands:
    """Lines to type, shown as such."""

    lines: Sequence[str]
    caption: str = ""


Block = Picture | Slides | Clip | Chart | Charts | Numbers | Table | Commands


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs and what illustrates them, in order."""

    heading: str
    paragraphs: Sequence[str] = ()
    blocks: Sequence[Block] = ()


@dataclass(frozen=True)
class Report:
    """A page: title, a lead paragraph, a picture to open with, facts, sections."""

    title: str
    lead: str
    sections: Sequence[Section]
    hero: Picture | None = None
    facts: Sequence[tuple[str, str]] = ()  # short pairs under the lead: ("images", "2,000")
    footer: str = ""
    refresh_seconds: int = 0  # how soon the browser loads the page again; 0: never

"""Line charts as inline SVG: scalable, coloured by the page's style sheet, readable without it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from stylecli.report.content import Chart, Line, Mark, Shading

LEFT, RIGHT, TOP, BOTTOM = 50, 10, 26, 44  # room around the plot for axes and stage labels
_CLIP_POINTS = 20  # with fewer, nothing is rare
_CLIP_SHARE = 0.02  # of the points at either end may be called rare ...
_CLIP_FACTOR = 10.0  # ... if they lie this many times further from the middle than the others

Range = tuple[float, float]
Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 860, 340
SMALL_WIDTH, SMALL_HEIGHT = 430, 236  # half as wide, with room for a gap
COLOURS = 6  # line classes in the style sheet: c0 to c5
MAX_POINTS = 600  # more than a screen resolves; longer curves are averaged into this many
_LABEL_ROOM = 30.0  # a narrower stage goes unlabelled
_MARK_ROOM = 15.0  # between the labels of two marks
_MAX_MARKS = 80
_GAP = 5.0  # neighbours so many usual distances apart have a gap between them


@dataclass(frozen=True)
class Frame:
    """A drawing of ``width`` × ``height`` units and the values at its plot's edges."""

    width: int
    height: int
    x_range: Range
    y_range: Range
    log_y: bool = False

    @property
    def right(self) -> int:
        """The plot's right edge."""
        return self.width - RIGHT

    @property
    def base(self) -> int:
        """The plot's lower edge."""
        return self.height - BOTTOM

    def x(self, value: float) -> float:
        """Return where a value of x lies."""
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return where a value of y lies; those beyond the range lie on its edge."""
        low, high = self.y_range
        value = min(max(value, low), high)
        if self.log_y:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.base - (value - low) / (high - low) * (self.height - TOP - BOTTOM)

    def beyond(self, value: float) -> int:
        """Return 1 for a value above the plot, -1 for one below, 0 for one within."""
        low, high = self.y_range
        slack = 0.0 if self.log_y else 1e-9 * (high - low)
        return (value > high + slack) - (value < low - slack)


def drawable(y: float, log_y: bool) -> bool:
    """Whether a value has a place on the axis."""
    return math.isfinite(y) and (y > 0 or not log_y)


def widened(low: float, high: float) -> Range:
    """Return the range, with room around a lone value."""
    if high > low and math.isfinite(high - low):
        return low, high
    room = max(0.5, abs(low) * 1e-3)
    return low - room, low + room


def y_limits(points: Points, clip: bool = False) -> Range:
    """Return the range that the values of y are shown in; ``clip`` leaves rare far ones out."""
    ys = sorted(y for _, y in points)
    low, high = ys[0], ys[-1]
    rare = math.ceil(len(ys) * _CLIP_SHARE)
    if clip and len(ys) >= _CLIP_POINTS:
        middle, below, above = ys[len(ys) // 2], ys[rare], ys[-1 - rare]
        if high - middle > _CLIP_FACTOR * (above - middle) > 0:
            high = above + 0.15 * (above - below)
        if middle - low > _CLIP_FACTOR * (middle - below) > 0:
            low = below - 0.15 * (above - below)
    if low == high != 0 and math.isfinite(low):
        return (0.0, 1.25 * high) if high > 0 else (1.25 * low, 0.0)  # a setting that never changed
    if low == high == 0:
        return 0.0, 1.0  # such as a recall of nothing: nothing lies below zero
    if 0 < low < 0.5 * high:
        low = 0.0  # zero belongs in the picture unless that would flatten the curve
    return widened(low, high)


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers, about ``count`` of them, that enclose low to high."""
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # As many digits as the step needs, or 0.30000000000000004 would stand at the axis.
    digits = max(0, 3 - math.floor(math.log10(step)))
    return [round(index * step, digits) for index in range(first, last + 1)]


def log_ticks(points: Points) -> list[float]:
    """Return powers of ten, with 2 and 5 between where there is room, that enclose the values."""
    low, high = min(y for _, y in points), max(y for _, y in points)
    steps = (1, 2, 5) if high / low < 200 else (1,)
    marks = [
        step * 10.0**power
        for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        for step in steps
    ]
    first = max(index for index, mark in enumerate(marks) if mark <= low)
    last = min(index for index, mark in enumerate(marks) if mark >= high)
    return marks[first : max(last, first + 1) + 1]


def format_tick(value: float) -> str:
    """Write an axis number the short way: 0.25, 12, 15k, 3M."""
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            unit = 1e3 if letter == "k" else size
            return f"{value / unit:g}{letter}"
    return f"{value:.6g}"


def draw_chart(chart: Chart, *, small: bool = False) -> str:
    """Return the chart as an <svg> element; a chart without a finite point says so instead."""
    points = [
        (x, y) for line in chart.lines for x, y in _with_spread(line)
        if math.isfinite(x) and drawable(y, chart.log_y)
    ]  # fmt: skip
    if not points:
        return '<p class="empty">No measurements yet.</p>'
    xs = [x for x, _ in points] + [edge for s in chart.stages for edge in (s.start, s.end)]
    y_ticks = log_ticks(points) if chart.log_y else round_ticks(*y_limits(points, chart.clip))
    x_low, x_high = min(xs), max(xs)
    if x_low == x_high > 0:
        x_low, x_high = 0.0, 1.1 * x_high  # a lone measurement, seen from the beginning
    width, height = (SMALL_WIDTH, SMALL_HEIGHT) if small else (WIDTH, HEIGHT)
    frame = Frame(width, height, widened(x_low, x_high), (y_ticks[0], y_ticks[-1]), chart.log_y)
    parts = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" {_scales(frame)} '
        f'aria-label="{escape(_spoken(chart), quote=True)}">',
        *_stages(chart.stages, frame),
        *_y_axis(y_ticks, frame),
        *_x_axis(frame, chart.x_label, 4 if small else 7),
        *_marks(chart.marks, frame),
    ]
    for index, line in enumerate(chart.lines):
        parts += _curve(line, colour_of(line, index), frame)
    return "\n".join([*parts, "</svg>"])


def colour_of(line: Line, index: int) -> int:
    """Return the number of a line's colour; ``index`` is its place in the chart."""
    return (index if line.colour is None else line.colour) % COLOURS


def _scales(frame: Frame) -> str:
    """Return what the page's script needs to turn a place back into values."""
    edges = (LEFT, frame.right, *frame.x_range, frame.base, TOP, *frame.y_range)
    return f'data-scales="{" ".join(f"{edge:.9g}" for edge in edges)} {int(frame.log_y)}"'


def _with_spread(line: Line) -> list[tuple[float, float]]:
    points = list(zip(line.x, line.y, strict=True))
    for (x, y), spread in zip(points[:], line.spread, strict=False):
        if spread > 0:
            points += [(x, y - spread), (x, y + spread)]
    return points


def _spoken(chart: Chart) -> str:
    """Say what a reader would see: each curve's first and last value, and its best."""
    words = []
    for line in chart.lines:
        finite = [y for y in line.y if math.isfinite(y)]
        if finite:
            text = f"{line.name} goes from {finite[0]:.4g} to {finite[-1]:.4g}"
            if line.best is not None:
                text += f", best {line.y[line.best]:.4g}"
            words.append(text)
    return f"{chart.title}, over {chart.x_label}: {'; '.join(words)}."


def _stages(stages: Sequence[Shading], frame: Frame) -> list[str]:
    parts = []
    stable, free = 0, -math.inf
    for stage in stages:
        left, right = frame.x(stage.start), frame.x(stage.end)
        kind = "fading" if stage.fading else f"stable s{stable % 2}"
        stable += not stage.fading
        parts.append(
            f'<rect class="stage {kind}" x="{left:.1f}" y="{TOP}" '
            f'width="{max(right - left, 0):.1f}" height="{frame.base - TOP}"/>'
        )
        middle = (left + right) / 2
        if stage.label and right - left >= _LABEL_ROOM and middle > free:
            free = middle + 2 * _LABEL_ROOM
            parts.append(
                f'<text class="stage-label" x="{middle:.1f}" y="{TOP - 9}">'
                f"{escape(stage.label)}</text>"
            )
    return parts


def _y_axis(ticks: Sequence[float], frame: Frame) -> list[str]:
    parts = []
    for tick in ticks:
        y = frame.y(tick)
        kind = "zero" if tick == 0 else "grid"
        parts.append(f'<path class="{kind}" d="M{LEFT} {y:.1f}H{frame.right}"/>')
        parts.append(
            f'<text class="tick y" x="{LEFT - 8}" y="{y + 4:.1f}">{format_tick(tick)}</text>'
        )
    return parts


def _x_axis(frame: Frame, label: str, count: int) -> list[str]:
    base = frame.base
    parts = [f'<path class="base" d="M{LEFT} {base}H{frame.right}"/>']
    for tick in round_ticks(*frame.x_range, count=count):
        if frame.x_range[0] <= tick <= frame.x_range[1]:
            x = frame.x(tick)
            parts.append(f'<path class="base" d="M{x:.1f} {base}v5"/>')
            parts.append(
                f'<text class="tick x" x="{x:.1f}" y="{base + 19}">{format_tick(tick)}</text>'
            )
    end = f'<text class="axis end" x="{frame.right}" y="{frame.height - 4}">{escape(label)}</text>'
    return [*parts, end]


def _marks(marks: Sequence[Mark], frame: Frame) -> list[str]:
    """Draw events; where they stand close, the first of them lends its label."""
    parts = []
    free = -math.inf
    for mark in sorted(marks, key=lambda mark: (mark.x, not mark.grave))[:_MAX_MARKS]:
        if not frame.x_range[0] <= mark.x <= frame.x_range[1]:
            continue
        x = frame.x(mark.x)
        kind = "mark grave" if mark.grave else "mark"
        title = f"<title>{escape(f'{mark.label}: {mark.meaning}')}</title>"
        parts.append(f'<path class="{kind}" d="M{x:.1f} {TOP}V{frame.base}">{title}</path>')
        if x >= free:
            free = x + _MARK_ROOM
            at_edge = x > frame.right - _MARK_ROOM
            parts.append(
                f'<text class="{kind}{" end" if at_edge else ""}" '
                f'x="{x + (-3 if at_edge else 3):.1f}" '
                f'y="{TOP + 11}">{escape(mark.label)}{title}</text>'
            )
    return parts


def _curve(line: Line, colour: int, frame: Frame) -> list[str]:
    xs, ys = list(line.x), list(line.y)
    parts = []
    for x, y, spread in zip(xs, ys, line.spread, strict=False):
        if spread > 0 and math.isfinite(x) and drawable(y, frame.log_y):
            low = y - spread if drawable(y - spread, frame.log_y) else frame.y_range[0]
            parts.append(
                f'<path class="spread c{colour}" '
                f'd="M{frame.x(x):.1f} {frame.y(low):.1f}V{frame.y(y + spread):.1f}"/>'
            )
    if line.smoothing > 1:
        parts.append(_path(_extremes(xs, ys), "raw", colour, frame))
    smooth = _running_mean(ys, line.smoothing, frame)
    points = list(zip(xs, smooth, strict=True)) if line.steps else _thinned(xs, smooth)
    parts.append(_path(points, "line", colour, frame, steps=line.steps))
    seen = [(x, y) for x, y in points if math.isfinite(x) and drawable(y, frame.log_y)]
    if line.dots or len(seen) == 1:  # a lone measurement is a dot: a line needs two
        parts += [_circle(x, y, f"c{colour}", 4, frame) for x, y in seen]
    if line.best is not None:
        parts.append(_circle(xs[line.best], ys[line.best], f"best c{colour}", 8, frame))
    parts += _beyond(zip(xs, ys, strict=True), colour, frame)
    return parts


def _circle(x: float, y: float, kind: str, radius: int, frame: Frame) -> str:
    return (
        f'<circle class="{kind}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="{radius}">'
        f"<title>{y:.4g} at {x:g}</title></circle>"
    )


def _path(
    points: Sequence[tuple[float, float]],
    kind: str,
    colour: int,
    frame: Frame,
    *,
    steps: bool = False,
) -> str:
    """Join points; those that are not finite break the line, a lone one becomes a dot."""
    path, length = "", 0
    for x, y in [*points, (math.nan, math.nan)]:
        if not (math.isfinite(x) and drawable(y, frame.log_y)):
            path += "h0" if length == 1 else ""
            length = 0
            continue
        here = f"{frame.x(x):.1f} {frame.y(y):.1f}"
        if not length:
            path += f"M{here}"
        elif steps:
            path += f"H{frame.x(x):.1f}V{frame.y(y):.1f}"
        else:
            path += f"L{here}"
        length += 1
    return f'<path class="{kind} c{colour}" d="{path}"/>'


def _beyond(points: "zip[tuple[float, float]]", colour: int, frame: Frame) -> list[str]:
    """Point at values outside the plot; one triangle for those that stand together."""
    parts = []
    free = -math.inf
    for x, y in points:
        side = frame.beyond(y) if math.isfinite(x) and drawable(y, frame.log_y) else 0
        place = frame.x(x) if side else 0.0
        if side and place >= free:
            free = place + 6
            tip = frame.y(y) + 2 * side
            parts.append(
                f'<path class="beyond c{colour}" d="M{place:.1f} {tip:.1f}l-5 {8 * side}h10z">'
                f"<title>{y:.4g} at {x:g}</title></path>"
            )
    return parts


def _running_mean(values: Sequence[float], window: int, frame: Frame) -> list[float]:
    """Average over a centred window that shrinks at the ends; gaps stay gaps.

    Values beyond the plot count only where all are: one of them would bend the curve for long.
    """
    if window <= 1:
        return list(values)
    half = window // 2
    means = []
    for index, value in enumerate(values):
        near = [v for v in values[max(0, index - half) : index + half + 1] if math.isfinite(v)]
        near = [v for v in near if not frame.beyond(v)] or near
        means.append(sum(near) / len(near) if near and math.isfinite(value) else math.nan)
    return means


def _thinned(xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    """Average neighbours; what is not finite is left out of a mean, and of it only."""
    if len(xs) <= MAX_POINTS:
        return list(zip(xs, ys, strict=True))
    return [
        (sum(x) / len(x), sum(values) / len(values)) if values else (x[0], math.nan)
        for x, values in _groups(xs, ys, MAX_POINTS)
    ]


def _extremes(xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    """Keep the least and the largest of neighbours, so that no spike is lost."""
    if len(xs) <= MAX_POINTS:
        return list(zip(xs, ys, strict=True))
    points = []
    for x, values in _groups(xs, ys, MAX_POINTS // 2):
        points += [(x[0], min(values, default=math.nan)), (x[0], max(values, default=math.nan))]
    return points


def _groups(
    xs: Sequence[float], ys: Sequence[float], count: int
) -> list[tuple[Sequence[float], list[float]]]:
    """Return neighbours in about ``count`` groups with their finite values, none across a gap."""
    size = -(-len(xs) // count)
    groups = [(xs[i : i + size], ys[i : i + size]) for i in range(0, len(xs), size)]
    wide = _GAP * (xs[-1] - xs[0]) / len(groups)
    return [
        (x, [] if x[-1] - x[0] > wide else [value for value in y if math.isfinite(value)])
        for x, y in groups
    ]

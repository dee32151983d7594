"""Line charts as inline SVG: scalable, coloured by the page's style sheet, readable without it."""

import math
from collections.abc import Sequence
from html import escape

from stylecli.report.content import Chart, Line, Stage

WIDTH, HEIGHT = 860, 340
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 26, 44  # room around the plot for axes and stage labels
COLOURS = 6  # line classes in the style sheet: c0 to c5
MAX_POINTS = 600  # more than a screen resolves; longer curves are averaged into this many
_LABEL_ROOM = 30.0  # a narrower stage goes unlabelled

Range = tuple[float, float]


def draw_chart(chart: Chart) -> str:
    """Return the chart as an <svg> element; a chart without a finite point says so instead."""
    points = [
        (x, y) for line in chart.lines for x, y in zip(line.x, line.y, strict=True)
        if math.isfinite(x) and _drawable(y, chart.log_y)
    ]  # fmt: skip
    if not points:
        return '<p class="empty">No measurements yet.</p>'
    xs = [x for x, _ in points] + [edge for s in chart.stages for edge in (s.start, s.end)]
    x_range = _widened(min(xs), max(xs))
    y_ticks = _log_ticks(points) if chart.log_y else _ticks(*_y_range(points))
    y_range = (y_ticks[0], y_ticks[-1])
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(_spoken(chart), quote=True)}">',
        *_stages(chart.stages, x_range),
        *_y_axis(y_ticks, y_range, chart.log_y),
        *_x_axis(x_range, chart),
    ]
    for index, line in enumerate(chart.lines):
        parts += _curve(line, index % COLOURS, x_range, y_range, chart.log_y)
    return "\n".join([*parts, "</svg>"])


def format_tick(value: float) -> str:
    """Write an axis number the short way: 0.25, 12, 1.5k, 3M."""
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            unit = 1e3 if letter == "k" else size
            return f"{value / unit:g}{letter}"
    return f"{value:.6g}"


def _spoken(chart: Chart) -> str:
    """Say what a reader would see: each curve's first and last value."""
    words = []
    for line in chart.lines:
        finite = [y for y in line.y if math.isfinite(y)]
        if finite:
            words.append(f"{line.name} goes from {finite[0]:.4g} to {finite[-1]:.4g}")
    return f"{chart.title}, over {chart.x_label}: {'; '.join(words)}."


def _stages(stages: Sequence[Stage], x_range: Range) -> list[str]:
    parts = []
    stable = 0
    for stage in stages:
        left, right = _x(stage.start, x_range), _x(stage.end, x_range)
        kind = "fading" if stage.fading else f"stable s{stable % 2}"
        stable += not stage.fading
        parts.append(
            f'<rect class="stage {kind}" x="{left:.1f}" y="{TOP}" '
            f'width="{max(right - left, 0):.1f}" height="{HEIGHT - TOP - BOTTOM}"/>'
        )
        if stage.label and right - left >= _LABEL_ROOM:
            middle = (left + right) / 2
            parts.append(
                f'<text class="stage-label" x="{middle:.1f}" y="{TOP - 9}">'
                f"{escape(stage.label)}</text>"
            )
    return parts


def _y_axis(ticks: Sequence[float], y_range: Range, log_y: bool) -> list[str]:
    parts = []
    for tick in ticks:
        y = _y(tick, y_range, log_y)
        kind = "zero" if tick == 0 else "grid"
        parts.append(f'<path class="{kind}" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="tick y" x="{LEFT - 8}" y="{y + 4:.1f}">{format_tick(tick)}</text>'
        )
    return parts


def _x_axis(x_range: Range, chart: Chart) -> list[str]:
    base = HEIGHT - BOTTOM
    parts = [f'<path class="base" d="M{LEFT} {base}H{WIDTH - RIGHT}"/>']
    for tick in _ticks(*x_range, count=7):
        if x_range[0] <= tick <= x_range[1]:
            x = _x(tick, x_range)
            parts.append(f'<path class="base" d="M{x:.1f} {base}v5"/>')
            parts.append(
                f'<text class="tick x" x="{x:.1f}" y="{base + 19}">{format_tick(tick)}</text>'
            )
    label = escape(chart.x_label)
    parts.append(f'<text class="axis end" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}">{label}</text>')
    return parts


def _curve(line: Line, colour: int, x_range: Range, y_range: Range, log_y: bool) -> list[str]:
    smooth = _running_mean(line.y, line.smoothing)
    curves = [(line.y, "raw")] if line.smoothing > 1 else []
    parts = []
    for values, kind in [*curves, (smooth, "line")]:
        path, pen = "", "M"
        dots = []
        for x, y in _thinned(list(line.x), list(values)):
            if not (math.isfinite(x) and _drawable(y, log_y)):
                pen = "M"
                continue
            path += f"{pen}{_x(x, x_range):.1f} {_y(y, y_range, log_y):.1f}"
            dots.append((x, y))
            pen = "L"
        if len(dots) == 1 and kind == "line":  # a lone measurement is a dot: a line needs two
            x, y = dots[0]
            parts.append(
                f'<circle class="c{colour}" cx="{_x(x, x_range):.1f}" '
                f'cy="{_y(y, y_range, log_y):.1f}" r="4"/>'
            )
        parts.append(f'<path class="{kind} c{colour}" d="{path}"/>')
    return parts


def _running_mean(values: Sequence[float], window: int) -> list[float]:
    """Average over a centred window that shrinks at the ends; gaps stay gaps."""
    if window <= 1:
        return list(values)
    half = window // 2
    means = []
    for index, value in enumerate(values):
        near = [v for v in values[max(0, index - half) : index + half + 1] if math.isfinite(v)]
        means.append(sum(near) / len(near) if near and math.isfinite(value) else math.nan)
    return means


def _thinned(xs: list[float], ys: list[float]) -> list[tuple[float, float]]:
    if len(xs) <= MAX_POINTS:
        return list(zip(xs, ys, strict=True))
    size = -(-len(xs) // MAX_POINTS)
    groups = ((xs[i : i + size], ys[i : i + size]) for i in range(0, len(xs), size))
    return [(sum(x) / len(x), sum(y) / len(y)) for x, y in groups]


def _drawable(y: float, log_y: bool) -> bool:
    return math.isfinite(y) and (y > 0 or not log_y)


def _x(value: float, x_range: Range) -> float:
    return LEFT + (value - x_range[0]) / (x_range[1] - x_range[0]) * (WIDTH - LEFT - RIGHT)


def _y(value: float, y_range: Range, log_y: bool) -> float:
    low, high = y_range
    if log_y:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _widened(low: float, high: float) -> Range:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _y_range(points: Sequence[tuple[float, float]]) -> Range:
    ys = [y for _, y in points]
    low, high = min(ys), max(ys)
    if 0 < low < 0.5 * high:
        low = 0.0  # zero belongs in the picture unless that would flatten the curve
    return _widened(low, high)


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers, about ``count`` of them, that enclose low to high."""
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _log_ticks(points: Sequence[tuple[float, float]]) -> list[float]:
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

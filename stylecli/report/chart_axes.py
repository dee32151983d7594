"""Where a chart's points go: ranges of values, round ticks, and the way onto the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEFT, RIGHT, TOP, BOTTOM = 50, 10, 26, 44  # room around the plot for axes and stage labels
_CLIP_POINTS = 20  # with fewer, nothing is rare
_CLIP_SHARE = 0.02  # of the points at either end may be called rare ...
_CLIP_FACTOR = 10.0  # ... if they lie this many times further from the middle than the others

Range = tuple[float, float]
Points = Sequence[tuple[float, float]]


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

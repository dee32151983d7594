"""Charts: points where they belong, gaps where there is nothing, round ticks."""

import math
import re

import pytest

from stylecli.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MAX_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    draw_chart,
    format_tick,
)
from stylecli.report.content import Chart, Line, Shading


def _chart(*lines: Line, stages: tuple[Shading, ...] = (), log_y: bool = False) -> str:
    return draw_chart(Chart("Losses", lines, "kimg", stages=stages, log_y=log_y))


def _paths(svg: str, kind: str = "line") -> list[list[tuple[float, float]]]:
    drawn = re.findall(rf'<path class="{kind} c\d" d="([^"]*)"', svg)
    return [
        [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]
        for path in drawn
    ]


def _ticks(svg: str, axis: str) -> list[str]:
    return re.findall(rf'class="tick {axis}"[^>]*>([^<]*)<', svg)


def test_a_line_spans_the_plot() -> None:
    (points,) = _paths(_chart(Line("a", [0, 10], [0, 4])))

    assert points == [(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP)]


def test_ticks_are_round_and_enclose_the_values() -> None:
    svg = _chart(Line("a", [0, 400], [0.13, 1.71]))

    assert _ticks(svg, "y") == ["0", "0.5", "1", "1.5", "2"]
    assert _ticks(svg, "x") == ["0", "100", "200", "300", "400"]


def test_logarithmic_axes_space_decades_evenly() -> None:
    (points,) = _paths(_chart(Line("a", [0, 1, 2], [1, 100, 10000]), log_y=True))

    heights = [y for _, y in points]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)


def test_values_that_are_not_finite_leave_a_gap() -> None:
    svg = _chart(Line("a", [0, 1, 2, 3], [1.0, math.nan, math.inf, 2.0]))

    (path,) = re.findall(r'<path class="line c0" d="([^"]*)"', svg)
    assert path.count("M") == 2 and "nan" not in svg and "inf" not in svg


def test_smoothing_keeps_the_raw_curve_and_the_mean() -> None:
    values = [0.0, 2.0] * 10
    svg = _chart(Line("a", list(range(20)), values, smoothing=5))

    (raw,), (smooth,) = _paths(svg, "raw"), _paths(svg)
    spread = [max(y for _, y in line) - min(y for _, y in line) for line in (raw, smooth)]
    assert spread[1] < spread[0] / 2


def test_stages_are_shaded_and_named_where_there_is_room() -> None:
    stages = (
        Shading(0, 90, "8 px"),
        Shading(90, 91, "16 px", fading=True),
        Shading(91, 200, "16 px"),
    )
    svg = _chart(Line("a", [0, 200], [0, 1]), stages=stages)

    assert re.findall(r'class="stage (\w+)', svg) == ["stable", "fading", "stable"]
    assert re.findall(r'class="stage-label"[^>]*>([^<]*)<', svg) == ["8 px", "16 px"]


def test_long_curves_are_thinned() -> None:
    (points,) = _paths(_chart(Line("a", list(range(10_000)), [1.0] * 10_000)))

    assert MAX_POINTS / 2 < len(points) <= MAX_POINTS


def test_a_lone_point_is_a_dot_and_nothing_says_so() -> None:
    assert "<circle" in _chart(Line("a", [5], [3.0]))
    assert "No measurements yet" in _chart(Line("a", [], []))


def test_the_chart_can_be_read_aloud() -> None:
    svg = _chart(Line("generator", [0, 1], [2.0, 0.5]))

    assert 'aria-label="Losses, over kimg: generator goes from 2 to 0.5."' in svg


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.25"), (1200, "1200"), (25000, "25k"), (7e7, "70M"), (0, "0")]
)
def test_tick_numbers_are_short(value: float, text: str) -> None:
    assert format_tick(value) == text


def test_a_curve_of_zeros_has_no_scale_below_zero() -> None:
    from stylecli.report.charts import y_limits

    assert y_limits([(0.3, 0.0), (1.0, 0.0)]) == (0.0, 1.0)

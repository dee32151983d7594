"""Figures: what stands in which cell."""

from typing import Any

import numpy as np
import pytest

import stylecli
from stylecli.errors import UsageError
from stylecli.figures.fakes import draw_fakes, draw_uncurated, square_columns
from stylecli.figures.mixing import draw_mixing_sheet
from stylecli.figures.truncation import draw_truncation_sweep
from stylecli.images import Pictures

LAYERS = {"none": [], "coarse": [0, 1, 2, 3], "all": [0, 1, 2, 3, 4, 5]}


def _cells(sheet: Pictures, columns: int) -> Pictures:
    """Cut a sheet of 16 px cells without padding into [rows, columns, 16, 16, C]."""
    rows = sheet.shape[0] // 16
    return sheet.reshape(rows, 16, columns, 16, -1).transpose(0, 2, 1, 3, 4)


def _picture(network: Any, seed: int, **options: Any) -> Pictures:
    return next(stylecli.generate(network, [seed], **options))[1]


def test_mixing_sheet_shows_its_sources(tiny_network: Any) -> None:
    sheet = draw_mixing_sheet(
        tiny_network.G_ema, [1, 2], [3, 4, 5], LAYERS["coarse"], scale=1, padding=0
    )

    cells = _cells(sheet, 4)
    assert cells.shape[:2] == (3, 4) and (cells[0, 0] == 255).all()
    np.testing.assert_array_equal(cells[0, 2], _picture(tiny_network, 4))
    np.testing.assert_array_equal(cells[2, 0], _picture(tiny_network, 2))
    assert (cells[1, 1] != cells[1, 0]).any() and (cells[1, 1] != cells[0, 1]).any()


@pytest.mark.parametrize(("styles", "source"), [("none", (1, 0)), ("all", (0, 1))])
def test_mixing_nothing_or_everything_gives_a_source(
    tiny_network: Any, styles: str, source: tuple[int, int]
) -> None:
    sheet = draw_mixing_sheet(tiny_network.G_ema, [1], [2], LAYERS[styles], scale=1, padding=0)

    cells = _cells(sheet, 2)
    np.testing.assert_array_equal(cells[1, 1], cells[source])


def test_truncation_sweep_meets_at_the_average(tiny_network: Any) -> None:
    sheet = draw_truncation_sweep(tiny_network.G_ema, [1, 2], (1.0, 0.0), scale=1, padding=0)

    cells = _cells(sheet, 2)
    np.testing.assert_array_equal(cells[0, 1], cells[1, 1])
    np.testing.assert_array_equal(cells[1, 0], _picture(tiny_network, 2))


def test_fakes_stand_in_order_and_are_enlarged(tiny_network: Any) -> None:
    sheet = draw_fakes(tiny_network, [0, 1, 2], 2, scale=2)

    assert sheet.shape == (64, 64, 3)
    np.testing.assert_array_equal(sheet[::2, ::2][16:, :16], _picture(tiny_network, 2))


def test_uncurated_columns_shrink(tiny_network: Any) -> None:
    sheet = draw_uncurated(tiny_network.G_ema, rows=2, lods=(0, 1, 2), scale=1)

    assert sheet.shape == (32, 16 + 8 + 4, 3)
    with pytest.raises(UsageError, match="halved 5 times"):
        draw_uncurated(tiny_network.G_ema, lods=(0, 5))


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (12, 4), (16, 4), (17, 5)])
def test_default_sheets_are_about_square(count: int, columns: int) -> None:
    assert square_columns(count) == columns

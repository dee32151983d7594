"""Sheets of generated pictures: what stands in which cell."""

from typing import Any

import numpy as np
import pytest

import stylecli
from stylecli.errors import UsageError
from stylecli.images import Pictures
from stylecli.rendering import Drawing
from stylecli.sheets.fakes import draw_fakes, draw_uncurated, square_columns


def _picture(network: Any, seed: int, **options: Any) -> Pictures:
    return next(stylecli.generate(network, [seed], **options))[1]


def test_fakes_stand_in_order_and_are_enlarged(tiny_network: Any) -> None:
    sheet = draw_fakes(tiny_network, [0, 1, 2], 2, drawing=Drawing(scale=2))

    assert sheet.shape == (64, 64, 3)
    np.testing.assert_array_equal(sheet[::2, ::2][16:, :16], _picture(tiny_network, 2))


def test_uncurated_columns_shrink(tiny_network: Any) -> None:
    sheet = draw_uncurated(tiny_network.G_ema, drawing=Drawing(scale=1), rows=2, lods=(0, 1, 2))

    assert sheet.shape == (32, 16 + 8 + 4, 3)
    with pytest.raises(UsageError, match="halved 5 times"):
        draw_uncurated(tiny_network.G_ema, lods=(0, 5))


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (12, 4), (16, 4), (17, 5)])
def test_default_sheets_are_about_square(count: int, columns: int) -> None:
    assert square_columns(count) == columns

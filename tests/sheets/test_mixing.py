"""Mixing sheets: what each row copies, what stands in the margins; mixes in motion."""

from typing import Any

import numpy as np
import pytest
import torch

import stylecli
from stylecli.errors import UsageError
from stylecli.images import Pictures
from stylecli.rendering import Drawing
from stylecli.sheets.mixing import (
    Sources,
    add_margins,
    draw_mixing_sheet,
    draw_mixing_walk,
    mixing_walk_size,
    name_faces,
)

COARSE, FINE = [0, 1, 2, 3], [4, 5]
BARE: dict[str, Any] = {"drawing": Drawing(scale=1), "padding": 0}
LAYERS = {"none": [], "all": [0, 1, 2, 3, 4, 5]}


def _cells(sheet: Pictures, columns: int) -> Pictures:
    rows = sheet.shape[0] // 16
    return sheet.reshape(rows, 16, columns, 16, -1).transpose(0, 2, 1, 3, 4)


def test_rows_of_one_sheet_copy_different_styles(tiny_network: Any) -> None:
    G = tiny_network.G_ema

    sheet = _cells(draw_mixing_sheet(G, [1, 2], [3, 4], [COARSE, FINE], **BARE), 3)

    coarse = _cells(draw_mixing_sheet(G, [1, 2], [3, 4], COARSE, **BARE), 3)
    fine = _cells(draw_mixing_sheet(G, [1, 2], [3, 4], FINE, **BARE), 3)
    np.testing.assert_array_equal(sheet[:2], coarse[:2])
    np.testing.assert_array_equal(sheet[2], fine[2])
    assert (coarse[2] != fine[2]).any()


def test_saved_styles_are_mixed_as_they_are(tiny_network: Any) -> None:
    G = tiny_network.G_ema
    rows, columns = (name_faces(G, seeds, Drawing(psi=0.5)) for seeds in ([1, 2], [3]))

    sheet = draw_mixing_sheet(
        G, rows, columns, COARSE, drawing=Drawing(psi=0.1, scale=1), padding=0
    )

    np.testing.assert_array_equal(
        sheet,
        draw_mixing_sheet(G, [1, 2], [3], COARSE, drawing=Drawing(psi=0.5, scale=1), padding=0),
    )


def test_lists_of_layers_must_be_one_per_row(tiny_network: Any) -> None:
    with pytest.raises(UsageError, match="3 lists of layers for 2 rows"):
        draw_mixing_sheet(tiny_network.G_ema, [1, 2], [3], [COARSE] * 3)


def test_names_stand_in_margins_around_the_same_sheet(tiny_network: Any) -> None:
    G = tiny_network.G_ema

    bare = draw_mixing_sheet(G, [1, 2], [3], [COARSE, FINE])
    named = draw_mixing_sheet(G, [1, 2], [3], [COARSE, FINE], names=True)

    height, width = bare.shape[:2]
    np.testing.assert_array_equal(named[-height:, -width:], bare)
    over, beside = named[:-height], named[-height:, :-width]
    assert 10 < len(over) < 30 and over.min() < 100 and beside.min() < 100
    assert (over[:, : width // 2] == 255).all()  # the corner has no name


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("side", [8, 128])
def test_long_names_stay_within_the_page(channels: int, side: int) -> None:
    sheet = np.zeros((2 * side, 2 * side, channels), np.uint8)

    page = add_margins(
        sheet, (side, side), (side, side), top=["4294967295"] * 2, left=["4294967295", "7"],
        groups=[("a very long name of a band", 0, 2)],
    )  # fmt: skip

    assert page.shape[2] == channels
    edges = np.concatenate([page[0, : -2 * side, 0], page[:, 0, 0]])
    assert (edges == 255).all()  # no letter is cut off
    np.testing.assert_array_equal(page[-2 * side :, -2 * side :], sheet)


def _moving(G: Any, mover: Any, frames: int = 6) -> Pictures:
    rows, columns = name_faces(G, [1, 2]), name_faces(G, [3, 4, 5])
    walk = draw_mixing_walk(
        G, rows, columns, [COARSE] * 2, frames, drawing=Drawing(scale=1), mover=mover
    )
    return np.stack(list(walk))


def _cell(frames: Pictures, row: int, column: int) -> Pictures:
    """Cut one cell out of all frames: cells of 16 px, a gap of 1."""
    return frames[:, 17 * row : 17 * row + 16, 17 * column : 17 * column + 16]


def test_moving_columns_pass_through_the_mixes_of_the_sheet(tiny_network: Any) -> None:
    G = tiny_network.G_ema
    sheet = _cells(draw_mixing_sheet(G, [1, 2], [3, 4, 5], COARSE, **BARE), 4)

    frames = _moving(G, "columns")

    assert frames.shape == (6, 33, 50, 3)
    assert mixing_walk_size(G.config, 2, 1) == (33, 50)  # known before anything is drawn
    for key in range(3):  # every other frame is a key
        np.testing.assert_array_equal(_cell(frames, 1, 0)[2 * key], sheet[0, key + 1])
        np.testing.assert_array_equal(_cell(frames, 1, 2)[2 * key], sheet[2, key + 1])
    assert (_cell(frames, 0, 1) == sheet[1, 0]).all() and (_cell(frames, 0, 0) == 255).all()


def test_moving_rows_pass_through_the_mixes_of_the_sheet(tiny_network: Any) -> None:
    G = tiny_network.G_ema
    sheet = _cells(draw_mixing_sheet(G, [1, 2], [3, 4, 5], COARSE, **BARE), 4)

    frames = _moving(G, "rows", 4)

    for key in range(2):
        np.testing.assert_array_equal(_cell(frames, 1, 0)[2 * key], sheet[key + 1, 0])
        np.testing.assert_array_equal(_cell(frames, 1, 3)[2 * key], sheet[key + 1, 3])
    assert (_cell(frames, 0, 2) == sheet[0, 2]).all()


def test_what_cannot_move_is_refused(tiny_network: Any) -> None:
    G = tiny_network.G_ema
    two, one = name_faces(G, [1, 2]), Sources(torch.zeros(1, 6, 8), ("w0",))

    with pytest.raises(UsageError, match="let the columns move"):
        draw_mixing_walk(G, two, two, [COARSE, FINE], 4, mover="rows")
    with pytest.raises(UsageError, match="one face cannot move"):
        draw_mixing_walk(G, two, one, [COARSE] * 2, 4)


def test_networks_without_styles_are_refused(tiny_config_fields: dict[str, Any]) -> None:
    traditional = stylecli.new_network("b", **tiny_config_fields)

    with pytest.raises(UsageError, match="configuration 'b' has no styles to mix"):
        draw_mixing_sheet(traditional.generator, [1], [2], [0])


def _picture(network: Any, seed: int, **options: Any) -> Pictures:
    return next(stylecli.generate(network, [seed], **options))[1]


def test_mixing_sheet_shows_its_sources(tiny_network: Any) -> None:
    sheet = draw_mixing_sheet(
        tiny_network.G_ema, [1, 2], [3, 4, 5], COARSE, drawing=Drawing(scale=1), padding=0
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
    sheet = draw_mixing_sheet(
        tiny_network.G_ema, [1], [2], LAYERS[styles], drawing=Drawing(scale=1), padding=0
    )

    cells = _cells(sheet, 2)
    np.testing.assert_array_equal(cells[1, 1], cells[source])

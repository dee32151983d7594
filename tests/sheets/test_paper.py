"""The table of figures: official layouts at full size, sensible ones for small networks."""

from typing import Any

import numpy as np
import pytest
import torch

import stylecli
from stylecli.errors import UsageError
from stylecli.images import Pictures
from stylecli.networks.registry import make_config
from stylecli.progress import silent
from stylecli.rendering import Drawing, render
from stylecli.sampling import map_latents, map_seeds, mix_ws
from stylecli.sheets.paper import (
    FIGURES,
    draw_figure,
    draw_layer_styles,
    draw_truncation_sweep,
    figure_settings,
    find_figures,
    mixing_layers,
    shrinking_columns,
)


def _draw(network: Any, key: str, **overrides: Any) -> np.ndarray:
    (figure,) = find_figures([key])
    settings = figure_settings(figure, network.config, overrides)
    return draw_figure(figure, network.generator, settings, Drawing(batch=8), silent)


def _slim(resolution: int) -> Any:
    """A network of the paper's layers that draws in no time."""
    return stylecli.new_network(
        "f", resolution=resolution, fmap_base=2, fmap_max=2, z_dim=4, w_dim=4, mapping_layers=1,
        mapping_fmaps=4,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "height", "width"),
    [
        ("3", 7, 6), ("4", 2, 3), ("5", 2, 2), ("8", 2, 6),
        ("2", 3, 1 + 1 / 2 + 2 / 4 + 2 / 8),  # 2304 x 3072 for 1024 px
        ("10", 5, 2 + 2 / 2 + 3 / 4), ("12", 5, 2 + 2 / 2 + 3 / 4),
        ("11", 4 * 3 / 4, 1 + 1 / 2 + 2 / 4 + 2 / 8),  # 1152 x 1536 for 512 px
    ],
)  # fmt: skip
def test_layouts_are_the_published_ones(key: str, height: float, width: float) -> None:
    sheet = _draw(_slim(128), key)

    assert sheet.shape == (128 * height, 128 * width, 3)


@pytest.mark.parametrize("resolution", [4, 8, 64])
def test_every_network_can_be_shown(resolution: int) -> None:
    network = _slim(resolution)

    for figure in FIGURES:
        sheet = _draw(network, figure.key)
        assert sheet.shape[0] >= 200 and sheet.shape[1] >= 200, figure.key


def test_columns_shrink_less_in_small_networks() -> None:
    published = (0, 1, 2, 2, 3, 3)

    assert shrinking_columns(published, 1024) == [0, 1, 2, 2, 3, 3]
    assert shrinking_columns(published, 64) == [0, 1, 2, 2, 2, 2]
    assert shrinking_columns(published, 32) == [0, 1, 1, 1, 1, 1]
    assert shrinking_columns(published, 8) == [0, 0, 0, 0, 0, 0]


def test_figure_3_copies_coarse_middle_and_fine_styles() -> None:
    coarse, middle, fine = [0, 1, 2, 3], [4, 5, 6, 7], list(range(8, 18))

    sides = {side: make_config("f", resolution=side).layer_sides for side in (16, 32, 1024)}
    assert mixing_layers(6, sides[1024]) == [coarse] * 3 + [middle] * 2 + [fine]
    assert mixing_layers(3, sides[1024]) == [coarse, middle, fine]
    assert mixing_layers(6, sides[32])[-1] == [6, 7] and mixing_layers(6, sides[32])[3] == [4, 5]
    assert mixing_layers(4, sides[16]) == [coarse] * 3 + [[4, 5]]  # no middle band at 16 px


def test_uncurated_latents_are_one_stream(tiny_network: Any) -> None:
    sheet = _draw(tiny_network, "uncurated", psi=1.0)  # 16 px, shown 8 times as large

    z = np.random.RandomState(5).randn(3, 8).astype(np.float32)
    ws = map_latents(tiny_network.G_ema, torch.from_numpy(z))
    pictures = render(
        tiny_network.G_ema, ws, drawing=Drawing(noise_mode="random"), noise_seeds=range(3)
    )
    for row, picture in enumerate(pictures):
        np.testing.assert_array_equal(sheet[row * 128 : row * 128 + 128 : 8, :128:8], picture)


def test_psi_is_the_published_one_unless_told() -> None:
    config = make_config("f", resolution=1024)
    two, three, eight = find_figures(["2", "mixing", "8"])

    assert figure_settings(two, config, {"psi": None}) == {
        "seed": 5, "psi": 0.7, "psi_cutoff": 8, "label": None
    }  # fmt: skip
    assert figure_settings(three, config, {})["psi"] == 1
    assert figure_settings(three, config, {"psi": 0.5})["psi_cutoff"] == 8
    assert figure_settings(three, config, {"psi": 0.5, "psi_cutoff": 0})["psi_cutoff"] == 0
    assert "psi" not in figure_settings(eight, config, {"psi": 0.5})
    assert figure_settings(two, make_config("b"), {})["psi"] == 1


def test_words_that_name_no_figure_are_refused() -> None:
    assert [figure.key for figure in find_figures(["8", "MIXING", "3"])] == ["mixing", "truncation"]
    with pytest.raises(UsageError, match="unknown figure '6': expected one of 2, uncurated, 3, "):
        find_figures(["6"])


def test_networks_that_lack_what_a_figure_shows_are_refused(
    tiny_config_fields: dict[str, Any],
) -> None:
    network = stylecli.new_network("b", **tiny_config_fields)

    with pytest.raises(UsageError, match="Figure 3: Style mixing cannot be drawn: configuration"):
        _draw(network, "3")
    assert _draw(network, "2").shape[2] == 3


def test_single_layers_are_swapped_one_by_one(tiny_network: Any) -> None:
    G = tiny_network.G_ema

    sheet = draw_layer_styles(G, [1], [2], drawing=Drawing(scale=1))

    face, source = map_seeds(G, [1, 2]).split(1)
    ws = torch.cat([face, source, *(mix_ws(face, source, [layer]) for layer in range(6))])
    row = sheet[-16:, -(8 * 17 - 1) :]  # below and right of the margins
    for column, picture in enumerate(render(G, ws)):
        np.testing.assert_array_equal(row[:, column * 17 : column * 17 + 16], picture)
    with pytest.raises(UsageError, match="2 seeds for 1 source"):
        draw_layer_styles(G, [1, 3], [2])


def _cells(sheet: Pictures, columns: int) -> Pictures:
    """Cut a sheet of 16 px cells without padding into [rows, columns, 16, 16, C]."""
    rows = sheet.shape[0] // 16
    return sheet.reshape(rows, 16, columns, 16, -1).transpose(0, 2, 1, 3, 4)


def _picture(network: Any, seed: int, **options: Any) -> Pictures:
    return next(stylecli.generate(network, [seed], **options))[1]


def test_truncation_sweep_meets_at_the_average(tiny_network: Any) -> None:
    sheet = draw_truncation_sweep(
        tiny_network.G_ema, [1, 2], (1.0, 0.0), drawing=Drawing(scale=1), padding=0
    )

    cells = _cells(sheet, 2)
    np.testing.assert_array_equal(cells[0, 1], cells[1, 1])
    np.testing.assert_array_equal(cells[1, 0], _picture(tiny_network, 2))

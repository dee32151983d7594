"""Noise figures: what stands where, and what the map of deviations says."""

from typing import Any

import numpy as np
import pytest
import torch

import stylecli
from stylecli.errors import UsageError
from stylecli.images import Pictures
from stylecli.networks.registry import make_config
from stylecli.rendering import Drawing
from stylecli.sheets.paper import draw_noise_detail, draw_noise_layers, noise_kinds


def _picture(network: Any, seed: int, **options: Any) -> Pictures:
    return next(stylecli.generate(network, [seed], **options))[1]


def test_detail_shows_a_picture_four_zooms_and_a_map(tiny_network: Any) -> None:
    sheet = draw_noise_detail(tiny_network.G_ema, [3, 4], drawing=Drawing(scale=1), draws=6)

    assert sheet.shape == (32, 48, 3)
    draws = [_picture(tiny_network, 4, noise_mode="random", noise_seed=n) for n in range(6)]
    row = sheet[16:]
    np.testing.assert_array_equal(row[:, :16], draws[0])
    for place, draw in enumerate(draws[1:5]):
        zoom = draw[3:7, 10:14].repeat(2, axis=0).repeat(2, axis=1)
        top, left = place // 2 * 8, 16 + place % 2 * 8
        np.testing.assert_array_equal(row[top : top + 8, left : left + 8], zoom)
    deviation = np.std(np.mean(draws, axis=3), axis=0)  # over draws, of the mean of the colours
    wanted = np.clip(deviation * 4 + 0.5, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(row[:, 32:], np.repeat(wanted[:, :, None], 3, axis=2))
    assert wanted.max() > 0


def test_where_noise_has_no_strength_the_map_is_black(tiny_network: Any) -> None:
    with torch.no_grad():
        for layer in tiny_network.G_ema.synthesis.layers:
            layer.noise_strength.zero_()

    sheet = draw_noise_detail(tiny_network.G_ema, [3], drawing=Drawing(scale=1), draws=5)

    assert sheet[:, 32:].max() == 0


def test_layers_figure_is_put_together_of_halves(tiny_network: Any) -> None:
    sheet = draw_noise_layers(tiny_network.G_ema, [3, 4], drawing=Drawing(scale=1))

    assert sheet.shape == (32, 32, 3)
    kinds = noise_kinds(tiny_network.config)
    assert kinds["fine"] == [0, 0, 0, 0, 1, 1] and kinds["coarse"] == [1, 1, 1, 1, 0, 0]
    drawn = {
        name: [_picture(tiny_network, seed, noise_scale=scale) for seed in (3, 4)]
        for name, scale in kinds.items()
    }
    np.testing.assert_array_equal(sheet[:16, :8], drawn["all"][0][:, :8])
    np.testing.assert_array_equal(sheet[:16, 8:16], drawn["none"][0][:, 8:])
    np.testing.assert_array_equal(sheet[16:, :8], drawn["fine"][0][:, :8])
    # The second seed's pictures are mirrored first.
    np.testing.assert_array_equal(sheet[16:, 24:], drawn["coarse"][1][:, ::-1][:, 8:])
    assert (drawn["all"][0] != drawn["none"][0]).any()


def test_fine_noise_begins_at_64_px_in_the_paper_s_networks() -> None:
    fine = noise_kinds(make_config("f", resolution=1024))["fine"]

    assert fine == [0.0] * 8 + [1.0] * 10


@pytest.mark.parametrize("draw", [draw_noise_detail, draw_noise_layers])
def test_networks_without_noise_are_refused(tiny_config_fields: dict[str, Any], draw: Any) -> None:
    with pytest.raises(UsageError, match="'d' has no noise inputs"):
        draw(stylecli.new_network("d", **tiny_config_fields).G_ema, [1])

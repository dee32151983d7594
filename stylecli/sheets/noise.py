"""What noise does: stochastic detail and its layers, Figures 4 and 5 of the StyleGAN paper."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import repeat

import numpy as np

from stylecli.errors import UsageError
from stylecli.images import Pictures, enlarge, visible_scale
from stylecli.networks.config import NetworkConfig
from stylecli.networks.model import Generator
from stylecli.progress import Progress, silent
from stylecli.sampling import PLAIN, Drawing, map_seeds, render
from stylecli.styles import style_bands

PAPER_DRAWS = 100
ZOOMS = 4
DEVIATION_GAIN = 4  # grey levels of the map per level of standard deviation
# Figure 4 looks at the hair right of the forehead: 256 px at (650, 180) of 1024.
CROP_LEFT, CROP_TOP, CROP_SIDE = 650 / 1024, 180 / 1024, 1 / 4


def draw_noise_detail(
    G: Generator,
    seeds: Sequence[int],
    drawing: Drawing = PLAIN,
    *,
    draws: int = PAPER_DRAWS,
    progress: Progress = silent,
) -> Pictures:
    """Draw a row per seed: the picture, four zooms with other noise, the deviation over ``draws``.

    The first draw is shown whole; of the next four a quarter of the width is enlarged. The map is
    the standard deviation over all draws of the mean of the colours, in grey levels, times four.
    Returns [seeds · R, 3 · R, C], enlarged by the scale. Raises UsageError for networks without
    noise or with too few draws.
    """
    _check_noise(G.config)
    if draws < ZOOMS + 1:
        raise UsageError(f"{draws} draws of noise are too few: expected {ZOOMS + 1} or more")
    noisy = replace(drawing, noise_mode="random", noise_seed=None)
    rows = []
    all_ws = map_seeds(G, seeds, label=drawing.label, **drawing.truncation)
    for index, ws in enumerate(all_ws):
        first: list[Pictures] = []
        total = squares = np.zeros(())
        pictures = render(G, repeat(ws, draws), noisy, noise_seeds=range(draws))
        for draw, picture in enumerate(pictures):
            if draw <= ZOOMS:
                first.append(picture)
            grey = _colours(picture).mean(axis=2, dtype=np.float64)  # [H, W]
            total, squares = total + grey, squares + grey * grey
            progress(index * draws + draw + 1, len(all_ws) * draws)
        deviation = np.sqrt(np.maximum(squares / draws - (total / draws) ** 2, 0))
        rows.append(_detail_row(first, deviation))
    sheet: Pictures = np.concatenate(rows)
    return enlarge(sheet, drawing.scale or visible_scale(G.config.resolution))


def draw_noise_layers(
    G: Generator,
    seeds: Sequence[int],
    drawing: Drawing = PLAIN,
    *,
    progress: Progress = silent,
) -> Pictures:
    """Draw a column per seed: noise in all | no layers above, in fine | coarse layers below.

    Every cell is split at half width, and the pictures of every second seed are mirrored. Noise is
    the maps stored with the network. Returns [2 · R, seeds · R, C], enlarged by the scale. Raises
    UsageError for networks without noise.
    """
    _check_noise(G.config)
    ws = map_seeds(G, seeds, label=drawing.label, **drawing.truncation)
    kinds = noise_kinds(G.config)
    drawn: dict[str, list[Pictures]] = {}
    for number, (name, scales) in enumerate(kinds.items()):
        scaled = replace(drawing, noise_scale=scales)
        drawn[name] = []
        for picture in render(G, ws, scaled):
            drawn[name].append(picture)
            progress(number * len(ws) + len(drawn[name]), len(kinds) * len(ws))
    half = G.config.resolution // 2
    columns = []
    for index in range(len(ws)):
        cells = []
        for left, right in (("all", "none"), ("fine", "coarse")):
            pair = [drawn[name][index] for name in (left, right)]
            if index % 2:
                pair = [picture[:, ::-1] for picture in pair]
            cells.append(np.concatenate([pair[0][:, :half], pair[1][:, half:]], axis=1))
        columns.append(np.concatenate(cells))
    sheet: Pictures = np.concatenate(columns, axis=1)
    return enlarge(sheet, drawing.scale or visible_scale(G.config.resolution))


def noise_kinds(config: NetworkConfig) -> dict[str, list[float]]:
    """Return the noise scales of every layer for ``all``, ``none``, ``fine`` and ``coarse``.

    Fine is the band of that name, 64 px and up in the paper; coarse is everything before it.
    """
    fine = set(style_bands(config.layer_sides).get("fine", ()))
    layers = range(config.num_layers)
    return {
        "all": [1.0] * config.num_layers,
        "none": [0.0] * config.num_layers,
        "fine": [float(layer in fine) for layer in layers],
        "coarse": [float(layer not in fine) for layer in layers],
    }


def _detail_row(pictures: Sequence[Pictures], deviation: np.ndarray) -> Pictures:
    """Return [R, 3 · R, C]: a picture, two by two zooms of the others, the deviation as grey."""
    resolution, channels = len(deviation), pictures[0].shape[2]
    side = max(1, round(CROP_SIDE * resolution))
    top, left = round(CROP_TOP * resolution), round(CROP_LEFT * resolution)
    factor = resolution // 2 // side
    zooms = [
        enlarge(picture[top : top + side, left : left + side], factor) for picture in pictures[1:]
    ]
    block = np.concatenate([np.concatenate(zooms[i : i + 2], axis=1) for i in (0, 2)])
    levels = np.clip(deviation * DEVIATION_GAIN + 0.5, 0, 255).astype(np.uint8)
    grey = np.repeat(levels[:, :, None], channels, axis=2)
    if channels == 4:
        grey[:, :, 3] = 255
    row: Pictures = np.concatenate([pictures[0], block, grey], axis=1)
    return row


def _colours(picture: Pictures) -> Pictures:
    """Return a picture without its transparency."""
    return picture[:, :, :3]


def _check_noise(config: NetworkConfig) -> None:
    if not config.has_noise:
        raise UsageError(
            f"configuration {config.preset!r} has no noise inputs: "
            "use another network, such as one of --config f"
        )

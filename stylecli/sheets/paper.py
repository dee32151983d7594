"""The StyleGAN paper's figures as a table: what each shows, how it is laid out, how it is drawn.

Layouts and seeds are those of the published figures where a network has the paper's layers (256 px
and up); for smaller ones columns shrink less often and pixels are enlarged. Settings are spelled as
the options of ``stylecli figures``, so that a figure's record is the command that draws it.

Sheets that no command of their own draws are here too: what noise does (Figures 4 and 5), the
truncation sweep of Figure 8, and every layer's style swapped alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import numpy as np
import torch

from stylecli.errors import UsageError, plural
from stylecli.images import Pictures, enlarge, make_grid, resize, visible_scale
from stylecli.networks.config import NetworkConfig
from stylecli.networks.model import Generator
from stylecli.progress import Progress, silent
from stylecli.rendering import PLAIN, Drawing, render
from stylecli.sampling import map_seeds, mix_ws
from stylecli.seeds import parse_seeds
from stylecli.sheets import FIGURE_NUMBERS, name_figures
from stylecli.sheets.fakes import draw_uncurated
from stylecli.sheets.mixing import add_margins, draw_mixing_sheet
from stylecli.styles import style_bands

PAPER_PSIS = (1.0, 0.7, 0.5, 0.0, -0.5, -1.0)
LARGEST_CELL = 256  # pixels: 18 layers of 1024 px would make a sheet nobody can open
Settings = Mapping[str, Any]  # of one figure: seeds as text, psi, psi_cutoff, label

PAPER_RESOLUTION = 256  # from here on the published columns fit
CARS_CROP = (0, 1 / 8, 1, 7 / 8)  # Figure 11 cuts off the bars above and below its cars
MIXING_ROWS = (("coarse", 3), ("middle", 2), ("fine", 1))  # Figure 3, from top to bottom


def draw_truncation_sweep(
    G: Generator,
    seeds: Sequence[int],
    psis: Sequence[float] = PAPER_PSIS,
    drawing: Drawing = PLAIN,
    *,
    padding: int | None = None,
    progress: Progress = silent,
) -> Pictures:
    """Draw one row per seed, one column per psi: from the full face over the average to its anti.

    psi 0 is the average face, the same in every row; negative psi is the opposite of the seed's.
    Acts on all layers, as in the paper, unless ``drawing`` has a cutoff. Returns [H, W, C].
    """
    columns = [
        map_seeds(G, seeds, label=drawing.label, **replace(drawing, psi=psi).truncation)
        for psi in psis
    ]
    ws = torch.stack(columns, dim=1).flatten(0, 1)  # [seeds * psis, num_ws, w_dim]
    cells: list[Pictures] = []
    for picture in render(G, ws, drawing):
        cells.append(picture)
        progress(len(cells), len(ws))
    longest = max(G.config.size)
    scale = drawing.scale or visible_scale(longest)
    gap = padding if padding is not None else max(1, longest * scale // 64)
    return make_grid(cells, len(psis), padding=gap, scale=scale)


def draw_layer_styles(
    G: Generator,
    seeds: Sequence[int],
    sources: Sequence[int],
    drawing: Drawing = PLAIN,
    *,
    progress: Progress = silent,
) -> Pictures:
    """Draw a row per pair of seeds: the face, its source, and the face with one style replaced.

    Column ``0`` takes the style of layer 0 from the source and keeps all others, and so on; two
    layers to a resolution from 4 px. Every picture has the same noise. Pictures over 256 px are
    shrunk to it. Returns [H, W, C]. Raises UsageError for networks without styles, or when there
    are not as many sources as seeds.
    """
    config = G.config
    if not config.has_w:
        raise UsageError(
            f"configuration {config.preset!r} has no styles to swap: "
            "use another network, such as one of --config f"
        )
    if len(seeds) != len(sources):
        raise UsageError(
            f"{plural(len(seeds), 'seed')} for {plural(len(sources), 'source')}: each row swaps "
            f"with one source"
        )
    own = map_seeds(G, seeds, label=drawing.label, **drawing.truncation)
    others = map_seeds(G, sources, label=drawing.label, **drawing.truncation)
    layers = range(config.num_ws)
    ws = [
        row
        for face, source in zip(own, others, strict=True)
        for row in (
            face,
            source,
            *(mix_ws(face[None], source[None], [layer])[0] for layer in layers),
        )
    ]
    size = config.size_at(min(config.resolution, LARGEST_CELL))
    cells: list[Pictures] = []
    for picture in render(G, ws, drawing):
        cells.append(resize(picture, *size))
        progress(len(cells), len(ws))
    scale = drawing.scale or visible_scale(max(size))
    gap = max(1, max(size) * scale // 64)
    sheet = make_grid(cells, len(layers) + 2, padding=gap, scale=scale)
    height, width = (side * scale for side in size)
    names = [f"{layer} ({config.size_at(config.style_sides[layer])} px)" for layer in layers]
    return add_margins(
        sheet, (height + gap, width + gap), (height, width), top=("face", "source", *names),
        left=[f"{seed}, {source}" for seed, source in zip(seeds, sources, strict=True)],
    )  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One figure: its names, its words, its settings, and the function that draws it."""

    key: str  # what people type
    title: str
    text: str  # what it shows and what to look for
    settings: Mapping[str, Any]  # published seeds and psi; "network": the network's own truncation
    draw: Callable[[Generator, Settings, Drawing, Progress], Pictures]
    needs: str = ""  # "w" or "noise"

    @property
    def number(self) -> int | None:
        """The number in the paper."""
        return FIGURE_NUMBERS[self.key]

    @property
    def file(self) -> str:
        """The name of its PNG."""
        return (
            f"{self.key}.png" if self.number is None else f"figure{self.number:02d}-{self.key}.png"
        )

    @property
    def heading(self) -> str:
        """``Figure 3: Style mixing``, or the title alone."""
        return self.title if self.number is None else f"Figure {self.number}: {self.title}"


def find_figures(words: Sequence[str]) -> list[Figure]:
    """Return the figures that words name, by number or key, in the paper's order; none: all.

    Raises UsageError for a word that names none.
    """
    chosen = name_figures(words)
    return [figure for figure in FIGURES if figure.key in chosen]


def describe_lack(figure: Figure, config: NetworkConfig) -> str:
    """Say why a network cannot be shown in a figure; empty where it can."""
    if figure.needs == "w" and not config.has_w:
        return f"configuration {config.preset!r} has no intermediate latent space w"
    if figure.needs == "noise" and not config.has_noise:
        return f"configuration {config.preset!r} has no noise inputs"
    return ""


def figure_settings(
    figure: Figure, config: NetworkConfig, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a figure's settings for a network: the published ones, then what was asked for.

    ``overrides`` that are None or that the figure has no use for are left out.
    """
    settings = dict(figure.settings)
    if settings.get("psi") == "network":
        settings["psi"] = config.truncation_psi if config.has_w else 1.0
    settings |= {
        name: value for name, value in overrides.items() if name in settings and value is not None
    }
    if settings.get("psi") == 1:
        settings["psi_cutoff"] = None
    elif "psi" in settings and settings["psi_cutoff"] is None:
        settings["psi_cutoff"] = config.truncation_cutoff or 0
    return settings


def draw_figure(
    figure: Figure, G: Generator, settings: Settings, drawing: Drawing, progress: Progress
) -> Pictures:
    """Draw a figure [H, W, C] with settings from figure_settings, which come before ``drawing``.

    Raises UsageError where the network lacks what the figure shows.
    """
    if lack := describe_lack(figure, G.config):
        raise UsageError(f"{figure.heading} cannot be drawn: {lack}")
    return figure.draw(G, settings, drawing, progress)


def shrinking_columns(published: Sequence[int], resolution: int) -> list[int]:
    """Return how often each column of an uncurated sheet is halved, for a network's resolution.

    The published columns from 256 px; below, none gets under 16 px.
    """
    most = 3 if resolution >= PAPER_RESOLUTION else max(0, min(3, resolution.bit_length() - 5))
    return [min(lod, most) for lod in published]


def mixing_layers(rows: int, sides: Sequence[int]) -> list[list[int]]:
    """Return the layers that each row of Figure 3 takes from its columns.

    About half of the rows coarse, a third middle, the rest fine, as in the paper's 3, 2 and 1;
    bands that the network lacks leave their rows to the others.
    """
    bands = style_bands(sides)
    kinds = [name for name, share in MIXING_ROWS if name in bands for _ in range(share)]
    return [bands[kinds[(2 * row + 1) * len(kinds) // (2 * rows)]] for row in range(rows)]


def _as_set(drawing: Drawing, settings: Settings) -> Drawing:
    """Return how to draw with a figure's truncation and class."""
    psi, cutoff = settings["psi"], settings["psi_cutoff"] or None
    return replace(drawing, psi=psi, psi_cutoff=cutoff, label=settings["label"])


def _uncurated(
    rows: int, lods: Sequence[int], crop: tuple[float, float, float, float] | None = None
) -> Callable[[Generator, Settings, Drawing, Progress], Pictures]:
    def draw(G: Generator, settings: Settings, drawing: Drawing, progress: Progress) -> Pictures:
        height, width = G.config.size
        box = None
        if crop is not None:
            left, top, right, bottom = crop
            box = (round(left * width), round(top * height), round(right * width),
                   round(bottom * height))  # fmt: skip
        return draw_uncurated(
            G, settings["seed"], _as_set(drawing, settings), rows=rows,
            lods=shrinking_columns(lods, G.config.resolution), crop=box, progress=progress,
        )  # fmt: skip

    return draw


def _mixing(G: Generator, settings: Settings, drawing: Drawing, progress: Progress) -> Pictures:
    rows = parse_seeds(settings["row_seeds"])
    columns = parse_seeds(settings["col_seeds"])
    layers = mixing_layers(len(rows), G.config.style_sides)
    how = _as_set(drawing, settings)
    return draw_mixing_sheet(G, rows, columns, layers, how, padding=0, progress=progress)


def _noise_detail(
    G: Generator, settings: Settings, drawing: Drawing, progress: Progress
) -> Pictures:
    seeds = parse_seeds(settings["seeds"])
    return draw_noise_detail(G, seeds, _as_set(drawing, settings), progress=progress)


def _noise_layers(
    G: Generator, settings: Settings, drawing: Drawing, progress: Progress
) -> Pictures:
    seeds = parse_seeds(settings["seeds"])
    return draw_noise_layers(G, seeds, _as_set(drawing, settings), progress=progress)


def _truncation_sweep(
    G: Generator, settings: Settings, drawing: Drawing, progress: Progress
) -> Pictures:
    return draw_truncation_sweep(
        G, parse_seeds(settings["seeds"]), PAPER_PSIS, replace(drawing, label=settings["label"]),
        padding=0, progress=progress,
    )  # fmt: skip


def _layer_styles(
    G: Generator, settings: Settings, drawing: Drawing, progress: Progress
) -> Pictures:
    return draw_layer_styles(
        G, parse_seeds(settings["row_seeds"]), parse_seeds(settings["col_seeds"]),
        _as_set(drawing, settings), progress=progress,
    )  # fmt: skip


_OWN: dict[str, Any] = {"psi": "network", "psi_cutoff": None, "label": None}
_FULL: dict[str, Any] = {"psi": 1.0, "psi_cutoff": None, "label": None}
_UNCURATED_TEXT = (
    "Pictures as they come from one stream of random numbers, none chosen; each has its own "
    "noise. Columns to the right show more and smaller pictures. Look for failures, how often "
    "they occur, and whether faces repeat: a curated sheet would hide both."
)
_COLUMNS_256 = (0, 0, 1, 1, 2, 2, 2)
_COLUMNS_1024 = (0, 1, 2, 2, 3, 3)

FIGURES = (
    Figure(
        "uncurated", "Uncurated pictures", _UNCURATED_TEXT,
        {"seed": 5, **_OWN}, _uncurated(3, _COLUMNS_1024),
    ),
    Figure(
        "mixing", "Style mixing",
        "The top row and the left column are faces of their own. Every other picture is its row's "
        "face with some styles from its column: in the upper rows the coarse ones (4-8 px), then "
        "the middle ones, in the last row the fine ones. Coarse styles should bring pose, shape of "
        "face and hair, middle ones features, fine ones only colours and texture.",
        {"row_seeds": "888,829,1898,1733,1614,845", "col_seeds": "639,701,687,615,2268", **_FULL},
        _mixing, "w",
    ),
    Figure(
        "noise-detail", "What noise changes",
        "A picture, then a part of it under four other noises, then how much every pixel varies "
        "over 100 noises: black not at all, white by 64 grey levels. Identity and pose should "
        "stay, hair and skin change, and the map be bright only where detail is random by nature. "
        "An all but black map: the network makes little use of its noise.",
        {"seeds": "1157,1012", **_FULL}, _noise_detail, "noise",
    ),
    Figure(
        "noise-layers", "Noise in some layers only",
        "Above, the left half of each face has noise in all layers, the right half none. Below, "
        "the left half has it in fine layers only, the right half in coarse ones only. In "
        "networks of photographs a face without noise looks painted; coarse noise makes large "
        "curls, fine noise fine ones and pores.",
        {"seeds": "1967,1555", **_FULL}, _noise_layers, "noise",
    ),
    Figure(
        "truncation", "The truncation trick",
        "One row per face, with psi 1, 0.7, 0.5, 0, -0.5, -1 in all layers from left to right. At "
        "0 all rows show the average face; past it comes the opposite face: look at glasses, "
        "hair, age and the direction of the gaze.",
        {"seeds": "91,388", "label": None}, _truncation_sweep, "w",
    ),
    Figure(
        "bedrooms", "Uncurated, laid out like bedrooms", _UNCURATED_TEXT,
        {"seed": 0, **_OWN}, _uncurated(5, _COLUMNS_256),
    ),
    Figure(
        "cars", "Uncurated, laid out like cars",
        f"{_UNCURATED_TEXT} An eighth is cut off above and below: cars are wider than high.",
        {"seed": 2, **_OWN}, _uncurated(4, _COLUMNS_1024, CARS_CROP),
    ),
    Figure(
        "cats", "Uncurated, laid out like cats", _UNCURATED_TEXT,
        {"seed": 1, **_OWN}, _uncurated(5, _COLUMNS_256),
    ),
    Figure(
        "layers", "Every layer's style alone",
        "A row per pair: a face, its source, and the face with the style of a single layer from "
        "the source. Early layers should move large shapes, late ones colours; where nothing "
        "changes, the network makes no use of that layer.",
        {"row_seeds": "888,829,1898", "col_seeds": "639,701,687", **_FULL}, _layer_styles, "w",
    ),
)  # fmt: skip


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
    return enlarge(sheet, drawing.scale or visible_scale(max(G.config.size)))


def draw_noise_layers(
    G: Generator,
    seeds: Sequence[int],
    drawing: Drawing = PLAIN,
    *,
    progress: Progress = silent,
) -> Pictures:
    """Draw a column per seed: noise in all | no layers above, in fine | coarse layers below.

    Every cell is split at half width, and the pictures of every second seed are mirrored. Noise is
    the maps stored with the network. Returns [2 · H, seeds · W, C], enlarged by the scale. Raises
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
    half = G.config.width // 2
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
    return enlarge(sheet, drawing.scale or visible_scale(max(G.config.size)))


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
    """Return [H, 3 · W, C]: a picture, two by two zooms of the others, the deviation as grey."""
    height, width, channels = pictures[0].shape
    high, wide = (max(1, round(CROP_SIDE * side)) for side in (height, width))
    top, left = round(CROP_TOP * height), round(CROP_LEFT * width)
    factor = min(height // 2 // high, width // 2 // wide)
    zooms = [
        enlarge(picture[top : top + high, left : left + wide], factor) for picture in pictures[1:]
    ]
    square = np.concatenate([np.concatenate(zooms[i : i + 2], axis=1) for i in (0, 2)])
    block = np.full((height, square.shape[1], channels), 255, np.uint8)  # odd sizes leave a rest
    block[: len(square)] = square
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

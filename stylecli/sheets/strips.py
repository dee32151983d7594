"""Strips: faces that move along directions, from left to right on a sheet or in a video."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from stylecli.errors import UsageError, plural
from stylecli.images import Pictures, make_grid, visible_scale
from stylecli.latents import MAX_STRENGTH, Edit
from stylecli.latents.directions import Directions, resolve
from stylecli.networks.config import NetworkConfig
from stylecli.networks.model import Generator
from stylecli.progress import Progress, silent
from stylecli.rendering import PLAIN, Drawing, render
from stylecli.sheets.mixing import Maps, add_margins

STRENGTHS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
MOST_STRENGTHS = 100
SCREEN = 1024  # about how wide a video of small pictures becomes


def parse_strengths(text: str | None) -> list[float]:
    """Return the numbers of ``-3,0,3``; the usual ones for None. Raises UsageError for others."""
    if text is None:
        return list(STRENGTHS)
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not 1 <= len(found) <= MOST_STRENGTHS or any(not abs(s) <= MAX_STRENGTH for s in found):
        raise UsageError(
            f"cannot read strengths {text!r}: expected numbers from -{MAX_STRENGTH:g} to "
            f"{MAX_STRENGTH:g}, such as -2,0,2"
        )
    return found


def draw_strips(
    G: Generator,
    directions: Directions,
    names: Sequence[str],
    ws: Tensor,
    strengths: Sequence[float] = STRENGTHS,
    drawing: Drawing = PLAIN,
    *,
    faces: Sequence[str] = (),
    noise: Sequence[Maps] | None = None,
    progress: Progress = silent,
) -> Pictures:
    """Draw faces ws [N, num_ws, w_dim] at every strength of a direction, a column for each.

    One direction has a row for every face, called by ``faces``; several directions have a row each,
    of the first face. A name may have layers: ``smile@4-7``. ``noise`` are the maps of every face.
    Returns [H, W, C].
    """
    rows = [(name, 0) for name in names] if len(names) > 1 else [
        (names[0], row) for row in range(len(ws))
    ]  # fmt: skip
    total = len(rows) * len(strengths)
    columns: list[list[Pictures]] = []
    for strength in strengths:
        column: list[Pictures] = []
        for name in dict.fromkeys(name for name, _ in rows):
            chosen = [row for one, row in rows if one == name]
            maps = None if noise is None else iter([noise[row] for row in chosen])
            moved = replace(drawing, edits=resolve([_edit(name, strength)], directions))
            for picture in render(G, ws[chosen], moved, noise=maps):
                column.append(picture)
                progress(len(columns) * len(rows) + len(column), total)
        columns.append(column)
    cells = [column[row] for row in range(len(rows)) for column in columns]
    height, width = cells[0].shape[:2]
    scale = drawing.scale or visible_scale(width)
    gap = max(1, width * scale // 64)
    sheet = make_grid(cells, len(strengths), padding=gap, scale=scale)
    left = list(names) if len(names) > 1 else list(faces)
    return add_margins(
        sheet, (height * scale + gap, width * scale + gap), (height * scale, width * scale),
        top=[f"{strength:+g}" if strength else "0" for strength in strengths], left=left,
    )  # fmt: skip


def _edit(name: str, strength: float) -> Edit:
    direction, _, layers = name.partition("@")
    return Edit(direction, strength, layers or None)


def sweep(strengths: Sequence[float], frames: int) -> list[float]:
    """Return the strength of every frame: from the least to the largest and back, evenly."""
    low, high = min(strengths), max(strengths)
    places = np.arange(frames) / max(1, frames)
    return [float(low + (high - low) * (1 - abs(2 * place - 1))) for place in places]


def draw_sweep(
    G: Generator,
    directions: Directions,
    name: str,
    ws: Tensor,
    strengths: Sequence[float],
    drawing: Drawing = PLAIN,
    *,
    noise: Sequence[Maps] | None = None,
) -> Iterator[Pictures]:
    """Return an iterator over frames [H, W, C], one for each strength: faces ws side by side."""
    if not len(ws):
        raise UsageError(f"{plural(0, 'face')} make no video: give one")
    scale = _factor(G.config, len(ws), drawing)
    resolve([_edit(name, 0.0)], directions)  # refuses here

    def frames() -> Iterator[Pictures]:
        for strength in strengths:
            moved = replace(drawing, edits=resolve([_edit(name, strength)], directions))
            maps = None if noise is None else iter(noise)
            yield make_grid(list(render(G, ws, moved, noise=maps)), len(ws), scale=scale)

    return frames()


def sweep_size(config: NetworkConfig, faces: int, drawing: Drawing = PLAIN) -> tuple[int, int]:
    """Return (height, width) of the frames of ``draw_sweep``."""
    scale = _factor(config, faces, drawing)
    return config.height * scale, faces * config.width * scale


def _factor(config: NetworkConfig, faces: int, drawing: Drawing) -> int:
    return drawing.scale or visible_scale(config.width * faces, at_least=SCREEN)

"""Transitions between mixes: one side of a mixing sheet stands, the other moves."""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.figures.mixing import Sources
from stylecli.images import Pictures, make_grid, visible_scale
from stylecli.interpolation.curves import Method, follow_path, path_positions
from stylecli.networks.stylegan1 import Generator
from stylecli.rendering import NoiseMode, Precision, render
from stylecli.sampling import mix_ws

Mover = Literal["columns", "rows"]
MOVERS: tuple[Mover, ...] = get_args(Mover)
SCREEN = 1024  # about how wide the picture becomes


def draw_mixing_walk(
    G: Generator,
    rows: Sources,
    columns: Sources,
    layers: Sequence[list[int]],
    frames: int,
    *,
    mover: Mover = "columns",
    method: Method = "spline",
    loop: bool = True,
    noise_mode: NoiseMode = "const",
    noise_seed: int = 0,
    lod: float | None = None,
    scale: int | None = None,
    batch: int | None = None,
    precision: Precision = "float32",
) -> Iterator[Pictures]:
    """Return an iterator over the frames [H, W, C] of a mixing sheet with one side in motion.

    With mover "columns" the style source moves through the columns while every row's face stays:
    the faces stand on top, the source moves at the left, and beside it are the mixes. With "rows" a
    face moves through the rows while the style sources stay, on top. ``layers`` is one list per
    row; faces that move need the same list for all. A closed path comes back to where it began.
    Raises UsageError otherwise.
    """
    if mover not in MOVERS:
        raise UsageError(f"{mover!r} cannot move: expected columns or rows")
    if mover == "rows" and any(chosen != layers[0] for chosen in layers):
        raise UsageError(
            "rows that copy different styles cannot move into each other: let the columns move"
        )
    moving, still = (columns, rows) if mover == "columns" else (rows, columns)
    if len(moving) < 2:
        raise UsageError(f"one face has nowhere to move to: give two or more {mover}")
    positions = path_positions(len(moving), frames, loop=loop)
    options = {"noise_mode": noise_mode, "noise_seeds": noise_seed, "lod": lod, "batch": batch,
               "precision": precision}  # fmt: skip
    tops = list(render(G, still.ws, **options))  # type: ignore[arg-type]

    def styles() -> Iterator[Tensor]:
        for position in positions:
            point = follow_path(moving.ws.numpy(), np.array([position]), method=method, loop=loop)
            here = torch.from_numpy(point).float()
            yield here[0]
            for index, face in enumerate(still.ws):
                if mover == "columns":
                    yield mix_ws(face[None], here, layers[index])[0]
                else:
                    yield mix_ws(here, face[None], layers[0])[0]

    pictures = render(G, styles(), **options)  # type: ignore[arg-type]
    across = len(still) + 1
    factor = scale or visible_scale(G.config.resolution * across, at_least=SCREEN)
    return _frames(tops, pictures, across, factor)


def _frames(
    tops: list[Pictures], pictures: Iterator[Pictures], across: int, scale: int
) -> Iterator[Pictures]:
    corner = np.full_like(tops[0], 255)
    gap = max(1, tops[0].shape[0] * scale // 64)
    for moment in zip(*[pictures] * across, strict=True):
        yield make_grid([corner, *tops, *moment], across, padding=gap, scale=scale)

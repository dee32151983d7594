"""Frames of walks through latent space: one cell, or several side by side."""

from collections.abc import Iterator, Sequence
from typing import Any

from stylecli.errors import UsageError
from stylecli.images import Pictures, make_grid, visible_scale
from stylecli.interpolation import Method, Space, interpolate_ws
from stylecli.networks.stylegan1 import Generator
from stylecli.rendering import NoiseMode, Precision, render

SCREEN = 512  # a video of small pictures is enlarged to about this many pixels


def draw_walk(
    G: Generator,
    seeds: Sequence[int],
    frames: int,
    *,
    grid: tuple[int, int] = (1, 1),
    space: Space = "w",
    method: Method | None = None,
    loop: bool = True,
    label: int | None = None,
    psi: float = 1.0,
    psi_cutoff: int | None = None,
    noise_mode: NoiseMode = "const",
    noise_seed: int = 0,
    lod: float | None = None,
    scale: int | None = None,
    batch: int | None = None,
    precision: Precision = "float32",
) -> Iterator[Pictures]:
    """Yield the frames [H, W, C] of a walk through the seeds' latents, the noise held still.

    ``grid`` is (columns, rows): each cell walks through its own equal share of the seeds, in order.
    See interpolate_ws for the path. Raises UsageError when the seeds do not divide among the cells.
    """
    columns, rows = grid
    cells = columns * rows
    if columns < 1 or rows < 1 or len(seeds) % cells or not seeds:
        raise UsageError(
            f"{len(seeds)} seeds do not divide among {columns}x{rows} cells: give a multiple of "
            f"{max(cells, 1)}"
        )
    share = len(seeds) // cells
    path: dict[str, Any] = {
        "space": space, "method": method, "loop": loop, "label": label,
        "psi": psi, "psi_cutoff": psi_cutoff,
    }  # fmt: skip
    walks = [
        interpolate_ws(G, seeds[cell * share : (cell + 1) * share], frames, **path)
        for cell in range(cells)
    ]
    ws = (row for moment in zip(*walks, strict=True) for row in moment)
    pictures = render(
        G, ws, noise_mode=noise_mode, noise_seeds=noise_seed, lod=lod, batch=batch,
        precision=precision,
    )  # fmt: skip
    factor = scale or visible_scale(G.config.resolution * max(grid), at_least=SCREEN)
    for first in pictures:
        moment = [first, *(next(pictures) for _ in range(cells - 1))]
        yield make_grid(moment, columns, scale=factor)

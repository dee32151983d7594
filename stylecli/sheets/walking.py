"""Frames of walks through latent space: one cell, or several side by side."""

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from stylecli.errors import UsageError, plural
from stylecli.images import Canvas, Pictures, make_grid, visible_scale
from stylecli.latents import Motion
from stylecli.latents.walks import USUAL, Route, moving_noise, walk_ws
from stylecli.networks.config import NetworkConfig
from stylecli.networks.model import Generator
from stylecli.sampling import PLAIN, Drawing, render

SCREEN = 512  # a video of small pictures is enlarged to about this many pixels


def draw_walk(
    G: Generator,
    keys: Sequence[int] | Tensor,
    frames: int,
    route: Route = USUAL,
    drawing: Drawing = PLAIN,
    *,
    grid: tuple[int, int] = (1, 1),
    labels: Sequence[int] | None = None,
    noise_motion: Motion = "still",
    noise_draws: int = 4,
    start: int = 0,
) -> Iterator[Pictures]:
    """Return an iterator over the frames [H, W, C] of a walk through seeds or saved styles.

    ``grid`` is (columns, rows): each cell walks through its own equal share of the keys, in order,
    and of the ``labels`` where there are as many. See walk_ws for keys, ``route``, ``labels`` and
    truncation, moving_noise for how noise moves: the same in all cells. Frames begin at ``start``;
    memory does not depend on their number. Raises UsageError when keys do not divide among cells.
    """
    columns, rows = grid
    cells = columns * rows
    if columns < 1 or rows < 1 or len(keys) % cells or not len(keys):
        raise UsageError(
            f"{plural(len(keys), 'seed does', 'seeds do')} not divide among {columns}x{rows} "
            f"cells: give a multiple of "
            f"{max(cells, 1)}"
        )
    share = len(keys) // cells
    walks = [
        walk_ws(
            G, keys[cell * share : (cell + 1) * share], frames, route,
            labels=_own_labels(labels, cell, share, cells), **drawing.truncation, start=start,
        )
        for cell in range(cells)
    ]  # fmt: skip
    ws = (row for moment in zip(*walks, strict=True) for row in moment)
    noise = None
    if noise_motion != "still":
        moving = moving_noise(
            G, drawing.noise_seed or 0, frames, motion=noise_motion, draws=noise_draws,
            loop=route.loop, start=start,
        )  # fmt: skip
        noise = (maps for maps in moving for _ in range(cells))
    pictures = render(G, ws, drawing, noise=noise)
    return _moments(pictures, cells, columns, drawing.canvas or _factor(G.config, grid, drawing))


def walk_size(
    config: NetworkConfig, grid: tuple[int, int], drawing: Drawing = PLAIN
) -> tuple[int, int]:
    """Return (height, width) of the frames that ``draw_walk`` yields, without drawing any.

    Raises UsageError where the cells cannot be brought to the size that was asked for.
    """
    columns, rows = grid
    if drawing.canvas is not None:
        drawing.canvas.check(config.resolution, columns, rows)
        return drawing.canvas.height, drawing.canvas.width
    side = config.resolution * _factor(config, grid, drawing)
    return rows * side, columns * side


def _factor(config: NetworkConfig, grid: tuple[int, int], drawing: Drawing) -> int:
    return drawing.scale or visible_scale(config.resolution * max(grid), at_least=SCREEN)


def _moments(
    pictures: Iterable[Pictures], cells: int, columns: int, size: Canvas | int
) -> Iterator[Pictures]:
    """Yield frames of so many cells, of a size or enlarged so often by whole pixels."""
    for moment in zip(*[iter(pictures)] * cells, strict=True):
        if isinstance(size, Canvas):
            yield size.lay_out(moment, columns)
        else:
            yield make_grid(moment, columns, scale=size)


def _own_labels(
    labels: Sequence[int] | None, cell: int, share: int, cells: int
) -> Sequence[int] | None:
    """Return the classes of one cell: its share where there is one for every key, else all."""
    if labels is None or share == 1 or len(labels) != share * cells:
        return labels
    return labels[cell * share : (cell + 1) * share]

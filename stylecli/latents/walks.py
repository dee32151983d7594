"""Walks through latents: paths through points, the styles of every frame, moving noise, frames."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stylecli.errors import UsageError, plural
from stylecli.images import Canvas, Pictures, make_grid, visible_scale
from stylecli.latents import MOTIONS, Method, Motion, Space, check_walk
from stylecli.networks.config import NetworkConfig
from stylecli.networks.model import Generator
from stylecli.rendering import PLAIN, Drawing, Psi, render, seed_noise
from stylecli.sampling import (
    check_truncation,
    map_latents,
    one_hot,
    seed_labels,
    seed_latents,
    truncate_ws,
)

Points = npt.NDArray[np.floating[Any]]  # [K, ...]
_REACH = 2  # draws on either side of a moment that still weigh something
_AT_ONCE = 16  # frames whose latents are held in memory


def path_positions(keys: int, frames: int, *, loop: bool = True) -> Points:
    """Return where on a path through ``keys`` points each frame is, in units of points [F].

    Closed: 0 to keys, the end left out because it is the beginning; open: 0 to keys - 1.
    """
    if keys < 1 or frames < 1:
        raise UsageError(f"a path of {frames} frames through {keys} points is empty: give both")
    if loop:
        return np.arange(frames) * keys / frames  # in this order a key frame is exact
    return np.arange(frames) * (keys - 1) / max(1, frames - 1)


def follow_path(
    points: Points, positions: Points, *, method: Method = "spline", loop: bool = True
) -> Points:
    """Return the path through ``points`` [K, ...] at ``positions`` [F], as float64 [F, ...].

    "spline" is the cubic through all points with continuous velocity and acceleration (periodic
    when closed, natural when open); "lerp" straight lines; "slerp" arcs: the direction turns evenly
    and the length changes evenly, over the last axis; "circle" the great circle through the first
    point and the direction of the second, K positions being once around. Raises UsageError for
    another method, or a circle that is not of two points and closed.
    """
    check_walk(method=method)
    points = np.asarray(points, dtype=np.float64)
    count = len(points)
    if method == "circle":
        if count != 2 or not loop:
            raise UsageError(
                f"a circle goes around through 2 points, not {count}{'' if loop else ' and open'}"
            )
        return _circle(points, positions)
    if count == 1:
        return points[np.zeros(len(positions), dtype=np.int64)]
    segment = np.clip(np.floor(positions).astype(np.int64), 0, count - 1 if loop else count - 2)
    along = (positions - segment).reshape(-1, *[1] * (points.ndim - 1))
    following = (segment + 1) % count
    here, there = points[segment], points[following]
    if method == "lerp":
        return here + (there - here) * along
    if method == "slerp":
        return _slerp(here, there, along)
    slopes = _closed_slopes(points) if loop else _open_slopes(points)
    leave, arrive = slopes[segment], slopes[following]
    # Hermite form of the cubic on one segment.
    step = there - here
    return here + along * (
        leave + along * (3 * step - 2 * leave - arrive + along * (leave + arrive - 2 * step))
    )


def pulse(
    low: float, high: float, frames: int, *, pulses: int | None = None, loop: bool = True
) -> Points:
    """Return a number that goes from ``low`` towards ``high`` over the frames, as float64 [F].

    Closed, or with ``pulses``: there and back that many times (default once) on a cosine, low in
    frame 0 and highest half a pulse later. Open without ``pulses``: evenly, to ``high`` in the
    last frame. Raises UsageError for less than one pulse.
    """
    if pulses is not None and pulses < 1:
        raise UsageError(f"pulses {pulses} is out of range: give 1 or more")
    if pulses is None and not loop:
        return low + (high - low) * path_positions(2, frames, loop=False)
    turns = path_positions(1, frames) if loop else path_positions(2, frames, loop=False)
    wave: Points = low + (high - low) * (1 - np.cos(2 * np.pi * (pulses or 1) * turns)) / 2
    return wave


def _slerp(here: Points, there: Points, along: Points) -> Points:
    a, first = _normalized(here)
    b, last = _normalized(there)
    # Between unit vectors; exact for small angles and near opposites, where arccos(a·b) is not.
    angle = 2 * np.arctan2(_length(a - b), _length(a + b))
    sideways, length = _normalized(b - (a * b).sum(axis=-1, keepdims=True) * a)
    sideways = np.where(length < 1e-9, _any_normal(a), sideways)  # opposites: any way round
    direction = np.cos(along * angle) * a + np.sin(along * angle) * sideways
    arc: Points = direction * (first + (last - first) * along)
    return np.where(along == 0, here, arc)


def _circle(points: Points, positions: Points) -> Points:
    start, radius = _normalized(points[0])
    sideways, length = _normalized(
        points[1] - (points[1] * start).sum(axis=-1, keepdims=True) * start
    )
    sideways = np.where(length < 1e-9, _any_normal(start), sideways)
    turn = (np.pi * positions).reshape(-1, *[1] * (points.ndim - 1))  # two positions: 2π
    circle: Points = radius * (np.cos(turn) * start + np.sin(turn) * sideways)
    return np.where(turn == 0, points[0], circle)


def _normalized(vectors: Points) -> tuple[Points, Points]:
    length = _length(vectors)
    return vectors / np.maximum(length, 1e-300), length


def _length(vectors: Points) -> Points:
    return np.asarray(np.linalg.norm(vectors, axis=-1, keepdims=True))


def _any_normal(unit: Points) -> Points:
    """Return a unit vector at right angles to each, by turning its smallest axis."""
    axis = np.zeros_like(unit)
    np.put_along_axis(axis, np.abs(unit).argmin(axis=-1, keepdims=True), 1.0, axis=-1)
    return _normalized(axis - (axis * unit).sum(axis=-1, keepdims=True) * unit)[0]


def _closed_slopes(points: Points) -> Points:
    """Return the velocities [K, ...] that make the acceleration continuous all around.

    They solve m[k-1] + 4 m[k] + m[k+1] = 3 (p[k+1] - p[k-1]), indices mod K: a convolution, which
    a Fourier transform divides out.
    """
    right = 3 * (np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0))
    waves = 4 + 2 * np.cos(2 * np.pi * np.fft.rfftfreq(len(points)))
    spectrum = np.fft.rfft(right, axis=0) / waves.reshape(-1, *[1] * (points.ndim - 1))
    slopes: Points = np.fft.irfft(spectrum, n=len(points), axis=0)
    return slopes


def _open_slopes(points: Points) -> Points:
    """Return the velocities [K, ...] of the natural spline: no acceleration at both ends.

    The same equations inside, 2 m[0] + m[1] = 3 (p[1] - p[0]) and its mirror image at the ends;
    tridiagonal, solved by elimination and back substitution.
    """
    last = len(points) - 1
    slopes: Points = np.empty_like(points)
    slopes[0], slopes[last] = points[1] - points[0], points[last] - points[last - 1]
    slopes[1:last] = points[2:] - points[:-2]
    slopes *= 3
    diagonal = np.full(last + 1, 4.0)
    diagonal[[0, last]] = 2
    for row in range(1, last + 1):
        factor = 1 / diagonal[row - 1]
        diagonal[row] -= factor
        slopes[row] -= factor * slopes[row - 1]
    slopes[last] /= diagonal[last]
    for row in range(last - 1, -1, -1):
        slopes[row] = (slopes[row] - slopes[row + 1]) / diagonal[row]
    return slopes


def moving_noise(
    G: Generator,
    noise_seed: int,
    frames: int,
    *,
    motion: Motion = "drift",
    draws: int = 4,
    loop: bool = True,
    start: int = 0,
) -> Iterator[list[Tensor]]:
    """Yield the noise maps of frames ``start`` to ``frames``, one tensor [1, 1, h, w] per layer.

    "still": those of ``noise_seed`` in every frame; "flicker": new ones in every frame; "drift":
    each pixel moves smoothly through ``draws`` independent draws and, closed, back to the first.
    In every frame the maps are ~ N(0, 1), so that a picture looks no different when it stands.
    Everything comes from ``noise_seed``. Raises UsageError for another motion or less than 1 draw.
    """
    if motion not in MOTIONS or draws < 1:
        raise UsageError(
            f"cannot move noise as {motion!r} through {draws} draws: expected "
            f"{', '.join(MOTIONS)} and at least 1 draw"
        )
    if motion == "still":
        return repeat(seed_noise(G, noise_seed), frames - start)
    if motion == "flicker":
        return (seed_noise(G, draw_seed(noise_seed, frame)) for frame in range(start, frames))
    moments = (drift_weights(frame, frames, draws, loop=loop) for frame in range(start, frames))
    return _drift(G, noise_seed, moments)


def drift_weights(frame: int, frames: int, draws: int, *, loop: bool = True) -> dict[int, float]:
    """Return how much of which draws is in a frame: at most four, of unit sum of squares.

    A sum of independent N(0, 1) weighted so is N(0, 1) again. The weights are a raised cosine over
    the nearest four draws: smooth in time, and periodic when closed. Open, the first frame is about
    the first draw and the last about the last.
    """
    moment = frame * draws / frames if loop else frame * (draws - 1) / max(1, frames - 1)
    weights: dict[int, float] = {}
    for draw in range(math.floor(moment) - 1, math.floor(moment) + _REACH + 1):
        if loop or 0 <= draw < draws:  # fewer than four draws are their own neighbours
            bump = (1 + math.cos(math.pi * (moment - draw) / _REACH)) / 2
            weights[draw % draws] = weights.get(draw % draws, 0.0) + bump
    length = math.sqrt(sum(weight**2 for weight in weights.values()))
    return {draw: weight / length for draw, weight in weights.items() if weight > 1e-12}


def draw_seed(noise_seed: int, index: int) -> int:
    """Return the seed of one of many draws that belong to a noise seed, below 2^32."""
    return int(np.random.SeedSequence((noise_seed, index)).generate_state(1)[0])


def _drift(
    G: Generator, noise_seed: int, weights: Iterable[Mapping[int, float]]
) -> Iterator[list[Tensor]]:
    """Yield the weighted sums, holding only the draws that the moment needs."""
    held: dict[int, list[Tensor]] = {}
    for shares in weights:
        held = {
            draw: held[draw] if draw in held else seed_noise(G, draw_seed(noise_seed, draw))
            for draw in shares
        }
        layers = zip(*held.values(), strict=True)
        yield [
            torch.stack([share * part for share, part in zip(shares.values(), maps, strict=True)])
            .sum(dim=0)
            for maps in layers
        ]  # fmt: skip


@dataclass(frozen=True)
class Route:
    """How a walk gets from key to key. None: what is usual.

    ``space`` "w" (usual) runs through mapped styles, "z" through latents before mapping; ``method``
    is that of curves.follow_path, usually a spline in w, slerp in z, and "circle" needs z. With
    ``psi_to`` truncation moves from psi to it and back ``pulses`` times, as curves.pulse says.
    """

    space: Space | None = None
    method: Method | None = None
    loop: bool = True
    psi_to: float | None = None
    pulses: int | None = None


USUAL = Route()


def walk_ws(
    G: Generator,
    keys: Sequence[int] | Tensor,
    frames: int,
    route: Route = USUAL,
    *,
    labels: Sequence[int] | None = None,
    psi: Psi = 1.0,
    psi_cutoff: int | None = None,
    centre: Tensor | None = None,
    start: int = 0,
) -> Iterator[Tensor]:
    """Return an iterator over the styles [num_ws, w_dim] of frames ``start`` to ``frames``.

    ``keys`` are seeds, or styles ws [K, num_ws, w_dim] that were saved; ``labels`` gives each seed
    its class, or one seed several, so that the walk goes from class to class (default: the class
    that generate shows). The frame of a key has exactly the styles that generate draws. Truncation
    is that of sampling.truncate_ws, after the route. Raises UsageError for what does not fit.
    """
    check_truncation(G.config, psi, psi_cutoff)
    space = _check_path(G, keys, route)
    strengths = _strengths(psi, frames, route)
    if isinstance(keys, Tensor):
        if labels is not None:
            raise UsageError("saved styles have no class: leave out the classes")
        points, classes = keys, None
    else:
        points, classes = _seed_points(G, keys, labels, space)
    positions = path_positions(len(points), frames, loop=route.loop)
    method: Method = route.method or ("spline" if space == "w" else "slerp")
    follow_path(points.numpy(), positions[:1], method=method, loop=route.loop)  # refuses here

    def moments() -> Iterator[Tensor]:
        for first in range(start, frames, _AT_ONCE):
            part = positions[first : first + _AT_ONCE]
            here = _on_path(points, part, method, route.loop)
            mixed = None if classes is None else _on_path(classes, part, "lerp", route.loop)
            ws = here if space == "w" else map_latents(G, here, mixed)
            for index in range(len(part)):
                yield truncate_ws(
                    G, ws[index : index + 1], strengths[first + index], psi_cutoff, centre=centre,
                    labels=None if mixed is None else mixed[index : index + 1],
                )[0]  # fmt: skip

    return moments()


def _check_path(G: Generator, keys: Sequence[int] | Tensor, route: Route) -> Space:
    """Return the space that the walk runs in; refuse what the network or the keys lack."""
    saved = isinstance(keys, Tensor)
    check_walk(route.space)
    space: Space = route.space or ("z" if route.method == "circle" or not G.config.has_w else "w")
    if space == "w" and not G.config.has_w:
        raise UsageError(
            f"configuration {G.config.preset!r} has no intermediate latent space: use --space z"
        )
    if space == "z" and saved:
        raise UsageError("saved styles lie in w: leave out --space z and --method circle")
    if space == "w" and route.method == "circle":
        raise UsageError("a circle needs latents about zero: use --space z")
    if not len(keys):
        raise UsageError("there are no faces to walk through: give at least one seed")
    return space


def _strengths(psi: Psi, frames: int, route: Route) -> Sequence[Psi]:
    """Return psi for every frame."""
    if route.psi_to is None:
        if route.pulses is not None:
            raise UsageError(f"{route.pulses} pulses of psi need an end: give --psi-to")
        return [psi] * frames
    if isinstance(psi, Sequence):
        raise UsageError("psi of single layers cannot move: leave out --psi-layers or --psi-to")
    moving = pulse(psi, route.psi_to, frames, pulses=route.pulses, loop=route.loop)
    return [float(strength) for strength in moving]


def _seed_points(
    G: Generator, seeds: Sequence[int], labels: Sequence[int] | None, space: Space
) -> tuple[Tensor, Tensor | None]:
    """Return the keys in z or w, not truncated, and their classes [K, label_dim]."""
    chosen = list(seeds)
    if labels is None:
        each = seed_labels(G.config, chosen)
    else:
        seed_labels(G.config, chosen, labels[0] if labels else None)  # refuses where there are none
        if len(chosen) == 1:
            chosen *= len(labels)
        each = list(labels) * len(chosen) if len(labels) == 1 else list(labels)
        if len(each) != len(chosen):
            raise UsageError(
                f"{plural(len(labels), 'class', 'classes')} for {plural(len(chosen), 'seed')}: "
                f"give one, or one for every seed"
            )
    z = seed_latents(chosen, G.config.z_dim)
    points = z if space == "z" else map_latents(G, z, each)
    return points, None if each is None else one_hot(each, G.config.label_dim)


def _on_path(points: Tensor, positions: Points, method: Method, loop: bool) -> Tensor:
    return torch.from_numpy(
        follow_path(points.numpy(), positions, method=method, loop=loop)
    ).float()


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
        drawing.canvas.check(config.size, columns, rows)
        return drawing.canvas.height, drawing.canvas.width
    factor = _factor(config, grid, drawing)
    return rows * config.height * factor, columns * config.width * factor


def _factor(config: NetworkConfig, grid: tuple[int, int], drawing: Drawing) -> int:
    longest = max(grid[0] * config.width, grid[1] * config.height)
    return drawing.scale or visible_scale(longest, at_least=SCREEN)


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

"""Paths through key latents: pure functions of arrays, one point per video frame.

A closed path ends where it began: frame F would be frame 0 again, so a looped video has no seam.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.networks.stylegan1 import Generator
from stylecli.sampling import map_latents, map_seeds, seed_labels, seed_latents

Space = Literal["w", "z"]
Method = Literal["spline", "lerp", "slerp"]
METHODS: tuple[Method, ...] = ("spline", "lerp", "slerp")
SPACES: tuple[Space, ...] = ("w", "z")
Points = npt.NDArray[np.floating[Any]]  # [K, ...]
_AT_ONCE = 16  # frames whose latents are held in memory


def path_positions(keys: int, frames: int, *, loop: bool = True) -> Points:
    """Return where on a path through ``keys`` points each frame is, in units of points [F].

    Closed: 0 to keys, the end left out because it is the beginning; open: 0 to keys - 1.
    """
    if keys < 1 or frames < 1:
        raise UsageError(f"a path of {frames} frames through {keys} points is empty: give both")
    if loop:
        return np.arange(frames) * (keys / frames)
    return np.linspace(0.0, keys - 1, frames)


def follow_path(
    points: Points, positions: Points, *, method: Method = "spline",
    loop: bool = True,
) -> Points:  # fmt: skip
    """Return the path through ``points`` [K, ...] at ``positions`` [F], as float64 [F, ...].

    "spline" is the cubic through all points with continuous velocity and acceleration (periodic
    when closed, natural when open); "lerp" straight lines; "slerp" arcs: the direction turns evenly
    and the length changes evenly, over the last axis. Raises UsageError for another method.
    """
    points = np.asarray(points, dtype=np.float64)
    count = len(points)
    segment = np.clip(np.floor(positions).astype(np.int64), 0, count - 1 if loop else count - 2)
    if count == 1:
        return points[np.zeros(len(positions), dtype=np.int64)]
    along = (positions - segment).reshape(-1, *[1] * (points.ndim - 1))
    here, there = points[segment], points[(segment + 1) % count]
    if method == "lerp":
        return here + (there - here) * along
    if method == "slerp":
        return _slerp(here, there, along)
    if method != "spline":
        raise UsageError(f"method {method!r} is unknown: expected spline, lerp or slerp")
    slopes = _spline_slopes(points, loop)
    leave, arrive = slopes[segment], slopes[(segment + 1) % count]
    # Hermite form of the cubic on one segment.
    step = there - here
    return here + along * (
        leave + along * (3 * step - 2 * leave - arrive + along * (leave + arrive - 2 * step))
    )


def interpolate_ws(
    G: Generator,
    seeds: Sequence[int],
    frames: int,
    *,
    space: Space = "w",
    method: Method | None = None,
    loop: bool = True,
    label: int | None = None,
    psi: float = 1.0,
    psi_cutoff: int | None = None,
) -> Iterator[Tensor]:
    """Yield the styles [num_ws, w_dim] of each frame of a path through the seeds' latents.

    In "w" the path runs through the mapped, truncated styles (default: spline); in "z" through the
    latents before mapping (default: slerp), with the first seed's class throughout. Raises
    UsageError for "w" where the network has none.
    """
    if space not in SPACES:
        raise UsageError(f"space {space!r} is unknown: expected w or z")
    if space == "w" and not G.config.has_w:
        raise UsageError(
            f"configuration {G.config.preset!r} has no intermediate latent space: use --space z"
        )
    positions = path_positions(len(seeds), frames, loop=loop)
    chosen: Method = method or ("spline" if space == "w" else "slerp")
    labels: list[int] | None = None
    if space == "w":
        keys = map_seeds(G, seeds, label=label, psi=psi, psi_cutoff=psi_cutoff).numpy()
    else:
        keys = seed_latents(seeds, G.config.z_dim).numpy()
        labels = seed_labels(G.config, [seeds[0]], label)
    for start in range(0, frames, _AT_ONCE):
        part = positions[start : start + _AT_ONCE]
        path = torch.from_numpy(follow_path(keys, part, method=chosen, loop=loop)).float()
        if space == "w":
            yield from path
        else:
            classes = None if labels is None else labels * len(path)
            yield from map_latents(G, path, classes, psi=psi, psi_cutoff=psi_cutoff)


def _slerp(here: Points, there: Points, along: Points) -> Points:
    lengths = [np.linalg.norm(point, axis=-1, keepdims=True) for point in (here, there)]
    a, b = here / np.maximum(lengths[0], 1e-12), there / np.maximum(lengths[1], 1e-12)
    angle = np.arccos(np.clip((a * b).sum(axis=-1, keepdims=True), -1, 1))
    sine = np.sin(angle)
    safe = np.where(sine < 1e-6, 1, sine)  # parallel: the arc is a line
    turned = (np.sin((1 - along) * angle) * a + np.sin(along * angle) * b) / safe
    direction = np.where(sine < 1e-6, a + (b - a) * along, turned)
    turned_and_stretched: Points = direction * (lengths[0] + (lengths[1] - lengths[0]) * along)
    return turned_and_stretched


def _spline_slopes(points: Points, loop: bool) -> Points:
    """Solve for the velocities [K, ...] that make the acceleration continuous at every point."""
    count = len(points)
    flat = points.reshape(count, -1)
    matrix = 4 * np.eye(count)
    index = np.arange(count)
    # += twice on one cell is meant where two points are each other's both neighbours.
    np.add.at(matrix, (index, (index + 1) % count), 1)
    np.add.at(matrix, (index, (index - 1) % count), 1)
    right = 3 * (np.roll(flat, -1, axis=0) - np.roll(flat, 1, axis=0))
    if not loop:  # natural ends: no acceleration
        matrix[0], matrix[-1] = 0, 0
        matrix[0, :2], matrix[-1, -2:] = (2, 1), (1, 2)
        right[0], right[-1] = 3 * (flat[1] - flat[0]), 3 * (flat[-1] - flat[-2])
    slopes: Points = np.linalg.solve(matrix, right).reshape(points.shape)
    return slopes

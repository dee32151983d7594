"""Walks through latent space: the styles of every frame, from seeds or saved styles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.interpolation.curves import Method, Points, follow_path, path_positions, pulse
from stylecli.networks.stylegan1 import Generator
from stylecli.sampling import (
    Psi,
    check_truncation,
    map_latents,
    one_hot,
    seed_labels,
    seed_latents,
    truncate_ws,
)

Space = Literal["w", "z"]
SPACES: tuple[Space, ...] = get_args(Space)
_AT_ONCE = 16  # frames whose latents are held in memory


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
    if route.space is not None and route.space not in SPACES:
        raise UsageError(f"space {route.space!r} is unknown: expected w or z")
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
                f"{len(labels)} classes for {len(chosen)} seeds: give one, or one for every seed"
            )
    z = seed_latents(chosen, G.config.z_dim)
    points = z if space == "z" else map_latents(G, z, each)
    return points, None if each is None else one_hot(each, G.config.label_dim)


def _on_path(points: Tensor, positions: Points, method: Method, loop: bool) -> Tensor:
    return torch.from_numpy(
        follow_path(points.numpy(), positions, method=method, loop=loop)
    ).float()

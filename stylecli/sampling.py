"""From seeds to latents, labels, styles, and pictures."""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.images import Pictures
from stylecli.networks.bundle import Bundle
from stylecli.networks.config import StyleGAN1Config
from stylecli.networks.stylegan1 import Generator
from stylecli.rendering import (
    LATENTS_PER_CHUNK,
    NoiseMode,
    Precision,
    check_noise_mode,
    device_of,
    exact_kernels,
    filled,
    render,
)
from stylecli.seeds import check_seed


def seed_latents(seeds: Iterable[int], z_dim: int) -> Tensor:
    """Return the latents z [N, z_dim] of seeds, float32: the same as in every official tool.

    Each is numpy.random.RandomState(seed).randn(1, z_dim), so it depends on its seed alone.
    """
    rows = [np.random.RandomState(check_seed(seed)).randn(1, z_dim) for seed in seeds]
    if not rows:
        raise UsageError("there are no seeds: give at least one, such as --seeds 0-15")
    return torch.from_numpy(np.concatenate(rows).astype(np.float32))


def one_hot(labels: Sequence[int], label_dim: int) -> Tensor:
    """Return class numbers as one-hot rows [N, label_dim], float32.

    Raises UsageError for a class that the network does not have.
    """
    for label in labels:
        if not 0 <= label < label_dim:
            classes = f"classes 0 to {label_dim - 1}" if label_dim else "no classes"
            raise UsageError(f"label {label} does not exist: this network has {classes}")
    return torch.eye(label_dim)[list(labels)]


def seed_labels(
    config: StyleGAN1Config, seeds: Sequence[int], label: int | None = None
) -> list[int] | None:
    """Return the class of every seed: the one asked for, else the classes in turn (seed mod L).

    None for a network without classes; UsageError when one is asked for all the same.
    """
    if not config.label_dim:
        if label is not None:
            raise UsageError(f"label {label} is given, but this network was trained without labels")
        return None
    classes = [seed % config.label_dim if label is None else label for seed in seeds]
    one_hot(classes[:1], config.label_dim)  # checks the class that was asked for
    return classes


def map_seeds(
    G: Generator,
    seeds: Sequence[int],
    *,
    label: int | None = None,
    psi: float = 1.0,
    psi_cutoff: int | None = None,
) -> Tensor:
    """Return the styles ws [N, num_ws, w_dim] of seeds, on the CPU.

    ``psi`` truncates the first ``psi_cutoff`` layers (None: all): w' = w_avg + psi (w - w_avg).
    Raises UsageError where the network has no w to truncate or no such class.
    """
    return torch.stack(list(_seed_ws(G, list(seeds), label, psi, psi_cutoff)))


def map_latents(
    G: Generator,
    z: Tensor,
    labels: Sequence[int] | None = None,
    *,
    psi: float = 1.0,
    psi_cutoff: int | None = None,
) -> Tensor:
    """Return the styles ws [N, num_ws, w_dim] of latents z [N, z_dim], on the CPU."""
    check_truncation(G.config, psi, psi_cutoff)
    if z.ndim != 2 or z.shape[1] != G.config.z_dim:
        raise UsageError(
            f"latents of shape {list(z.shape)} do not fit: expected [N, {G.config.z_dim}]"
        )
    device, size = device_of(G), LATENTS_PER_CHUNK
    c = None if labels is None else one_hot(labels, G.config.label_dim)
    parts = []
    with torch.inference_mode(), exact_kernels(device):
        for start in range(0, len(z), size):
            part = slice(start, start + size)
            ws = G.mapping(
                filled(z[part], size).to(device),
                None if c is None else filled(c[part], size).to(device),
                truncation_psi=psi,
                truncation_cutoff=psi_cutoff,
            )
            parts.append(ws[: len(z[part])].cpu())
    return torch.cat(parts)


def generate(
    net: Bundle,
    seeds: Iterable[int],
    psi: float = 1.0,
    *,
    psi_cutoff: int | None = None,
    label: int | None = None,
    noise_mode: NoiseMode = "const",
    noise_seed: int | None = None,
    noise_scale: float | Sequence[float] = 1.0,
    lod: float | None = None,
    batch: int | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "float32",
) -> Iterator[tuple[int, Pictures]]:
    """Draw the picture of every seed; yield (seed, uint8 [H, W, C]) in order.

    ``psi`` pulls styles towards the average face in the first ``psi_cutoff`` layers (None: all).
    ``label`` is a class number; without it a labelled network shows its classes in turn.
    ``noise_mode`` "random" draws noise from the picture's own seed, or from ``noise_seed``.
    Leave the network unchanged while pictures are being taken. ``device`` moves the generator
    first; ``precision`` "bf16" is quicker and a little less exact. Raises UsageError for settings
    the network cannot follow.
    """
    chosen = [check_seed(seed) for seed in seeds]
    G = net.generator
    check_truncation(G.config, psi, psi_cutoff)
    seed_labels(G.config, chosen, label)
    check_noise_mode(noise_mode)
    if device is not None:
        G.to(device)
    pictures = render(
        G,
        _seed_ws(G, chosen, label, psi, psi_cutoff),
        noise_mode=noise_mode,
        noise_seeds=chosen if noise_seed is None else noise_seed,
        noise_scale=noise_scale,
        lod=lod,
        batch=batch,
        precision=precision,
    )
    return zip(chosen, pictures, strict=True)


def check_truncation(config: StyleGAN1Config, psi: float, psi_cutoff: int | None = None) -> None:
    """Raise UsageError unless the network can be truncated this way."""
    if not math.isfinite(psi):
        raise UsageError(f"psi {psi} is not a number: expected one about -1 to 1.5, such as 0.7")
    if psi_cutoff is not None and psi_cutoff < 0:
        raise UsageError(f"psi cutoff {psi_cutoff} is negative: give a count of layers")
    if psi != 1 and not config.has_w:
        raise UsageError(
            f"psi {psi:g} needs an intermediate latent space, which configuration "
            f"{config.preset!r} does not have: use --psi 1"
        )


def mix_ws(row_ws: Tensor, column_ws: Tensor, layers: Sequence[int]) -> Tensor:
    """Return ``row_ws`` [N, num_ws, w_dim] with the styles of ``layers`` from ``column_ws``."""
    mixed = row_ws.clone()
    mixed[:, list(layers)] = column_ws[:, list(layers)]
    return mixed


def _seed_ws(
    G: Generator, seeds: list[int], label: int | None, psi: float, psi_cutoff: int | None
) -> Iterator[Tensor]:
    """Yield the styles [num_ws, w_dim] of every seed, a chunk of latents at a time."""
    size = LATENTS_PER_CHUNK
    for start in range(0, len(seeds), size):
        part = seeds[start : start + size]
        z = seed_latents(part, G.config.z_dim)
        labels = seed_labels(G.config, part, label)
        yield from map_latents(G, z, labels, psi=psi, psi_cutoff=psi_cutoff)

"""From seeds to pictures: latents, labels, noise, styles, and the one loop that runs a generator.

Every picture is drawn in a chunk of a fixed size, whatever batch was asked for, and a last partial
chunk is filled up. That is what makes its bytes independent of its company: measured on a CPU with
AVX-512, matrix products differ in the last bit between 1, 2-3 and 4 or more rows, 1x1 convolutions
between 8 and 16 images, transposed convolutions between even and odd counts under two threads.
Equal counts agree to the bit, and so does either place in a pair.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.images import Pictures, to_uint8
from stylecli.networks.bundle import Bundle
from stylecli.networks.config import StyleGAN1Config
from stylecli.networks.stylegan1 import Generator
from stylecli.seeds import MAX_SEED

NoiseMode = Literal["const", "random", "none"]
NOISE_MODES: tuple[NoiseMode, ...] = ("const", "random", "none")


def seed_latents(seeds: Iterable[int], z_dim: int) -> Tensor:
    """Return the latents z [N, z_dim] of seeds, float32: the same as in every official tool.

    Each is numpy.random.RandomState(seed).randn(1, z_dim), so it depends on its seed alone.
    """
    rows = [np.random.RandomState(_checked(seed)).randn(1, z_dim) for seed in seeds]
    if not rows:
        raise UsageError("there are no seeds: give at least one, such as --seeds 0-15")
    return torch.from_numpy(np.concatenate(rows).astype(np.float32))


def seed_noise(G: Generator, noise_seed: int) -> list[Tensor]:
    """Return one noise map [1, 1, h, w] per layer, ~ N(0, 1), drawn on the CPU from its own seed.

    Layer l has side 2^(l // 2 + 2). The global random state is neither read nor changed.
    """
    source = torch.Generator().manual_seed(_checked(noise_seed))
    sides = [2 ** (layer // 2 + 2) for layer in range(G.config.num_layers)]
    return [torch.randn(1, 1, side, side, generator=source) for side in sides]


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
    device, size = device_of(G), chunk_size(G)
    c = None if labels is None else one_hot(labels, G.config.label_dim)
    parts = []
    with torch.inference_mode(), exact_kernels(device):
        for start in range(0, len(z), size):
            part = slice(start, start + size)
            ws = G.mapping(
                _filled(z[part], size).to(device),
                None if c is None else _filled(c[part], size).to(device),
                truncation_psi=psi,
                truncation_cutoff=psi_cutoff,
            )
            parts.append(ws[: len(z[part])].cpu())
    return torch.cat(parts)


def render(
    G: Generator,
    ws: Iterable[Tensor],
    *,
    noise_mode: NoiseMode = "const",
    noise_seeds: int | Iterable[int] = 0,
    noise_scale: float | Sequence[float] = 1.0,
    lod: float | None = None,
    batch: int | None = None,
) -> Iterator[Pictures]:
    """Draw one picture [H, W, C] of 0 to 255 for every styles [num_ws, w_dim] in ``ws``.

    ``ws`` may be a tensor [N, num_ws, w_dim] or any iterable of rows; it is read as pictures are
    taken. With noise_mode "random" each picture's noise comes from its noise seed (one number: the
    same noise for all). ``batch`` is how many are drawn before the first is handed on; it changes
    no picture. Runs where G is.
    """
    check_noise_mode(noise_mode)
    size = chunk_size(G)
    group = -(-max(batch or size, 1) // size) * size
    rows, noises = iter(ws), _noises(G, noise_mode, noise_seeds, size)
    while chosen := list(islice(rows, group)):
        pictures: list[Pictures] = []
        for start in range(0, len(chosen), size):
            part = torch.stack(chosen[start : start + size])
            pictures.extend(_draw(G, part, noise_mode, next(noises), noise_scale, lod))
        yield from pictures


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
) -> Iterator[tuple[int, Pictures]]:
    """Draw the picture of every seed; yield (seed, uint8 [H, W, C]) in order.

    ``psi`` pulls styles towards the average face in the first ``psi_cutoff`` layers (None: all).
    ``label`` is a class number; without it a labelled network shows its classes in turn.
    ``noise_mode`` "random" draws noise from the picture's own seed, or from ``noise_seed``.
    ``device`` moves the generator first. Raises UsageError for settings the network cannot follow.
    """
    chosen = [_checked(seed) for seed in seeds]
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
    )
    return zip(chosen, pictures, strict=True)


def check_noise_mode(noise_mode: str) -> None:
    """Raise UsageError unless it is one of const, random, none."""
    if noise_mode not in NOISE_MODES:
        raise UsageError(f"noise mode {noise_mode!r} is unknown: expected const, random or none")


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


def device_of(G: Generator) -> torch.device:
    """Return the device a generator is on."""
    return next(G.parameters()).device


def chunk_size(G: Generator) -> int:
    """Return how many images the generator draws at once: 2 on a CPU, 4 to 32 elsewhere."""
    if device_of(G).type == "cpu":
        return 2
    return max(4, min(32, 4096 // G.config.resolution))


@contextlib.contextmanager
def exact_kernels(device: torch.device) -> Iterator[None]:
    """Compute in full float32: TF32 convolutions would move pictures by several grey levels."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield


def _seed_ws(
    G: Generator, seeds: list[int], label: int | None, psi: float, psi_cutoff: int | None
) -> Iterator[Tensor]:
    """Yield the styles [num_ws, w_dim] of every seed, a chunk of latents at a time."""
    size = chunk_size(G)
    for start in range(0, len(seeds), size):
        part = seeds[start : start + size]
        z = seed_latents(part, G.config.z_dim)
        labels = seed_labels(G.config, part, label)
        yield from map_latents(G, z, labels, psi=psi, psi_cutoff=psi_cutoff)


def _draw(
    G: Generator,
    ws: Tensor,
    noise_mode: NoiseMode,
    noise: list[Tensor] | None,
    noise_scale: float | Sequence[float],
    lod: float | None,
) -> Pictures:
    device = device_of(G)
    with torch.inference_mode(), exact_kernels(device):
        images = G.synthesis(
            _filled(ws, chunk_size(G)).to(device),
            noise_mode=noise_mode,
            noise=None if noise is None else [layer.to(device) for layer in noise],
            noise_scale=noise_scale,
            lod=lod,
        )
    return to_uint8(images[: len(ws)])


def _noises(
    G: Generator, noise_mode: NoiseMode, noise_seeds: int | Iterable[int], size: int
) -> Iterator[list[Tensor] | None]:
    """Yield the noise maps of one chunk after another; None leaves them to the generator."""
    if noise_mode != "random" or not G.config.use_noise:
        yield from repeat(None)
    elif isinstance(noise_seeds, int):
        yield from repeat(seed_noise(G, noise_seeds))  # [1, 1, h, w] serves the whole chunk
    else:
        seeds = iter(noise_seeds)
        while part := list(islice(seeds, size)):
            layers = zip(*(seed_noise(G, seed) for seed in part), strict=True)
            yield [_filled(torch.cat(maps), size) for maps in layers]


def _filled(rows: Tensor, size: int) -> Tensor:
    """Repeat the last row until there are ``size``."""
    missing = size - len(rows)
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows


def _checked(seed: int) -> int:
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"seed {seed} is out of range: seeds go from 0 to {MAX_SEED}")
    return int(seed)

"""From seeds to latents, labels and styles; truncation towards any centre."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.images import Pictures
from stylecli.networks.config import NetworkConfig
from stylecli.networks.model import Bundle, Generator
from stylecli.rendering import (
    PLAIN,
    Drawing,
    Psi,
    device_of,
    exact_kernels,
    filled,
    held_styles,
    recent,
    render,
)
from stylecli.saved_ws import load_ws
from stylecli.seeds import check_seed

LATENTS_PER_CHUNK = 4  # a mapping network reads all its weights for one latent or for four
_NEEDS_W = "needs an intermediate latent space, and configuration {!r} has none"
VARY = 0.3  # how much of a face becomes another, where likeness is asked for
_HELD_STYLES = 64  # chunks of seeds
MOST_PSI = 100.0  # beyond it there are no pictures, and styles soon overflow
MOST_NOISE = 1000.0  # times its own strength; far beyond any picture
CENTRE_LATENTS = 1024  # latents whose mean is the centre of a class: off by 1/32 of their spread


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
    config: NetworkConfig, seeds: Sequence[int], label: int | None = None
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
    psi: Psi = 1.0,
    psi_cutoff: int | None = None,
    centre: Tensor | None = None,
) -> Tensor:
    """Return the styles ws [N, num_ws, w_dim] of seeds, on the CPU.

    Truncated as truncate_ws says. Raises UsageError where the network has no w to truncate or no
    such class.
    """
    return torch.stack(list(seed_ws(G, seeds, label, psi, psi_cutoff, centre)))


def map_latents(
    G: Generator,
    z: Tensor,
    labels: Sequence[int] | Tensor | None = None,
    *,
    psi: Psi = 1.0,
    psi_cutoff: int | None = None,
    centre: Tensor | None = None,
) -> Tensor:
    """Return the styles ws [N, num_ws, w_dim] of latents z [N, z_dim], on the CPU.

    ``labels`` are class numbers, or weights of the classes [N, label_dim] for what lies between.
    Truncated as truncate_ws says.
    """
    check_truncation(G.config, psi, psi_cutoff)
    if z.ndim != 2 or z.shape[1] != G.config.z_dim:
        raise UsageError(
            f"latents of shape {list(z.shape)} do not fit: expected [N, {G.config.z_dim}]"
        )
    device, size = device_of(G), LATENTS_PER_CHUNK
    c = labels if isinstance(labels, Tensor) else None
    if labels is not None and c is None:
        c = one_hot(list(labels), G.config.label_dim)
    parts = []
    with torch.inference_mode(), exact_kernels(device):
        for start in range(0, len(z), size):
            part = slice(start, start + size)
            ws = G.mapping(
                filled(z[part], size).to(device),
                None if c is None else filled(c[part], size).to(device),
            )
            parts.append(ws[: len(z[part])].cpu())
    return truncate_ws(G, torch.cat(parts), psi, psi_cutoff, centre=centre, labels=labels)


def truncate_ws(
    G: Generator,
    ws: Tensor,
    psi: Psi,
    psi_cutoff: int | None = None,
    *,
    centre: Tensor | None = None,
    labels: Sequence[int] | Tensor | None = None,
) -> Tensor:
    """Pull styles ws [N, num_ws, w_dim] towards a centre: c + psi (w - c), on the CPU.

    One ``psi`` acts on the first ``psi_cutoff`` layers (None: all); several are one per layer.
    ``centre`` is [1, w_dim] or [1, num_ws, w_dim] (None: the network's own: w_avg, or 0 where z is
    drawn), or [L, w_dim] with a row for every class, chosen by ``labels``.
    Raises UsageError for what does not fit.
    """
    strengths = layer_psis(G.config, psi, psi_cutoff)
    if all(strength == 1 for strength in strengths):
        return ws
    middle = G.mapping.centre(ws).detach().cpu() if centre is None else centre
    if centre is not None:
        if centre.shape[-1] != G.config.w_out_dim or centre.ndim not in (2, 3):
            raise UsageError(
                f"a centre of shape {list(centre.shape)} does not fit: this network's w has "
                f"{G.config.w_out_dim} numbers"
            )
        if len(centre) > 1:
            if labels is None or len(centre) != G.config.label_dim:
                raise UsageError(f"{len(centre)} centres need as many classes: give one centre")
            middle = labels @ centre if isinstance(labels, Tensor) else centre[list(labels)]
        middle = middle if middle.ndim == 3 else middle.unsqueeze(1)  # [1 or N, 1, w_dim]
    return middle + (ws - middle) * torch.tensor(strengths).view(1, -1, 1)


def layer_psis(config: NetworkConfig, psi: Psi, psi_cutoff: int | None = None) -> list[float]:
    """Return the truncation strength of every layer [num_ws]; raise UsageError as check_truncation.

    One psi acts on the first ``psi_cutoff`` layers and leaves the others at 1.
    """
    check_truncation(config, psi, psi_cutoff)
    if isinstance(psi, Sequence):
        return [float(strength) for strength in psi]
    cutoff = config.num_ws if psi_cutoff is None else psi_cutoff
    return [psi if layer < cutoff else 1.0 for layer in range(config.num_ws)]


def find_centre(
    net: Bundle, text: str, *, tell: Callable[[str], None] = lambda reading: None
) -> Tensor:
    """Return what to truncate towards, from how people name it, on the CPU.

    ``"42"``: the w of a seed [1, w_dim]; ``"class:3"``: the mean w of a class [1, w_dim];
    ``"class"``: those of all classes [L, w_dim], each picture's own; else a file of styles: its
    mean, [1, w_dim], or [1, num_ws, w_dim] where its layers differ (``tell``: see load_ws). Raises
    UsageError for a network without w or without the class, NetworkError for no file of styles.
    """
    G, config = net.generator, net.config
    if not config.has_w:
        raise UsageError(f"a centre {_NEEDS_W.format(config.preset)}: leave out --center")
    if text.strip().isdecimal():
        return map_seeds(G, [int(text)])[:, 0]
    if text == "class" or text.startswith("class:"):
        number = text.removeprefix("class").removeprefix(":")
        if number and not number.isdecimal():
            raise UsageError(f"cannot read centre {text!r}: expected class, or such as class:3")
        if not config.label_dim:
            raise UsageError(
                f"centre {text!r} is given, but this network was trained without labels"
            )
        classes = [int(number)] if number else list(range(config.label_dim))
        return torch.stack([_class_mean(G, label) for label in classes])
    if text.removeprefix("-").isdecimal():
        raise UsageError(f"centre {text!r} is not a seed: expected 0 or more, class, or a file")
    mean = load_styles(net, Path(text), tell=tell).mean(dim=0, keepdim=True)
    same = bool((mean == mean[:, :1]).all())
    return mean[:, 0] if same else mean


def load_styles(
    net: Bundle,
    path: Path,
    *,
    latents: bool = False,
    tell: Callable[[str], None] = lambda reading: None,
) -> Tensor:
    """Read saved styles ws [N, num_ws, w_dim] that fit a network (``tell``: see load_ws).

    With ``latents``, for a network without w: what its synthesis takes instead, mapped z
    [N, 1, w_out_dim], as ``project`` writes them. Raises UsageError for a network without w
    otherwise, NetworkError for a file that does not fit.
    """
    config = net.config
    if not config.has_w and not latents:
        raise UsageError(
            f"configuration {config.preset!r} has no styles, so it cannot take {path}: give --seeds"
        )
    return load_ws(path, (config.num_ws, config.w_out_dim), tell=tell)


def _class_mean(G: Generator, label: int) -> Tensor:
    """Return the mean w [w_dim] of a class, over latents of one numpy stream (seed 0)."""
    one_hot([label], G.config.label_dim)  # checks the class
    z = np.random.RandomState(0).randn(CENTRE_LATENTS, G.config.z_dim).astype(np.float32)
    ws = map_latents(G, torch.from_numpy(z), [label] * CENTRE_LATENTS)
    return ws[:, 0].double().mean(dim=0).float()


def draw_seeds(
    net: Bundle,
    seeds: Iterable[int],
    drawing: Drawing = PLAIN,
    like: int | None = None,
    vary: float = VARY,
) -> Iterator[tuple[int, Pictures]]:
    """Draw the picture of every seed; yield (seed, uint8 [H, W, C]) in order, as ``generate``."""
    chosen = [check_seed(seed) for seed in seeds]
    G = net.generator
    check_drawing(G.config, drawing)
    if like is not None:
        check_like(G.config, like, vary)
    if drawing.device is not None:
        G.to(drawing.device)
    ws = seed_ws(G, chosen, drawing.label, **drawing.truncation, like=like, vary=vary)
    return zip(chosen, render(G, ws, drawing, noise_seeds=chosen), strict=True)


def check_drawing(config: NetworkConfig, drawing: Drawing) -> None:
    """Raise UsageError unless the network can be drawn this way."""
    check_truncation(config, drawing.psi, drawing.psi_cutoff)
    scales = (
        drawing.noise_scale if isinstance(drawing.noise_scale, Sequence) else [drawing.noise_scale]
    )
    for scale in scales:
        if not -MOST_NOISE <= scale <= MOST_NOISE:
            raise UsageError(f"noise scale {scale} is out of range: expected about 0 to 3")
    if drawing.label is not None:
        seed_labels(config, [0], drawing.label)
    if drawing.lod is not None:
        config.check_lod(drawing.lod)
    if drawing.preview and not config.preview_halvings:
        raise UsageError(f"configuration {config.preset!r} draws no smaller picture on the way")


def check_truncation(config: NetworkConfig, psi: Psi, psi_cutoff: int | None = None) -> None:
    """Raise UsageError unless the network can be truncated this way."""
    strengths = psi if isinstance(psi, Sequence) else [psi]
    for strength in strengths:
        if not -MOST_PSI <= strength <= MOST_PSI:
            raise UsageError(f"psi {strength} is out of range: expected about -1 to 1.5")
    if psi_cutoff is not None and psi_cutoff < 0:
        raise UsageError(f"psi cutoff {psi_cutoff} is negative: give a count of layers")
    if not config.truncates and any(strength != 1 for strength in strengths):
        raise UsageError(f"psi {strengths[0]:g} {_NEEDS_W.format(config.preset)}: use --psi 1")
    if isinstance(psi, Sequence) and len(psi) != config.num_ws:
        raise UsageError(f"{len(psi)} psi are given: this network has {config.num_ws} layers")


def check_like(config: NetworkConfig, like: int, vary: float = VARY) -> None:
    """Raise UsageError unless pictures can be like a seed, but for a share ``vary``."""
    if not config.has_w:
        raise UsageError(f"--like {like} {_NEEDS_W.format(config.preset)}: leave it out")
    if not 0 <= vary <= 1:
        raise UsageError(f"vary {vary:g} is out of range: expected 0 (the same face) to 1 (any)")
    check_seed(like)


def mix_ws(row_ws: Tensor, column_ws: Tensor, layers: Sequence[int]) -> Tensor:
    """Return ``row_ws`` [N, num_ws, w_dim] with the styles of ``layers`` from ``column_ws``."""
    mixed = row_ws.clone()
    mixed[:, list(layers)] = column_ws[:, list(layers)]
    return mixed


def seed_ws(
    G: Generator,
    seeds: Sequence[int],
    label: int | None = None,
    psi: Psi = 1.0,
    psi_cutoff: int | None = None,
    centre: Tensor | None = None,
    *,
    like: int | None = None,
    vary: float = VARY,
) -> Iterator[Tensor]:
    """Yield the styles [num_ws, w_dim] of every seed, a chunk of latents at a time.

    With ``like`` they are l + vary (w - l), where l are the truncated styles of that seed, whose
    class all have then: at 0 that face, at 1 the seed's own.
    """
    how: dict[str, Any] = {"psi": psi, "psi_cutoff": psi_cutoff, "centre": centre}
    if like is not None:
        if label is None and G.config.label_dim:
            label = like % G.config.label_dim
        (near,) = map_seeds(G, [like], label=label, **how)
    check_truncation(G.config, psi, psi_cutoff)
    size = LATENTS_PER_CHUNK
    for start in range(0, len(seeds), size):
        part = seeds[start : start + size]
        labels = seed_labels(G.config, part, label)
        ws = truncate_ws(G, _map_part(G, part, labels), labels=labels, **how)
        yield from ws if like is None else near + vary * (ws - near)


def _map_part(G: Generator, seeds: Sequence[int], labels: Sequence[int] | None) -> Tensor:
    """Return the styles ws [N, num_ws, w_dim] of a chunk of seeds, not truncated."""

    def map_them() -> Tensor:
        return map_latents(G, seed_latents(seeds, G.config.z_dim), labels)

    if (held := held_styles(G)) is None:
        return map_them()
    return recent(held, (tuple(seeds), tuple(labels or ())), map_them, _HELD_STYLES)

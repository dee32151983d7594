"""From seeds to latents, labels, styles and pictures; truncation towards any centre.

Every picture is drawn in a chunk of a fixed size, whatever batch was asked for, and a last partial
chunk is filled up. That is what makes its bytes independent of its company: measured on a CPU with
AVX-512, matrix products differ in the last bit between 1, 2-3 and 4 or more rows, 1x1 convolutions
between 8 and 16 images, transposed convolutions between even and odd counts under two threads.
Equal counts agree to the bit, and so does any place in a chunk.
"""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylecli.errors import NetworkError, UsageError, plural
from stylecli.hardware import PRECISIONS as PRECISIONS
from stylecli.hardware import Precision as Precision
from stylecli.hardware import check_precision as check_precision
from stylecli.hardware import cuda_arithmetic, give_back
from stylecli.images import Canvas, Pictures, to_uint8
from stylecli.networks.config import NetworkConfig, NoiseMode, check_noise_mode
from stylecli.networks.model import Bundle, Generator, asked_lod
from stylecli.networks.registry import freeze_synthesis
from stylecli.saved_ws import load_ws as load_ws
from stylecli.saved_ws import save_ws as save_ws
from stylecli.seeds import check_seed

LATENTS_PER_CHUNK = 4  # a mapping network reads all its weights for one latent or for four
_CHUNK_VALUES = 1 << 20  # of the largest feature maps: what stays in a core's cache
_MAX_CPU_CHUNK = 8


Psi = float | Sequence[float]  # one strength, or one for every layer


@dataclass(frozen=True)
class Edits:
    """How far all pictures are moved along directions (``latents.directions`` makes them of names).

    The same for every picture, whatever its styles are.
    """

    offset: Tensor | None = None  # [num_ws, w_out_dim], added to ws
    # Added to the styles [channels] of a layer, by its place in ``synthesis.style_maps()``.
    shifts: Mapping[int, Tensor] = field(default_factory=dict)
    keeps_length: bool = False  # of latents, where z itself is drawn and lies on a sphere

    def move(self, ws: Tensor) -> Tensor:
        """Return ws [..., num_ws, w_out_dim] as they are drawn; ``shifts`` are not in ws."""
        if self.offset is None:
            return ws
        moved = ws + self.offset.to(ws)
        if self.keeps_length:
            moved = moved * (ws.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True))
        return moved

    def shift(self, G: Generator) -> Generator:
        """Return the generator whose layers have shifted styles: ``G`` itself where none has."""
        if not self.shifts:
            return G
        shifted = copy.deepcopy(G)
        maps = shifted.synthesis.style_maps()
        with torch.no_grad():
            for place, shift in self.shifts.items():
                bias = maps[place].layer.bias if place < len(maps) else None
                if not isinstance(bias, Tensor) or bias.shape != shift.shape:
                    raise NetworkError(
                        f"a direction moves {plural(len(shift), 'style')} of layer {place}, which "
                        f"this network does not have: find its directions again"
                    )
                bias.add_(shift.to(bias))
        return shifted


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn: everything about them but which faces they show."""

    psi: Psi = 1.0  # truncation of all layers, or one strength per layer
    psi_cutoff: int | None = None  # how many of the first layers one psi acts on, None = all
    centre: Tensor | None = None  # what styles are pulled towards; None: the average face
    label: int | None = None  # class to show; None: the classes in turn
    edits: Edits | None = None  # what styles are moved by when they are drawn
    noise_mode: NoiseMode = "const"
    noise_seed: int | None = None  # one random noise for all; None: each picture's own
    noise_scale: float | Sequence[float] = 1.0  # of all layers, or one per layer
    lod: float | None = None  # None: the network's own
    scale: int | None = None  # pixels are enlarged this often; None: as a sheet needs it
    canvas: Canvas | None = None  # the size that pictures, or a sheet, come to; None: by scale
    batch: int | None = None  # pictures drawn before the first is handed on: changes none
    precision: Precision = "float32"  # bf16: quicker, a little less exact
    device: str | torch.device | None = None  # the generator goes there first; None: where it is

    def __post_init__(self) -> None:
        """Raise UsageError for an unknown noise mode or precision."""
        check_noise_mode(self.noise_mode)
        check_precision(self.precision)

    @property
    def truncation(self) -> dict[str, Any]:
        """What functions that map latents to styles take."""
        return {"psi": self.psi, "psi_cutoff": self.psi_cutoff, "centre": self.centre}


PLAIN = Drawing()


def render(
    G: Generator,
    ws: Iterable[Tensor],
    drawing: Drawing = PLAIN,
    *,
    noise_seeds: int | Iterable[int] = 0,
    noise: Iterable[Sequence[Tensor]] | None = None,
) -> Iterator[Pictures]:
    """Draw one picture [H, W, C] of 0 to 255 for every styles [num_ws, w_dim] in ``ws``.

    ``ws`` may be a tensor [N, num_ws, w_dim] or any iterable of rows; it is read as pictures are
    taken. With noise_mode "random" each picture's noise comes from its own of ``noise_seeds`` (one
    number: the same noise for all) unless ``drawing`` has a noise seed; ``noise`` gives every
    picture its own maps, such as seed_noise returns, instead. Edits are applied here, truncation,
    class, scale and canvas are others' to apply. Draws with the weights that G has when the first
    picture is taken.
    """
    if drawing.device is not None:
        G.to(drawing.device)
    seeds = noise_seeds if drawing.noise_seed is None else drawing.noise_seed
    return _render(G, ws, drawing, _noises(G, drawing.noise_mode, seeds, noise))


def _render(
    G: Generator,
    ws: Iterable[Tensor],
    drawing: Drawing,
    noises: Iterator[Sequence[Tensor] | None],
) -> Iterator[Pictures]:
    size = chunk_size(G)
    device = device_of(G)
    edits = drawing.edits or Edits()
    synthesis = prepare_synthesis(edits.shift(G), drawing.precision)
    group = -(-max(drawing.batch or size, 1) // size) * size
    rows = iter(ws)
    while chosen := list(islice(rows, group)):
        pictures: list[Pictures] = []
        for start in range(0, len(chosen), size):
            part = edits.move(torch.stack(chosen[start : start + size]))
            noise = _stacked(list(islice(noises, len(part))), size)
            with torch.inference_mode(), exact_kernels(device):
                images = synthesis(
                    filled(part, size).to(device),
                    noise_mode=drawing.noise_mode,
                    noise=None if noise is None else [layer.to(device) for layer in noise],
                    noise_scale=drawing.noise_scale,
                    **asked_lod(G.config, drawing.lod),
                )
            pictures.extend(to_uint8(images[: len(part)]))
        yield from pictures


def prepare_synthesis(G: Generator, precision: Precision = "float32") -> Callable[..., Tensor]:
    """Return the quickest form of ``G.synthesis`` for drawing many pictures, as it is now.

    Takes the same arguments; float32 results differ by rounding only. On a CPU later changes of G
    do not show. Raises UsageError for an unknown precision.
    """
    check_precision(precision)
    device = device_of(G)
    if device.type == "cpu":
        dtype = torch.float32 if precision == "float32" else torch.bfloat16
        prepared = freeze_synthesis(G, dtype)
        give_back()  # kernels on their way into their layouts took as much again
        return prepared
    if precision == "float32":
        return G.synthesis

    def in_bfloat16(*args: object, **options: object) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            images: Tensor = G.synthesis(*args, **options)
        return images.float()

    return in_bfloat16


def seed_noise(G: Generator, noise_seed: int) -> list[Tensor]:
    """Return one noise map [1, 1, h, w] per layer, ~ N(0, 1), drawn on the CPU from its own seed.

    The global random state is neither read nor changed.
    """
    source = torch.Generator().manual_seed(check_seed(noise_seed))
    return [torch.randn(shape, generator=source) for shape in G.config.noise_shapes()]


def device_of(G: Generator) -> torch.device:
    """Return the device a generator is on."""
    return next(G.parameters()).device


def chunk_size(G: Generator) -> int:
    """Return how many images the generator draws at once: by its size alone, so always the same.

    On a CPU a large network's features leave the cache as soon as there are two of them, and a
    small one spends its time between operators; 4 to 32 elsewhere.
    """
    if device_of(G).type == "cpu":
        values = _CHUNK_VALUES // G.config.largest_features()
        return max(1, min(_MAX_CPU_CHUNK, values))
    return max(4, min(32, 4096 // G.config.resolution))


def exact_kernels(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Compute in full float32: TF32 convolutions would move pictures by several grey levels.

    Also within a session that trains with TF32, so that a snapshot's numbers are the file's.
    """
    return cuda_arithmetic(device, exact=True)


def filled(rows: Tensor, size: int) -> Tensor:
    """Repeat the last row until there are ``size``."""
    missing = size - len(rows)
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows


def _noises(
    G: Generator,
    noise_mode: NoiseMode,
    noise_seeds: int | Iterable[int],
    noise: Iterable[Sequence[Tensor]] | None,
) -> Iterator[Sequence[Tensor] | None]:
    """Yield the noise maps of one picture after another; None leaves them to the generator."""
    if not G.config.has_noise:
        yield from repeat(None)
    elif noise is not None:
        yield from noise
    elif noise_mode != "random":
        yield from repeat(None)
    elif isinstance(noise_seeds, int):
        yield from repeat(seed_noise(G, noise_seeds))
    else:
        yield from (seed_noise(G, seed) for seed in noise_seeds)


def _stacked(noises: Sequence[Sequence[Tensor] | None], size: int) -> Sequence[Tensor] | None:
    """Return the maps of a chunk, one tensor per layer: [1, 1, h, w] where all are the same."""
    first = noises[0]
    if first is None or all(noise is first for noise in noises):
        return first  # serves the whole chunk
    layers = zip(*(noise for noise in noises if noise is not None), strict=True)
    return [filled(torch.cat(maps), size) for maps in layers]


_NEEDS_W = "needs an intermediate latent space, and configuration {!r} has none"
VARY = 0.3  # how much of a face becomes another, where likeness is asked for
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
    size = LATENTS_PER_CHUNK
    for start in range(0, len(seeds), size):
        part = seeds[start : start + size]
        z = seed_latents(part, G.config.z_dim)
        labels = seed_labels(G.config, part, label)
        ws = map_latents(G, z, labels, **how)
        yield from ws if like is None else near + vary * (ws - near)

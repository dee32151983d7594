"""Styles to pictures: how they are drawn, in chunks that do not depend on the batch size.

Every picture is drawn in a chunk of a fixed size, whatever batch was asked for, and a last partial
chunk is filled up. That is what makes its bytes independent of its company: measured on a CPU with
AVX-512, matrix products differ in the last bit between 1, 2-3 and 4 or more rows, 1x1 convolutions
between 8 and 16 images, transposed convolutions between even and odd counts under two threads.
Equal counts agree to the bit, and so does any place in a chunk.
"""

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from stylecli.errors import NetworkError, plural
from stylecli.hardware import Precision, check_precision, cuda_arithmetic, give_back
from stylecli.images import Canvas, Pictures, to_uint8
from stylecli.networks.config import NoiseMode, check_noise_mode
from stylecli.networks.model import Generator, asked_lod
from stylecli.networks.registry import freeze_synthesis
from stylecli.seeds import check_seed

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
    preview: bool = False  # a smaller true picture instead, where the network has one on the way
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
    smaller = {"halvings": G.config.preview_halvings} if drawing.preview else {}
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
                    **smaller,
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
        held = _held.get(G)
        if held is not None and precision in held.prepared:
            return held.prepared[precision]
        dtype = torch.float32 if precision == "float32" else torch.bfloat16
        prepared = freeze_synthesis(G, dtype)
        give_back()  # kernels on their way into their layouts took as much again
        if held is not None:
            held.prepared[precision] = prepared
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
    check_seed(noise_seed)

    def draw() -> list[Tensor]:
        source = torch.Generator().manual_seed(noise_seed)
        return [torch.randn(shape, generator=source) for shape in G.config.noise_shapes()]

    held = _held.get(G)
    return draw() if held is None else recent(held.noise, noise_seed, draw, _HELD_NOISES)


_HELD_NOISES = 4  # of 1024 px each is 11 MB


@dataclass
class _Held:
    """What was worked out with a generator that does not change."""

    prepared: dict[str, Callable[..., Tensor]] = field(default_factory=dict)
    noise: OrderedDict[Any, list[Tensor]] = field(default_factory=OrderedDict)
    styles: OrderedDict[Any, Tensor] = field(default_factory=OrderedDict)


_held: WeakKeyDictionary[Generator, _Held] = WeakKeyDictionary()


def hold_still(G: Generator) -> None:
    """Remember from now on what depends on a generator alone, which must not change.

    For whoever draws one picture after the other: preparing it costs as much as a picture of a
    small network. After a change call it again.
    """
    _held[G] = _Held()


def held_styles(G: Generator) -> "OrderedDict[Any, Tensor] | None":
    """Return where styles are remembered; None for a generator that may change."""
    held = _held.get(G)
    return None if held is None else held.styles


_Kept = TypeVar("_Kept")


def recent(kept: OrderedDict[Any, _Kept], key: Any, make: Callable[[], _Kept], most: int) -> _Kept:
    """Return what is kept for a key, made where it is not; the ``most`` newest ones are kept."""
    if key not in kept:
        kept[key] = make()
        if len(kept) > most:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]


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

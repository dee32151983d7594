"""From styles to pictures: the one loop that runs a generator, on any device.

Every picture is drawn in a chunk of a fixed size, whatever batch was asked for, and a last partial
chunk is filled up. That is what makes its bytes independent of its company: measured on a CPU with
AVX-512, matrix products differ in the last bit between 1, 2-3 and 4 or more rows, 1x1 convolutions
between 8 and 16 images, transposed convolutions between even and odd counts under two threads.
Equal counts agree to the bit, and so does any place in a chunk.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, repeat
from typing import Literal, get_args

import torch
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.images import Pictures, to_uint8
from stylecli.networks.model import Generator, asked_lod
from stylecli.networks.registry import freeze_synthesis
from stylecli.seeds import check_seed

NoiseMode = Literal["const", "random", "none"]
NOISE_MODES: tuple[NoiseMode, ...] = get_args(NoiseMode)
Precision = Literal["float32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

LATENTS_PER_CHUNK = 4  # a mapping network reads all its weights for one latent or for four
_CHUNK_VALUES = 1 << 20  # of the largest feature maps: what stays in a core's cache
_MAX_CPU_CHUNK = 8


def render(
    G: Generator,
    ws: Iterable[Tensor],
    *,
    noise_mode: NoiseMode = "const",
    noise_seeds: int | Iterable[int] = 0,
    noise: Iterable[Sequence[Tensor]] | None = None,
    noise_scale: float | Sequence[float] = 1.0,
    lod: float | None = None,
    batch: int | None = None,
    precision: Precision = "float32",
) -> Iterator[Pictures]:
    """Draw one picture [H, W, C] of 0 to 255 for every styles [num_ws, w_dim] in ``ws``.

    ``ws`` may be a tensor [N, num_ws, w_dim] or any iterable of rows; it is read as pictures are
    taken. With noise_mode "random" each picture's noise comes from its noise seed (one number: the
    same noise for all); ``noise`` gives every picture its own maps, such as seed_noise returns,
    instead. ``batch`` is how many are drawn before the first is handed on; it changes no picture.
    ``precision`` "bf16" trades a little accuracy for speed. Runs where G is, with the weights that
    G has when the first picture is taken.
    """
    check_noise_mode(noise_mode)
    check_precision(precision)
    noises = _noises(G, noise_mode, noise_seeds, noise)
    return _render(G, ws, noise_mode, noises, noise_scale, lod, batch, precision)


def _render(
    G: Generator,
    ws: Iterable[Tensor],
    noise_mode: NoiseMode,
    noises: Iterator[Sequence[Tensor] | None],
    noise_scale: float | Sequence[float],
    lod: float | None,
    batch: int | None,
    precision: Precision,
) -> Iterator[Pictures]:
    size = chunk_size(G)
    device = device_of(G)
    synthesis = prepare_synthesis(G, precision)
    group = -(-max(batch or size, 1) // size) * size
    rows = iter(ws)
    while chosen := list(islice(rows, group)):
        pictures: list[Pictures] = []
        for start in range(0, len(chosen), size):
            part = torch.stack(chosen[start : start + size])
            noise = _stacked(list(islice(noises, len(part))), size)
            with torch.inference_mode(), exact_kernels(device):
                images = synthesis(
                    filled(part, size).to(device),
                    noise_mode=noise_mode,
                    noise=None if noise is None else [layer.to(device) for layer in noise],
                    noise_scale=noise_scale,
                    **asked_lod(G.config, lod),
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
        return freeze_synthesis(G, dtype)
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


def check_noise_mode(noise_mode: str) -> None:
    """Raise UsageError unless it is one of const, random, none."""
    if noise_mode not in NOISE_MODES:
        raise UsageError(f"noise mode {noise_mode!r} is unknown: expected const, random or none")


def check_precision(precision: str) -> None:
    """Raise UsageError unless it is float32 or bf16."""
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is unknown: expected float32 or bf16")


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


@contextlib.contextmanager
def exact_kernels(device: torch.device) -> Iterator[None]:
    """Compute in full float32: TF32 convolutions would move pictures by several grey levels.

    Also within a session that trains with TF32, so that a snapshot's numbers are the file's.
    """
    if device.type != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        matmul.allow_tf32 = before


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

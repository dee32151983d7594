"""Change pictures at random before D sees them, so that a few hundred of them last.

Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data": every transform is
applied with a probability p that follows how far D overfits. Beside it Zhao et al. 2020,
"Differentiable Augmentation". Everything can be differentiated twice with respect to the pictures,
and what becomes of a picture does not depend on the others of its batch. Nothing here waits for a
GPU: p, the gates and the matrices stay on the device, and no size depends on what was drawn.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylecli.distributed.ranks import Ranks
from stylecli.hardware import widest_float
from stylecli.ops.resampling import upfirdn2d
from stylecli.training.config import TrainingConfig

# Symlets of 6 and 2 vanishing moments (Daubechies 1992), low-pass halves.
SYM6 = (0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
        0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
        -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036,
        -0.007800708325034148)  # fmt: skip
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
PAD = len(SYM6) // 4  # pixels around the result that its last filter looks at
BAND_ENERGY = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # of natural pictures, low to high
UPDATE_STEPS = 4  # from one move of p to the next
MATRIX_SIDE = 256  # pixels up to which CPUs resample by matrix products, several times faster


class Draws(Protocol):
    """Random numbers for the n pictures of a batch, in the order in which they are asked for."""

    def uniform(self, *shape: int) -> Tensor:
        """Return [n, *shape] from 0 to 1."""

    def normal(self, *shape: int) -> Tensor:
        """Return [n, *shape] of the standard normal distribution."""


class StreamDraws:
    """Draws of one stream for a whole batch, of which a rank's pass keeps its own pictures.

    So a picture is changed alike, whatever the number of ranks and passes.
    """

    def __init__(
        self,
        generator: torch.Generator | None,
        device: torch.device,
        batch: int,
        *parts: tuple[int, int],
        kept: list[tuple[str, Tensor]] | None = None,
    ) -> None:
        """``parts``: (index, count) of the rank and the pass, each keeping every count-th.

        Numbers are those of ``kept``, as far as they go: (how they are drawn, the whole batch's).
        What is drawn is added to them.
        """
        self.source: dict[str, Any] = {"generator": generator, "device": device}
        self.batch, self.parts, self.kept, self._asked = batch, parts, kept, 0

    def uniform(self, *shape: int) -> Tensor:
        """Return this part's share of uniform numbers."""
        return self._mine("uniform_", shape)

    def normal(self, *shape: int) -> Tensor:
        """Return this part's share of normal numbers."""
        return self._mine("normal_", shape)

    def _mine(self, how: str, shape: tuple[int, ...]) -> Tensor:
        kept = self.kept or ()
        if self._asked < len(kept):
            whole = kept[self._asked][1]
        else:
            draw = torch.rand if how == "uniform_" else torch.randn
            whole = draw((self.batch, *shape), **self.source)
            if self.kept is not None:
                self.kept.append((how, whole))
        self._asked += 1
        for index, count in self.parts:
            whole = whole[index::count]
        return whole


@dataclass(frozen=True)
class Pipe:
    """Which transforms there are: what p is multiplied by for each, 0 for none."""

    xflip: float = 0.0
    rotate90: float = 0.0
    xint: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    aniso: float = 0.0
    xfrac: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    lumaflip: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0
    imgfilter: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0
    # Zhao et al. 2020
    tint: float = 0.0  # brightness, saturation and contrast
    shift: float = 0.0
    hole: float = 0.0

    def any(self, names: tuple[str, ...]) -> bool:
        """Return whether one of the transforms is there."""
        return any(getattr(self, name) > 0 for name in names)


_GROUPS: Mapping[str, tuple[str, ...]] = {
    "blit": ("xflip", "rotate90", "xint"),
    "geom": ("scale", "rotate", "aniso", "xfrac"),
    "color": ("brightness", "contrast", "lumaflip", "hue", "saturation"),
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
    "diffaugment": ("tint", "shift", "hole"),
}
_GEOMETRY, _COLOUR = _GROUPS["blit"] + _GROUPS["geom"], _GROUPS["color"]
_NAMES = {"b": "blit", "g": "geom", "c": "color", "f": "filter", "n": "noise", "C": "cutout"}


def make_pipe(name: str) -> Pipe:
    """Return the pipe of a name: one group such as ``geom``, or the first letters of several.

    ``halfcolor`` is R3GAN's (Huang et al. 2024): blit, geom, cutout, and colour half as likely.
    """
    if name == "halfcolor":
        full = dict.fromkeys((*_GEOMETRY, *_GROUPS["cutout"]), 1.0)
        return Pipe(**full, **dict.fromkeys(_COLOUR, 0.5))
    letters = name.replace("nc", "nC")  # the last c of bgcfnc is cutout
    groups = [name] if name in _GROUPS else [_NAMES[letter] for letter in letters]
    return Pipe(**{transform: 1.0 for group in groups for transform in _GROUPS[group]})


class Augmentation:
    """How strongly a run's pictures are changed: by a fixed p, or one that follows D's certainty.

    Where D overfits it calls nearly all reals real. The statistic is the mean sign of its logits on
    reals; p moves towards where that is at its target (Karras et al. 2020, section 3.1).
    """

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        """Read ``augment`` and the settings named after it; at first an adaptive p is 0."""
        self.config, self.on = config, config.augment != "none"
        self.adaptive = config.augment == "adaptive"
        self.pipe = make_pipe(config.augment_pipe)
        start = config.augment_p if config.augment == "fixed" else 0.0
        wide = widest_float(device)
        self.p = torch.tensor(start, dtype=wide, device=device)
        self.seen = torch.zeros(2, dtype=wide, device=device)  # sum of signs, number of logits

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Return what D is to see of ``images``."""
        wide = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
        return augment(wide, self.pipe, self.p, draws)

    def set_fixed(self, p: float) -> None:
        """Let a fixed p be what the schedule has it at; nothing waits for the device."""
        if self.on and not self.adaptive:
            self.p.fill_(p)

    @torch.no_grad()
    def follow(self, signs: Tensor, ranks: Ranks, batch: int, step: int) -> None:
        """Take in a step's signs of D on this rank's reals (their sum and number); move p.

        On all ranks alike, after every fourth step of the run, and not where the mean is exactly
        at the target.
        """
        if not self.adaptive:
            return
        ranks.mean_(signs)
        self.seen += signs
        if (step + 1) % UPDATE_STEPS:
            return
        total, count = self.seen.unbind()
        towards = torch.sign(total - self.config.augment_target * count)
        stride = batch * UPDATE_STEPS / (self.config.augment_kimg * 1000)
        self.p.copy_((self.p + towards * stride).clamp(min=0.0))
        self.seen.zero_()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"p": float(self.p), "seen": self.seen.tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint kept, unless p is fixed or the run had none."""
        if self.adaptive and state:
            self.p.fill_(float(state["p"]))
            self.seen.copy_(torch.tensor(state["seen"], dtype=self.seen.dtype))


def augment(images: Tensor, pipe: Pipe, p: Tensor | float, draws: Draws) -> Tensor:
    """Return ``images`` [N, C, H, W], about -1 to 1, each changed by what was drawn for it.

    Colours change the first three channels, or the first of one or two; all else every channel, so
    that transparency moves with its picture. ``p`` [] is a number from 0; from 1 on everything
    happens to every picture.
    """
    with torch.no_grad():
        gate = _Gate(p, draws)
        inverse = _geometry(pipe, gate, images) if pipe.any(_GEOMETRY) else None
        colours = _colours(pipe, gate, images) if pipe.any(_COLOUR) else None
        gains = _band_gains(pipe.imgfilter, gate, images) if pipe.imgfilter else None
    if inverse is not None:
        images = _warped(images, inverse)
    if colours is not None:
        images = _recoloured(images, colours)
    if gains is not None:
        images = _filtered(images, gains)
    if pipe.noise:
        sigma = gate(pipe.noise, draws.normal(1, 1, 1).abs() * 0.1, 0.0)
        images = images + (draws.normal(*images.shape[1:]) * sigma).to(images.dtype)
    if pipe.cutout:
        side = gate(pipe.cutout, torch.full_like(images[:, :1, :1, :1], 0.5), 0.0)
        images = images * _outside(images, draws.uniform(2, 1, 1), side)
    if pipe.tint:
        images = _tinted(images, pipe.tint, gate)
    if pipe.shift:
        images = _shifted(images, pipe.shift, gate)
    if pipe.hole:
        side = gate(pipe.hole, torch.full_like(images[:, :1, :1, :1], 0.5), 0.0)
        images = images * _outside(images, draws.uniform(2, 1, 1), side)
    return images


class _Gate:
    """Takes effect with probability multiplier · p: a drawn value, otherwise the neutral one."""

    def __init__(self, p: Tensor | float, draws: Draws) -> None:
        self.p, self.draws = p, draws

    def __call__(self, multiplier: float, value: Tensor, neutral: float) -> Tensor:
        """Return ``value`` [N, ...] for the pictures that it happens to; one draw for each."""
        return self.at(self.p * multiplier, value, neutral)

    def at(self, probability: Tensor | float, value: Tensor, neutral: float) -> Tensor:
        """Return ``value`` with this probability."""
        u = self.draws.uniform(*[1] * (value.ndim - 1))
        return torch.where(u < probability, value, torch.full_like(value, neutral))


# ---- geometry: G⁻¹ [N, 3, 3] takes places of the result to places of the picture. The origin is
# the picture's middle, x points right and y down, the unit is a pixel.


def _matrix(rows: list[list[Tensor | float]], like: Tensor) -> Tensor:
    """Return [N, n, n] of entries [N] or numbers."""
    entries = [
        entry if isinstance(entry, Tensor) else torch.full_like(like, entry)
        for row in rows
        for entry in row
    ]
    return torch.stack(entries, dim=-1).reshape(-1, len(rows), len(rows))


def _scaling(x: Tensor | float, y: Tensor | float, like: Tensor) -> Tensor:
    return _matrix([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]], like)


def _translation(x: Tensor | float, y: Tensor | float, like: Tensor) -> Tensor:
    return _matrix([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]], like)


def _rotation(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return _matrix([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], angle)


def _geometry(pipe: Pipe, gate: _Gate, images: Tensor) -> Tensor:
    """Draw G⁻¹: Karras et al. 2020, appendix B, figure 15, its factors from the right."""
    height, width = images.shape[2:]
    draws, dtype = gate.draws, images.dtype
    one = images.new_ones(len(images))
    size = torch.stack([one * width, one * height], dim=1)
    inverse = _scaling(1.0, 1.0, one)
    if pipe.xflip:
        i = gate(pipe.xflip, (draws.uniform() * 2).floor(), 0.0).to(dtype)
        inverse = inverse @ _scaling(1 - 2 * i, 1.0, one)
    if pipe.rotate90:
        i = gate(pipe.rotate90, (draws.uniform() * 4).floor(), 0.0).to(dtype)
        inverse = inverse @ _rotation(i * (math.pi / 2))
    if pipe.xint:
        t = gate(pipe.xint, (draws.uniform(2) * 2 - 1) * 0.125, 0.0).to(dtype)
        x, y = (t * size).round().unbind(1)
        inverse = inverse @ _translation(-x, -y, one)
    if pipe.scale:
        s = gate(pipe.scale, (draws.normal() * 0.2).exp2(), 1.0).to(dtype)
        inverse = inverse @ _scaling(1 / s, 1 / s, one)
    turns = 1 - (1 - torch.as_tensor(gate.p * pipe.rotate)).clamp(0, 1).sqrt()  # of two, either
    if pipe.rotate:
        angle = gate.at(turns, (draws.uniform() * 2 - 1) * math.pi, 0.0).to(dtype)
        inverse = inverse @ _rotation(angle)
    if pipe.aniso:
        s = gate(pipe.aniso, (draws.normal() * 0.2).exp2(), 1.0).to(dtype)
        inverse = inverse @ _scaling(1 / s, s, one)
    if pipe.rotate:
        angle = gate.at(turns, (draws.uniform() * 2 - 1) * math.pi, 0.0).to(dtype)
        inverse = inverse @ _rotation(angle)
    if pipe.xfrac:
        t = gate(pipe.xfrac, draws.normal(2) * 0.125, 0.0).to(dtype)
        x, y = (t * size).unbind(1)
        inverse = inverse @ _translation(-x, -y, one)
    return inverse


def _warped(images: Tensor, inverse: Tensor) -> Tensor:
    """Mirror the picture at its edges, double it, look it up, halve it.

    The paper mirrors no farther than the batch's widest transform needs; here it is always the
    farthest, a side less one pixel, so that nobody's neighbours matter.
    """
    height, width = images.shape[2:]
    doubled = _doubled(images)  # [N, C, 2(3H - 2), 2(3W - 2)]
    rows, columns = doubled.shape[2:]
    out_rows, out_columns = 2 * (height + 2 * PAD), 2 * (width + 2 * PAD)
    with torch.no_grad():
        one = inverse[:, 0, 0]
        inverse = _scaling(2.0, 2.0, one) @ inverse @ _scaling(0.5, 0.5, one)
        inverse = _translation(-0.5, -0.5, one) @ inverse @ _translation(0.5, 0.5, one)
        inverse = _scaling(2 / columns, 2 / rows, one) @ inverse
        inverse = inverse @ _scaling(out_columns / 2, out_rows / 2, one)
        shape = [len(images), images.shape[1], out_rows, out_columns]
        grid = torch.nn.functional.affine_grid(inverse[:, :2], shape, align_corners=False)
    return _halved(_LookedUp.apply(doubled, grid))  # type: ignore[no-untyped-call]


class _LookedUp(torch.autograd.Function):
    """Bilinear sampling with zeros outside: linear in the picture, so its own second derivative."""

    @staticmethod
    def forward(ctx: Any, picture: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.size = picture.shape
        found: Tensor = torch.ops.aten.grid_sampler_2d(picture, grid, 0, 0, False)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grid,) = ctx.saved_tensors
        return _Spread.apply(grads[0], grid, ctx.size), None  # type: ignore[no-untyped-call]


class _Spread(torch.autograd.Function):
    """The adjoint of ``_LookedUp``."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        picture = dy.new_zeros(1).expand(size)  # only its size matters
        spread: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            dy.contiguous(), picture, grid, 0, 0, False, [True, False]
        )[0]
        return spread

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grid,) = ctx.saved_tensors
        return _LookedUp.apply(grads[0], grid), None, None  # type: ignore[no-untyped-call]


def _mirrored_places(before: int, size: int, after: int) -> NDArray[np.int64]:
    """Return which pixel lies at -before .. size + after - 1, mirrored as often as needed."""
    turn = max(2 * (size - 1), 1)
    places = np.abs(np.arange(-before, size + after)) % turn
    return np.minimum(places, turn - places) if size > 1 else places * 0


@cache
def _doubling(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return [2(3·size - 2), size]: mirror a line of pixels at both ends and double it."""
    mirrored = np.eye(size)[_mirrored_places(size - 1, size, size - 1)]
    spread = np.zeros((2 * len(mirrored), size))
    spread[::2] = mirrored
    taps = np.array(SYM6) / sum(SYM6) * 2
    padded = np.pad(spread, ((6, 5), (0, 0)))
    lines = [taps[::-1] @ padded[start : start + len(taps)] for start in range(len(spread))]
    return _kept(np.stack(lines), dtype, device)


@cache
def _halving(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return [size, 2(size + 2·PAD)]: halve a line of pixels, which loses PAD at both ends."""
    taps = np.array(SYM6) / sum(SYM6)
    lines = np.zeros((size, 2 * (size + 2 * PAD)))
    for row in range(size):
        lines[row, 2 * row + 1 : 2 * row + 1 + len(taps)] = taps
    return _kept(lines, dtype, device)


def _kept(values: NDArray[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype).to(device)


def _by_matrix(images: Tensor) -> bool:
    return not images.is_cuda and max(images.shape[2:]) <= MATRIX_SIDE


@cache
def _taps(dtype: torch.dtype, device: torch.device) -> Tensor:
    return _kept(np.array(SYM6) / sum(SYM6), dtype, device)


def _doubled(images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    where = images.dtype, images.device
    if _by_matrix(images):
        return _doubling(height, *where) @ (images @ _doubling(width, *where).T)
    x = torch.cat([images[..., 1:].flip(3), images, images[..., :-1].flip(3)], dim=3)
    x = torch.cat([x[:, :, 1:].flip(2), x, x[:, :, :-1].flip(2)], dim=2)
    return upfirdn2d(x, _taps(*where), up=2, padding=(6, 5, 6, 5), gain=4)


def _halved(images: Tensor) -> Tensor:
    height, width = (side // 2 - 2 * PAD for side in images.shape[2:])
    where = images.dtype, images.device
    if _by_matrix(images):
        return _halving(height, *where) @ images @ _halving(width, *where).T
    return upfirdn2d(images, _taps(*where), down=2, padding=-1, flip_filter=True)


# ---- colour: C [N, 4, 4] on (red, green, blue, 1), its factors from the left.


def _colours(pipe: Pipe, gate: _Gate, images: Tensor) -> Tensor:
    """Draw C: Karras et al. 2020, appendix B, figure 15."""
    draws, dtype = gate.draws, images.dtype
    one = images.new_ones(len(images))
    matrix = torch.eye(4, dtype=dtype, device=images.device)
    eye = matrix
    v = torch.ones_like(eye[0]) / math.sqrt(3)  # the luma axis
    v = v * (eye[3] == 0)
    axis = torch.outer(v, v)
    if pipe.brightness:
        b = gate(pipe.brightness, draws.normal() * 0.2, 0.0).to(dtype)
        rows: list[list[Tensor | float]] = [
            [1.0, 0.0, 0.0, b], [0.0, 1.0, 0.0, b], [0.0, 0.0, 1.0, b], [0.0, 0.0, 0.0, 1.0]
        ]  # fmt: skip
        matrix = _matrix(rows, one) @ matrix
    if pipe.contrast:
        c = gate(pipe.contrast, (draws.normal() * 0.5).exp2(), 1.0).to(dtype)
        rows = [[c, 0.0, 0.0, 0.0], [0.0, c, 0.0, 0.0], [0.0, 0.0, c, 0.0], [0.0, 0.0, 0.0, 1.0]]
        matrix = _matrix(rows, one) @ matrix
    if pipe.lumaflip:
        i = gate(pipe.lumaflip, (draws.uniform(1, 1) * 2).floor(), 0.0).to(dtype)
        matrix = (eye - 2 * axis * i) @ matrix
    if images.shape[1] < 3:
        return matrix.expand(len(images), 4, 4)
    if pipe.hue:
        angle = gate(pipe.hue, (draws.uniform() * 2 - 1) * math.pi, 0.0).to(dtype)
        matrix = _rotation_about_luma(angle) @ matrix
    if pipe.saturation:
        s = gate(pipe.saturation, draws.normal(1, 1).exp2(), 1.0).to(dtype)
        matrix = (axis + (eye - axis) * s) @ matrix
    return matrix.expand(len(images), 4, 4)


def _rotation_about_luma(angle: Tensor) -> Tensor:
    """Return [N, 4, 4]: Rodrigues' rotation about (1, 1, 1)/√3."""
    c, s = angle.cos(), angle.sin()
    same, rise = (1 - c) / 3, s / math.sqrt(3)
    a, b, d = same + c, same - rise, same + rise
    rows: list[list[Tensor | float]] = [
        [a, b, d, 0.0], [d, a, b, 0.0], [b, d, a, 0.0], [0.0, 0.0, 0.0, 1.0]
    ]  # fmt: skip
    return _matrix(rows, angle)


def _recoloured(images: Tensor, matrix: Tensor) -> Tensor:
    count = 3 if images.shape[1] >= 3 else 1
    colours = images[:, :count]
    if count == 3:
        pixels = matrix[:, :3, :3] @ colours.flatten(2) + matrix[:, :3, 3:]
        changed = pixels.reshape(colours.shape)
    else:
        rows = matrix[:, :3].mean(dim=1)  # [N, 4]
        factor, offset = rows[:, :3].sum(dim=1), rows[:, 3]
        changed = colours * factor[:, None, None, None] + offset[:, None, None, None]
    if count == images.shape[1]:
        return changed
    return torch.cat([changed, images[:, count:]], dim=1)


# ---- the picture's frequencies


@cache
def _bands(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return four filters [4, 43], low to high, that sum to 1: Karras et al. 2020, appendix B."""
    low = np.array(SYM2)
    high = low * (-1.0) ** np.arange(len(low))
    low2, high2 = np.convolve(low, low[::-1]) / 2, np.convolve(high, high[::-1]) / 2
    bands = np.eye(4, 1)
    for band in range(1, 4):
        spread = np.zeros((4, 2 * bands.shape[1] - 1))
        spread[:, ::2] = bands
        bands = np.stack([np.convolve(row, low2) for row in spread])
        start = (bands.shape[1] - len(high2)) // 2
        bands[band, start : start + len(high2)] += high2
    return _kept(bands, dtype, device)


def _band_gains(multiplier: float, gate: _Gate, images: Tensor) -> Tensor:
    """Draw a filter [N, 43] for each picture, of about the power of none."""
    energy = _kept_energy(images.dtype, images.device)
    gains = images.new_ones(len(images), 4)
    for band in range(4):
        t = gate(multiplier, gate.draws.normal().exp2(), 1.0).to(images.dtype)
        vector = torch.ones_like(gains)
        vector[:, band] = t
        gains = gains * vector / (energy * vector.square()).sum(dim=1, keepdim=True).sqrt()
    return gains @ _bands(images.dtype, images.device)


@cache
def _kept_energy(dtype: torch.dtype, device: torch.device) -> Tensor:
    return _kept(np.array(BAND_ENERGY), dtype, device)


def _filtered(images: Tensor, taps: Tensor) -> Tensor:
    """Filter every picture with its own taps [N, 43] along x and y, mirrored at its edges."""
    height, width = images.shape[2:]
    rows, columns = _mixing(height, taps), _mixing(width, taps)
    return rows[:, None].mT @ (images @ columns[:, None])


def _mixing(size: int, taps: Tensor) -> Tensor:
    """Return [N, size, size] that a line of pixels is multiplied by to filter it."""
    places, weights = _mirrored_taps(size, taps.shape[1], taps.device)
    lines = taps.new_zeros(len(taps), size * size)
    return lines.index_add_(1, places, taps[:, weights]).reshape(-1, size, size)


@cache
def _mirrored_taps(size: int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return for each tap at each pixel where in [size · size] it goes, and which one it is."""
    half = count // 2
    source = _mirrored_places(half, size, half)
    tap, pixel = np.meshgrid(np.arange(count), np.arange(size), indexing="ij")
    places = source[pixel + tap] * size + pixel
    with torch.inference_mode(False):
        return (torch.tensor(places.ravel()).to(device), torch.tensor(tap.ravel()).to(device))


# ---- holes, and the paper's other augmentation


def _outside(images: Tensor, centre: Tensor, side: Tensor) -> Tensor:
    """Return a mask [N, 1, H, W]: 0 within a rectangle of ``side`` times the picture's, else 1.

    ``centre`` [N, 2, 1, 1] is x and y in shares of the picture, ``side`` [N, 1, 1, 1].
    """
    height, width = images.shape[2:]
    x = (torch.arange(width, device=images.device, dtype=images.dtype) + 0.5) / width
    y = (torch.arange(height, device=images.device, dtype=images.dtype) + 0.5) / height
    aside = (x - centre[:, :1]).abs() >= side / 2
    above = (y[:, None] - centre[:, 1:]).abs() >= side / 2
    return (aside | above).to(images.dtype)


def _tinted(images: Tensor, multiplier: float, gate: _Gate) -> Tensor:
    """Change brightness, saturation and contrast: Zhao et al. 2020, "color"."""
    count = 3 if images.shape[1] >= 3 else 1
    x, rest = images[:, :count], images[:, count:]
    dtype = images.dtype
    x = x + gate(multiplier, gate.draws.uniform(1, 1, 1) - 0.5, 0.0).to(dtype)
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * gate(multiplier, gate.draws.uniform(1, 1, 1) * 2, 1.0).to(dtype)
    grey = x.mean(dim=(1, 2, 3), keepdim=True)
    x = grey + (x - grey) * gate(multiplier, gate.draws.uniform(1, 1, 1) + 0.5, 1.0).to(dtype)
    return torch.cat([x, rest], dim=1) if rest.shape[1] else x


def _shifted(images: Tensor, multiplier: float, gate: _Gate) -> Tensor:
    """Move by up to an eighth of a side, with zeros behind: Zhao et al. 2020, "translation"."""
    for axis in (3, 2):
        size = images.shape[axis]
        reach = int(size / 8 + 0.5)
        drawn = (gate.draws.uniform() * (2 * reach + 1)).floor() - reach
        move = gate(multiplier, drawn, 0.0).long()
        places = torch.arange(size, device=images.device) - move[:, None]  # [N, size]
        shape = [len(images), 1, 1, 1]
        shape[axis] = size
        there = ((places >= 0) & (places < size)).reshape(shape).to(images.dtype)
        index = places.clamp(0, size - 1).reshape(shape).expand(images.shape)
        images = images.gather(axis, index) * there
    return images

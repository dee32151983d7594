"""Equivariance: how exactly the picture moves when the input of a network moves, in decibels.

EQ-T and EQ-R of "Alias-Free Generative Adversarial Networks" (Karras et al. 2021), section 2.2 and
appendix E: PSNR of pictures that the network moved beside the same pictures moved afterwards. They
are for families whose pictures move (``config.moves_pictures``).
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stylecli import __version__
from stylecli.errors import UsageError
from stylecli.metrics import NAMES_OF
from stylecli.metrics.collecting import Accumulator, Collector, Pass, Rows, digest_of
from stylecli.metrics.picture_sets import LabelSource
from stylecli.metrics.tasks import PUBLISHED_FAKES, Metric, MetricResult, Subject, is_published
from stylecli.networks.model import Generator, SynthesisNetwork
from stylecli.rendering import prepare_synthesis

GROUP = 4  # pictures that move alike, as in the official program
FARTHEST = 0.125  # of the picture's width, each way
_LOBES = 3  # of Lanczos windows, to either side
_REACH = 6  # px that a turned filter reaches to either side
_RATE = 4  # samples per pixel between which a turned picture is interpolated
_PERIOD = 128  # px after which a turned filter repeats while it is made
_LARGEST = 2.0  # difference of two values of a picture, -1 to 1

Moved = tuple[Tensor, Tensor]  # pictures [N, C, R, R], and where they are known, bool [R, R]


# ---- moving finished pictures


def shift_pixels(images: Tensor, right: int, down: int) -> Moved:
    """Shift images [N, C, H, W] by whole pixels."""
    return _shifted(images, (-right, [1.0]), (-down, [1.0]))


def shift(images: Tensor, right: float, down: float) -> Moved:
    """Shift images [N, C, H, W] by parts of pixels, interpolated by Lanczos windows of 3 lobes."""
    return _shifted(images, _lanczos_taps(right), _lanczos_taps(down))


def rotate(images: Tensor, angle: float) -> Moved:
    """Turn square images [N, C, R, R] about their middle, counter-clockwise in radians.

    Their frequencies are first limited to those that a picture can hold before and after it.
    """
    count, channels, side, _ = images.shape
    taps = _turned_low_pass(-angle, _RATE).to(images)  # [a, rate, a, rate]
    reach = taps.shape[0] // 2
    kernels = taps.permute(1, 3, 0, 2).flip(2, 3).reshape(_RATE**2, 1, 2 * reach, 2 * reach)
    planes = F.pad(images.reshape(-1, 1, side, side), (reach - 1, reach, reach - 1, reach))
    fine = F.pixel_shuffle(F.conv2d(planes, kernels), _RATE)
    fine = fine.view(count, channels, side * _RATE, side * _RATE)
    place = torch.arange(side, dtype=torch.float64) - (side - 1) / 2  # of pixels, from the middle
    cosine, sine = math.cos(angle), math.sin(angle)
    x = cosine * place - sine * place[:, None]  # [R, R]: where each pixel comes from
    y = sine * place + cosine * place[:, None]
    # A turned picture is known where the filter met nothing but picture.
    middle, inside = -0.5 / _RATE, side / 2 - _REACH
    known = ((x - middle).abs() < inside) & ((y - middle).abs() < inside)
    last = side * _RATE - 1
    grid = torch.stack([x, y], dim=2)  # [R, R, 2]
    grid = 2 * _RATE * (grid + (side - 1) / 2) / last - 1
    grid = grid.to(images).expand(count, -1, -1, -1)
    turned = F.grid_sample(fine, grid, mode="bilinear", align_corners=True)
    return turned, known.to(images.device)


def limit_as_turned(images: Tensor, angle: float) -> Moved:
    """Limit the frequencies of images [N, C, R, R] as ``rotate`` does, turning nothing."""
    side = images.shape[2]
    taps = _turned_low_pass(angle, 1)[1:, 0, 1:, 0].to(images)
    planes = images.reshape(-1, 1, side, side)
    limited = F.conv2d(planes, taps[None, None], padding=_REACH - 1).view_as(images)
    known = torch.zeros(side, side, dtype=torch.bool, device=images.device)
    known[_REACH - 1 : 1 - _REACH, _REACH - 1 : 1 - _REACH] = True
    return limited, known


def _shifted(
    images: Tensor, across: tuple[int, Sequence[float]], along: tuple[int, Sequence[float]]
) -> Moved:
    height, width = images.shape[2:]
    columns, known_columns = _shift_matrix(width, *across)
    rows, known_rows = _shift_matrix(height, *along)
    known = known_rows[:, None] & known_columns
    moved = rows.to(images) @ images @ columns.T.to(images)
    return moved, known.to(images.device)


def _shift_matrix(size: int, first: int, taps: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return what makes pixel i of pixels i + first, ... [size, size], and where all exist."""
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for place, tap in enumerate(taps, first):
        if abs(place) < size:
            matrix.diagonal(place).fill_(tap)
    start = torch.arange(first, first + size)
    return matrix, (start >= 0) & (start + len(taps) <= size)


def _lanczos_taps(distance: float) -> tuple[int, list[float]]:
    """Return the first pixel from which a shifted one is made, relative to it, and all weights."""
    before = math.floor(-distance)
    places = torch.arange(1 - _LOBES, _LOBES + 1, dtype=torch.float64) + before + distance
    taps = torch.sinc(places) * _lanczos(places)
    return before + 1 - _LOBES, (taps / taps.sum()).tolist()


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < _LOBES, torch.sinc(x / _LOBES), torch.zeros_like(x))


def _turned_low_pass(angle: float, rate: int) -> Tensor:
    """Return a filter that passes what fits into a square and into a turned one (E.3).

    Two ideal filters convolved with each other, times two windows convolved with each other; of
    each pair one is turned. ``rate`` samples per pixel; [12, rate, 12, rate], of which the first of
    all is 0, and each phase sums to 1.
    """
    size = _PERIOD * rate
    axis = torch.fft.fftfreq(size, dtype=torch.float64) * _PERIOD  # px; the middle stands first
    x, y = axis[None, :], axis[:, None]
    cosine, sine = math.cos(angle), math.sin(angle)
    turned_x, turned_y = cosine * x - sine * y, sine * x + cosine * y

    def both(of: Callable[[Tensor], Tensor]) -> Tensor:
        straight = torch.fft.rfft2(of(x) * of(y))
        turned = torch.fft.rfft2(of(turned_x) * of(turned_y))
        product: Tensor = torch.fft.irfft2(straight * turned, s=(size, size))
        return product

    half = _REACH * rate
    taps = (both(torch.sinc) * both(_lanczos)).roll((half, half), (0, 1))[: 2 * half, : 2 * half]
    taps[0] = taps[:, 0] = 0  # so that it is as long to both sides
    phases: Tensor = taps.reshape(2 * _REACH, rate, 2 * _REACH, rate)
    phases /= phases.sum(dim=(0, 2), keepdim=True)
    return phases


# ---- what is measured


@dataclass(frozen=True)
class Movement:
    """One way to move: drawn for each group, asked of G, and made of finished pictures."""

    # Of a size (height, width): right, down, angle.
    draw: Callable[[np.random.Generator, Sequence[int]], tuple[float, float, float]]
    make: Callable[[Tensor, float, float, float], Moved]  # in pixels and radians
    meaning: str
    # What the picture that G moved still goes through.
    prepare: Callable[[Tensor, float], Moved] | None = None


def _draw_shift(random: np.random.Generator, size: Sequence[int]) -> tuple[float, float, float]:
    right, down = random.uniform(-FARTHEST, FARTHEST, 2) * size[::-1]
    return float(right), float(down), 0.0


def _draw_pixels(random: np.random.Generator, size: Sequence[int]) -> tuple[float, float, float]:
    right, down, _ = _draw_shift(random, size)
    return float(round(right)), float(round(down)), 0.0


def _draw_angle(random: np.random.Generator, size: Sequence[int]) -> tuple[float, float, float]:
    return 0.0, 0.0, float(random.uniform(-math.pi, math.pi))


MOVEMENTS: dict[str, Movement] = {
    "eqt_int": Movement(
        _draw_pixels, lambda images, x, y, angle: shift_pixels(images, int(x), int(y)),
        "dB between shifts by whole pixels, by the network and of its picture",
    ),
    "eqt_frac": Movement(
        _draw_shift, lambda images, x, y, angle: shift(images, x, y),
        "dB between shifts by parts of pixels, by the network and of its picture",
    ),
    "eqr": Movement(
        _draw_angle, lambda images, x, y, angle: rotate(images, angle),
        "dB between rotations, by the network and of its picture", limit_as_turned,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class EquivarianceTask:
    """One of the three numbers."""

    kind: str
    samples: int
    skipped: str | None = None
    note: str | None = None

    @property
    def name(self) -> str:
        """The result's name: with 50k only on the published count."""
        if self.samples == PUBLISHED_FAKES:
            return next(name for name in NAMES_OF[self.kind] if is_published(name))
        return f"{self.kind}@{self.samples}"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the results."""
        return (self.name,)


class Equivariance(Metric):
    """EQ-T of whole pixels and of parts, or EQ-R."""

    higher_is_better = True
    cpu_samples, gpu_samples = 200, PUBLISHED_FAKES

    def __init__(self, kind: str) -> None:
        self.kind, self.names = kind, NAMES_OF[kind]

    def plan(self, name: str, asked: int | None, subject: Subject) -> list[EquivarianceTask]:
        """Return the task; raise UsageError for a network whose pictures cannot be moved."""
        config = subject.config
        assert config is not None
        if not config.moves_pictures:
            raise UsageError(
                f"{name} needs a network that can move its pictures, as StyleGAN3 does: "
                f"configuration {config.preset!r} of {config.family} cannot"
            )
        if self.kind not in ("eqt_int", "eqt_frac") and not config.size.is_square:
            raise UsageError(
                f"{name} turns pictures, which must be square: this network draws {config.size} px"
            )
        samples = asked or (self.gpu_samples if subject.gpu else self.cpu_samples)
        if not asked and is_published(name):
            samples = PUBLISHED_FAKES
        return [EquivarianceTask(self.kind, samples, subject.truncated)]


EQUIVARIANCES = tuple(Equivariance(kind) for kind in MOVEMENTS)


@dataclass(frozen=True)
class _Group:
    """Pictures that are moved alike."""

    ws: Tensor  # [4, num_ws, w_dim]
    images: Tensor  # [4, C, R, R], where they are
    random: np.random.Generator  # that of the first, after its latent and label


def measure_equivariance(
    tasks: Sequence[EquivarianceTask],
    G: Generator,
    labels: LabelSource | None,
    identity: str,
    common: Mapping[str, Any],
    how: Collector,
) -> Iterator[MetricResult]:
    """Yield the results; all share the pictures that are not moved.

    Picture i draws its latent from (seed, i); four in a row are moved alike, by what the first of
    them draws. ``identity`` tells the network from others, empty if unknown.
    """
    if not tasks:
        return
    G, seed = copy.deepcopy(G), int(common["seed"])  # a copy: it will be moved
    prepared = prepare_synthesis(G)
    if isinstance(prepared, SynthesisNetwork):
        G.synthesis = prepared
    shown = Pass(lambda numbers: [_draw_group(G, numbers.start, seed, labels)], GROUP, "moved")
    kept: dict[EquivarianceTask, Accumulator] = {}
    for task in tasks:
        name = digest_of(identity, task.kind, str(task.samples), __version__) if identity else None
        kept[task] = shown.keep(
            task.kind, _Comparing(G, MOVEMENTS[task.kind]), Rows(task.samples), name=name
        )
    how.run(shown)
    if not how.ranks.is_main:
        return
    definition = {**common, "farthest": FARTHEST, "moved_alike": GROUP}
    for task in tasks:
        errors, known = kept[task].compute().sum(axis=0)
        found = definition | {"fakes": task.samples}
        if not errors:  # at 16 px a few whole pixels may all be none
            yield MetricResult(task.name, None, definition=found,
                               skipped="nothing was moved: give more --samples")  # fmt: skip
            continue
        value = 20 * math.log10(_LARGEST) - 10 * math.log10(errors / known)
        yield MetricResult(task.name, value, definition=found, higher_is_better=True,
                           phrase=f"{MOVEMENTS[task.kind].meaning}, higher is better")  # fmt: skip


def _draw_group(G: Generator, first: int, seed: int, labels: LabelSource | None) -> _Group:
    randoms = [
        np.random.Generator(np.random.Philox(key=[seed, number]))
        for number in range(first, first + GROUP)
    ]
    device = next(G.parameters()).device
    z = np.stack([random.standard_normal(G.config.z_dim, np.float32) for random in randoms])
    with torch.inference_mode():
        c = torch.cat([labels(random, 1) for random in randoms]).to(device) if labels else None
        ws = G.mapping(torch.from_numpy(z).to(device), c)
        G.move_pictures()
        return _Group(ws, G.synthesis(ws), randoms[0])


@dataclass(frozen=True)
class _Comparing:
    """Group -> of each picture its squared error and the values it sums over, [4, 2]."""

    G: Generator
    movement: Movement

    def __call__(self, group: _Group) -> NDArray[np.float64]:
        size = group.images.shape[2:]
        random = copy.deepcopy(group.random)  # whichever others look at the group
        right, down, angle = self.movement.draw(random, size)
        with torch.inference_mode():
            self.G.move_pictures((right / size[1], down / size[0]), math.degrees(angle))
            found = self.G.synthesis(group.ws)
            wanted, known = self.movement.make(group.images, right, down, angle)
            if self.movement.prepare is not None:
                found, whole = self.movement.prepare(found, angle)
                known = known & whole
            errors = ((found - wanted).square() * known).sum(dim=(1, 2, 3))
        counted = float(known.sum()) * found.shape[1]
        rows = [[error, counted] for error in errors.cpu().double().tolist()]
        return np.array(rows, np.float64)

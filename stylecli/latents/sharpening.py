"""Sharpening: faces that, shrunk, equal a given small picture, as PULSE finds them.

Menon et al. 2020. A small picture fits many faces. Each candidate starts from random latents of its
own and goes downhill on a sphere until its shrunk picture is the given one; what keeps it a face is
that the latents of all layers stay near each other (the cross-over loss). The result is a plausible
face, not the person's.

The published program delivers nothing where no step comes within its bound. Here all candidates
are delivered, with their errors; and since searches from different starts often end alike, more are
made than are wanted, and of those that fit the most different are kept.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stylecli.data.alignment.portrait import shrink_factor
from stylecli.errors import UsageError
from stylecli.features.perceptual import choose_distance, open_distance
from stylecli.images import Pictures, from_uint8, to_uint8
from stylecli.latents import BOUND, CANDIDATES, SHARPENING_STEPS, STARTS
from stylecli.latents.projection import (
    adam_step,
    latent_ws,
    mapped_latents,
    seeded_normal,
)
from stylecli.latents.projector import State, run_to_end
from stylecli.networks.model import Bundle, Generator
from stylecli.progress import Progress, silent
from stylecli.rendering import Drawing, chunk_size, device_of, exact_kernels, render
from stylecli.sampling import one_hot
from stylecli.shapes import Size

PLAUSIBLE = "plausible, not the person"  # what every result says of itself
_LATENTS = 10_000  # whose w's mean and spread are taken
_SLOPE = 0.2  # of the leaky ReLU at the end of mappings
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow turns colours grey
_PIXELS, _NEARNESS = 100.0, 0.05  # weights of the two parts of the loss
_BETAS = (0.9, 0.999)  # of Adam
_SEARCHED_MAPS = 5  # of the noise maps, the coarsest; the last is 0, the others stay random
_NEARLY = 1.5  # times the error of the best
_COMPARED = 64  # px: the size at which candidates are told apart
_START = 1 << 42  # apart from what projection draws


@dataclass(frozen=True)
class Sharpening:
    """How candidates are looked for: the published values."""

    candidates: int = CANDIDATES
    starts: int = STARTS  # searches for each candidate; those that differ most are kept
    steps: int = SHARPENING_STEPS
    lr: float = 0.4
    bound: float = BOUND
    seed: int = 0  # of the first search; the next has the next
    label: int | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for numbers that make no search."""
        if not 1 <= self.candidates <= 100:
            raise UsageError(f"{self.candidates} candidates cannot be shown: expected 1 to 100")
        if not 1 <= self.starts <= 20:
            raise UsageError(f"{self.starts} starts for each candidate: expected 1 to 20")
        if not 1 <= self.steps <= 1_000_000:
            raise UsageError(f"{self.steps} steps make no search: expected 1 to 1,000,000")
        if not 0 < self.bound < 1:
            raise UsageError(f"bound {self.bound:g} is no mean squared difference: expected 0 to 1")


@dataclass(frozen=True)
class Candidate:
    """A face that fits."""

    ws: Tensor  # [num_ws, w_dim]; without a w [1, z_dim]
    noise: list[Tensor]  # [1, 1, h, w] of every layer; empty where the network has none
    picture: Pictures  # uint8 [H, W, C], as drawn from both
    shrunk: Pictures  # uint8 [h, w, C]
    error: float  # mean squared difference of ``shrunk`` and the small picture, colours 0 to 1


def cubic_kernel(factor: int) -> Tensor:
    """Return the weights [4 · factor] by which pixels are shrunk: the cubic of a = -0.5, sum 1."""
    places = torch.arange(4 * factor, dtype=torch.float64)
    x = ((places + 0.5) / factor - 2).abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return (weights / weights.sum()).float()


def shrink_cubic(images: Tensor, factor: int) -> Tensor:
    """Return images [N, C, H, W] shrunk ``factor`` times, [N, C, h, w]; edges are mirrored."""
    kernel = cubic_kernel(factor).to(images)
    channels, over = images.shape[1], 3 * factor
    before, after = over // 2, over - over // 2
    padded = F.pad(images, (0, 0, before, after), mode="reflect")
    weights = kernel.view(1, 1, -1, 1).expand(channels, -1, -1, -1)
    rows = F.conv2d(padded, weights, stride=(factor, 1), groups=channels)
    padded = F.pad(rows, (before, after, 0, 0), mode="reflect")
    weights = kernel.view(1, 1, 1, -1).expand(channels, -1, -1, -1)
    return F.conv2d(padded, weights, stride=(1, factor), groups=channels)


def pixel_errors(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared difference of each picture of [N, C, h, w], [N]."""
    return (a - b).square().mean(dim=(1, 2, 3))


def cross_over(latents: Tensor) -> Tensor:
    """Return how far the latents [N, k, d] of layers are from each other, [N].

    The mean over all pairs of the squared arc between them on the sphere of radius √d, by 8.
    """
    rows, others = latents[:, :, None], latents[:, None]
    apart = ((rows - others).square().sum(dim=-1) + 1e-9).sqrt()
    along = ((rows + others).square().sum(dim=-1) + 1e-9).sqrt()
    arcs = 2 * torch.atan2(apart, along)
    return arcs.square().mean(dim=(1, 2)) * latents.shape[-1] / 8


def lr_factor(step: int, steps: int) -> float:
    """Return the share of the learning rate in a step: up, down, and a tenth of it for the end."""
    t, turn = step / steps, 0.9
    if t < turn:
        return (9 * (1 - abs(2 * t / turn - 1)) + 1) / 10
    return 0.1 + (0.001 - 0.1) * (t - turn) / (1 - turn)


def to_sphere(points: Tensor, lengths: Tensor) -> Tensor:
    """Return points [N, k, ...] at their lengths again: each of N · k lies on its own sphere."""
    axes = tuple(range(2, points.ndim))
    norms = (points.square().sum(dim=axes, keepdim=True) + 1e-9).sqrt()
    return points / norms * lengths


class CandidateSearch:
    """A search for one small picture from several starts at once, each by itself.

    ``step`` does one step. ``state`` and ``restore`` carry a search over an interruption, to the
    bit.
    """

    def __init__(
        self, G: Generator, target: Tensor, how: Sharpening, styles: "Styles", seeds: Sequence[int],
        factor: int,
    ) -> None:  # fmt: skip
        """Take a small picture [1, 1 or C, h, w] in [0, 1]; a grey one is compared in grey."""
        self.G, self.how, self.styles, self.factor = G, how, styles, factor
        device = device_of(G)
        self._target = target.to(device)
        rows, width = G.config.num_ws if G.config.has_w else 1, styles.width
        starts = [seeded_normal(seed, _START, (rows, width)) for seed in seeds]
        maps = [_random_maps(G, seed) for seed in seeds]
        self.noise = [torch.cat(layer).to(device) for layer in zip(*maps, strict=True)]
        searched = min(_SEARCHED_MAPS, max(0, len(self.noise) - 1))
        if self.noise:
            self.noise[-1] = torch.zeros_like(self.noise[-1])
        self._variables = [torch.stack(starts).to(device), *self.noise[:searched]]
        self._lengths = [
            one.square().sum(dim=tuple(range(2, one.ndim)), keepdim=True).sqrt()
            for one in self._variables
        ]
        self._moments = [[torch.zeros_like(one) for one in self._variables] for _ in range(2)]
        self._best = [one.clone() for one in self._variables]
        self._record = torch.full((len(seeds), 2), math.inf, device=device)  # error, loss
        self.step_number = 0

    @property
    def is_over(self) -> bool:
        """Whether all steps are done."""
        return self.step_number >= self.how.steps

    @property
    def errors(self) -> Tensor:
        """The errors [N] of the best so far."""
        return self._record[:, 0]

    def found(self) -> tuple[Tensor, list[Tensor]]:
        """Return the best ws [N, num_ws, w_dim] so far, and their noise maps."""
        latent, *maps = self._best
        with torch.no_grad():
            ws = self.styles(latent)
        return ws, [*maps, *self.noise[len(maps) :]]

    def step(self) -> Tensor:
        """Do one step; return the errors [N] before it."""
        with exact_kernels(device_of(self.G)):
            return self._step()

    def _step(self) -> Tensor:
        how = self.how
        for one in self._variables:
            one.requires_grad_(True)
        latent, *maps = self._variables
        with torch.enable_grad():
            noise = [*maps, *self.noise[len(maps) :]]
            images = self.G.synthesis(self.styles(latent), noise=noise or None)
            colours = images / 2 + 0.5
            errors = self._errors(colours)
            loss = _PIXELS * errors.clamp(min=how.bound) + _NEARNESS * cross_over(latent)
        gradients = torch.autograd.grad(loss.sum(), self._variables)
        with torch.no_grad():
            shown = self._errors(colours.clamp(0, 1))  # files hold no brighter colours
            self._note_best(torch.stack([shown, loss.detach()], dim=1))
            lr = how.lr * lr_factor(self.step_number, how.steps)
            for one in self._variables:
                one.requires_grad_(False)
            adam_step(self._variables, gradients, self._moments, self.step_number + 1, lr, _BETAS)
            for one, lengths in zip(self._variables, self._lengths, strict=True):
                one.copy_(to_sphere(one, lengths))
        self.step_number += 1
        return errors.detach()

    def _errors(self, colours: Tensor) -> Tensor:
        shrunk = shrink_cubic(colours, self.factor)
        if self._target.shape[1] == 1 < shrunk.shape[1]:
            shrunk = _grey(shrunk)
        return pixel_errors(shrunk, self._target)

    def _note_best(self, now: Tensor) -> None:
        """Keep what fits better than ever before: within the bound first, then by the loss."""
        bound = self.how.bound
        within, was = now[:, 0] <= bound, self._record[:, 0] <= bound
        better = torch.where(within == was, now[:, 1] < self._record[:, 1], within)
        self._record = torch.where(better[:, None], now, self._record)
        for best, one in zip(self._best, self._variables, strict=True):
            best.copy_(torch.where(better.view(-1, *[1] * (one.ndim - 1)), one, best))

    def state(self) -> State:
        """Return all that the next step depends on, on the CPU."""
        tensors = {
            f"{name}.{place}": one.detach().cpu().clone()
            for name, group in self._groups().items()
            for place, one in enumerate(group)
        }
        return {**tensors, "record": self._record.cpu(), "step": torch.tensor(self.step_number)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what ``state`` returned."""
        with torch.no_grad():
            for name, group in self._groups().items():
                for place, one in enumerate(group):
                    one.copy_(state[f"{name}.{place}"])
        self._record = state["record"].to(self._record).clone()
        self.step_number = int(state["step"])

    def _groups(self) -> dict[str, list[Tensor]]:
        first, second = self._moments
        return {"variable": self._variables, "mean": first, "square": second, "best": self._best}


def _random_maps(G: Generator, seed: int) -> list[Tensor]:
    shapes = G.config.noise_shapes()
    return [seeded_normal(seed, 1 << 40 | place, shape) for place, shape in enumerate(shapes)]


def _grey(colours: Tensor) -> Tensor:
    """Return [N, 3, h, w] as grey [N, 1, h, w]."""
    weights = torch.tensor(_LUMA).to(colours).view(1, 3, 1, 1)
    return (colours[:, :3] * weights).sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Styles:
    """From points on spheres to styles: a point about N(0, I) has about the spread of w.

    The last activation of mappings, a leaky ReLU, is undone before mean and spread are taken, so
    that w has the shape that it leaves. Without a w the points are z.
    """

    G: Generator
    mean: Tensor | None  # [w_dim]; None without a w
    spread: Tensor | None
    label: int | None = None

    @property
    def width(self) -> int:
        """Return how many numbers a point has."""
        return self.G.config.z_dim if self.mean is None else len(self.mean)

    def __call__(self, points: Tensor) -> Tensor:
        """Return ws [N, num_ws, w_dim] of points [N, num_ws, w_dim]; z [N, 1, z_dim] without w."""
        if self.mean is None or self.spread is None:
            return latent_ws(self.G, points, self.label)
        return F.leaky_relu(points * self.spread + self.mean, _SLOPE)


def fit_spread(w: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation [w_dim] of w [N, w_dim] before its last activation."""
    before = F.leaky_relu(w, 1 / _SLOPE)
    return before.mean(dim=0), before.std(dim=0)


def measure_styles(G: Generator, label: int | None = None) -> Styles:
    """Return how points become this network's styles, of a class or over the classes in turn."""
    if not G.config.has_w:
        return Styles(G, None, None, label)
    return Styles(G, *fit_spread(mapped_latents(G, _LATENTS, label)[:, 0]), label)


class Sharpener:
    """A network, and how small pictures are sharpened with it."""

    def __init__(self, net: Bundle, how: Sharpening, *, batch: int | None = None) -> None:
        """Check that the network can follow. Raises UsageError."""
        self.net, self.how = net, how
        if how.label is not None:
            one_hot([how.label], net.config.label_dim)  # raises for a class that is not there
        self.batch = batch or chunk_size(net.generator)
        self._styles: Styles | None = None
        self.distance = open_distance(
            choose_distance(None, min(net.config.size)), device_of(net.generator)
        )

    def sharpen(
        self,
        small: Pictures,
        *,
        state: Mapping[str, Tensor] | None = None,
        save: Callable[[State], None] = lambda state: None,
        progress: Progress = silent,
    ) -> list[Candidate]:
        """Find candidates for a picture uint8 [h, w, 1 or C]; the network draws whole multiples.

        ``save`` gets the state from time to time, and when Ctrl-C comes, which is raised then;
        given back as ``state``, the same search continues as if it had not been interrupted. Raises
        UsageError for a picture that does not fit.
        """
        G, how, channels = self.net.generator, self.how, self.net.config.channels
        if small.dtype != np.uint8 or small.ndim != 3 or small.shape[2] not in (1, channels):
            raise UsageError(
                f"a small picture is {small.dtype} {list(small.shape)}: expected uint8 "
                f"[h, w, {channels}], or [h, w, 1] for a grey one"
            )
        factor = shrink_factor(Size(*small.shape[:2]), self.net.config.size)
        if self._styles is None:
            self._styles = measure_styles(G, how.label)
        target = from_uint8(np.array(small)[None]) / 2 + 0.5
        kept: State = dict(state or {})
        count = how.candidates * how.starts
        groups = [range(i, min(i + self.batch, count)) for i in range(0, count, self.batch)]
        frozen = [parameter.requires_grad for parameter in G.parameters()]
        G.requires_grad_(False)
        try:
            for number, group in enumerate(groups):
                if f"ws.{number}" in kept:
                    continue
                seeds = [how.seed + place for place in group]
                search = CandidateSearch(G, target, how, self._styles, seeds, factor)
                self._go(search, kept, number, len(groups), save, progress)
        finally:
            for parameter, before in zip(G.parameters(), frozen, strict=True):
                parameter.requires_grad_(before)
        return self._choose(self._candidates(small, kept, len(groups)))

    def _go(
        self, search: CandidateSearch, kept: State, number: int, groups: int,
        save: Callable[[State], None], progress: Progress,
    ) -> None:  # fmt: skip
        """Search to the end; put what was found into ``kept``."""
        inner = {name.removeprefix("inner."): kept.pop(name)
                 for name in list(kept) if name.startswith("inner.")}  # fmt: skip
        if inner:
            search.restore(inner)

        def tell(errors: Tensor) -> None:
            done = number * self.how.steps + search.step_number
            levels = 255 * math.sqrt(float(search.errors.mean()))
            progress(done, groups * self.how.steps, f"off by {levels:.1f} levels")

        def keep() -> None:
            save(kept | {f"inner.{name}": value for name, value in search.state().items()})

        run_to_end(search, tell=tell, save=keep)
        ws, noise = search.found()
        kept[f"ws.{number}"] = ws.cpu()
        kept |= {f"noise.{number}.{layer}": maps.cpu() for layer, maps in enumerate(noise)}

    def _candidates(
        self, small: Pictures, kept: Mapping[str, Tensor], groups: int
    ) -> list[Candidate]:
        """Draw what was found, shrink it again, and measure."""
        G = self.net.generator
        layers = sum(name.startswith("noise.0.") for name in kept)
        ws = torch.cat([kept[f"ws.{number}"] for number in range(groups)])
        noise = [
            torch.cat([kept[f"noise.{number}.{layer}"] for number in range(groups)])
            for layer in range(layers)
        ]
        maps = [[plane[place : place + 1] for plane in noise] for place in range(len(ws))]
        drawn = render(G, ws, Drawing(), noise=iter(maps) if noise else None)
        return [
            Candidate(ws[place], maps[place], picture, *shrink_again(picture, small))
            for place, picture in enumerate(drawn)
        ]

    def _choose(self, found: Sequence[Candidate]) -> list[Candidate]:
        """Return as many as are wanted, the nearest first: of those that fit, the most different.

        Those fit that are within the bound, or nearly as near as the best; where it is beyond the
        bound itself, it is one of them in any case.
        """
        with torch.no_grad():
            images = torch.cat([from_uint8(one.picture[None]) for one in found])
            parts = torch.split(images.to(device_of(self.net.generator)), self.batch)
            seen = torch.cat([self.distance.features(part, side=_COMPARED) for part in parts])
            far = torch.stack([(seen - one).square().sum(dim=1) for one in seen]).cpu().numpy()
        order = sorted(range(len(found)), key=lambda place: found[place].error)
        best = found[order[0]].error
        enough = max(self.how.bound, _NEARLY * best)
        fitting = [place for place in order if found[place].error <= enough]
        fitting = order[: max(len(fitting), self.how.candidates)]
        held = int(best > self.how.bound)
        places = most_different(far[np.ix_(fitting, fitting)], self.how.candidates, held)
        return [found[fitting[place]] for place in sorted(places)]


def most_different(far: NDArray[np.float32], count: int, held: int = 0) -> list[int]:
    """Return ``count`` places whose least distance to each other is large, of distances [N, N].

    From place 0, always that which differs most from those taken; then one is exchanged for
    another as long as the least distance grows. The first ``held`` places stay.
    """
    chosen = [0]
    while len(chosen) < count:
        near = far[:, chosen].min(axis=1)
        near[chosen] = -1.0
        chosen.append(int(near.argmax()))
    least = _least(far, chosen)
    grows = count > 1
    while grows:
        grows = False
        for place in range(held, count):
            others = chosen[:place] + chosen[place + 1 :]
            near = np.minimum(far[:, others].min(axis=1), _least(far, others))
            near[others] = -1.0
            if near.max() > least:
                chosen[place], least, grows = int(near.argmax()), near.max(), True
    return chosen


def _least(far: NDArray[np.float32], places: Sequence[int]) -> float:
    """Return the least distance between any two places; infinite for one."""
    some = far[np.ix_(places, places)] + np.diag([math.inf] * len(places))
    return float(some.min())


def shrink_again(picture: Pictures, small: Pictures) -> tuple[Pictures, float]:
    """Return a picture shrunk to a small one's size, uint8 [h, w, C], and how far it is from it."""
    factor = picture.shape[0] // small.shape[0]
    shrunk = shrink_cubic(from_uint8(picture[None]), factor)
    colours, target = shrunk / 2 + 0.5, from_uint8(np.array(small)[None]) / 2 + 0.5
    if small.shape[2] == 1 < picture.shape[2]:
        colours = _grey(colours)
    return to_uint8(shrunk)[0], float(pixel_errors(colours, target))

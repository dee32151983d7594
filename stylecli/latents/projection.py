"""Projection: search for the latents, and the noise, that draw a given picture.

The official schedule is that of StyleGAN2 (Karras et al. 2020, Appendix D): Adam on w and on all
noise maps, noise on w that fades, and a penalty that keeps picture content out of the noise maps.
Its program then leaves the noise maps out of what it draws; here they belong to the result.

A search is a function of its picture, its settings and its seed: every draw comes from the seed and
the number of the step, so that one which was interrupted continues as if it had not been.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from stylecli.errors import UsageError, unknown_name
from stylecli.features.perceptual import MAX_SIDE, Distance, shrink
from stylecli.images import over_white
from stylecli.latents import SEARCH_SPACES, SearchSpace
from stylecli.networks.config import NetworkConfig
from stylecli.networks.model import Generator
from stylecli.rendering import chunk_size, device_of, exact_kernels
from stylecli.sampling import one_hot, seed_labels

LATENTS_SEED = 123  # of the latents whose w's mean and spread are taken, as in the official program
_MAPPED_AT_ONCE = 1000
_LEAST_SIDE = 8  # px: noise maps are halved down to it
_LEAST_COMPARED = 32  # px: the shorter side of pictures that are compared smaller than usual
_EPSILON = 1e-8  # of Adam
_WORTH_WAITING = 0.002  # share of the distance that counts as progress


@dataclass(frozen=True)
class Plan:
    """How a search goes. The defaults are the official schedule in W."""

    space: SearchSpace = "w"
    steps: int = 1000
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)  # of Adam
    warm_up: float = 0.05  # share of the steps in which lr rises from 0
    cool_down: float = 0.25  # share of the steps in which lr falls to 0, on a cosine
    start: Literal["mean", "nearest"] = "mean"
    candidates: int = 0  # random latents among which the nearest are looked for
    starts: int = 1  # searches of each picture, of which the best is kept
    smaller: int = 1  # times smaller than usual pictures are compared, but no smaller than 32 px
    latents: int = 10_000  # whose w's mean and spread are taken
    shake: float = 0.05  # noise added to w at the beginning, in units of the spread
    shake_until: float = 0.75  # share of the steps after which there is none
    noise_weight: float = 1e5  # of the penalty that keeps noise maps noise
    optimise_noise: bool = True  # else the network's own maps stay
    keep_best: bool = False  # the nearest step is the result, not the last
    patience: int = 0  # stop where so many steps brought nothing, in the second half; 0: never

    def __post_init__(self) -> None:
        """Raise UsageError for a space or numbers that make no search."""
        if self.space not in SEARCH_SPACES:
            raise UsageError(unknown_name("space", self.space, SEARCH_SPACES))
        if not 1 <= self.steps <= 1_000_000:
            raise UsageError(f"{self.steps} steps make no search: expected 1 to 1,000,000")

    def compared_side(self, size: Sequence[int]) -> int:
        """Return the longer side, in px, at which pictures of a size (H, W) are compared."""
        usual = min(max(size), MAX_SIDE)
        smaller = usual // self.smaller
        return smaller if min(size) * smaller // max(size) >= _LEAST_COMPARED else usual

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step: lr · ramp; 0 at the first where it warms up."""
        t = step / self.steps
        fall = min(1.0, (1.0 - t) / self.cool_down) if self.cool_down else 1.0
        rise = min(1.0, t / self.warm_up) if self.warm_up else 1.0
        return self.lr * (0.5 - 0.5 * math.cos(math.pi * fall)) * rise

    def shake_at(self, step: int) -> float:
        """Return the noise on w in a step, in units of the spread."""
        if not self.shake:
            return 0.0
        return self.shake * max(0.0, 1.0 - step / self.steps / self.shake_until) ** 2


OFFICIAL: dict[SearchSpace, Plan] = {
    "w": Plan(),
    # Of pivotal tuning (Roich et al. 2021): fewer steps, smaller ones.
    "w+": Plan(space="w+", steps=450, lr=0.01, latents=600),
    # Nothing is published for latents on a sphere; its mean is no point of it.
    "z": Plan(space="z", start="nearest", candidates=200),
}
# Ours. From the nearest of 200 faces there is less way to go, so fewer steps do; which of the few
# nearest leads furthest shows after some steps, and in smaller pictures.
_TRIAL = Plan(
    steps=50, lr=0.1, cool_down=0.6, start="nearest", candidates=200, starts=4, smaller=2,
    shake=0.0, keep_best=True,
)  # fmt: skip
_REST = Plan(steps=220, lr=0.1, cool_down=0.8, shake=0.0, keep_best=True, patience=15)
_REST_IN_W = replace(_REST, steps=400, lr=0.4, patience=80)  # smaller steps end too soon
FAST: dict[SearchSpace, tuple[Plan, ...]] = {
    "w": (_TRIAL, _REST_IN_W),
    "w+": (_TRIAL, _REST_IN_W, replace(_REST, space="w+")),
    "z": (replace(_TRIAL, space="z"), replace(_REST, space="z")),
}


@dataclass(frozen=True)
class Middle:
    """The centre of a network's latents, and their spread."""

    mean: Tensor  # [1, 1, w_dim]
    spread: float  # root mean square distance from the mean: a length, not per dimension


def measure_middle(G: Generator, count: int, label: int | None = None) -> Middle:
    """Return mean and spread of w over ``count`` latents, without truncation.

    Of a class, or over the classes in turn. Without a w: 0, and the length of z.
    """
    if not G.config.has_w:
        width = G.config.z_dim
        return Middle(torch.zeros(1, 1, width, device=device_of(G)), width**0.5)
    ws = mapped_latents(G, count, label)[:, 0]
    mean = ws.mean(dim=0, keepdim=True)
    spread = float(((ws - mean).square().sum() / count).sqrt())
    return Middle(mean[:, None], spread)


def mapped_latents(G: Generator, count: int, label: int | None = None) -> Tensor:
    """Return w [count, 1, w_dim] of seeded latents, of a class or of the classes in turn."""
    z = np.random.RandomState(LATENTS_SEED).randn(count, G.config.z_dim).astype(np.float32)
    return _mapped(G, torch.from_numpy(z), seed_labels(G.config, range(count), label))


def _mapped(G: Generator, z: Tensor, labels: Sequence[int] | None) -> Tensor:
    """Return the first of ws of every latent [N, 1, w_dim], on the network's device."""
    device = device_of(G)
    c = None if labels is None else one_hot(labels, G.config.label_dim)
    parts = []
    with torch.no_grad(), exact_kernels(device):
        for start in range(0, len(z), _MAPPED_AT_ONCE):
            part = slice(start, start + _MAPPED_AT_ONCE)
            given = None if c is None else c[part].to(device)
            parts.append(G.mapping(z[part].to(device), given)[:, :1])
    return torch.cat(parts)


@dataclass(frozen=True)
class Candidates:
    """Random latents and small pictures of them: where searches may start."""

    latents: Tensor  # [K, 1, d]
    images: Tensor  # [K, 3, h, w]

    def nearest(
        self, target: Tensor, distance: Distance, mask: Tensor | None = None, count: int = 1
    ) -> Tensor:
        """Return the latents [count, 1, d] whose pictures are nearest to a target [1, C, H, W]."""
        side, far = max(self.images.shape[2:]), []
        small = shrink(over_white(target), side)
        seen = None if mask is None else shrink(mask, side)
        with torch.no_grad():
            wanted = distance.features(small, seen)
            for images in torch.split(self.images, _COMPARED_AT_ONCE):
                weights = None if seen is None else seen.expand(len(images), -1, -1, -1)
                found = distance.features(images, weights)
                far.append((found - wanted).square().sum(dim=1))
            order = torch.cat(far).topk(min(count, len(self.images)), largest=False).indices
            chosen = self.latents[order]
            return chosen.repeat(-(-count // len(chosen)), 1, 1)[:count]


_COMPARED_AT_ONCE = 8
_CANDIDATE_SIDE = 32  # px: the shorter side at which candidates are compared


def draw_candidates(G: Generator, count: int, label: int | None = None) -> Candidates:
    """Draw faces of ``count`` latents, of a class or of the classes in turn."""
    z = np.random.RandomState(LATENTS_SEED).randn(count, G.config.z_dim).astype(np.float32)
    labels = seed_labels(G.config, range(count), label)
    device = device_of(G)
    z_all = torch.from_numpy(z).to(device)
    latents = _mapped(G, z_all, labels) if G.config.has_w else z_all[:, None]
    images, size = [], chunk_size(G)
    side = _CANDIDATE_SIDE * max(G.config.size) // min(G.config.size)
    with torch.no_grad(), exact_kernels(device):
        for start in range(0, count, size):
            ws = latent_ws(G, latents[start : start + size], label)
            images.append(shrink(over_white(G.synthesis(ws)), side))
    return Candidates(latents, torch.cat(images))


class Draws(Protocol):
    """Where the random numbers of a search come from."""

    def maps(self, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Return the noise maps [1, 1, h, w] at the start, ~ N(0, 1)."""
        ...

    def shake(self, step: int, shape: tuple[int, int]) -> Tensor:
        """Return what is added to w [k, w_dim] in a step, ~ N(0, 1)."""
        ...


@dataclass(frozen=True)
class SeededDraws:
    """Draws of (seed, step): no state has to be kept. The same for every picture."""

    seed: int = 0

    def maps(self, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Return the noise maps at the start."""
        return [seeded_normal(self.seed, 1 << 40 | place, shape)
                for place, shape in enumerate(shapes)]  # fmt: skip

    def shake(self, step: int, shape: tuple[int, int]) -> Tensor:
        """Return what is added to w in a step."""
        return seeded_normal(self.seed, step, shape)


def seeded_normal(seed: int, number: int, shape: Sequence[int]) -> Tensor:
    """Return numbers ~ N(0, 1) that depend on seed and number alone."""
    random = np.random.Generator(np.random.Philox(key=[seed, number]))
    return torch.from_numpy(random.standard_normal(tuple(shape), np.float32))


@dataclass
class Found:
    """Where a search stands: the latents and noise maps of N pictures."""

    latent: Tensor  # [N, k, d]: k is 1 in w and z, num_ws in w+
    noise: list[Tensor]  # [N, 1, h, w] of every layer; empty where the network's own stay
    step: int = 0


class Search:
    """A search for N pictures at once.

    Pictures do not influence each other, but all stop together: where none has come nearer for
    ``patience`` steps. ``step`` does one step. ``state`` and ``restore`` carry a search over an
    interruption, to the bit.
    """

    def __init__(
        self,
        G: Generator,
        targets: Tensor,
        plan: Plan,
        distance: Distance,
        middle: Middle,
        *,
        start: Found | None = None,
        masks: Tensor | None = None,
        label: int | None = None,
        draws: Draws = SeededDraws(),
    ) -> None:
        """Take pictures [N, C, H, W] in [-1, 1], and where to start (None: from the mean).

        ``masks`` [N, 1, H, W] in [0, 1] say what of them counts. Raises UsageError for a space
        that the network lacks.
        """
        check_space(G.config, plan.space)
        self.G, self.plan, self.distance, self.middle = G, plan, distance, middle
        self.draws, self.masks, self.label = draws, masks, label
        device = device_of(G)
        self._targets = targets.to(device)
        self._side = plan.compared_side(targets.shape[2:])
        with torch.no_grad():
            self._wanted = distance.features(self._targets, masks, self._side)
        latent = middle.mean if start is None else start.latent
        rows = G.config.num_ws if plan.space == "w+" else 1
        latent = latent.expand(len(targets), rows, -1)
        shapes = G.config.noise_shapes() if plan.optimise_noise else []
        noise = draws.maps(shapes) if start is None or not start.noise else start.noise
        self._variables = [latent.to(device).clone()] + [
            plane.to(device).expand(len(targets), -1, -1, -1).clone() for plane in noise if shapes
        ]
        self._moments = [[torch.zeros_like(one) for one in self._variables] for _ in range(2)]
        self._best = [one.clone() for one in self._variables] if plan.keep_best else []
        self._record = torch.full((len(targets),), math.inf, device=device)
        self._mark = self._record.clone()  # how near each was when it last came nearer
        self._progress_at = 0  # the step at which any picture last came nearer
        self._length = latent.norm(dim=-1, keepdim=True).to(device)
        self.step_number = 0

    @property
    def found(self) -> Found:
        """Where the search stands; once it is over, its result."""
        chosen = self._best if self.is_over and self._best else self._variables
        latent, *noise = (one.detach().clone() for one in chosen)
        return Found(latent, noise, self.step_number)

    @property
    def record(self) -> Tensor:
        """How near each picture came [N]."""
        return self._record

    @property
    def latent(self) -> Tensor:
        """The latents [N, k, d] now."""
        return self._variables[0].detach().clone()

    @property
    def is_over(self) -> bool:
        """Whether all steps are done, or the last of them brought nothing."""
        plan = self.plan
        if not plan.patience or 2 * self.step_number < plan.steps:
            return self.step_number >= plan.steps
        waited = self.step_number - self._progress_at
        return self.step_number >= plan.steps or waited >= plan.patience

    def step(self) -> Tensor:
        """Do one step; return each picture's distance and penalty before it, [N, 2]."""
        with exact_kernels(device_of(self.G)):
            return self._step()

    def _step(self) -> Tensor:
        plan, step = self.plan, self.step_number
        for one in self._variables:
            one.requires_grad_(True)
        latent, *noise = self._variables
        with torch.enable_grad():
            ws = latent_ws(self.G, self._shaken(latent), self.label)
            images = self.G.synthesis(ws, noise=noise or None)
            seen = self.distance.features(images, self.masks, self._side)
            far = (seen - self._wanted).square().sum(dim=1)
            penalty = noise_penalty(noise, len(far)).to(far)
            loss = (far + plan.noise_weight * penalty).sum()
        gradients = torch.autograd.grad(loss, self._variables)
        with torch.no_grad():
            if not plan.shake_at(step):  # else another latent was looked at
                self._note_best(far.detach())
            self._update(gradients, plan.lr_at(step))
        self.step_number += 1
        return torch.stack([far.detach(), penalty.detach()], dim=1)

    def _note_best(self, far: Tensor) -> None:
        """Keep what is nearer than ever before, of every picture."""
        nearer = far < self._record
        self._record = torch.where(nearer, far, self._record)
        came = self._record < self._mark * (1.0 - _WORTH_WAITING)  # since it last came nearer
        if bool(came.any()):
            self._mark = torch.where(came, self._record, self._mark)
            self._progress_at = self.step_number
        for best, one in zip(self._best, self._variables, strict=False):
            best.copy_(torch.where(nearer.view(-1, *[1] * (one.ndim - 1)), one, best))

    def _shaken(self, latent: Tensor) -> Tensor:
        strength = self.plan.shake_at(self.step_number)
        if not strength:
            return latent
        shape = (latent.shape[1], latent.shape[2])
        normal = self.draws.shake(self.step_number, shape).to(latent)
        return latent + normal * (strength * self.middle.spread)

    def _update(self, gradients: Sequence[Tensor], lr: float) -> None:
        """Do Adam's update, put z back on its sphere, and noise maps to mean 0 and rms 1."""
        count = self.step_number + 1
        adam_step(self._variables, gradients, self._moments, count, lr, self.plan.betas)
        latent, *noise = self._variables
        if self.plan.space == "z":
            latent.mul_(self._length / latent.norm(dim=-1, keepdim=True))
        for plane in noise:
            plane.sub_(plane.mean(dim=(2, 3), keepdim=True))
            plane.mul_(plane.square().mean(dim=(2, 3), keepdim=True).rsqrt())

    def state(self) -> dict[str, Tensor]:
        """Return all that the next step depends on, on the CPU."""
        tensors = {
            f"{name}.{place}": one.detach().cpu().clone()
            for name, group in self._groups().items()
            for place, one in enumerate(group)
        }
        numbers = torch.tensor([self.step_number, self._progress_at])
        reached = torch.stack([self._record, self._mark]).cpu()
        length = self._length.cpu().clone()
        return {**tensors, "numbers": numbers, "reached": reached, "length": length}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what ``state`` returned."""
        with torch.no_grad():
            for name, group in self._groups().items():
                for place, one in enumerate(group):
                    one.copy_(state[f"{name}.{place}"])
        self.step_number, self._progress_at = state["numbers"].tolist()
        self._record, self._mark = state["reached"].to(self._record).clone()
        self._length = state["length"].to(self._length)  # of the start, which is not found again

    def _groups(self) -> dict[str, list[Tensor]]:
        first, second = self._moments
        return {"variable": self._variables, "mean": first, "square": second, "best": self._best}


def adam_step(
    variables: Sequence[Tensor], gradients: Sequence[Tensor], moments: Sequence[Sequence[Tensor]],
    count: int, lr: float, betas: tuple[float, float],
) -> None:  # fmt: skip
    """Do Adam's update number ``count``, from 1 on, in place; variables keep no gradient."""
    first, second = betas
    for one, gradient, mean, square in zip(variables, gradients, *moments, strict=True):
        one.requires_grad_(False)
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        scale = (square.sqrt() / math.sqrt(1 - second**count)).add_(_EPSILON)
        one.addcdiv_(mean, scale, value=-lr / (1 - first**count))


def check_space(config: NetworkConfig, space: str | None = None) -> SearchSpace:
    """Return the space to search, by default w, or z where there is no w.

    Raises UsageError for one that the network does not have.
    """
    if space is None:
        return "w" if config.has_w else "z"
    if space not in SEARCH_SPACES:
        raise UsageError(unknown_name("space", space, SEARCH_SPACES))
    if space == "z" and config.has_w:
        raise UsageError("space z is for networks without a w: use --space w or w+")
    if space != "z" and not config.has_w:
        raise UsageError(
            f"--space {space} needs an intermediate latent space, and configuration "
            f"{config.preset!r} has none: leave it out"
        )
    return space


def latent_ws(G: Generator, latent: Tensor, label: int | None = None) -> Tensor:
    """Return ws [N, num_ws, w_dim] of latents [N, k, d], differentiable.

    A w is repeated for all layers; a z is mapped, of a class where one is given, else of the first.
    """
    if G.config.has_w:
        return latent.expand(-1, G.config.num_ws, -1)
    c = None
    if G.config.label_dim:
        c = one_hot([label or 0] * len(latent), G.config.label_dim).to(latent)
    ws: Tensor = G.mapping(latent[:, 0], c)
    return ws


def noise_penalty(noise: Sequence[Tensor], count: int) -> Tensor:
    """Return how much each picture's noise maps hold besides noise, [N].

    The squared means of products with the neighbours across and down, of every map and all its
    halvings to 8 px; edges meet their opposites (StyleGAN2, Appendix D).
    """
    total = torch.zeros(count)
    for plane in noise:
        total = total.to(plane)
        while True:
            for axis in (3, 2):
                total = total + (plane * plane.roll(1, axis)).mean(dim=(1, 2, 3)).square()
            if plane.shape[2] <= _LEAST_SIDE:
                break
            plane = torch.nn.functional.avg_pool2d(plane, 2)
    return total

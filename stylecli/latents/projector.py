"""From pictures to projections: the searches one after the other, and what came of them.

In W+ a search continues from that in W, and tuning from either: each starts where the one before
ended, so that each is nearer. (The official schedule in W+ starts from the mean.)
"""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from stylecli.errors import UsageError, unknown_name
from stylecli.features.perceptual import Distance, choose_distance, open_distance
from stylecli.images import Pictures, from_uint8
from stylecli.latents import SEARCH_PRESETS, SearchSpace
from stylecli.latents.projection import (
    FAST,
    OFFICIAL,
    Candidates,
    Draws,
    Found,
    Middle,
    Plan,
    Search,
    SeededDraws,
    check_space,
    draw_candidates,
    latent_ws,
    measure_middle,
)
from stylecli.latents.tuning import Tuner, Tuning
from stylecli.lazy import holding_back_interrupts
from stylecli.networks.model import Bundle, Generator
from stylecli.progress import Progress, silent
from stylecli.rendering import Drawing, device_of, render

SAVED_EVERY_SECONDS = 30.0
SHOWN_EVERY_SECONDS = 1.0  # to whoever watches
_FAST_ENOUGH = 0.01  # LPIPS at which tuning stops
FRAMES = 120  # moments of a search that are kept for its video
State = dict[str, Tensor]


@dataclass(frozen=True)
class Projecting:
    """How pictures are projected."""

    space: str | None = None  # w, w+ or z; None: w, or z where there is no w
    tune: bool = False  # then tune the network to the picture
    preset: str = "fast"
    steps: int | None = None  # of each search; None: the preset's
    tune_steps: int | None = None  # at most; None: the preset's
    seed: int = 0
    label: int | None = None
    noise: bool = True  # search for noise maps too; else the network's own stay
    distance: str | None = None  # lpips or pyramid; None: LPIPS where its weights are here
    keep_path: bool = False  # keep moments of the search, for a video

    def __post_init__(self) -> None:
        """Raise UsageError for an unknown preset, or numbers of steps that are none."""
        if self.preset not in SEARCH_PRESETS:
            raise UsageError(unknown_name("preset", self.preset, SEARCH_PRESETS))

    def plans(self, space: SearchSpace) -> list[Plan]:
        """Return the searches, in order."""
        if self.preset == "official":
            plans = [OFFICIAL[space]]
            if self.tune and space == "w":
                plans = [replace(OFFICIAL["w"], steps=PIVOT_STEPS)]
        else:
            plans = list(FAST[space])
        if self.steps is not None:
            last = replace(plans[-1], steps=self.steps)
            plans = [replace(plan, steps=min(plan.steps, self.steps)) for plan in plans[:-1]]
            plans.append(last)
        return [replace(plan, optimise_noise=self.noise) for plan in plans]

    @property
    def tuning(self) -> Tuning:
        """How the network is tuned; as published it stops where W+ is often nearer."""
        enough = Tuning.enough if self.preset == "official" else _FAST_ENOUGH
        return Tuning(steps=self.tune_steps or Tuning.steps, enough=enough)


PIVOT_STEPS = 450  # of the search for the pivot, as published


@dataclass
class Projection:
    """What came of one picture."""

    ws: Tensor  # [num_ws, w_dim]; without a w [1, z_dim]
    noise: list[Tensor]  # [1, 1, h, w] of every layer; empty: the network's own
    picture: Pictures  # uint8 [H, W, C], as drawn from ws and noise
    distance: float  # to the target, by the distance's name
    distance_name: str
    psnr: float  # dB; infinite where they are equal
    from_mean: float | None  # distance of w from the mean, in units of the spread; None without w
    steps: int  # of all searches and of tuning
    network: Bundle | None = None  # the tuned network
    path: Tensor | None = None  # [F, num_ws, w_dim]: moments of the search


class Projector:
    """A network, and how pictures are projected into it."""

    def __init__(
        self, net: Bundle, how: Projecting, *, draws: Draws | None = None, batch: int | None = None,
        watch: Callable[[Pictures], None] | None = None,
    ) -> None:  # fmt: skip
        """Check that the network can follow. Raises UsageError, or WeightsError for LPIPS.

        ``watch`` is shown the first picture [H, W, C] of a search about every second.
        """
        config = net.config
        self.net, self.how, self.watch = net, how, watch
        self.space = check_space(config, how.space)
        if how.label is not None and not 0 <= how.label < config.label_dim:
            classes = f"classes 0 to {config.label_dim - 1}" if config.label_dim else "no classes"
            raise UsageError(f"label {how.label} does not exist: this network has {classes}")
        self.plans = how.plans(self.space)
        self.draws = draws or SeededDraws(how.seed)
        side = min(config.size)
        self.distance: Distance = open_distance(
            choose_distance(how.distance, side), device_of(net.generator)
        )
        if side < self.distance.min_side:
            raise UsageError(
                f"{self.distance.name} needs pictures of at least {self.distance.min_side} px and "
                f"this network draws {side} px: use --distance pyramid"
            )
        usual = 1 if device_of(net.generator).type == "cpu" else 8
        self.batch = 1 if how.tune else batch or usual
        self._middle: dict[int, Middle] = {}
        self._candidates: Candidates | None = None

    @property
    def steps(self) -> int:
        """The most steps that a picture takes."""
        tuned = self.how.tuning.steps if self.how.tune else 0
        return sum(plan.steps for plan in self.plans) + tuned

    def project(
        self,
        targets: Pictures,
        masks: Sequence[np.ndarray | None] | None = None,
        *,
        state: Mapping[str, Tensor] | None = None,
        save: Callable[[State], None] = lambda state: None,
        progress: Progress = silent,
    ) -> list[Projection]:
        """Project pictures uint8 [N, H, W, C] at once; ``masks`` [H, W] say what of them counts.

        ``save`` gets the state from time to time, and when Ctrl-C comes, which is raised then;
        given back as ``state``, the same search continues as if it had not been interrupted.
        """
        return _Run(self, targets, masks, save, progress).run(state)

    def middle(self, latents: int) -> Middle:
        """Return mean and spread of w over so many latents."""
        if latents not in self._middle:
            self._middle[latents] = measure_middle(self.net.generator, latents, self.how.label)
        return self._middle[latents]

    def nearest(self, plan: Plan, targets: Tensor, masks: Tensor | None) -> Tensor:
        """Return the candidate latents nearest to each target, [N · starts, 1, d]."""
        if self._candidates is None:
            self._candidates = draw_candidates(self.net.generator, plan.candidates, self.how.label)
        chosen = []
        for place in range(len(targets)):
            one = slice(place, place + 1)
            mask = None if masks is None else masks[one]
            found = self._candidates.nearest(targets[one], self.distance, mask, plan.starts)
            chosen.append(found)
        return torch.cat(chosen)


class Stage(Protocol):
    """A search that goes step by step."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        ...

    def step(self) -> Any:
        """Do one step; return its numbers."""
        ...


def run_to_end(
    stage: Stage, *, tell: Callable[[Any], None], save: Callable[[], None],
    done: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Step to the end; Ctrl-C waits for the end of a step, and ``save`` comes first.

    ``done`` is part of a step; ``tell`` gets its numbers afterwards.
    """
    saved = time.monotonic()
    try:
        while not stage.is_over:
            with holding_back_interrupts():
                values = stage.step()
                done()
            tell(values)
            if time.monotonic() - saved > SAVED_EVERY_SECONDS:
                save()
                saved = time.monotonic()
    except KeyboardInterrupt:
        with holding_back_interrupts():
            save()
        raise


class _Run:
    """One call of ``project``: searches, then tuning, with the state that lets it continue."""

    def __init__(
        self, projector: Projector, targets: Pictures,
        masks: Sequence[np.ndarray | None] | None, save: Callable[[State], None],
        progress: Progress,
    ) -> None:  # fmt: skip
        self.owner, self.save, self.progress = projector, save, progress
        self.G, self.how = projector.net.generator, projector.how
        self.pictures = targets
        self.targets = from_uint8(np.array(targets)).to(
            device_of(projector.net.generator)
        )  # [N, C, H, W]
        masked = _stacked_masks(masks, self.targets)
        self.masks = None if masked is None else masked.to(self.targets)
        self.found: Found | None = None  # where the last stage ended
        self.path: list[Tensor] = []
        self.stage = 0
        self.steps = 0  # of the stages before
        self.kept_every = max(1, -(-sum(plan.steps for plan in projector.plans) // FRAMES))

    def run(self, state: Mapping[str, Tensor] | None) -> list[Projection]:
        """Do what is left to do."""
        inner = self._restore(state)
        frozen = [parameter.requires_grad for parameter in self.G.parameters()]
        self.G.requires_grad_(False)
        try:
            while self.stage < len(self.owner.plans):
                self._search(self.owner.plans[self.stage], inner)
                inner = None
            assert self.found is not None
            if self.how.tune:
                return [self._tune(inner)]
        finally:
            for parameter, before in zip(self.G.parameters(), frozen, strict=True):
                parameter.requires_grad_(before)
        return self._projections()

    def _search(self, plan: Plan, inner: State | None) -> None:
        middle = self.owner.middle(plan.latents)
        start = self.found
        if start is None and plan.start == "nearest" and inner is None:
            start = Found(self.owner.nearest(plan, self.targets, self.masks), [])
        targets, masks = (
            None if one is None else one.repeat_interleave(plan.starts, dim=0)
            for one in (self.targets, self.masks)
        )
        assert targets is not None
        search = Search(
            self.G, targets, plan, self.owner.distance, middle, start=start,
            masks=masks, label=self.how.label, draws=self.owner.draws,
        )  # fmt: skip
        if inner is not None:
            search.restore(inner)
        self._repeat(search, lambda: self._keep(search))
        self.found = search.found
        if plan.starts > 1:
            self.found = _best_of(self.found, search.record, plan.starts)
        self.steps += search.step_number
        self.stage += 1

    def _tune(self, inner: State | None) -> Projection:
        assert self.found is not None
        found = self.found
        G = copy.deepcopy(self.G)
        with torch.no_grad():
            ws = latent_ws(self.G, found.latent, self.how.label)
        tuner = Tuner(
            G, ws, self.targets, self.how.tuning, self.owner.distance, noise=found.noise,
            mask=self.masks, seed=self.how.seed, label=self.how.label,
        )  # fmt: skip
        if inner is not None:
            tuner.restore(inner)
        self._repeat(tuner, lambda: None)
        G.requires_grad_(False)
        self.steps += tuner.step_number
        (projection,) = self._projections(G)
        net = self.owner.net
        projection.network = Bundle(net.config, G_ema=G, info=dict(net.info))
        return projection

    def _repeat(self, stage: Search | Tuner, done: Callable[[], None]) -> None:
        """Step to the end, keep the state, and show where it stands."""
        shown = 0.0

        def tell(values: Any) -> None:
            nonlocal shown
            far = values[1] if isinstance(values, tuple) else float(values[:, 0].mean())
            now = self.steps + stage.step_number
            self.progress(now, self.owner.steps, f"distance {far:.3f}")
            if self.owner.watch is not None and time.monotonic() - shown > SHOWN_EVERY_SECONDS:
                self.owner.watch(self._picture(stage))
                shown = time.monotonic()

        run_to_end(stage, done=done, tell=tell, save=lambda: self.save(self._state(stage)))

    def _picture(self, stage: Search | Tuner) -> Pictures:
        """Draw where the first picture stands."""
        G, found = self.G, self.found
        if isinstance(stage, Search):
            found = stage.found
        else:
            G = stage.G
        assert found is not None
        with torch.no_grad():
            ws = latent_ws(self.G, found.latent[:1], self.how.label).cpu()
        noise = [plane[:1].cpu() for plane in found.noise]
        (picture,) = render(G, ws, noise=iter([noise]) if noise else None)
        return picture

    def _keep(self, search: Search) -> None:
        if self.how.keep_path and (self.steps + search.step_number - 1) % self.kept_every == 0:
            latent, starts = search.latent.cpu(), search.plan.starts
            self.path.append(latent[::starts])  # of several, that from the nearest face

    def _state(self, stage: Search | Tuner) -> State:
        """Return all that the rest of this call depends on."""
        state = {f"inner.{name}": value for name, value in stage.state().items()}
        state["stage"], state["steps"] = torch.tensor(self.stage), torch.tensor(self.steps)
        if self.found is not None:
            state["latent"] = self.found.latent.cpu()
            state |= {f"noise.{i}": plane.cpu() for i, plane in enumerate(self.found.noise)}
        return state | {f"path.{i}": moment for i, moment in enumerate(self.path)}

    def _restore(self, state: Mapping[str, Tensor] | None) -> State | None:
        if state is None:
            return None
        device = device_of(self.G)
        self.stage, self.steps = int(state["stage"]), int(state["steps"])
        self.path = _numbered(state, "path")
        if "latent" in state:
            noise = [plane.to(device) for plane in _numbered(state, "noise")]
            self.found = Found(state["latent"].to(device), noise)
        return {
            name.removeprefix("inner."): value
            for name, value in state.items()
            if name.startswith("inner.")
        }

    def _projections(self, G: Generator | None = None) -> list[Projection]:
        """Draw what was found, and measure it."""
        assert self.found is not None
        found, owner = self.found, self.owner
        with torch.no_grad():
            ws = latent_ws(self.G, found.latent, self.how.label).cpu()
        maps = [[plane[i : i + 1].cpu() for plane in found.noise] for i in range(len(ws))]
        drawn = render(G or self.G, ws, Drawing(), noise=iter(maps) if found.noise else None)
        projections = []
        for place, picture in enumerate(drawn):
            mask = None if self.masks is None else self.masks[place : place + 1]
            result, target = from_uint8(picture[None]), self.targets[place : place + 1]
            far = owner.distance(result.to(target), target, mask)
            projections.append(
                Projection(
                    ws[place],
                    maps[place],
                    picture,
                    float(far),
                    owner.distance.name,
                    psnr(picture, self.pictures[place], None if mask is None else mask[0, 0]),
                    self._from_mean(found.latent[place]),
                    self.steps,
                    path=self._drawn_path(place),
                )
            )
        return projections

    def _from_mean(self, latent: Tensor) -> float | None:
        if not self.G.config.has_w:
            return None
        middle = self.owner.middle(self.owner.plans[-1].latents)
        lengths = (latent - middle.mean[0]).square().sum(dim=-1)  # of every layer's w
        return float(lengths.mean().sqrt()) / middle.spread

    def _drawn_path(self, place: int) -> Tensor | None:
        if not self.path:
            return None
        with torch.no_grad():
            ws = [
                latent_ws(self.G, moment[place : place + 1].to(device_of(self.G)), self.how.label)
                for moment in self.path
            ]
        return torch.cat(ws).cpu()


def _best_of(found: Found, record: Tensor, starts: int) -> Found:
    """Return the nearest of every ``starts`` searches."""
    best = record.view(-1, starts).argmin(dim=1)
    rows = torch.arange(len(best), device=best.device) * starts + best
    return Found(found.latent[rows], [plane[rows] for plane in found.noise], found.step)


def _numbered(state: Mapping[str, Tensor], name: str) -> list[Tensor]:
    """Return the tensors NAME.0, NAME.1, ... of a state."""
    count = sum(key.startswith(f"{name}.") for key in state)
    return [state[f"{name}.{place}"] for place in range(count)]


def _stacked_masks(masks: Sequence[np.ndarray | None] | None, targets: Tensor) -> Tensor | None:
    """Return masks [N, 1, H, W]; those that are None count everywhere."""
    if masks is None or all(mask is None for mask in masks):
        return None
    whole = np.ones(targets.shape[2:], np.float32)
    rows = [whole if mask is None else np.asarray(mask, np.float32) for mask in masks]
    return torch.from_numpy(np.stack(rows))[:, None]


def psnr(a: Pictures, b: Pictures, mask: Tensor | None = None) -> float:
    """Return the peak signal-to-noise ratio of two pictures of 0 to 255, in dB, over a mask."""
    square = (a.astype(np.float64) - b.astype(np.float64)) ** 2
    weights = np.ones(square.shape[:2]) if mask is None else mask.cpu().double().numpy()
    mean = float((square.mean(axis=2) * weights).sum() / weights.sum())
    return math.inf if mean == 0 else 10 * math.log10(255**2 / mean)

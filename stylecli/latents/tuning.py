"""Pivotal tuning: change a generator a little so that it draws given pictures from their latents.

Roich et al. 2021: the latent that projection found stays (the pivot), and all parameters of the
generator are trained, until the picture is near enough. The result is a network of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.features.perceptual import Distance
from stylecli.networks.model import Generator
from stylecli.rendering import device_of, exact_kernels

_LOCALITY_SEED = 1 << 41  # apart from what projection draws


@dataclass(frozen=True)
class Tuning:
    """How a network is tuned: the published values."""

    steps: int = 350  # at most
    lr: float = 3e-4  # of Adam
    enough: float = 0.06  # stop where the perceptual distance is no larger; 0: never
    pixel_weight: float = 1.0  # of the mean squared error on [-1, 1]
    distance_weight: float = 1.0
    # Locality (Eq. 5): the network stays as it was around the pivot. Off as published.
    locality_weight: float = 0.0  # of both of its distances; 0.1 is usual
    locality_radius: float = 30.0  # how far from the pivot, over all layers together
    locality_psi: float = 0.5

    def __post_init__(self) -> None:
        """Raise UsageError for what is no tuning."""
        if not 1 <= self.steps <= 1_000_000:
            raise UsageError(f"{self.steps} steps make no tuning: expected 1 to 1,000,000")


class Tuner:
    """Tunes a generator, in place, to a picture; ``original`` is how it was, for locality."""

    def __init__(
        self,
        G: Generator,
        ws: Tensor,
        target: Tensor,
        settings: Tuning,
        distance: Distance,
        *,
        noise: Sequence[Tensor] = (),
        mask: Tensor | None = None,
        original: Generator | None = None,
        seed: int = 0,
        label: int | None = None,
    ) -> None:
        """Take the pivot ws [1, num_ws, w_dim], its picture [1, C, H, W] in [-1, 1], its noise.

        Raises UsageError for locality without the original.
        """
        if settings.locality_weight and original is None:
            raise UsageError("locality compares with the network as it was: give original")
        device = device_of(G)
        self.G, self.settings, self.distance, self.seed = G, settings, distance, seed
        self.original, self.label = original, label
        self._ws, self._target = ws.to(device), target.to(device)
        self._noise = [plane.to(device) for plane in noise] or None
        self._mask = None if mask is None else mask.to(device)
        with torch.no_grad():
            self._wanted = distance.features(self._target, self._mask)
        G.requires_grad_(True)
        self._parameters = dict(G.named_parameters())
        self._adam = torch.optim.Adam(self._parameters.values(), lr=settings.lr)
        self.step_number = 0
        self.is_near = False  # whether the picture was near enough in the last step

    @property
    def is_over(self) -> bool:
        """Whether the picture is near enough, or all steps are done."""
        return self.is_near or self.step_number >= self.settings.steps

    def step(self) -> tuple[float, float, float]:
        """Do one step; return its mean squared error, distance and locality term before it.

        Where the picture is near enough already, nothing changes but ``is_near``.
        """
        with exact_kernels(device_of(self.G)):
            return self._step()

    def _step(self) -> tuple[float, float, float]:
        settings = self.settings
        with torch.enable_grad():
            images = self.G.synthesis(self._ws, noise=self._noise)
            square, far = self._errors(images)
            locality = self._locality() if settings.locality_weight else torch.zeros(())
            loss = settings.pixel_weight * square + settings.distance_weight * far
            loss = loss + locality.to(loss)
        self.is_near = bool(far <= settings.enough)
        if not self.is_near:
            self._adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._adam.step()
            self.step_number += 1
        return float(square.detach()), float(far.detach()), float(locality.detach())

    def _errors(self, images: Tensor) -> tuple[Tensor, Tensor]:
        far = (self.distance.features(images, self._mask) - self._wanted).square().sum()
        difference = (images - self._target).square()
        if self._mask is None:
            return difference.mean(), far
        return (difference * self._mask).mean() / self._mask.mean().clamp(min=1e-8), far

    def _locality(self) -> Tensor:
        """Return how differently both networks draw a face near the pivot, weighted."""
        assert self.original is not None
        near = self._near()
        with torch.no_grad():
            before = self.original.synthesis(near, noise_mode="none")
            wanted = self.distance.features(before)
        now = self.G.synthesis(near, noise_mode="none")
        far = (self.distance.features(now) - wanted).square().sum()
        total: Tensor = (now - before).square().mean() + far
        return self.settings.locality_weight * total

    def _near(self) -> Tensor:
        """Return styles [1, num_ws, w_dim] of a random face, brought near the pivot."""
        config = self.G.config
        z = self.locality_z(self.step_number).to(self._ws)
        c = None
        if config.label_dim:
            c = torch.nn.functional.one_hot(torch.tensor([self.label or 0]), config.label_dim)
            c = c.to(self._ws)
        ws = self.G.mapping(z, c, truncation_psi=self.settings.locality_psi)
        away = ws - self._ws
        near: Tensor = self._ws + self.settings.locality_radius * away / away.norm()
        return near

    def locality_z(self, step: int) -> Tensor:
        """Return the latent z [1, z_dim] that a step draws for its locality term."""
        random = np.random.Generator(np.random.Philox(key=[self.seed, _LOCALITY_SEED | step]))
        z = random.standard_normal((1, self.G.config.z_dim), np.float32)
        return torch.from_numpy(z)

    def state(self) -> dict[str, Tensor]:
        """Return all that the next step depends on, on the CPU."""
        tensors = {"step": torch.tensor(self.step_number), "near": torch.tensor(self.is_near)}
        for name, parameter in self._parameters.items():
            tensors[f"parameter.{name}"] = parameter.detach().cpu().clone()
            for key, value in self._adam.state.get(parameter, {}).items():
                tensors[f"{key}.{name}"] = value.detach().cpu().clone()
        return tensors

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what ``state`` returned."""
        self.step_number, self.is_near = int(state["step"]), bool(state["near"])
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state[f"parameter.{name}"])
                if f"exp_avg.{name}" in state:
                    self._adam.state[parameter] = {
                        "step": state[f"step.{name}"].clone(),
                        "exp_avg": state[f"exp_avg.{name}"].to(parameter).clone(),
                        "exp_avg_sq": state[f"exp_avg_sq.{name}"].to(parameter).clone(),
                    }

"""One step of training: update D, then the moving average, then G."""

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor

from stylecli.distributed import Ranks
from stylecli.networks.bundle import Bundle
from stylecli.training.adam import Adam
from stylecli.training.config import TrainingConfig
from stylecli.training.flat_parameters import FlatParameters
from stylecli.training.losses import (
    D_loss,
    G_loss,
    gradient_penalty,
    sampled_squared_gradient,
    squared_gradient,
)
from stylecli.training.reals import process_reals
from stylecli.training.schedule import Stage
from stylecli.training.streams import Purpose, Streams

STATISTICS = ("loss_G", "loss_D", "r1_penalty", "real_logits", "fake_logits", "skipped_steps")


@dataclass
class _Fakes:
    """A batch of fakes of this rank: images [n, C, h, w] and the labels they were made for."""

    images: Tensor
    labels: Tensor | None


class TrainingStep:
    """Networks, optimizers and random streams of a run, and how one batch changes them."""

    def __init__(
        self,
        bundle: Bundle,
        config: TrainingConfig,
        *,
        ranks: Ranks | None = None,
        device: torch.device | None = None,
        label_table: Tensor | None = None,
    ) -> None:
        """``label_table`` [N, label_dim] holds the dataset's labels, which G draws from."""
        assert bundle.G is not None and bundle.D is not None and bundle.G_ema is not None
        self.config = config
        self.ranks = ranks or Ranks()
        self.device = device or torch.device("cpu")
        self.G = bundle.G.to(self.device).train()
        self.D = bundle.D.to(self.device).train()
        self.G_ema = bundle.G_ema.to(self.device).eval()
        self.flat_G, self.flat_D = FlatParameters(self.G), FlatParameters(self.D)
        self.flat_ema = FlatParameters(self.G_ema)
        self.G_ema.requires_grad_(False)
        adam = {"beta1": config.adam_beta1, "beta2": config.adam_beta2,
                "epsilon": config.adam_epsilon}  # fmt: skip
        self.adam_G = Adam(self.flat_G.data, **adam)
        self.adam_D = Adam(self.flat_D.data, **adam)
        self.streams = Streams(config.seed, self.device)
        self.label_table = None if label_table is None else label_table.to(self.device)
        precision = torch.float32 if self.device.type == "mps" else torch.float64  # MPS has none
        self.totals = torch.zeros(len(STATISTICS) + 1, dtype=precision, device=self.device)

    def set_stage(self, stage: Stage, *, reset: bool) -> None:
        """Grow all networks to a stage; ``reset`` makes both optimizers start afresh."""
        for network in (self.G, self.D, self.G_ema):
            network.lod = stage.lod
        if reset:
            self.adam_G.reset()
            self.adam_D.reset()

    def __call__(
        self, real_images: Tensor, real_labels: Tensor | None, stage: Stage, step: int
    ) -> None:
        """Train on this rank's share of a batch: uint8 [n, C, h, w] at the stage's size."""
        reals = process_reals(real_images.to(self.device, non_blocking=True), stage.fade)
        labels = None if real_labels is None else real_labels.to(self.device)
        fakes = self._fakes(stage, step, labels if not self.config.share_fakes else None)
        self._update_D(reals, labels, fakes, stage, step)
        self._update_ema(stage)
        if not self.config.share_fakes:
            # A step has two draws: even stream positions belong to D, odd ones to G.
            fakes = self._fakes(stage, step, None, draw=1)
        self._update_G(fakes, stage)

    def take_statistics(self) -> dict[str, float]:
        """Return means over the steps since the last call, of this rank's samples."""
        *sums, steps = self.totals.tolist()
        self.totals.zero_()
        means = {name: total / max(steps, 1) for name, total in zip(STATISTICS, sums, strict=True)}
        return {**means, "skipped_steps": sums[-1]}

    # -- parts ------------------------------------------------------------------------------

    def _fakes(self, stage: Stage, step: int, labels: Tensor | None, draw: int = 0) -> _Fakes:
        """Draw latents for the whole batch, keep this rank's (i mod ranks) and run G on them.

        D's fakes reuse the labels of the reals; G's are drawn from the dataset.
        """
        config = self.G.config
        position = 2 * step + draw
        mine = slice(self.ranks.rank, stage.batch, self.ranks.count)

        def normal(shape: tuple[int, ...], purpose: Purpose, index: int = 0) -> Tensor:
            generator = self.streams.at(purpose, position * 64 + index)
            return torch.randn(shape, generator=generator, device=self.device)[mine]

        if config.label_dim and labels is None:
            labels = self._draw_labels(stage.batch, position)[mine]
        with torch.set_grad_enabled(draw == 1 or self.config.share_fakes):
            w = self.G.mapping.embed(normal((stage.batch, config.z_dim), Purpose.LATENTS), labels)
            # All ranks move w_avg by the mean of the whole batch, so that they stay equal.
            mean = w.detach().mean(dim=0, keepdim=True)
            self.ranks.mean_(mean)
            self.G.mapping.update_w_avg(mean)
            ws = self.G.mapping.broadcast(w)
            if config.has_w and config.style_mixing_prob:
                layers = config.num_layers - 2 * stage.level
                crossover = self._crossover(layers, position)
                if crossover < layers:
                    z2 = normal((stage.batch, config.z_dim), Purpose.LATENTS, 1)
                    w2 = self.G.mapping.broadcast(self.G.mapping.embed(z2, labels))
                    ws = torch.cat([ws[:, :crossover], w2[:, crossover:]], dim=1)
            noise: list[Tensor | None] | None = None
            if config.use_noise:
                shapes = self.G.synthesis.noise_shapes()
                active = len(shapes) - 2 * stage.level
                noise = [
                    normal((stage.batch, *shape[1:]), Purpose.NOISE, index)
                    if index < active
                    else None
                    for index, shape in enumerate(shapes)
                ]
            with self._reduced():
                images = self.G.synthesis(ws, noise=noise, lod=stage.lod, native=True)
        return _Fakes(images, labels)

    def _crossover(self, layers: int, position: int) -> int:
        """Return the first layer that takes the second latent: one draw per batch."""
        generator = torch.Generator().manual_seed(
            self.streams.at(Purpose.MIXING, position).initial_seed()
        )
        chance = float(torch.rand((), generator=generator))
        crossover = int(torch.randint(1, max(layers, 2), (), generator=generator))
        return crossover if chance < self.G.config.style_mixing_prob else layers

    def _draw_labels(self, count: int, position: int) -> Tensor:
        assert self.label_table is not None
        generator = self.streams.at(Purpose.LABELS, position)
        picks = torch.randint(
            len(self.label_table), (count,), generator=generator, device=self.device
        )
        return self.label_table[picks]

    def _update_D(
        self, reals: Tensor, labels: Tensor | None, fakes: _Fakes, stage: Stage, step: int
    ) -> None:
        config = self.config
        self.flat_D.grad.zero_()
        fake_images = fakes.images.detach()
        pixels = 4**stage.level
        penalise = step % config.r1_interval == 0
        r1 = config.r1_gamma if penalise and config.loss.startswith("logistic") else 0.0
        r2 = config.r2_gamma if penalise and config.loss.startswith("logistic") else 0.0
        exact = config.r1_method == "exact"
        if r1 and exact:
            reals = reals.detach().requires_grad_(True)
        if r2 and exact:
            fake_images = fake_images.requires_grad_(True)
        real_logits = self._score(reals, labels, stage)
        fake_logits = self._score(fake_images, fakes.labels, stage)
        loss = D_loss(config.loss, real_logits, fake_logits).mean()
        total = loss
        penalty = torch.zeros((), device=self.device)
        penalised = (
            (r1, real_logits, reals, labels),
            (r2, fake_logits, fake_images, fakes.labels),
        )
        for place, (gamma, logits, images, given) in enumerate(penalised):
            if gamma:
                if exact:
                    squared = squared_gradient(logits, images, pixels).mean()
                else:
                    v = self._directions(images, stage, 2 * step + place)
                    squared = sampled_squared_gradient(
                        lambda x, c=given: self._score(x, c, stage),  # type: ignore[misc]
                        logits, images, v, pixels,
                    ).mean()  # fmt: skip
                total = total + squared * (gamma / 2 * config.r1_interval)
                penalty = penalty + squared.detach()
        if config.loss.endswith("gp") and penalise:
            generator = self.streams.at(Purpose.INTERPOLATES, step)
            mixing = torch.rand((stage.batch, 1, 1, 1), generator=generator, device=self.device)
            mixing = mixing[self.ranks.rank :: self.ranks.count]
            squared = gradient_penalty(
                lambda x: self._score(x, labels, stage), reals, fake_images, mixing, pixels
            ).mean()
            total = total + squared * config.r1_interval
            penalty = penalty + squared.detach()
        total.backward()  # type: ignore[no-untyped-call]
        skipped = self._apply(self.flat_D, self.adam_D, stage.lr)
        self._count(loss_D=loss, r1_penalty=penalty * config.r1_interval if penalise else penalty,
                    real_logits=real_logits.mean(), fake_logits=fake_logits.mean(),
                    skipped_steps=skipped)  # fmt: skip

    def _update_G(self, fakes: _Fakes, stage: Stage) -> None:
        self.flat_G.grad.zero_()
        self.D.requires_grad_(False)
        logits = self._score(fakes.images, fakes.labels, stage)
        loss = G_loss(self.config.loss, logits).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.D.requires_grad_(True)
        skipped = self._apply(self.flat_G, self.adam_G, stage.lr)
        self._count(loss_G=loss, skipped_steps=skipped, steps=1)

    def _directions(self, images: Tensor, stage: Stage, position: int) -> Tensor:
        """Return this rank's share of standard normal directions in picture space."""
        generator = self.streams.at(Purpose.DIRECTIONS, position)
        shape = (stage.batch, *images.shape[1:])
        whole = torch.randn(shape, generator=generator, device=self.device)
        return whole[self.ranks.rank :: self.ranks.count]

    def _score(self, images: Tensor, labels: Tensor | None, stage: Stage) -> Tensor:
        with self._reduced():
            return self.D(images, labels, lod=stage.lod)  # type: ignore[no-any-return]

    def _reduced(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which convolutions take the configured precision."""
        if self.config.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)

    def _apply(self, flat: FlatParameters, adam: Adam, lr: float) -> int:
        """Average gradients over ranks and step; a gradient that is not finite is not applied."""
        self.ranks.mean_(flat.grad)
        if not bool(torch.isfinite(flat.grad).all()):
            return 1
        adam.step(flat.data, flat.grad, lr)
        return 0

    @torch.no_grad()
    def _update_ema(self, stage: Stage) -> None:
        """Move G_ema towards G with half-life ema_kimg; copy what is not trained."""
        beta = 0.5 ** (stage.batch / (self.config.ema_kimg * 1000))
        self.flat_ema.data.lerp_(self.flat_G.data, 1 - beta)
        for averaged, current in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
            averaged.copy_(current)

    @torch.no_grad()
    def _count(self, steps: int = 0, **values: Tensor | float) -> None:
        for name, value in values.items():
            self.totals[STATISTICS.index(name)] += value.detach() if isinstance(
                value, Tensor
            ) else value  # fmt: skip
        self.totals[-1] += steps

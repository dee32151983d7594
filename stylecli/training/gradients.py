"""The gradients of a step, pass by pass: of D's loss and its penalties, of G's, of path lengths.

A rank's share of the batch can be worked off in several passes, whose gradients add up to those of
the whole (``schedule``), but for two running averages that move with every pass, as in the official
programs: a path length is compared with the mean up to its own pass, and StyleGAN3's features are
divided by magnitudes up to theirs. What is computed here is not applied: ``step`` has the order of
updates.
"""

import contextlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from stylecli.hardware import widest_float
from stylecli.networks.layers import move_average
from stylecli.networks.model import Discriminator, Generator, asked_lod, native_lod
from stylecli.ops.resampling import upfirdn2d
from stylecli.training.augment import Augmentation, StreamDraws
from stylecli.training.config import JOINT, TrainingConfig
from stylecli.training.draws import Draws, DrawSource, HeldDraws, Purpose
from stylecli.training.losses import (
    D_loss,
    G_loss,
    LossScaler,
    gradient_penalty,
    path_lengths,
    squared_gradient,
)
from stylecli.training.optimizer import FlatParameters
from stylecli.training.schedule import Dials, Moment, Stage

STATISTICS = (
    "loss_G", "loss_D", "r1_penalty", "real_logits", "real_signs", "fake_logits", "grad_norm_G",
    "grad_norm_D", "skipped_steps", "path_penalty",
)  # fmt: skip
PATH_DECAY = 0.01  # of the running mean of path lengths, per pass
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Totals:
    """Sums of what is reported, on the device until the end of a tick."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(len(STATISTICS), dtype=widest_float(device), device=device)
        self.counts = [0.0] * len(STATISTICS)  # of how many steps each is the sum

    @torch.no_grad()
    def add(self, passes: int = 1, **values: Tensor | float) -> None:
        """Add what one of ``passes`` equal parts of a step came to."""
        for name, value in values.items():
            index = STATISTICS.index(name)
            self.sums[index] += (value.detach() if isinstance(value, Tensor) else value) / passes
            self.counts[index] += 1 / passes

    def take(self) -> dict[str, float]:
        """Return the means since the last call; skipped steps are counted."""
        sums, counts = self.sums.tolist(), [max(round(count), 1) for count in self.counts]
        self.sums.zero_()
        self.counts = [0.0] * len(counts)
        means = {
            name: total / count for name, total, count in zip(STATISTICS, sums, counts, strict=True)
        }
        return {**means, "skipped_steps": sums[STATISTICS.index("skipped_steps")]}


@dataclass
class Batch:
    """A rank's share of what a network is updated by: n reals, and the draws of n fakes."""

    draws: Draws
    reals: Tensor | None = None  # [n, C, h, w], -1..1
    labels: Tensor | None = None  # of the reals, [n, label_dim]

    def part(self, index: int, count: int) -> "Batch":
        """Return every ``count``-th sample from number ``index`` on."""
        reals, labels = (
            None if whole is None else whole[index::count] for whole in (self.reals, self.labels)
        )
        return Batch(self.draws.part(index, count), reals, labels)


class Shown(NamedTuple):
    """Numbers of the streams that change what D sees: each batch of a run has one of its own."""

    reals: int
    fakes: int
    fakes_of_G: int
    reals_of_penalty: int  # where it has an update of its own
    fakes_of_penalty: int  # likewise, with R2
    reals_of_G: int  # beside its fakes, in the relativistic loss

    @classmethod
    def at(cls, config: TrainingConfig, step: int) -> "Shown":
        """Return those of a step, whose numbers end where those of the next begin."""
        # Runs of the first version had three a step: they must go on with the same draws.
        first_version = 3 if config.phases == JOINT else 5
        count = len(cls._fields) if config.is_relativistic else first_version
        return cls(*(count * step + number for number in range(len(cls._fields))))


@dataclass(frozen=True)
class Place:
    """Where in the run a gradient is computed: it decides what is drawn."""

    stage: Stage
    moment: Moment
    step: int
    shown: Shown
    dials: Dials
    held: HeldDraws | None = None  # of a captured update

    def position(self, name: str) -> int:
        """Return the number of a stream; of pictures with a ``name``, the field of ``Shown``."""
        return int(getattr(self.shown, name)) if name else self.step


class Gradients:
    """Computes the gradients of both networks, into their flat vectors."""

    def __init__(
        self,
        G: Generator,
        D: Discriminator,
        config: TrainingConfig,
        draws: DrawSource,
        augmentation: Augmentation,
    ) -> None:
        self.G, self.D, self.config = G, D, config
        self.draws, self.augmentation = draws, augmentation
        self.device = draws.streams.device
        self.flat_G, self.flat_D = FlatParameters(G), FlatParameters(D)
        self.scaler_G = LossScaler(config.precision, self.device)
        self.scaler_D = LossScaler(config.precision, self.device)
        self.totals = Totals(self.device)
        # of D's logits on the reals of a step: the sum of their signs, and how many there are
        self.signs = torch.zeros(2, dtype=widest_float(self.device), device=self.device)
        self.path_mean = torch.zeros((), device=self.device)  # running mean of path lengths
        self.magnitudes = [
            buffer for name, buffer in G.named_buffers() if name.endswith("magnitude_ema")
        ]

    # -- D ----------------------------------------------------------------------------------

    def of_D(
        self, batch: Batch, place: Place, passes: int, *, keep: bool, penalise: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Set D's gradient; return the fakes that know how G made them, and the means of w.

        ``penalise`` adds the penalties of the loss. There are such fakes with ``keep`` alone, and
        those of the last pass.
        """
        self.flat_D.grad.zero_()
        means = []
        for index in range(passes):
            part = batch.part(index, passes)
            with torch.set_grad_enabled(keep):
                fakes, mean = self._fakes(part.draws, place.stage, averages=True)
            means.append(mean)
            self._add_D(part, fakes.detach(), place, (index, passes), penalise=penalise)
        return [fakes] if keep else [], means

    def _add_D(
        self, part: Batch, fakes: Tensor, place: Place, which: tuple[int, int], *, penalise: bool
    ) -> None:
        """Add a pass's share of the gradient to D's."""
        config, moment, stage = self.config, place.moment, place.stage
        reals = part.reals
        assert reals is not None
        zero_centred = penalise and config.takes_r1
        r1 = moment.r1_gamma if zero_centred else 0.0
        r2 = moment.r2_gamma if zero_centred else 0.0
        if r1:
            reals = reals.detach().requires_grad_(True)
        if r2:
            fakes = fakes.requires_grad_(True)
        seen_reals = self._shown(reals, place, "reals", which)
        seen_fakes = self._shown(fakes, place, "fakes", which)
        real_logits = self._score(seen_reals, part.labels, stage)
        fake_logits = self._score(seen_fakes, part.draws.labels, stage)
        loss = D_loss(config.loss, real_logits, fake_logits).mean()
        total = loss
        interval = config.r1_interval
        penalty = torch.zeros((), device=self.device)
        pixels, scale = 4**stage.level, self.scaler_D.scale
        dials = place.dials
        for gamma, weight, logits, images in (
            (r1, dials.r1, real_logits, reals), (r2, dials.r2, fake_logits, fakes)
        ):  # fmt: skip
            if gamma:
                squared = squared_gradient(logits, images, pixels, scale).mean()
                total = total + squared * weight
                penalty = penalty + squared.detach()
        if config.loss.endswith("gp") and penalise:
            mixing = self._numbers(Purpose.INTERPOLATES, "", place, which).uniform(1, 1, 1)
            squared = gradient_penalty(
                lambda x: self._score(x, part.labels, stage), seen_reals, seen_fakes, mixing,
                pixels, scale,
            ).mean()  # fmt: skip
            total = total + squared * interval
            penalty = penalty + squared.detach()
        self._backward(total, which[1], self.scaler_D)
        signs = torch.nan_to_num(real_logits.detach().sign())
        # ADA's program asks D about the reals twice where it penalises now and then.
        looks = 2 if penalise and interval > 1 else 1
        self.signs[0] += signs.sum() * looks
        self.signs[1] += len(signs) * looks
        self.totals.add(which[1], loss_D=loss, real_logits=real_logits.mean(),
                        fake_logits=fake_logits.mean(), real_signs=signs.mean())  # fmt: skip
        if not config.lazy:
            self.totals.add(which[1], r1_penalty=penalty * interval if penalise else penalty)

    def of_penalty(self, batch: Batch, place: Place, passes: int) -> None:
        """Set D's gradient to that of R1, and R2, alone: lazy regularisation.

        Karras et al. 2019, section 3.1. D sees the reals a second time, changed by new draws.
        """
        self.flat_D.grad.zero_()
        moment, stage = place.moment, place.stage
        for index in range(passes):
            part = batch.part(index, passes)
            total: Tensor | float = 0.0
            dials = place.dials
            sides = [(moment.r1_gamma, dials.r1, part.reals, part.labels, "reals_of_penalty")]
            if moment.r2_gamma:
                with torch.no_grad():
                    fakes, _ = self._fakes(part.draws, stage)
                labels = part.draws.labels
                sides.append((moment.r2_gamma, dials.r2, fakes, labels, "fakes_of_penalty"))
            for number, (gamma, weight, images, labels, name) in enumerate(sides):
                assert images is not None
                images = images.detach().requires_grad_(bool(gamma))
                logits = self._score(
                    self._shown(images, place, name, (index, passes)), labels, stage
                )
                # Every parameter has a gradient, if only zero, as in the official program.
                total = total + logits.mean() * 0
                if gamma:
                    squared = squared_gradient(logits, images, 1, self.scaler_D.scale).mean()
                    total = total + squared * weight
                    self.totals.add(passes, r1_penalty=squared)
                if number == 0:
                    self.signs[0] += torch.nan_to_num(logits.detach().sign()).sum()
                    self.signs[1] += len(logits)
            assert isinstance(total, Tensor)
            self._backward(total, passes, self.scaler_D)

    # -- G ----------------------------------------------------------------------------------

    def of_G(self, batch: Batch, kept: list[Tensor], place: Place, passes: int) -> list[Tensor]:
        """Set G's gradient, by new fakes or those ``kept`` from D; return the new ones' mean w."""
        self.flat_G.grad.zero_()
        if passes > 1:
            kept.clear()  # what one pass was to use did not fit
        self.D.requires_grad_(False)
        means = []
        try:
            for index in range(passes):
                part = batch.part(index, passes)
                if kept:
                    fakes = kept[0]
                else:
                    fakes, mean = self._fakes(part.draws, place.stage)
                    means.append(mean)
                seen = self._shown(fakes, place, "fakes_of_G", (index, passes))
                logits, beside = self._score(seen, part.draws.labels, place.stage), None
                if self.config.is_relativistic:
                    assert part.reals is not None
                    reals = self._shown(part.reals, place, "reals_of_G", (index, passes))
                    beside = self._score(reals, part.labels, place.stage)
                loss = G_loss(self.config.loss, logits, beside).mean()
                self._backward(loss, passes, self.scaler_G)
                self.totals.add(passes, loss_G=loss)
        finally:
            self.D.requires_grad_(True)
        return means

    def of_paths(self, batch: Batch, place: Place, passes: int) -> list[Tensor]:
        """Set G's gradient to that of path-length regularisation; return the means of w.

        Karras et al. 2019, section 3.2: 2·(|J_w^T y| - a)², where y is noise in the shape of the
        picture and a the running mean of these lengths. As in the official program only the
        first half of each pass is looked at, a moves with every pass, and the gradient also
        goes through its last move.
        """
        self.flat_G.grad.zero_()
        config, means = self.config, []
        for index in range(passes):
            draws = batch.draws.part(index, passes).first_half()
            assert draws.path_noise is not None
            ws, mean = self._styles(draws)
            images = self._draw(ws, draws, place.stage)
            noise = draws.path_noise / math.sqrt(images.shape[2] * images.shape[3])
            lengths = path_lengths(images, ws, noise, self.scaler_G.scale)
            average = self.path_mean.lerp(lengths.mean(), PATH_DECAY)
            penalty = (lengths - average).square().mean()
            move_average(self.path_mean, average)
            # Every parameter has a gradient, if only zero, as in the official program.
            total = penalty * (config.pl_weight * config.pl_interval) + images.mean() * 0
            self._backward(total, passes, self.scaler_G)
            self.totals.add(passes, path_penalty=penalty)
            means.append(mean)
        return means

    # -- both -------------------------------------------------------------------------------

    def _styles(self, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return ws [n, num_ws, w_dim], mixed as drawn, and the mean of the first w [1, w_dim]."""
        w = self.G.mapping.embed(draws.z, draws.labels)
        ws = self.G.mapping.broadcast(w)
        if draws.second_z is not None:
            w2 = self.G.mapping.broadcast(self.G.mapping.embed(draws.second_z, draws.labels))
            if isinstance(draws.crossover, Tensor):
                layers = torch.arange(ws.shape[1], device=ws.device)
                ws = torch.where((layers < draws.crossover).view(1, -1, 1), ws, w2)
            else:
                ws = torch.cat([ws[:, : draws.crossover], w2[:, draws.crossover :]], dim=1)
        return ws, w.detach().mean(dim=0, keepdim=True)

    def _draw(self, ws: Tensor, draws: Draws, stage: Stage, *, averages: bool = False) -> Tensor:
        """Return fakes [n, C, h, w]; ``averages`` moves those of magnitudes, if G has them."""
        more = {"update_emas": True} if averages and self.magnitudes else {}
        with self._reduced():
            images: Tensor = self.G.synthesis(
                ws, noise=draws.noise, **native_lod(self.G.config, stage.lod), **more
            )
        return images

    def _fakes(
        self, draws: Draws, stage: Stage, *, averages: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return fakes [n, C, h, w] and the mean of their first latents w [1, w_dim]."""
        ws, mean = self._styles(draws)
        return self._draw(ws, draws, stage, averages=averages), mean

    def _shown(self, images: Tensor, place: Place, name: str, which: tuple[int, int]) -> Tensor:
        """Return what D sees of a pass's pictures: blurred and changed as the run has it.

        Fakes and reals come at the size being grown, faded in alike; D's own fade is still ahead.
        ``name`` is which pictures they are: a field of ``Shown``.
        """
        images = blurred(images, place.moment.blur_sigma)
        if not self.augmentation.on:
            return images
        return self.augmentation(images, self._numbers(Purpose.AUGMENTATION, name, place, which))

    def _numbers(
        self, purpose: Purpose, name: str, place: Place, which: tuple[int, int]
    ) -> StreamDraws:
        """Return the random numbers of one of the passes, drawn beforehand in a captured update."""
        streams, ranks = self.draws.streams, self.draws.ranks
        kept = None if place.held is None else place.held.streams.setdefault((purpose, name), [])
        generator = None if kept else streams.at(purpose, place.position(name))
        parts = (ranks.rank, ranks.count), which
        return StreamDraws(generator, streams.device, place.stage.batch, *parts, kept=kept)

    def _score(self, images: Tensor, labels: Tensor | None, stage: Stage) -> Tensor:
        with self._reduced():
            return self.D(images, labels, **asked_lod(self.D.config, stage.lod))  # type: ignore[no-any-return]

    def _reduced(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which convolutions take the configured precision."""
        dtype = _AUTOCAST.get(self.config.precision)
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype, cache_enabled=False)

    def _backward(self, loss: Tensor, passes: int, scaler: LossScaler) -> None:
        """Add the gradient of one of ``passes`` equal parts of the loss, scaled."""
        loss = loss if passes == 1 else loss * (1 / passes)
        (loss if scaler.scale is None else loss * scaler.scale).backward()  # type: ignore[no-untyped-call]


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Blur images [N, C, H, W] by taps 2^-(x/σ)² to ⌊3σ⌋ pixels, with zeros outside.

    StyleGAN3-R shows D blurred pictures at first (Karras et al. 2021, appendix E).
    """
    reach = math.floor(3 * sigma)
    if not reach:
        return images
    places = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
    taps = (places / sigma).square().neg().exp2()
    return upfirdn2d(images, taps / taps.sum(), padding=reach)

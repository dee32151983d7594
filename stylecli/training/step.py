"""One step of training: update D, then the moving average, then G.

A rank's share of the batch can be worked off in several passes, whose gradients add up to those of
the whole (``passes``).

Random numbers are those of ``draws``.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from stylecli.distributed.ranks import Ranks
from stylecli.errors import DeviceError, lacks_memory, plural
from stylecli.hardware import cuda_arithmetic, free_unused, widest_float
from stylecli.images import from_uint8
from stylecli.networks.layers import box_average, lerp, upscale_nearest
from stylecli.networks.model import Bundle, asked_lod, native_lod
from stylecli.training.augment import Augmentation, StreamDraws
from stylecli.training.config import TrainingConfig
from stylecli.training.draws import Draws, DrawSource, Purpose, Streams
from stylecli.training.losses import (
    D_loss,
    G_loss,
    LossScaler,
    gradient_penalty,
    squared_gradient,
)
from stylecli.training.optimizer import Adam, FlatParameters
from stylecli.training.schedule import Stage, count_passes, smaller_pass

STATISTICS = (
    "loss_G", "loss_D", "r1_penalty", "real_logits", "real_signs", "fake_logits", "grad_norm_G",
    "grad_norm_D", "skipped_steps",
)  # fmt: skip
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


Result = TypeVar("Result")


class StepMemoryError(DeviceError):
    """A step needs more memory than the device has."""


@dataclass
class _Pass:
    """The samples of one pass through D: of n reals and n fakes."""

    reals: Tensor  # [n, C, h, w], -1..1
    labels: Tensor | None  # of the reals, [n, label_dim]
    fakes: Tensor  # [n, C, h, w]
    fake_labels: Tensor | None
    index: int  # of this pass
    count: int  # of passes

    def mine(self, share: Tensor) -> Tensor:
        """Return this pass's part of the rank's share [n · count, ...]."""
        return share[self.index :: self.count]


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
        batch_gpu: int | None = None,
        exact: bool = False,
        adapt: Callable[[str], None] | None = None,
    ) -> None:
        """``label_table`` [N, label_dim] holds the dataset's labels, which G draws from.

        ``batch_gpu`` is the most samples of a pass, None the rank's whole share of a batch.
        ``exact`` has CUDA compute float32 products in full; otherwise it may take TF32. With
        ``adapt``, a pass that does not fit the memory is halved, and ``adapt`` is told so.
        """
        assert bundle.G is not None and bundle.D is not None and bundle.G_ema is not None
        self.config = config
        self.batch_gpu = batch_gpu
        self.exact, self.adapt = exact, adapt
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
        self.scaler_G = LossScaler(config.precision, self.device)
        self.scaler_D = LossScaler(config.precision, self.device)
        self.streams = Streams(config.seed, self.device)
        table = None if label_table is None else label_table.to(self.device)
        self.draws = DrawSource(self.G.config, self.streams, self.ranks, table)
        wide = widest_float(self.device)
        self.totals = torch.zeros(len(STATISTICS) + 1, dtype=wide, device=self.device)
        self.augmentation = Augmentation(config, self.device)
        # of D's logits on the reals of a step: the sum of their signs, and how many there are
        self._signs = torch.zeros(2, dtype=wide, device=self.device)

    def set_stage(self, stage: Stage, *, reset: bool) -> None:
        """Grow all networks to a stage; ``reset`` makes both optimizers start afresh."""
        for network in (self.G, self.D, self.G_ema):
            network.lod = stage.lod
        if reset:
            self.adam_G.reset()
            self.adam_D.reset()

    def freeze_D(self, layers: list[str]) -> None:
        """Keep the parameters of D's ``layers`` as they are from now on.

        Their gradients are cleared before every update, and what momentum a checkpoint brought.
        """
        names = [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]
        self.flat_D.freeze(names)
        if self.adam_D.mean is not None:
            moments = self.flat_D.named(self.adam_D.mean)
            for name in names:
                moments[name].zero_()

    def __call__(
        self, real_images: Tensor, real_labels: Tensor | None, stage: Stage, step: int
    ) -> None:
        """Train on this rank's share of a batch: uint8 [n, C, h, w] at the stage's size.

        Raises UsageError when the share does not divide into passes, and StepMemoryError when it
        does not fit the device's memory.
        """
        try:
            with cuda_arithmetic(self.device, exact=self.exact):
                self._train(real_images, real_labels, stage, step)
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            raise self._no_memory(len(real_images), stage)[0] from error

    def _train(
        self, real_images: Tensor, real_labels: Tensor | None, stage: Stage, step: int
    ) -> None:
        count = len(real_images)
        reals = process_reals(real_images.to(self.device, non_blocking=True), stage.fade)
        labels = None if real_labels is None else real_labels.to(self.device, non_blocking=True)
        shapes = self.G.config.noise_shapes()
        share = self.config.share_fakes
        # A step has two draws: even stream positions belong to D, odd ones to G.
        draws = self.draws.fakes(stage, 2 * step, shapes, None if share else labels)

        def differentiate_D(passes: int) -> tuple[list[Tensor], list[Tensor]]:
            # One pass hands its fakes on to G with their history; several would have to keep all
            # of it, so G draws the same fakes again.
            keep = share and passes == 1
            return self._differentiate_D(reals, labels, draws, stage, step, passes, keep=keep)

        kept, means = self._fitting(differentiate_D, count, stage)
        self._move_w_avg(means)
        self._count(skipped_steps=self._apply(self.flat_D, self.adam_D, self.scaler_D, stage.lr))
        self._update_ema(stage)
        if not share:
            draws = self.draws.fakes(stage, 2 * step + 1, shapes)

        def differentiate_G(passes: int) -> list[Tensor]:
            return self._differentiate_G(draws, kept, stage, step, passes)

        means = self._fitting(differentiate_G, count, stage)
        if not share:
            self._move_w_avg(means)
        skipped = self._apply(self.flat_G, self.adam_G, self.scaler_G, stage.lr)
        self._count(skipped_steps=skipped, steps=1)
        self.augmentation.follow(self._signs, self.ranks, stage.batch, step)

    def _fitting(self, differentiate: Callable[[int], Result], share: int, stage: Stage) -> Result:
        """Return ``differentiate(passes)`` with as few passes of a rank's ``share`` as fit.

        Nothing is exchanged with other ranks in it, so that each finds what fits by itself.
        """
        while True:
            passes = count_passes(share, self.batch_gpu, self.G.config.mbstd_group_size)
            counted = self.totals.clone()
            try:
                return differentiate(passes)
            except (RuntimeError, MemoryError) as error:
                if not lacks_memory(error):
                    raise
                problem, smaller = self._no_memory(share, stage)
                if smaller is None or self.adapt is None:
                    raise problem from error
            # Here, where the error no longer holds what the pass had computed.
            self.totals.copy_(counted)
            free_unused(self.device)
            self.batch_gpu = smaller
            self.adapt(
                f"{plural(share // passes, 'picture')} of {stage.resolution} px at a time do not "
                f"fit the "
                f"memory of {self.device}: continuing with --batch-gpu {smaller}"
            )

    def _no_memory(self, share: int, stage: Stage) -> tuple[StepMemoryError, int | None]:
        """Return what to raise, and the next smaller pass where there is one."""
        group = self.G.config.mbstd_group_size
        passes = count_passes(share, self.batch_gpu, group)
        smaller = smaller_pass(share, passes, group)
        advice = "a smaller --resolution" if smaller is None else f"--batch-gpu {smaller}"
        error = StepMemoryError(
            f"{self.device} has not enough memory to train on "
            f"{plural(share // passes, 'picture')} of "
            f"{stage.resolution} px at a time: use {advice}, or measure what fits with "
            "stylecli plan"
        )
        return error, smaller

    def take_statistics(self) -> dict[str, float]:
        """Return means over the steps since the last call, of this rank's samples."""
        *sums, steps = self.totals.tolist()
        self.totals.zero_()
        means = {name: total / max(steps, 1) for name, total in zip(STATISTICS, sums, strict=True)}
        strength = {"augment_p": float(self.augmentation.p)} if self.augmentation.on else {}
        return {**means, "skipped_steps": sums[-1], **strength}

    @property
    def products(self) -> str:
        """How products of float32 numbers are computed: float32, or tf32."""
        return "float32" if self.exact or self.device.type != "cuda" else "tf32"

    # -- parts ------------------------------------------------------------------------------

    def _fakes(self, draws: Draws, stage: Stage) -> tuple[Tensor, Tensor]:
        """Return fakes [n, C, h, w] and the mean of their first latents w [1, w_dim]."""
        w = self.G.mapping.embed(draws.z, draws.labels)
        ws = self.G.mapping.broadcast(w)
        if draws.second_z is not None:
            w2 = self.G.mapping.broadcast(self.G.mapping.embed(draws.second_z, draws.labels))
            ws = torch.cat([ws[:, : draws.crossover], w2[:, draws.crossover :]], dim=1)
        with self._reduced():
            images = self.G.synthesis(ws, noise=draws.noise, **native_lod(self.G.config, stage.lod))
        return images, w.detach().mean(dim=0, keepdim=True)

    def _move_w_avg(self, means: list[Tensor]) -> None:
        """Move w_avg by the mean of the whole batch, on all ranks alike."""
        mean = torch.stack(means).mean(dim=0)
        self.ranks.mean_(mean, wait=False)  # the gradients' exchange follows, and waits
        self.G.mapping.update_w_avg(mean)

    def _differentiate_D(
        self,
        reals: Tensor,
        labels: Tensor | None,
        draws: Draws,
        stage: Stage,
        step: int,
        passes: int,
        *,
        keep: bool,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Set D's gradient; return the fakes that know how G made them, and the means of w.

        There are such fakes with ``keep`` alone, and those of the last pass.
        """
        self.flat_D.grad.zero_()
        self._signs.zero_()
        means = []
        for index in range(passes):
            part = draws.part(index, passes)
            with torch.set_grad_enabled(keep):
                fakes, mean = self._fakes(part, stage)
            means.append(mean)
            own_labels = None if labels is None else labels[index::passes]
            self._differentiate_pass(
                _Pass(reals[index::passes], own_labels, fakes.detach(), part.labels, index, passes),
                stage,
                step,
            )
        return [fakes] if keep else [], means

    def _differentiate_pass(self, part: _Pass, stage: Stage, step: int) -> None:
        """Add a pass's share of the gradient to D's."""
        config = self.config
        penalise = step % config.r1_interval == 0
        reals, fakes = part.reals, part.fakes
        r1 = config.r1_gamma if penalise and config.loss.startswith("logistic") else 0.0
        r2 = config.r2_gamma if penalise and config.loss.startswith("logistic") else 0.0
        if r1:
            reals = reals.detach().requires_grad_(True)
        if r2:
            fakes = fakes.requires_grad_(True)
        which = part.index, part.count
        seen_reals = self._augmented(reals, stage, 3 * step, *which)
        seen_fakes = self._augmented(fakes, stage, 3 * step + 1, *which)
        real_logits = self._score(seen_reals, part.labels, stage)
        fake_logits = self._score(seen_fakes, part.fake_labels, stage)
        loss = D_loss(config.loss, real_logits, fake_logits).mean()
        total = loss
        penalty = torch.zeros((), device=self.device)
        pixels, scale = 4**stage.level, self.scaler_D.scale
        for gamma, logits, images in ((r1, real_logits, reals), (r2, fake_logits, fakes)):
            if gamma:
                squared = squared_gradient(logits, images, pixels, scale).mean()
                total = total + squared * (gamma / 2 * config.r1_interval)
                penalty = penalty + squared.detach()
        if config.loss.endswith("gp") and penalise:
            squared = gradient_penalty(
                lambda x: self._score(x, part.labels, stage),
                seen_reals, seen_fakes, part.mine(self.draws.interpolation(stage, step)),
                pixels, scale,
            ).mean()  # fmt: skip
            total = total + squared * config.r1_interval
            penalty = penalty + squared.detach()
        self._backward(total, part.count, self.scaler_D)
        signs = torch.nan_to_num(real_logits.detach().sign())
        # ADA's program asks D about the reals twice where it penalises now and then.
        looks = 2 if penalise and config.r1_interval > 1 else 1
        self._signs[0] += signs.sum() * looks
        self._signs[1] += len(signs) * looks
        self._count(part.count, loss_D=loss, real_logits=real_logits.mean(),
                    fake_logits=fake_logits.mean(), real_signs=signs.mean(),
                    r1_penalty=penalty * config.r1_interval if penalise else penalty)  # fmt: skip

    def _differentiate_G(
        self, draws: Draws, kept: list[Tensor], stage: Stage, step: int, passes: int
    ) -> list[Tensor]:
        """Set G's gradient, by new fakes or those ``kept`` from D; return the new ones' mean w."""
        self.flat_G.grad.zero_()
        if passes > 1:
            kept.clear()  # what one pass was to use did not fit
        self.D.requires_grad_(False)
        means = []
        try:
            for index in range(passes):
                part = draws.part(index, passes)
                if kept:
                    fakes = kept[0]
                else:
                    fakes, mean = self._fakes(part, stage)
                    means.append(mean)
                seen = self._augmented(fakes, stage, 3 * step + 2, index, passes)
                loss = G_loss(self.config.loss, self._score(seen, part.labels, stage)).mean()
                self._backward(loss, passes, self.scaler_G)
                self._count(passes, loss_G=loss)
        finally:
            self.D.requires_grad_(True)
        return means

    def _augmented(
        self, images: Tensor, stage: Stage, position: int, index: int, count: int
    ) -> Tensor:
        """Return what D sees of a pass's pictures: changed as the run's augmentation has it.

        Fakes and reals come at the size being grown, faded in alike; D's own fade is still ahead.
        ``position`` counts the batches that D sees: three in a step.
        """
        if not self.augmentation.on:
            return images
        generator = self.streams.at(Purpose.AUGMENTATION, position)
        mine = (self.ranks.rank, self.ranks.count), (index, count)
        return self.augmentation(images, StreamDraws(generator, self.device, stage.batch, *mine))

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

    def _apply(self, flat: FlatParameters, adam: Adam, scaler: LossScaler, lr: float) -> Tensor:
        """Average gradients over ranks and step; return [] 1 where the gradient was not finite.

        Such a gradient is not applied. The host does not learn of it before the end of the tick:
        asking would make it wait for the device, and the device for it afterwards.
        """
        flat.clear_frozen()
        self.ranks.mean_(flat.grad)
        finite = torch.isfinite(flat.grad).all()
        flat.grad.masked_fill_(~finite, 0.0)
        if scaler.scale is not None:
            flat.grad.div_(scaler.scale)
        adam.step(flat.data, flat.grad, lr, finite)
        norm = "grad_norm_G" if flat is self.flat_G else "grad_norm_D"
        self._count(**{norm: flat.grad.norm() * finite})
        scaler.update(finite)
        return ~finite

    @torch.no_grad()
    def _update_ema(self, stage: Stage) -> None:
        """Move G_ema towards G with half-life ema_kimg; copy what is not trained."""
        beta = 0.5 ** (stage.batch / (self.config.ema_kimg * 1000))
        self.flat_ema.data.lerp_(self.flat_G.data, 1 - beta)
        for averaged, current in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
            averaged.copy_(current)

    @torch.no_grad()
    def _count(self, passes: int = 1, steps: int = 0, **values: Tensor | float) -> None:
        for name, value in values.items():
            self.totals[STATISTICS.index(name)] += (
                value.detach() if isinstance(value, Tensor) else value
            ) / passes
        self.totals[-1] += steps


def process_reals(images: Tensor, fade: float, upscale: int = 1) -> Tensor:
    """Turn real images, uint8 [N, C, h, w], into what D sees: -1..1, faded and upscaled.

    ``fade`` is the fractional part of lod: the share of the picture's own 2×2 averages, so that
    reals lose detail as fakes do. ``upscale`` repeats pixels; training leaves it at 1, because D
    takes images at the level's own size.
    """
    x = from_uint8(images)
    if fade:
        x = lerp(x, upscale_nearest(box_average(x, 2), 2), fade)
    return upscale_nearest(x, upscale)

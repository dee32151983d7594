"""One step of training: which networks are updated, in which order, and what follows.

Gradients are computed by ``gradients``, random numbers are those of ``draws``.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor

from stylecli.distributed.ranks import Ranks
from stylecli.errors import DeviceError, lacks_memory, plural
from stylecli.hardware import cuda_arithmetic, free_unused
from stylecli.images import from_uint8
from stylecli.networks.layers import box_average, fading_by, lerp, upscale_nearest
from stylecli.networks.model import Bundle
from stylecli.ops.convolution import channels_last_on_cuda, planar_weight_gradients
from stylecli.shapes import Size
from stylecli.training.augment import Augmentation
from stylecli.training.config import CHANNELS_LAST, GRAPHS, JOINT, LAZY, OVERLAP, TrainingConfig
from stylecli.training.draws import DrawSource, Streams
from stylecli.training.gradients import Batch, Gradients, Place, Shown
from stylecli.training.graphs import (
    CaptureError,
    CudaGraphs,
    HeldUpdate,
    Part,
    Recorder,
    StepGraphs,
)
from stylecli.training.losses import LossScaler
from stylecli.training.optimizer import Adam, EarlySums, FlatParameters
from stylecli.training.schedule import (
    Dials,
    Moment,
    Rates,
    Stage,
    count_passes,
    moment_at,
    smaller_pass,
)

Result = TypeVar("Result")


class StepMemoryError(DeviceError):
    """A step needs more memory than the device has."""


@dataclass(frozen=True)
class Phase:
    """One update within a step."""

    of: Literal["D", "G", "penalty", "paths", "average"]
    draws: int = 0  # which of the step's draws it takes
    second: bool = False  # takes the step's second batch of reals
    penalise: bool = False


def phases_at(config: TrainingConfig, step: int) -> list[Phase]:
    """Return the updates of a step, in their order.

    joint   D with its penalties, the average, G                    (StyleGAN's program)
    lazy    G, its path lengths, D, its penalties, the average      (StyleGAN2 and 3, PyTorch)
    paired  D with its penalties, G on pictures of its own, the average              (R3GAN)
    """
    due = step % config.r1_interval == 0
    average = Phase("average")
    if config.phases == JOINT:
        return [Phase("D", 0, penalise=due), average, Phase("G", 1)]
    if config.phases == LAZY:
        apart = config.r1_interval > 1
        phases = [Phase("G", 0)]
        if config.pl_weight and step % config.pl_interval == 0:
            phases.append(Phase("paths", 1))
        phases.append(Phase("D", 2, penalise=not apart))
        if apart and due and (config.r1_gamma or config.r2_gamma):
            phases.append(Phase("penalty", 3))
        return [*phases, average]
    return [Phase("D", 0, penalise=due), Phase("G", 1, second=True), average]


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
        accelerations: frozenset[str] = frozenset(),
        adapt: Callable[[str], None] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """``label_table`` [N, label_dim] holds the dataset's labels, which G draws from.

        ``batch_gpu`` is the most samples of a pass, None the rank's whole share of a batch.
        ``exact`` has CUDA compute float32 products in full; otherwise it may take TF32.
        ``accelerations`` are those of ``config.ACCELERATIONS``, for CUDA. With ``adapt``, a pass
        that does not fit the memory is halved, and ``adapt`` is told so. ``recorder`` captures
        updates, wherever they are; graphs of CUDA otherwise, where they are asked for.
        """
        assert bundle.G is not None and bundle.D is not None and bundle.G_ema is not None
        self.config = config
        sides = config.planar_sides(bundle.config.resolution)
        self._planar = [bundle.config.size_at(side).width for side in sides]
        self.batch_gpu = batch_gpu
        self.exact, self.adapt = exact, adapt
        self._last = CHANNELS_LAST in accelerations and config.precision != "float32"
        self.ranks = ranks or Ranks()
        self.device = device or torch.device("cpu")
        self.G = bundle.G.to(self.device).train()
        self.D = bundle.D.to(self.device).train()
        self.G_ema = bundle.G_ema.to(self.device).eval()
        self.G_ema.requires_grad_(False)
        self.streams = Streams(config.seed, self.device)
        table = None if label_table is None else label_table.to(self.device)
        self.draws = DrawSource(self.G.config, self.streams, self.ranks, table)
        self.augmentation = Augmentation(config, self.device)
        self.gradients = Gradients(self.G, self.D, config, self.draws, self.augmentation)
        self.flat_G, self.flat_D = self.gradients.flat_G, self.gradients.flat_D
        self.flat_ema = FlatParameters(self.G_ema)
        adam = {"beta1": config.adam_beta1, "epsilon": config.adam_epsilon}
        self.adam_G = Adam(self.flat_G.data, **adam)
        self.adam_D = Adam(self.flat_D.data, **adam)
        self.scaler_G, self.scaler_D = self.gradients.scaler_G, self.gradients.scaler_D
        self.totals = self.gradients.totals
        self.moment: Moment | None = None  # of the last step
        self.sums: dict[str, EarlySums] = {}
        if OVERLAP in accelerations and self.ranks.count > 1:
            self.sums = {
                "G": EarlySums(self.G, self.flat_G, self.ranks),
                "D": EarlySums(self.D, self.flat_D, self.ranks),
            }
        if recorder is None and GRAPHS in accelerations and self.device.type == "cuda":
            recorder = CudaGraphs(self.device)
        self.graphs: StepGraphs | None = None
        if recorder is not None:
            moves = config.beta2_final is not None
            self.graphs = StepGraphs(self.device, recorder, beta2_moves=moves)

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
        names = [
            name for name in self.flat_D.names
            if any(name == layer or name.startswith(f"{layer}.") for layer in layers)
        ]  # fmt: skip
        self.flat_D.freeze(names)
        if self.adam_D.mean is not None:
            moments = self.flat_D.named(self.adam_D.mean)
            for name in names:
                moments[name].zero_()

    def __call__(
        self, real_images: Tensor, real_labels: Tensor | None, stage: Stage, step: int
    ) -> None:
        """Train on this rank's share of a batch: uint8 [n, C, h, w] at the stage's size.

        In phases paired it holds two batches, one after the other: D's, and G's.

        Raises UsageError when the share does not divide into passes, and StepMemoryError when it
        does not fit the device's memory.
        """
        try:
            planar, last = planar_weight_gradients(self._planar), channels_last_on_cuda(self._last)
            with planar, last, cuda_arithmetic(self.device, exact=self.exact):
                self._train(real_images, real_labels, stage, step)
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            share = len(real_images) // self.config.batches_of_reals
            raise self._no_memory(share, stage)[0] from error

    def _train(
        self, real_images: Tensor, real_labels: Tensor | None, stage: Stage, step: int
    ) -> None:
        config = self.config
        moment = moment_at(config, stage)
        self.moment = moment
        graphs = None if moment.blur_sigma else self.graphs  # a blur changes its shape as it goes
        dials = Dials.at(config, stage, moment)
        share = len(real_images) // config.batches_of_reals
        fade: float | Tensor = stage.fade
        if graphs is None:
            images = process_reals(real_images.to(self.device, non_blocking=True), fade)
            labels = None if real_labels is None else real_labels.to(self.device, non_blocking=True)
            aside: AbstractContextManager[None] = nullcontext()
        else:
            passes = count_passes(share, self.batch_gpu, self.G.config.mbstd_group_size)
            penalties = bool(moment.r1_gamma), bool(moment.r2_gamma)
            shape = (stage.level, bool(stage.fade), stage.batch, share, passes, penalties)
            graphs.begin(shape, dials, images=real_images, labels=real_labels)
            images, labels = graphs.inputs["images"], graphs.inputs.get("labels")
            assert graphs.dials is not None
            dials, aside = graphs.dials, graphs.recorder.aside()
            fade = dials.fade if stage.fade else 0.0
        place = Place(stage, moment, step, Shown.at(config, step), dials)
        with aside, fading_by(fade if isinstance(fade, Tensor) else None):
            self.augmentation.set_fixed(moment.augment_p)
            self.gradients.signs.zero_()
            self._take_phases(images, labels, place, share, graphs)
            self.augmentation.follow(self.gradients.signs, self.ranks, stage.batch, step)

    def _take_phases(
        self,
        images: Tensor,
        labels: Tensor | None,
        place: Place,
        share: int,
        graphs: StepGraphs | None,
    ) -> None:
        """Take the updates of a step; ``images`` are reals, with ``graphs`` still uint8."""
        config, networks, stage = self.config, self.G.config, place.stage
        # Streams are numbered as runs of the first version have them: even for D, odd for G.
        draws_of_step = 2 if config.phases == JOINT else 4
        kept: list[Tensor] = []  # fakes that D hands on to G
        drawn = None
        for phase in phases_at(config, place.step):
            held = None if graphs is None else graphs.update(phase)
            if phase.of == "average":
                self._run([Part(lambda: self._update_ema(place.dials))], graphs, held)
                continue
            which = slice(share, None) if phase.second else slice(0, share)
            own_labels = None if labels is None else labels[which]
            if not (config.share_fakes and drawn):
                # Fakes have the labels of the reals beside them, or draw theirs from the dataset.
                beside = phase.of == "D" and not config.share_fakes and not config.lazy
                taken = own_labels if beside or phase.second else None
                shapes = networks.noise_shapes()
                if phase.of == "penalty" and not place.moment.r2_gamma:
                    shapes = []  # it draws no fakes
                drawn = self.draws.fakes(
                    stage, draws_of_step * place.step + phase.draws, shapes, taken,
                    path_noise=phase.of == "paths",
                    into=None if held is None else held.draws.fakes,
                )  # fmt: skip
            here = place
            if held is not None:
                held.draws.draw_again(self.streams, place.position)
                here = replace(place, held=held.draws)
            parts = self._parts(phase, Batch(drawn, images[which], own_labels), here, kept, share)
            self._run(parts, graphs, held)

    def _run(
        self, parts: Sequence[Part], graphs: StepGraphs | None, held: HeldUpdate | None
    ) -> None:
        """Run the parts of an update, which one process captures as one."""
        if graphs is None or held is None or self.graphs is None:
            for part in parts:
                part.work()
            return
        if self.ranks.count == 1:
            parts = [_joined(parts)]
        try:
            graphs.run(held, parts, self.totals)
        except CaptureError as error:
            cause = error.__cause__
            # What ends a capture that an error broke may raise one more.
            causes = [one for one in (cause, cause and cause.__context__) if one is not None]
            if self.adapt is None or not any(map(lacks_memory, causes)):
                raise
            # The rest of this update and all that follow go without.
            self.graphs = None
            graphs.forget()
            free_unused(self.device)
            self.adapt(f"graphs do not fit the memory of {self.device}: continuing without them")
            for part in error.rest:
                part.work()

    def _parts(
        self, phase: Phase, batch: Batch, place: Place, kept: list[Tensor], count: int
    ) -> list[Part]:
        """Return what updates one network by a share of ``count`` samples, part by part."""
        found, stage, config = self.gradients, place.stage, self.config
        means: list[Tensor] = []
        flat, adam, scaler, rates = (
            (self.flat_D, self.adam_D, self.scaler_D, place.dials.D)
            if phase.of in ("D", "penalty")
            else (self.flat_G, self.adam_G, self.scaler_G, place.dials.G)
        )
        sums = self.sums.get("D" if flat is self.flat_D else "G")

        def differentiate(passes: int) -> list[Tensor]:
            if sums is not None:
                penalties = bool(place.moment.r1_gamma), bool(place.moment.r2_gamma)
                sums.begin((phase, stage.level, bool(stage.fade), stage.batch, penalties), passes)
            if phase.of == "D":
                # One pass hands its fakes on to G with their history; several would have to keep
                # all of it, so G draws the same fakes again. So it does where updates are captured.
                keep = config.share_fakes and passes == 1
                fakes, means = found.of_D(given, place, passes, keep=keep, penalise=phase.penalise)
                kept[:] = fakes if place.held is None else []
                return means
            if phase.of == "G":
                return found.of_G(given, kept, place, passes)
            if phase.of == "paths":
                return found.of_paths(given, place, passes)
            found.of_penalty(given, place, passes)
            return []

        given = batch

        def find() -> None:
            nonlocal given
            if place.held is not None:
                assert batch.reals is not None
                fade = place.dials.fade if stage.fade else 0.0
                given = replace(batch, reals=process_reals(batch.reals, fade))
            means[:] = self._fitting(differentiate, count, place)

        def exchange() -> None:
            if phase.of == "paths":
                self.ranks.mean_(found.path_mean, wait=False)
            shared = phase.of == "G" and config.share_fakes
            # w_avg moves with D, where all averages are D's.
            if means and not shared and not (found.magnitudes and phase.of != "D"):
                self._move_w_avg(means)
            if phase.of == "D" and found.magnitudes and self.ranks.count > 1:
                self._share_magnitudes(found.magnitudes)
            if sums is None:
                self.ranks.mean_(flat.grad)
            else:
                sums.finish()
            flat.clear_frozen()

        return [
            Part(find),
            Part(exchange, captured=False),
            Part(lambda: self._apply(flat, adam, scaler, rates)),
        ]

    def _fitting(self, differentiate: Callable[[int], Result], share: int, place: Place) -> Result:
        """Return ``differentiate(passes)`` with as few passes of a rank's ``share`` as fit.

        Nothing is exchanged with other ranks in it, so that each finds what fits by itself, unless
        gradients travel while they are computed: then in the first step of a shape alone.
        """
        found, group = self.gradients, self.G.config.mbstd_group_size
        if self.graphs is not None and self.graphs.capturing:
            # What does not fit then is done without graphs (``_run``).
            return differentiate(count_passes(share, self.batch_gpu, group))
        moving = [self.totals.sums, found.signs, found.path_mean, *found.magnitudes]
        if self.adapt is None:
            moving = []  # nothing is tried again
        while True:
            passes = count_passes(share, self.batch_gpu, group)
            before = [tensor.clone() for tensor in moving], list(self.totals.counts)
            try:
                return differentiate(passes)
            except (RuntimeError, MemoryError) as error:
                if not lacks_memory(error):
                    raise
                problem, smaller = self._no_memory(share, place.stage)
                sent = any(one.sending for one in self.sums.values())
                if smaller is None or self.adapt is None or sent:
                    raise problem from error
            # Here, where the error no longer holds what the pass had computed.
            for tensor, value in zip(moving, before[0], strict=True):
                tensor.copy_(value)
            self.totals.counts = before[1]
            if place.held is not None:
                place.held.streams.clear()  # the pass may have ended between two draws
            free_unused(self.device)
            self.batch_gpu = smaller
            self.adapt(
                f"{plural(share // passes, 'picture')} of {self._size(place.stage)} px at a time "
                f"do not fit the memory of {self.device}: continuing with --batch-gpu {smaller}"
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
            f"{self._size(stage)} px at a time: use {advice}, or measure what fits with "
            "stylecli plan"
        )
        return error, smaller

    def _size(self, stage: Stage) -> Size:
        return self.G.config.size_at(stage.resolution)

    def take_statistics(self) -> dict[str, float]:
        """Return means over the steps since the last call, of this rank's samples."""
        means = self.totals.take()
        if not self.config.pl_weight:
            del means["path_penalty"]
        else:
            means["path_mean"] = float(self.gradients.path_mean)
        if self.config.anneal_kimg and self.moment is not None:
            means |= {"lr": self.moment.lr, "gamma": self.moment.r1_gamma}
        if self.augmentation.on:
            means["augment_p"] = float(self.augmentation.p)
        return means

    @property
    def products(self) -> str:
        """How products of float32 numbers are computed: float32, or tf32."""
        return "float32" if self.exact or self.device.type != "cuda" else "tf32"

    # -- parts ------------------------------------------------------------------------------

    def _move_w_avg(self, means: list[Tensor]) -> None:
        """Move w_avg by the mean of the whole batch, on all ranks alike."""
        mean = torch.stack(means).mean(dim=0)
        self.ranks.mean_(mean, wait=False)  # the gradients' exchange follows, and waits
        self.G.mapping.update_w_avg(mean)

    def _share_magnitudes(self, magnitudes: Sequence[Tensor]) -> None:
        """Bring the averages of features' magnitudes to their means over all ranks."""
        means = torch.stack(list(magnitudes))
        self.ranks.mean_(means)
        for buffer, mean in zip(magnitudes, means, strict=True):
            buffer.copy_(mean)

    def _apply(self, flat: FlatParameters, adam: Adam, scaler: LossScaler, rates: Rates) -> None:
        """Step by the gradient of all ranks; count it where that was not finite.

        Such a gradient is not applied. The host does not learn of it before the end of the tick:
        asking would make it wait for the device, and the device for it afterwards.
        """
        norm = None
        if self.graphs is None and self.device.type == "cpu":
            # Nothing waits for a processor: one look at the gradient tells what is to be done.
            norm = flat.grad.norm()
            finite = norm.isfinite() if norm.isfinite() else torch.isfinite(flat.grad).all()
            if not finite:
                flat.grad.zero_()
        else:
            finite = torch.linalg.vector_norm(flat.grad, torch.inf).isfinite()
            flat.grad.masked_fill_(~finite, 0.0)
        if scaler.scale is not None:
            flat.grad.div_(scaler.scale)
        adam.step(flat.data, flat.grad, rates, finite)
        if norm is None or scaler.scale is not None or not finite:
            norm = flat.grad.norm() * finite
        name = "grad_norm_G" if flat is self.flat_G else "grad_norm_D"
        self.totals.add(**{name: norm}, skipped_steps=~finite)
        scaler.update(finite)

    @torch.no_grad()
    def _update_ema(self, dials: Dials) -> None:
        """Move G_ema towards G; copy what is not trained."""
        self.flat_ema.data.lerp_(self.flat_G.data, dials.average)
        for averaged, current in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
            averaged.copy_(current)


def _joined(parts: Sequence[Part]) -> Part:
    def work() -> None:
        for part in parts:
            part.work()

    return Part(work)


def process_reals(images: Tensor, fade: float | Tensor, upscale: int = 1) -> Tensor:
    """Turn real images, uint8 [N, C, h, w], into what D sees: -1..1, faded and upscaled.

    ``fade`` is the fractional part of lod: the share of the picture's own 2×2 averages, so that
    reals lose detail as fakes do. ``upscale`` repeats pixels; training leaves it at 1, because D
    takes images at the level's own size.
    """
    x = from_uint8(images)
    if isinstance(fade, Tensor) or fade:
        x = lerp(x, upscale_nearest(box_average(x, 2), 2), fade)
    return upscale_nearest(x, upscale)

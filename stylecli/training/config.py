"""What decides a run, and how a session of it is driven: two frozen dataclasses. Stdlib only."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from stylecli.errors import UsageError
from stylecli.settings import (
    LOSS,
    MACHINE,
    OPTIMIZERS,
    PAPER,
    PICTURES,
    RUN,
    SCHEDULE,
    WATCHING,
    Check,
    above_zero,
    below_one,
    check_settings,
    not_negative,
    one_of,
    parse_by_resolution,
    power_of_two,
    setting,
    settings_of,
)

LOSSES = ("logistic", "logistic-saturating", "wgan-gp", "hinge", "hinge-gp", "relativistic")
JOINT, LAZY, PAIRED = "joint", "lazy", "paired"
PHASES = (JOINT, LAZY, PAIRED)  # what a step consists of; see phases_at
PRECISIONS = ("float32", "bf16", "fp16")
WATCH = ("warn", "stop", "rollback", "off")
JSONL = "jsonl"
CHANNELS_LAST = "channels-last"  # features in half precision
GRAPHS = "graphs"  # a CUDA graph for every update
OVERLAP = "overlap"  # gradients travel between ranks during the backward pass
ACCELERATIONS = (CHANNELS_LAST, GRAPHS, OVERLAP)
LOGS = (JSONL, "tensorboard", "wandb", "mlflow")
AUGMENT = ("none", "fixed", "adaptive")
AUGMENT_PIPES = (
    "blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc",
    "halfcolor", "diffaugment",
)  # fmt: skip
AUTO = "auto"  # as an option: the quicker one of the first two where it trains

# The paper's, by resolution, on one GPU; the base is for all other resolutions.
BATCH: Mapping[int, int] = MappingProxyType(
    {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4}
)
BATCH_BASE = 4
LR: Mapping[int, float] = MappingProxyType({128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003})
LR_BASE = 0.001
TICK_KIMG: Mapping[int, float] = MappingProxyType(
    {4: 160, 8: 140, 16: 120, 32: 100, 64: 80, 128: 60, 256: 40, 512: 30, 1024: 20}
)
ALL_SIDES, NO_SIDES = "all", "none"
GAMMA = 10.0  # weight of R1, at every published resolution


def _sides_or_all(name: str, value: str) -> None:
    for word in () if value in (ALL_SIDES, NO_SIDES) else value.split(","):
        if not word.isdecimal() or int(word) < 4 or int(word) & (int(word) - 1):
            raise UsageError(
                f"cannot read {word!r} in {name} {value!r}: expected {ALL_SIDES}, {NO_SIDES} or "
                "powers of two such as 64,128"
            )


def _whole_by_resolution(text: str, flag: str) -> Any:
    return parse_by_resolution(text, flag, whole=True)


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Defaults are the paper's for FFHQ (Karras et al. 2018) on one GPU.

    A new setting is a field here, and whoever heeds it: options, ``plan``, ``--dry-run``, resuming
    and the report know it from its declaration.
    """

    # Schedule
    total_kimg: float = setting(
        25_000.0, flag="--kimg", heading=SCHEDULE, after="preset", costs=True,
        help="Length: thousands of real images to show.", check=above_zero, reason=PAPER,
    )  # fmt: skip
    initial_resolution: int = setting(
        8, flag="--initial-resolution", heading=SCHEDULE, costs=True,
        help="Resolution at which growth starts.", check=power_of_two, reason=PAPER,
    )  # fmt: skip
    hold_kimg: float = setting(
        600.0, flag="--hold-kimg", heading=SCHEDULE, costs=True,
        help="Time at each resolution after fading in.", check=not_negative, reason=PAPER,
    )  # fmt: skip
    fade_kimg: float = setting(
        600.0, flag="--fade-kimg", heading=SCHEDULE, costs=True,
        help="Time to fade in the next resolution.", check=above_zero, reason=PAPER,
    )  # fmt: skip
    batch: Mapping[int, int] = setting(
        factory=lambda: dict(BATCH), base="batch_base", read=_whole_by_resolution,
        flag="--batch", heading=SCHEDULE, costs=True,
        help="Images per step over all processes: 16, or by resolution 64:32,128:16.",
        check=above_zero, reason=PAPER,
    )  # fmt: skip
    batch_base: int = setting(BATCH_BASE, check=above_zero, reason=PAPER)
    minibatch_repeats: int = setting(
        4, flag="--minibatch-repeats", heading=SCHEDULE, least=1,
        help="Steps between updates of the schedule. Default 4.", check=above_zero, reason=PAPER,
    )  # fmt: skip
    # Optimizers
    lr: Mapping[int, float] = setting(
        factory=lambda: dict(LR), base="lr_base", read=parse_by_resolution,
        flag="--lr", heading=OPTIMIZERS,
        help="Learning rate: 0.001, or by resolution 128:0.0015,256:0.002.",
        check=above_zero, reason=PAPER,
    )  # fmt: skip
    lr_base: float = setting(LR_BASE, check=above_zero, reason=PAPER)
    adam_beta1: float = setting(
        0.0, flag="--beta1", heading=OPTIMIZERS,
        help="Adam's β1. Default 0.", check=below_one, reason=PAPER,
    )  # fmt: skip
    adam_beta2: float = setting(
        0.99, flag="--beta2", heading=OPTIMIZERS,
        help="Adam's β2. Default 0.99.", check=below_one, reason=PAPER,
    )  # fmt: skip
    adam_epsilon: float = setting(
        1e-8, flag="--adam-epsilon", heading=OPTIMIZERS,
        help="Adam's ε. Default 1e-8.", check=above_zero, reason=PAPER,
    )  # fmt: skip
    ema_kimg: float = setting(
        10.0, flag="--ema-kimg", heading=OPTIMIZERS,
        help="Half-life of the averaged generator. Default 10.", check=above_zero, reason=PAPER,
    )  # fmt: skip
    ema_rampup: float | None = setting(  # None: ema_kimg from the start
        None, flag="--ema-rampup", heading=OPTIMIZERS,
        help="Longest half-life of the average at first, as a share of the images shown so far. "
        "Default: no limit.", check=above_zero, reason="no limit at first",
    )  # fmt: skip
    lr_D: float | None = setting(  # None: lr
        None, flag="--lr-d", heading=OPTIMIZERS, after="lr",
        help="Learning rate of D. Default: --lr.", check=above_zero, reason="as of G",
    )  # fmt: skip
    anneal_kimg: float = setting(
        0.0, flag="--anneal-kimg", heading=OPTIMIZERS,
        help="Time in which settings move to their final values by a cosine; the average's "
        "half-life and a fixed --augment-p rise from 0. Default 0: none do.",
        check=not_negative, reason="nothing moves",
    )  # fmt: skip
    lr_final: float | None = setting(
        None, flag="--lr-final", heading=OPTIMIZERS,
        help="Learning rate after --anneal-kimg. Default: unchanged.", check=above_zero,
        reason="unchanged",
    )  # fmt: skip
    beta2_final: float | None = setting(
        None, flag="--beta2-final", heading=OPTIMIZERS,
        help="Adam's β2 after --anneal-kimg. Default: unchanged.", reason="unchanged",
    )  # fmt: skip
    # Losses
    loss: str = setting(
        "logistic", flag="--loss", heading=LOSS, costs=True,  # logistic = non-saturating
        help="logistic, logistic-saturating, wgan-gp, hinge, hinge-gp or relativistic.",
        check=one_of(*LOSSES), reason=PAPER,
    )  # fmt: skip
    r1_gamma: float = setting(
        GAMMA, flag="--gamma", heading=LOSS, costs=True,
        help="Weight of R1 (logistic and relativistic losses).", check=not_negative, reason=PAPER,
    )  # fmt: skip
    r2_gamma: float = setting(
        0.0, flag="--gamma-fake", heading=LOSS, costs=True,
        help="Weight of R2, R1 on fakes. Default 0.", check=not_negative, reason=PAPER,
    )  # fmt: skip
    r1_interval: int = setting(  # steps from penalty to penalty, weighted up by as much
        1, flag="--r1-interval", heading=LOSS, least=1, costs=True,
        help="Steps from one R1 to the next.", check=above_zero, reason=PAPER,
    )  # fmt: skip
    gamma_final: float | None = setting(
        None, flag="--gamma-final", heading=LOSS, after="r2_gamma",
        help="Weight of R1 and R2 after --anneal-kimg. Default: unchanged.", reason="unchanged",
    )  # fmt: skip
    phases: str = setting(
        JOINT, flag="--phases", heading=LOSS, costs=True,
        help="joint: D with its penalties, then G. lazy: G, path lengths, D, penalties, each an "
        "update of its own at its interval. paired: D and G each on pictures of their own.",
        check=one_of(*PHASES), reason=PAPER,
    )  # fmt: skip
    pl_weight: float = setting(
        0.0, flag="--pl-weight", heading=LOSS, costs=True,
        help="Weight of path-length regularisation. Default 0.", check=not_negative,
        reason="none in the paper",
    )  # fmt: skip
    pl_interval: int = setting(  # 0: G has no such update, and its Adam needs no correction
        0, flag="--pl-interval", heading=LOSS, costs=True, least=0,
        help="Steps from one path-length regularisation to the next. Default 0: never.",
        check=not_negative, reason="none in the paper",
    )  # fmt: skip
    blur_sigma: float = setting(
        0.0, flag="--blur-sigma", heading=LOSS,
        help="Blur D's pictures at first: σ in pixels. Default 0.", check=not_negative,
        reason="no blur",
    )  # fmt: skip
    blur_kimg: float = setting(
        0.0, flag="--blur-kimg", heading=LOSS,
        help="Time in which the blur goes. Default 0.", check=not_negative, reason="no blur",
    )  # fmt: skip
    share_fakes: bool = setting(  # saves a pass of the generator
        False, flag="--share-fakes/--own-fakes", heading=LOSS, costs=True,
        help="Train D and G on the same fakes, or on separate ones.",
    )  # fmt: skip
    freeze_d: int = setting(  # counted from the picture on
        0, flag="--freeze-d", heading=RUN, after="resume", least=0,
        help="With --resume: number of layers of D to freeze.", check=not_negative,
    )  # fmt: skip
    # Pictures and numbers
    mirror: bool = setting(
        False, flag="--mirror/--no-mirror", heading=PICTURES, after="resolution",
        help="Mirror half of the pictures, or none.",
    )  # fmt: skip
    augment: str = setting(  # what D is shown; a plan turns it on where pictures are few
        "none", flag="--augment", heading=PICTURES, costs=True,
        help="Change what D sees at random: none, fixed or adaptive. Default: adaptive below "
        "20,000 pictures.", check=one_of(*AUGMENT),
    )  # fmt: skip
    augment_pipe: str = setting(
        "bgc", flag="--augment-pipe", heading=PICTURES, costs=True,
        help="What is changed: blit, geom, color, filter, noise, cutout, by first letters bg to "
        "bgcfnc, halfcolor (R3GAN's) or diffaugment. Default bgc.",
        check=one_of(*AUGMENT_PIPES), reason="that of StyleGAN2-ADA",
    )  # fmt: skip
    augment_p: float = setting(
        0.2, flag="--augment-p", heading=PICTURES,
        help="Probability of each change with --augment fixed. Default 0.2; diffaugment: 1.",
        check=not_negative, reason="that of StyleGAN3",
    )  # fmt: skip
    augment_target: float = setting(
        0.6, flag="--augment-target", heading=PICTURES,
        help="Mean sign of D on real pictures that the probability is steered to. Default 0.6.",
        check=below_one, reason="that of StyleGAN2-ADA",
    )  # fmt: skip
    augment_kimg: float = setting(
        500.0, flag="--augment-kimg", heading=PICTURES,
        help="Least time for the probability to go from 0 to 1. Default 500; with --resume: 100.",
        check=above_zero, reason="that of StyleGAN2-ADA",
    )  # fmt: skip
    precision: str = setting(  # of convolutions; all else stays in float32
        "float32", flag="--precision", heading=MACHINE, after="gpus", costs=True,
        help="float32, bf16, auto (the quicker of both here) or, with CUDA, fp16. Default float32.",
        check=one_of(*PRECISIONS, AUTO),
    )  # fmt: skip
    planar_gradients: str = setting(  # stored with the run: resuming must compute as it did
        NO_SIDES, flag="--planar-gradients", heading=MACHINE, after="precision", costs=True,
        tried=True, help="On a CPU: sides of features whose weight gradients are computed in "
        "planes, such as 64,128, or all or none. Default: where a trial finds that faster.",
        check=_sides_or_all,
    )  # fmt: skip
    seed: int = setting(0, flag="--seed", common=True, check=not_negative)
    # Reports
    tick_kimg: float | None = setting(  # None: the paper's, by resolution
        None, flag="--tick-kimg", heading=WATCHING,
        help="Reporting interval.", check=above_zero, reason=PAPER, unset="by resolution",
    )  # fmt: skip
    snapshot_ticks: int = setting(  # network, checkpoint and sample sheet
        10, flag="--snapshot-ticks", heading=WATCHING,
        help="Ticks from one snapshot to the next.", check=above_zero, reason=PAPER,
    )  # fmt: skip
    sample_psi: float = setting(1.0, reason=PAPER)  # truncation of the sample sheets
    sample_noise: str = setting("const")  # noise mode of the sample sheets

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        # JSON turns integer keys into text; both spellings are taken.
        for name in TABLES:
            table = {int(key): value for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, table)
        check_settings(self)
        if self.beta2_final is not None:
            below_one("beta2_final", self.beta2_final)
        if self.gamma_final is not None:
            not_negative("gamma_final", self.gamma_final)
        if self.phases == LAZY and not self.takes_r1:
            raise UsageError(
                f"phases lazy are for losses with R1, not for {self.loss}: give --phases joint"
            )
        if self.phases != JOINT and self.share_fakes:
            raise UsageError(
                f"fakes are shared in phases joint alone, not in {self.phases}: give --own-fakes"
            )
        if (self.pl_weight or self.pl_interval) and self.phases != LAZY:
            raise UsageError(
                f"path-length regularisation belongs to phases lazy, not {self.phases}: give "
                "--phases lazy, or --pl-weight 0 --pl-interval 0"
            )
        if self.pl_weight and not self.pl_interval:
            raise UsageError(f"pl_weight {self.pl_weight:g} needs a pl_interval above 0")
        if self.precision == AUTO:  # what a run computes in must not depend on where it continues
            raise UsageError(f"precision {AUTO} is for options: expected {', '.join(PRECISIONS)}")

    @property
    def takes_r1(self) -> bool:
        """Whether the loss goes with R1 and R2, the zero-centred gradient penalties."""
        return self.loss.startswith(("logistic", "relativistic"))

    @property
    def knows_reals(self) -> bool:
        """Whether the sign of D's logits says real or fake; other losses leave it free."""
        return self.loss not in ("wgan-gp", "relativistic")

    @property
    def is_relativistic(self) -> bool:
        """Whether G's loss compares its fakes with reals."""
        return self.loss == "relativistic"

    @property
    def batches_of_reals(self) -> int:
        """Batches of reals that a step takes: two where G is updated on pictures of its own."""
        return 2 if self.phases == PAIRED else 1

    @property
    def lazy(self) -> bool:
        """Whether regularisation has updates of its own."""
        return self.phases == LAZY

    def planar_sides(self, resolution: int) -> list[int]:
        """Return the sides up to ``resolution`` at which weight gradients are planar."""
        sides = [1 << r for r in range(2, resolution.bit_length())]
        if self.planar_gradients in (ALL_SIDES, NO_SIDES):
            return sides if self.planar_gradients == ALL_SIDES else []
        return [side for side in sides if str(side) in self.planar_gradients.split(",")]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, readable by training_from_dict."""
        values = asdict(self)
        for name in TABLES:
            values[name] = {str(key): value for key, value in values[name].items()}
        return values


TABLES = tuple(name for name, item in settings_of(TrainingConfig).items() if item.base)


def training_from_dict(values: Mapping[str, Any]) -> TrainingConfig:
    """Rebuild settings written by ``to_dict``; raise UsageError for unknown fields."""
    if "r1_method" in values:  # a setting of 0.1.0, of which one way is left
        if values["r1_method"] != "exact":
            raise UsageError(
                f"R1 was not exact (--r1 {values['r1_method']}), which is gone, so this run cannot "
                "continue: start another from it with stylecli train DATASET --resume RUN"
            )
        values = {name: value for name, value in values.items() if name != "r1_method"}
    known = {item.name for item in fields(TrainingConfig)}
    if unknown := sorted(set(values) - known):
        raise UsageError(f"training settings have unknown fields: {', '.join(unknown)}")
    for item in fields(TrainingConfig):
        value, usual = values.get(item.name), item.default
        kinds = (int, float) if isinstance(usual, float) else type(usual)
        if item.name in values and isinstance(usual, bool | int | float | str) and (
            not isinstance(value, kinds) or isinstance(value, bool) != isinstance(usual, bool)
        ):  # fmt: skip
            raise UsageError(f"training settings have {item.name} {str(value)[:40]!r}")
    return TrainingConfig(**values)


def _at_least_one(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UsageError(f"{name} {value} is not above zero")


def _known(words: tuple[str, ...]) -> Check:
    """Return the check of names with commas, each one of ``words``."""

    def check(name: str, value: str) -> None:
        for word in value.split(",") if value else ():
            if word not in words:
                raise UsageError(f"unknown {name} {word!r}: expected {', '.join(words)}")

    return check


def _reader(words: tuple[str, ...]) -> Callable[[str, str], str]:
    """Return what reads such names, in any spacing and case."""

    def read(text: str, flag: str) -> str:
        names = ",".join(word.strip().lower() for word in text.split(",") if word.strip())
        _known(words)(flag, names)
        return names

    return read


@dataclass(frozen=True)
class Session:
    """How one session of a run is driven; the same run may be continued with others.

    Nothing here belongs to the run's result, which ``TrainingConfig`` decides.
    """

    batch_gpu: int | None = setting(  # of a rank's share; None: all of it
        None, flag="--batch-gpu", heading=MACHINE, after="gpus", least=1, costs=True, fixed=True,
        help="Most images of a process at a time; saves memory by several passes per batch.",
        check=_at_least_one,
    )  # fmt: skip
    exact: bool = setting(
        False, flag="--exact", heading=MACHINE, after="precision", costs=True, fixed=True,
        help="On CUDA: no TF32 and the same algorithms every time; slower.",
    )  # fmt: skip
    accelerate: str = setting(
        "", flag="--accelerate", heading=MACHINE, after="exact", costs=True,
        read=_reader(ACCELERATIONS), check=_known(ACCELERATIONS),
        help="On CUDA, and tried on no GPU yet: channels-last (in bf16 and fp16), graphs, "
            "overlap (of several GPUs), or two with a comma.",
    )  # fmt: skip
    keep: int | None = setting(
        None, flag="--keep", heading=WATCHING, least=1, fixed=True,
        help="Number of newest snapshots to keep, with the best. Default: "
            "all.", check=_at_least_one,
    )  # fmt: skip
    watch: str = setting(
        "warn", flag="--watch", heading=WATCHING, fixed=True,
        help="What to do when a run goes wrong: warn, stop, rollback (to the best or newest "
            "checkpoint) or off.",
        check=one_of(*WATCH),
    )  # fmt: skip
    evaluate_ticks: int | None = setting(
        None, flag="--metrics-every", heading=WATCHING, after="classifiers", least=1, fixed=True,
        help="Ticks from one measurement of a snapshot to the next. Default: measure every "
            "snapshot.",
        check=_at_least_one,
    )  # fmt: skip
    tensorboard: bool = setting(
        False, flag="--tensorboard", heading=WATCHING, after="evaluate_ticks", fixed=True,
        help="Also write event files for TensorBoard.",
    )  # fmt: skip

    log: str = setting(
        "", flag="--log", heading=WATCHING, after="tensorboard", read=_reader(LOGS),
        help="Also report to jsonl (lines on stdout), tensorboard, wandb, mlflow, or several with "
            "commas.",
        check=_known(LOGS),
    )  # fmt: skip

    @property
    def accelerations(self) -> frozenset[str]:
        """What ``accelerate`` asks for."""
        return frozenset(filter(None, self.accelerate.split(",")))

    @property
    def trackers(self) -> tuple[str, ...]:
        """The programs that are told of the run."""
        words = [*(["tensorboard"] if self.tensorboard else []), *self.log.split(",")]
        return tuple(dict.fromkeys(word for word in words if word not in ("", JSONL)))

    @property
    def writes_lines(self) -> bool:
        """Whether stdout gets a line of JSON for every tick."""
        return JSONL in self.log.split(",")

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        check_settings(self)
        if {GRAPHS, OVERLAP} <= self.accelerations:
            raise UsageError(
                f"accelerate {self.accelerate}: what travels during the backward pass cannot be "
                f"captured, so expected {GRAPHS} or {OVERLAP}, not both"
            )

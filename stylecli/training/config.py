"""Everything a training run decides, as one frozen dataclass. Stdlib only."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from stylecli.errors import UsageError
from stylecli.training.published import BATCH_BASES, BATCHES, GAMMA, LR, LR_BASE

LOSSES = ("logistic", "logistic-saturating", "wgan-gp", "hinge", "hinge-gp")
R1_METHODS = ("exact", "fd")
PRECISIONS = ("float32", "bf16", "fp16")


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Defaults are the paper's for FFHQ (Karras et al. 2018) on one GPU."""

    # Schedule
    total_kimg: float = 25_000.0  # thousands of real images shown in all
    initial_resolution: int = 8  # growth starts here
    hold_kimg: float = 600.0  # time at each resolution once it is faded in
    fade_kimg: float = 600.0  # time to fade the next resolution in
    batch: Mapping[int, int] = field(default_factory=lambda: dict(BATCHES[1]))  # by resolution
    batch_base: int = BATCH_BASES[1]  # for resolutions not listed in batch
    minibatch_repeats: int = 4  # steps between looks at the schedule
    # Optimizers
    lr: Mapping[int, float] = field(default_factory=lambda: dict(LR))  # by resolution
    lr_base: float = LR_BASE  # for resolutions not listed in lr
    adam_beta1: float = 0.0
    adam_beta2: float = 0.99
    adam_epsilon: float = 1e-8
    ema_kimg: float = 10.0  # half-life of the averaged generator
    # Losses
    loss: str = "logistic"  # one of LOSSES; logistic = non-saturating
    r1_gamma: float = GAMMA  # weight of the gradient penalty on real images
    r2_gamma: float = 0.0  # the same on fakes
    r1_method: str = "exact"  # or fd: a finite difference along one random direction a sample
    r1_interval: int = 1  # penalty every so many steps, weighted up by as much
    share_fakes: bool = False  # train D and G on the same fakes: one generator pass less
    freeze_d: int = 0  # layers of D, from the picture on, that keep the weights they began with
    # Pictures and numbers
    mirror: bool = False  # flip half of the real images
    precision: str = "float32"  # of convolutions: one of PRECISIONS; all else stays in float32
    seed: int = 0  # of everything random in the run
    # Reports
    tick_kimg: float | None = None  # reporting interval; None: the paper's, by resolution
    snapshot_ticks: int = 10  # network, checkpoint and sample sheet every so many ticks
    sample_psi: float = 1.0  # truncation of the sample sheets
    sample_noise: str = "const"  # noise mode of the sample sheets

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        # JSON turns integer keys into text; both spellings are taken.
        for name in ("batch", "lr"):
            table = {int(key): value for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, table)
        positive = {
            "total_kimg": self.total_kimg, "fade_kimg": self.fade_kimg,
            "batch_base": self.batch_base, "lr_base": self.lr_base, "ema_kimg": self.ema_kimg,
            "minibatch_repeats": self.minibatch_repeats, "r1_interval": self.r1_interval,
            "snapshot_ticks": self.snapshot_ticks, "adam_epsilon": self.adam_epsilon,
            **{f"batch at {key} px": value for key, value in self.batch.items()},
            **{f"lr at {key} px": value for key, value in self.lr.items()},
        }  # fmt: skip
        if self.tick_kimg is not None:
            positive["tick_kimg"] = self.tick_kimg
        for name, value in positive.items():
            if not value > 0:
                raise UsageError(f"{name} {value!r} is not above zero")
        for name in ("r1_gamma", "r2_gamma", "hold_kimg", "seed", "freeze_d"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} {getattr(self, name)!r} is negative")
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)!r} is not within 0 to 1")
        if self.loss not in LOSSES:
            raise UsageError(f"loss {self.loss!r} is unknown: expected one of {', '.join(LOSSES)}")
        if self.precision not in PRECISIONS:
            raise UsageError(
                f"precision {self.precision!r} is unknown: expected one of {', '.join(PRECISIONS)}"
            )
        if self.r1_method not in R1_METHODS:
            raise UsageError(
                f"R1 {self.r1_method!r} is unknown: expected {' or '.join(R1_METHODS)}"
            )
        if self.r1_method == "fd" and self.precision != "float32":
            raise UsageError(
                f"finite-difference R1 drowns in the rounding of {self.precision}: use --r1 exact, "
                "or float32"
            )
        r = self.initial_resolution
        if r < 4 or r & (r - 1):
            raise UsageError(f"initial_resolution {r} is not a power of two from 4 on")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, readable by training_from_dict."""
        values = asdict(self)
        for name in ("batch", "lr"):
            values[name] = {str(key): value for key, value in values[name].items()}
        return values


def training_from_dict(values: Mapping[str, Any]) -> TrainingConfig:
    """Rebuild settings written by ``to_dict``; raise UsageError for unknown fields."""
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

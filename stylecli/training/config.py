"""Everything a training run decides, as one frozen dataclass. Stdlib only."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from stylecli.errors import UsageError

LOSSES = ("logistic", "logistic-saturating", "wgan-gp", "hinge", "hinge-gp")
R1_METHODS = ("exact", "fd")
PRECISIONS = ("float32", "bf16")

# StyleGAN's values for one GPU: image batch by resolution, and learning rates from 128 px on.
PAPER_BATCH = {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4}
PAPER_BATCH_BASE = 4
PAPER_LR = {128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003}
PAPER_LR_BASE = 0.001
PAPER_TICK_KIMG = {4: 160, 8: 140, 16: 120, 32: 100, 64: 80, 128: 60, 256: 40, 512: 30, 1024: 20}


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Defaults are the paper's for FFHQ (Karras et al. 2018) on one GPU."""

    total_kimg: float = 25_000.0  # thousands of real images shown in all
    initial_resolution: int = 8  # growth starts here
    hold_kimg: float = 600.0  # time at each resolution once it is faded in
    fade_kimg: float = 600.0  # time to fade the next resolution in
    batch: Mapping[int, int] = field(default_factory=lambda: dict(PAPER_BATCH))  # by resolution
    batch_base: int = PAPER_BATCH_BASE  # for resolutions not listed in batch
    lr: Mapping[int, float] = field(default_factory=lambda: dict(PAPER_LR))  # by resolution
    lr_base: float = PAPER_LR_BASE  # for resolutions not listed in lr
    adam_beta1: float = 0.0
    adam_beta2: float = 0.99
    adam_epsilon: float = 1e-8
    loss: str = "logistic"  # one of LOSSES; logistic = non-saturating
    r1_gamma: float = 10.0  # weight of the gradient penalty on real images
    r2_gamma: float = 0.0  # the same on fakes
    r1_method: str = "exact"  # or fd: a finite difference along one random direction a sample
    r1_interval: int = 1  # penalty every so many steps, weighted up by as much
    ema_kimg: float = 10.0  # half-life of the averaged generator
    mirror: bool = False  # flip half of the real images
    minibatch_repeats: int = 4  # steps between looks at the schedule
    precision: str = "float32"  # or bf16: convolutions in bfloat16, all else in float32
    share_fakes: bool = False  # train D and G on the same fakes: one generator pass less
    seed: int = 0  # of everything random in the run
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
        for name in ("r1_gamma", "r2_gamma", "hold_kimg", "seed"):
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
                "finite-difference R1 drowns in the rounding of bf16: use --r1 exact, or float32"
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
    return TrainingConfig(**values)

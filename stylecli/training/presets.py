"""Derive every training setting from a preset and a machine, each with its reason. Stdlib only."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stylecli.errors import UsageError
from stylecli.networks.config import PRESETS, StyleGAN1Config, make_config
from stylecli.training.config import PAPER_BATCH, PAPER_LR, TrainingConfig

PRESET_TEXTS = {
    "paper": "the paper's FFHQ settings for one GPU (the default with CUDA)",
    "celebahq": "the paper's CelebA-HQ settings: WGAN-GP, learning rates up to 0.002",
    "small": "a small network and a short schedule, for CPUs (the default without CUDA)",
}
# Shares of a short schedule: 8 px and each fade or hold below full size take 9 %.
SMALL_PHASE_SHARE = 0.09
SMALL_KIMG = 200.0
SMALL_BATCH = 16


@dataclass(frozen=True)
class Derived:
    """One setting that was chosen for the user, and why."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class TrainingPlan:
    """All that a run is started with, and how it came about."""

    network: StyleGAN1Config
    training: TrainingConfig
    ranks: int
    derived: tuple[Derived, ...]


def plan_training(
    preset: str | None = None,
    *,
    config: str = "f",
    resolution: int,
    channels: int = 3,
    label_dim: int = 0,
    device: str = "cpu",
    cpus: int = 1,
    ranks: int | None = None,
    batch: int | None = None,
    network: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> TrainingPlan:
    """Return the settings of a run; what is given in ``network`` and ``training`` is kept.

    ``config`` is the paper configuration (a to f), ``device`` cpu or cuda. Raises UsageError for
    unknown names, fields and values.
    """
    preset = preset or ("small" if device == "cpu" else "paper")
    if preset not in PRESET_TEXTS:
        raise UsageError(f"preset {preset!r} is unknown: expected one of {list(PRESET_TEXTS)}")
    given_network, given_training = dict(network or {}), dict(training or {})
    if batch is not None:
        given_training |= {"batch": {}, "batch_base": batch}
    derived = [Derived("preset", preset, PRESET_TEXTS[preset])]
    network_fields, training_fields = (
        _small(config, resolution, given_training) if preset == "small" else _paper(preset)
    )
    reasons = _REASONS[preset]
    for fields, given in ((network_fields, given_network), (training_fields, given_training)):
        for name, value in fields.items():
            if name not in given and value != {}:  # an empty table only clears the paper's
                derived.append(Derived(name, _shown(value), reasons.get(name, reasons["*"])))
    ranks_given = ranks is not None
    if device != "cpu" and (ranks or 1) > 1:
        raise UsageError(f"{ranks} processes share a batch on CPUs only: give --ranks 1")
    if ranks is None:
        ranks = min(2, cpus) if device == "cpu" else 1
    if not ranks_given:
        reason = "one-thread processes: small convolutions gain little from threads"
        derived.append(Derived("ranks", str(ranks), reason if device == "cpu" else "one GPU"))
    settings = TrainingConfig(**{**training_fields, **given_training})
    start = min(settings.initial_resolution, resolution)
    return TrainingPlan(
        make_config(
            config,
            **{
                "resolution": resolution,
                "channels": channels,
                "label_dim": label_dim,
                **network_fields,
                **given_network,
            },
        ),
        replace(settings, initial_resolution=start),
        ranks,
        tuple(derived),
    )


def _paper(preset: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if preset == "paper":
        return {}, {"batch": dict(PAPER_BATCH), "lr": dict(PAPER_LR)}
    capped = {side: min(rate, 0.002) for side, rate in PAPER_LR.items()}
    return {}, {"batch": dict(PAPER_BATCH), "lr": capped, "loss": "wgan-gp", "r1_gamma": 0.0}


def _small(
    config: str, resolution: int, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    total = float(given.get("total_kimg", SMALL_KIMG))
    network = {
        "z_dim": 64, "w_dim": 64, "mapping_fmaps": 64,
        "fmap_base": max(256, 8 * resolution), "fmap_max": 64,
    }  # fmt: skip
    if "mapping_layers" not in PRESETS.get(config.lower(), {}):
        network["mapping_layers"] = 4  # elsewhere the depth is what the configuration is about
    training = {
        "total_kimg": total, "hold_kimg": SMALL_PHASE_SHARE * total,
        "fade_kimg": SMALL_PHASE_SHARE * total, "batch": {}, "batch_base": SMALL_BATCH,
        "lr": {}, "lr_base": 0.003, "r1_gamma": 1.0, "r1_interval": 4,
        "ema_kimg": min(max(total / 30, 0.05), 10.0), "share_fakes": True,
        "tick_kimg": max(total / 60, 0.05), "snapshot_ticks": 6,
        "sample_psi": 0.7, "sample_noise": "none",
    }  # fmt: skip
    return network, training


_REASONS: dict[str, dict[str, str]] = {
    "paper": {"*": "the paper's value for one GPU"},
    "celebahq": {"*": "the paper's value for CelebA-HQ"},
    "small": {
        "*": "small networks learn a small set of pictures in minutes",
        "fmap_base": "16 feature maps at the full resolution of 32 px, the cost of a step",
        "total_kimg": "a first result overnight or sooner; set it with --kimg",
        "hold_kimg": "9 % of the schedule per stage, so that most time is at full resolution",
        "fade_kimg": "9 % of the schedule per fade",
        "batch_base": "at every resolution; 8 per process on two cores",
        "lr_base": "at every resolution; three times the paper's: fewer steps, smaller network",
        "r1_gamma": "small pictures need less than the paper's 10",
        "r1_interval": "the penalty is a third of a step's cost; every 4th step is enough",
        "ema_kimg": "half-life of a thirtieth of the schedule, at most the paper's 10",
        "share_fakes": "saves one generator pass per step",
        "tick_kimg": "60 reports over the run",
        "snapshot_ticks": "10 networks and sample sheets over the run",
        "sample_psi": "sheets show what the tool shows by default",
        "sample_noise": "noise is still rough early in training",
    },
}


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} px: {item}" for key, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)

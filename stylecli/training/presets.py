"""Derive every training setting from a preset and a machine, each with its reason. Stdlib only."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stylecli.errors import UsageError
from stylecli.networks.config import NetworkConfig
from stylecli.networks.registry import make_config
from stylecli.settings import with_tables
from stylecli.training.config import TrainingConfig
from stylecli.training.preset_reasons import PRESET_TEXTS, derived_reason
from stylecli.training.published import (
    LR,
    LR_BASE,
    SETS,
    WGAN_GP_KIMG,
    WGAN_GP_MAX_LR,
    batches_for,
)

ALIASES = {"ffhq": "paper", "bedroom": "lsun-bedroom", "car": "lsun-car", "cat": "lsun-cat"}
_FAMILY = "stylegan1"  # of the networks that all presets below are for
NO_PRESET = "none"  # of a run of another family
FEW_PICTURES = 10_000  # on a GPU, fewer than this take the preset for photographs

# Shares of a short schedule: 8 px and each fade or hold below full size take 9 %.
SMALL_PHASE_SHARE = 0.09
SMALL_KIMG = 200.0
SMALL_BATCH = 16
PHOTOS_KIMG = 5000.0
PHOTOS_PHASE_SHARE = 0.06
PHOTOS_MIN_BATCH = 16


@dataclass(frozen=True)
class Derived:
    """One setting that was chosen for the user, and why."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class TrainingPlan:
    """All that a run is started with, and how it came about."""

    network: NetworkConfig
    training: TrainingConfig
    ranks: int
    derived: tuple[Derived, ...]
    preset: str = "paper"
    given: frozenset[str] = frozenset()  # names of the settings that were asked for


def name_preset(name: str) -> str:
    """Return a preset's own name for one of its names. Raises UsageError for an unknown one."""
    own = ALIASES.get(name.lower(), name.lower())
    if own not in PRESET_TEXTS:
        raise UsageError(f"preset {name!r} is unknown: expected one of {', '.join(PRESET_TEXTS)}")
    return own


def choose_preset(device: str, pictures: int | None) -> tuple[str, str]:
    """Return the preset for a device and a number of pictures when none is asked for, and why."""
    if device == "cpu":
        return "small", "the default without a GPU"
    if pictures is not None and pictures < FEW_PICTURES:
        return "photos", f"the default on a GPU under {FEW_PICTURES:,} pictures"
    return "paper", "the default on a GPU"


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
    pictures: int | None = None,
    network: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> TrainingPlan:
    """Return the settings of a run; what is given in ``network`` and ``training`` is kept.

    ``config`` is the paper configuration (a to f), ``device`` cpu, cuda or mps, ``ranks`` the
    processes that share a batch (on CUDA the GPUs), ``pictures`` the size of the dataset where it
    is known. A ``ByResolution`` is laid over the preset's table. Raises UsageError for unknown
    names, fields and values.
    """
    config = config.lower()
    name, why = _choose(preset, config, device, pictures)
    given_network, given_training = dict(network or {}), dict(training or {})
    derived = [Derived("preset", name, why)]
    chosen_ranks, ranks_reason = _choose_ranks(device, cpus, ranks)
    if ranks is None:
        derived.append(Derived("ranks", str(chosen_ranks), ranks_reason))
    gpus = chosen_ranks if device == "cuda" else 1  # further processes share one GPU's batch
    network_fields, training_fields = _preset_fields(name, config, resolution, gpus, given_training)
    given_training = with_tables(given_training, training_fields, TrainingConfig)
    for fields, given in ((network_fields, given_network), (training_fields, given_training)):
        for key, value in fields.items():
            if key not in given and value != {}:  # an empty table only clears the paper's
                reason = derived_reason(name, config, key, gpus)
                derived.append(Derived(key, show_value(value), reason))
    settings = TrainingConfig(**{**training_fields, **given_training})
    own = {"resolution": resolution, "channels": channels, "label_dim": label_dim}
    made = make_config(config, **{**own, **network_fields, **given_network})
    if not made.grows:
        if given_training.get("initial_resolution", resolution) != resolution:
            raise UsageError(
                f"configuration {config!r} does not grow: leave out --initial-resolution"
            )
        derived.append(
            Derived("initial_resolution", str(resolution), f"configuration {config} does not grow")
        )
        settings = replace(settings, initial_resolution=resolution)
    if settings.initial_resolution > resolution:
        reason = f"growth cannot begin above the {resolution} px of the pictures"
        derived.append(Derived("initial_resolution", str(resolution), reason))
        settings = replace(settings, initial_resolution=resolution)
    names = frozenset(given_network) | frozenset(given_training) | {
        key for key, value in (("preset", preset), ("ranks", ranks)) if value is not None
    }  # fmt: skip
    return TrainingPlan(made, settings, chosen_ranks, tuple(derived), name, names)


def _choose(preset: str | None, config: str, device: str, pictures: int | None) -> tuple[str, str]:
    """Return the preset's name, and what it is and why it is taken; NO_PRESET where none is made.

    Raises UsageError for an unknown name, or a preset that another family is trained with.
    """
    fits = make_config(config).family == _FAMILY
    if preset is None and not fits:
        return NO_PRESET, f"the defaults: configuration {config} has no preset yet"
    if preset is None:
        name, why = choose_preset(device, pictures)
    else:
        name, why = name_preset(preset), "asked for"
    if not fits:
        raise UsageError(
            f"preset {name!r} is for StyleGAN configurations such as f, not for {config!r}: leave "
            "out --preset, or give another --config"
        )
    return name, f"{PRESET_TEXTS[name]} ({why})"


def _choose_ranks(device: str, cpus: int, ranks: int | None) -> tuple[int, str]:
    if device not in ("cpu", "cuda") and (ranks or 1) > 1:
        raise UsageError(f"{ranks} processes share a batch on CPUs or CUDA GPUs: give --ranks 1")
    if device == "cpu":
        return ranks or min(2, cpus), (
            "one-thread processes: small convolutions gain little from threads"
        )
    return ranks or 1, "one GPU"


def _preset_fields(
    name: str, config: str, resolution: int, gpus: int, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a preset's network fields and training fields."""
    if name == NO_PRESET:
        table, base, _ = batches_for(gpus)
        return {}, {"batch": table, "batch_base": base, "lr": dict(LR), "lr_base": LR_BASE}
    if name == "small":
        network, training = _small(config, resolution, given)
    elif name == "photos":
        network, training = _photos(gpus, given)
    else:
        return {}, _published(name, config, gpus)
    if config == "a":  # the paper trains its baseline with the older loss on every data set
        training |= {"loss": "wgan-gp", "r1_gamma": 0.0, "r1_interval": 1}
        training["lr_base"] = min(training["lr_base"], WGAN_GP_MAX_LR)
        training["lr"] = {side: min(lr, WGAN_GP_MAX_LR) for side, lr in training["lr"].items()}
    return network, training


def _published(name: str, config: str, gpus: int) -> dict[str, Any]:
    published = SETS[name]
    table, base, _ = batches_for(gpus)
    fields: dict[str, Any] = {
        "total_kimg": published.kimg, "batch": table, "batch_base": base,
        "lr": dict(LR), "lr_base": LR_BASE, "loss": published.loss, "mirror": published.mirror,
    }  # fmt: skip
    if config == "a":  # the paper trains its baseline with the older loss on FFHQ too
        fields |= {"loss": "wgan-gp", "total_kimg": min(published.kimg, WGAN_GP_KIMG)}
    if fields["loss"] == "wgan-gp":
        fields |= {
            "lr": {side: min(rate, WGAN_GP_MAX_LR) for side, rate in LR.items()},
            "r1_gamma": 0.0,
        }
    return fields


def _photos(gpus: int, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    total = float(given.get("total_kimg", PHOTOS_KIMG))
    table, base, _ = batches_for(gpus)
    training = {
        "total_kimg": total, "hold_kimg": PHOTOS_PHASE_SHARE * total,
        "fade_kimg": PHOTOS_PHASE_SHARE * total,
        "batch": {side: max(batch, PHOTOS_MIN_BATCH) for side, batch in table.items()},
        "batch_base": max(base, PHOTOS_MIN_BATCH), "lr": dict(LR), "lr_base": LR_BASE,
        "mirror": True, "r1_gamma": 20.0,
    }  # fmt: skip
    return {"fmap_base": 4096}, training


def _small(
    config: str, resolution: int, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    total = float(given.get("total_kimg", SMALL_KIMG))
    network = {
        "z_dim": 64, "w_dim": 64, "mapping_fmaps": 64,
        "fmap_base": max(256, 8 * resolution), "fmap_max": 64,
    }  # fmt: skip
    if "mapping_layers" not in make_config(config).preset_fields:
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


def show_value(value: Any) -> str:
    """Write a setting's value for people."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} px: {show_value(item)}" for key, item in value.items()) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e5 else str(value)

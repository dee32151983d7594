"""Presets: what each sets, the paper's and our own, and why. Stdlib only.

What is published is the paper's (Karras, Laine, Aila 2018) or its authors' program's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from stylecli.errors import UsageError, unknown_name
from stylecli.networks.registry import make_config, require_trainable
from stylecli.training.config import BATCH, BATCH_BASE, LR, LR_BASE, TrainingConfig

# Images per step over all GPUs, by number of GPUs and resolution; the second table holds the rest.
BATCHES: Mapping[int, Mapping[int, int]] = MappingProxyType(
    {
        1: BATCH,
        2: {4: 256, 8: 256, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8},
        4: {4: 512, 8: 256, 16: 128, 32: 64, 64: 32, 128: 16},
        8: {4: 512, 8: 256, 16: 128, 32: 64, 64: 32},
    }
)
BATCH_BASES: Mapping[int, int] = MappingProxyType({1: BATCH_BASE, 2: 8, 4: 16, 8: 32})
# The field's rule of thumb for the weight of R1 by resolution and batch (StyleGAN2-ADA's).
GAMMA_RULE = 0.0002
WGAN_GP_MAX_LR = 0.002  # the same table, no entry above this
WGAN_GP_KIMG = 12_000.0  # the paper's length with this loss, where it trains R1 for 25,000


@dataclass(frozen=True)
class PublishedSet:
    """What the paper's networks of one data set were trained with, where it differs."""

    title: str
    resolutions: tuple[int, ...]  # px that results were published at
    kimg: float  # thousands of real images shown
    mirror: bool
    loss: str = "logistic"
    transform: Literal["center-crop", "wide"] = "center-crop"  # how pictures come onto the square


SETS: Mapping[str, PublishedSet] = MappingProxyType(
    {
        "paper": PublishedSet("FFHQ", (1024, 512, 256), 25_000.0, mirror=True),
        "celebahq": PublishedSet(
            "CelebA-HQ", (1024,), WGAN_GP_KIMG, mirror=True, loss="wgan-gp"
        ),
        "lsun-bedroom": PublishedSet("LSUN Bedroom", (256,), 70_000.0, mirror=False),
        "lsun-car": PublishedSet("LSUN Car", (512,), 46_000.0, mirror=False, transform="wide"),
        "lsun-cat": PublishedSet("LSUN Cat", (256,), 70_000.0, mirror=False),
    }
)  # fmt: skip

# Our own.
ALIASES = {"ffhq": "paper", "bedroom": "lsun-bedroom", "car": "lsun-car", "cat": "lsun-cat"}
NO_PRESET = "none"  # of a family without presets, or a run with the settings of another
FEW_PICTURES = 10_000  # on a GPU, fewer than this take the preset for photographs

# Shares of a short schedule: 8 px and each fade or hold below full size take 9 %, or less so that
# all of them take three fifths at most (from 128 px).
SMALL_PHASE_SHARE, SMALL_GROWTH_SHARE = 0.09, 0.6
SMALL_KIMG = 200.0
SMALL_SIDE = 64  # px; pictures are packed at this unasked: twice the side takes 4 times as long
SMALL_BATCH = 16
PHOTOS_KIMG = 5000.0
PHOTOS_PHASE_SHARE = 0.06
PHOTOS_MIN_BATCH = 16

PRESET_TEXTS = {
    "paper": "the paper's FFHQ settings",
    "celebahq": "the paper's CelebA-HQ settings: WGAN-GP, learning rates up to 0.002",
    "lsun-bedroom": "the paper's LSUN Bedroom settings, 256 px",
    "lsun-car": "the paper's LSUN Car settings, 512 × 384 within 512 px",
    "lsun-cat": "the paper's LSUN Cat settings, 256 px",
    "auto": "what StyleGAN2-ADA's program takes for a size and a number of GPUs",
    "stylegan2": "config F of the StyleGAN2 paper, as StyleGAN2-ADA's program has it",
    "paper256": "the settings of the paper on adaptive augmentation at 256 px",
    "paper512": "the settings of the paper on adaptive augmentation at 512 px",
    "paper1024": "the settings of the paper on adaptive augmentation at 1024 px",
    "cifar": "the settings of the paper on adaptive augmentation for CIFAR-10",
    "stylegan3-t": "StyleGAN3's program for configuration T",
    "stylegan3-r": "StyleGAN3's program for configuration R",
    "r3gan-cifar10": "R3GAN's settings for CIFAR-10, 32 px",
    "r3gan-ffhq64": "R3GAN's settings for FFHQ at 64 px",
    "r3gan-ffhq256": "R3GAN's settings for FFHQ at 256 px",
    "r3gan-imagenet32": "R3GAN's settings for ImageNet at 32 px",
    "r3gan-imagenet64": "R3GAN's settings for ImageNet at 64 px",
    "photos": "our own for hundreds to thousands of photographs at 128 to 256 px on one GPU",
    "small": "our own small network and short schedule, for processors",
}

# Which presets a family of networks is trained with; the first is the default on a GPU.
_OURS_FOR_ALL = ("photos", "small")
_WIDTHS = {"fmap_base", "fmap_max", "D_fmap_base", "D_fmap_max", "group_fmaps"}
_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "stylegan1": (*SETS, *_OURS_FOR_ALL),
    "stylegan2": ("auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar",
                  *_OURS_FOR_ALL),
    "stylegan3": ("stylegan3-t", "stylegan3-r", *_OURS_FOR_ALL),
    "r3gan": ("r3gan-ffhq256", "r3gan-ffhq64", "r3gan-cifar10", "r3gan-imagenet32",
              "r3gan-imagenet64", *_OURS_FOR_ALL),
}  # fmt: skip


_OWN: dict[str, dict[str, str]] = {
    "photos": {
        "fmap_base": "half the paper's feature maps: a large network memorises few pictures",
        "total_kimg": "a fifth of the paper's: after that a network memorises few pictures",
        "hold_kimg": "6 % of the schedule per stage: two fifths are left for 256 px",
        "fade_kimg": "6 % of the schedule per fade",
        "batch": "the paper's table, at least 16: today's memory allows it, and R1 is steadier",
        "batch_base": "at least 16, as above",
        "lr": "the paper's",
        "lr_base": "the paper's",
        "mirror": "twice the pictures; --no-mirror where left and right differ, as in writing",
        "r1_gamma": "twice the paper's: with few pictures D overfits, and R1 holds it back",
    },
    "small": {
        "*": "small networks learn a small set of pictures in minutes",
        "fmap_base": "16 feature maps at the full resolution, most of what a step costs",
        "total_kimg": "a first result overnight or sooner; change it with --kimg",
        "hold_kimg": "9 % of the schedule per stage, less from 128 px: two fifths for full size",
        "fade_kimg": "as long as a stage is held",
        "batch_base": "at every resolution; 8 per process on two cores",
        "lr_base": "at every resolution; three times the paper's: fewer steps, smaller network",
        "r1_gamma": "1 up to 256 px, then 0.0002 · side² / batch, the field's rule of thumb",
        "r1_interval": "the penalty is a third of a step's cost; every 4th step is enough",
        "ema_kimg": "half-life of a thirtieth of the schedule, at most the paper's 10",
        "share_fakes": "saves one generator pass per step",
        "tick_kimg": "60 reports over the run",
        "snapshot_ticks": "10 networks and sample sheets over the run",
        "sample_psi": "sheets show what the tool shows by default",
        "sample_noise": "noise is still rough early in training",
    },
}
_WGAN_GP = {
    "loss": "the paper's for configuration a",
    "r1_gamma": "R1 belongs to the logistic loss; WGAN-GP has a penalty of its own",
    "r1_interval": "WGAN-GP takes its penalty every step",
    "total_kimg": "the paper's length with WGAN-GP",
    "lr": "the paper's with WGAN-GP: none above 0.002",
    "lr_base": "at every resolution; the paper's highest with WGAN-GP",
}
# What stays our own with WGAN-GP, too.
_OURS = {"photos": {"total_kimg", "lr_base"}, "small": {"total_kimg", "lr"}}


def batches_for(gpus: int) -> tuple[dict[int, int], int, str]:
    """Return batches by resolution, the batch of all other resolutions, and where they are from.

    One, two, four and eight GPUs have published tables. Between them and above, our own rule: the
    next smaller table, every entry brought to a multiple of the GPUs that leaves each at least a
    minibatch-stddev group of four.
    """
    known = max(count for count in BATCHES if count <= gpus)
    table, base = dict(BATCHES[known]), BATCH_BASES[known]
    text = "one GPU" if gpus == 1 else f"{gpus} GPUs"
    if known == gpus:
        return table, base, f"the paper's table for {text}"

    def dealt(batch: int) -> int:
        return max(1, round(batch / (4 * gpus))) * 4 * gpus

    table = {side: dealt(batch) for side, batch in table.items()}
    return (
        table,
        dealt(base),
        f"our own for {text}: the paper's for {known}, in multiples of 4 each",
    )


def _reason(preset: str, config: str, name: str, gpus: int) -> str:
    """Return why a preset sets a field of StyleGAN as it does."""
    published = SETS.get(preset)
    wgan_gp = config == "a" or (published is not None and published.loss == "wgan-gp")
    if wgan_gp and name in _WGAN_GP:
        if name == "loss" and config != "a" and published:
            return f"the paper's for {published.title}"
        # Length and rates of our own short schedules are not the paper's.
        if name not in _OURS[preset] if preset in _OURS else name != "lr_base":
            return _WGAN_GP[name]
    if published is None:
        return _OWN[preset].get(name) or _OWN[preset].get("*", "our own choice")
    if name in ("batch", "batch_base"):
        return batches_for(gpus)[2]
    if name == "mirror":
        wanted = "flipped" if published.mirror else "not flipped"
        return f"the paper's: {published.title} is {wanted}"
    return f"the paper's for {published.title}"


def name_preset(name: str) -> str:
    """Return a preset's own name for one of its names. Raises UsageError for an unknown one."""
    own = ALIASES.get(name.lower(), name.lower())
    if own not in PRESET_TEXTS:
        raise UsageError(unknown_name("preset", name, PRESET_TEXTS))
    return own


def choose_preset(
    config: str, device: str, pictures: int | None, resolution: int
) -> tuple[str, str]:
    """Return the preset for a configuration when none is asked for, and why it is taken."""
    if device == "cpu":
        return "small", "the default without a GPU"
    if pictures is not None and pictures < FEW_PICTURES:
        return "photos", f"the default on a GPU under {FEW_PICTURES:,} pictures"
    if config in PRESET_TEXTS and config != "stylegan2":  # T, R and ImageNet's have their own
        return config, "the default on a GPU"
    family = make_config(config).family
    if family == "r3gan":
        name = next((name for side, name in _R3GAN_SIDES.items() if resolution <= side),
                    "r3gan-ffhq256")  # fmt: skip
        return name, f"the default on a GPU at {resolution} px"
    return _FAMILIES[family][0], "the default on a GPU"


def preset_for(
    preset: str | None, config: str, device: str, pictures: int | None, resolution: int
) -> tuple[str, str]:
    """Return the preset's name, and what it is and why it is taken; NO_PRESET where none is made.

    Raises UsageError for an unknown name, for a preset of another family than ``config``, and for a
    family that is not trained here.
    """
    network = make_config(config)
    own = _FAMILIES.get(network.family, ())
    require_trainable(network)
    if preset is None:
        if not own:
            return NO_PRESET, f"the defaults: configuration {config} has no preset yet"
        name, why = choose_preset(config, device, pictures, resolution)
    else:
        name, why = name_preset(preset), "asked for"
    other = name.startswith("stylegan3") and name != config
    if name not in own or other:
        fitting = [each for each in own if not each.startswith("stylegan3") or each == config]
        give = f"give --preset {' or '.join(fitting)}" if own else "leave out --preset"
        raise UsageError(
            f"preset {name!r} is for other networks than configuration {config!r}: {give}, or "
            "give another --config"
        )
    return name, f"{PRESET_TEXTS[name]} ({why})"


@dataclass(frozen=True)
class PresetFields:
    """What a preset sets: fields of the network and of training, and why."""

    network: dict[str, Any]
    training: dict[str, Any]
    reasons: dict[str, str]


def preset_fields(
    name: str, config: str, resolution: int, gpus: int, given: Mapping[str, Any]
) -> PresetFields:
    """Return what a preset sets for a configuration, where ``given`` does not say otherwise."""
    family = make_config(config).family
    if name == NO_PRESET:
        table, base, _ = batches_for(gpus)
        usual = {"batch": table, "batch_base": base, "lr": dict(LR), "lr_base": LR_BASE}
        return PresetFields({}, usual, dict.fromkeys(usual, "the default"))
    if family != "stylegan1":
        make = {"stylegan2": _modulated, "stylegan3": _modulated, "r3gan": _r3gan}[family]
        network, training = make(name, config, resolution, gpus, given)
        kept = set(make_config(config).preset_fields)  # what the configuration is about
        kept -= _WIDTHS if name == "small" else set()
        network = {key: value for key, value in network.items() if key not in kept}
        reasons = {key: why for fields in (network, training) for key, (_, why) in fields.items()}
        return PresetFields(
            {key: value for key, (value, _) in network.items()},
            {key: value for key, (value, _) in training.items()}, reasons,
        )  # fmt: skip
    network_fields, training_fields = _stylegan(name, config, resolution, gpus, given)
    reasons = {key: _reason(name, config, key, gpus) for key in (*network_fields, *training_fields)}
    return PresetFields(network_fields, training_fields, reasons)


def _stylegan(
    name: str, config: str, resolution: int, gpus: int, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
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
    first = int(given.get("initial_resolution", TrainingConfig.initial_resolution))
    phases = 2 * round(math.log2(max(resolution / max(first, 1), 2)))
    phase_kimg = min(SMALL_PHASE_SHARE, SMALL_GROWTH_SHARE / phases) * total
    network = {
        "z_dim": 64, "w_dim": 64, "mapping_fmaps": 64,
        "fmap_base": max(256, 8 * resolution), "fmap_max": 64,
    }  # fmt: skip
    if "mapping_layers" not in make_config(config).preset_fields:
        network["mapping_layers"] = 4  # elsewhere the depth is what the configuration is about
    training = {
        "total_kimg": total, "hold_kimg": phase_kimg, "fade_kimg": phase_kimg,
        "batch": {}, "batch_base": SMALL_BATCH,
        "lr": {}, "lr_base": 0.003, "r1_interval": 4,
        "r1_gamma": max(1.0, GAMMA_RULE * resolution**2 / SMALL_BATCH),
        "ema_kimg": min(max(total / 30, 0.05), 10.0), "share_fakes": True,
        "tick_kimg": max(total / 60, 0.05), "snapshot_ticks": 6,
        "sample_psi": 0.7, "sample_noise": "none",
    }  # fmt: skip
    return network, training


# ---- StyleGAN2 and StyleGAN3: a value and its reason each

Reasoned = dict[str, tuple[Any, str]]
_ADA = "of StyleGAN2-ADA's program"
_S3 = "of StyleGAN3's program"


@dataclass(frozen=True)
class _Published2:
    """A row of StyleGAN2-ADA's table."""

    kimg: float
    batch: int
    mbstd: int
    fmap_base: int
    lr: float
    gamma: float
    ema_kimg: float
    mapping_layers: int
    ema_rampup: float | None = None


_STYLEGAN2 = {
    "stylegan2": _Published2(25_000, 32, 4, 32_768, 0.002, 10.0, 10, 8),
    "paper256": _Published2(25_000, 64, 8, 16_384, 0.0025, 1.0, 20, 8),
    "paper512": _Published2(25_000, 64, 8, 32_768, 0.0025, 0.5, 20, 8),
    "paper1024": _Published2(25_000, 32, 4, 32_768, 0.002, 2.0, 10, 8),
    "cifar": _Published2(100_000, 64, 32, 32_768, 0.0025, 0.01, 500, 2, 0.05),
}


def _batch_asked(given: Mapping[str, Any], usual: int) -> int:
    """Return the batch that settings made from it are made from."""
    asked = given.get("batch")
    base = getattr(asked, "base", asked)
    return int(base) if base else usual


def _auto2(resolution: int, gpus: int, given: Mapping[str, Any]) -> _Published2:
    """Return the row that StyleGAN2-ADA's program makes for a size and a number of GPUs."""
    usual = max(min(gpus * min(4096 // resolution, 32), 64), gpus)
    batch = _batch_asked(given, usual)
    return _Published2(
        25_000, batch, max(min(batch // gpus, 4), 1), 32_768 if resolution >= 512 else 16_384,
        0.002 if resolution >= 1024 else 0.0025, GAMMA_RULE * resolution**2 / batch,
        batch * 10 / 32, 2, 0.05,
    )  # fmt: skip


def _modulated(
    name: str, config: str, resolution: int, gpus: int, given: Mapping[str, Any]
) -> tuple[Reasoned, Reasoned]:
    """Return what a preset of StyleGAN2 or StyleGAN3 sets."""
    second = make_config(config).family == "stylegan2"
    if name == "small":
        return _small_modulated(config, resolution, given)
    program = _ADA if second else _S3
    if not second:
        batch = _batch_asked(given, 32)
        row = _Published2(25_000, batch, 4, 0, 0.0025, 2 * (resolution / 256) ** 2,
                          batch * 10 / 32, 2, 0.05)  # fmt: skip
    elif name in ("auto", "photos"):
        row = _auto2(resolution, gpus, given)
    else:
        row = _STYLEGAN2[name]
    batch = row.batch
    training: Reasoned = {
        "phases": ("lazy", f"the order {program}: regularisation in updates of its own"),
        "total_kimg": (float(row.kimg), f"that {program}"),
        "batch": ({}, "one for all sizes: nothing grows"),
        "batch_base": (batch, f"that {program}"),
        "lr": ({}, "one for all sizes: nothing grows"),
        "lr_base": (row.lr, f"that {program}"),
        "minibatch_repeats": (1, "settings that move do so every step"),
        "r1_gamma": (row.gamma, f"that {program}"),
        "r1_interval": (16, f"that {program}: R1 every 16 steps, 16 times as strong"),
        "ema_kimg": (float(row.ema_kimg), f"that {program}"),
        "ema_rampup": (row.ema_rampup, f"that {program}"),
        "tick_kimg": (4.0, f"that {program}"),
        "snapshot_ticks": (50, f"that {program}"),
    }
    network: Reasoned = {"mbstd_group_size": (row.mbstd, f"that {program}")}
    if second:
        weight = 0.0 if name == "cifar" else 2.0
        training |= {
            "pl_weight": (weight, f"that {program}"),
            "pl_interval": (4, f"that {program}: Adam is corrected for it"),
        }
        network |= {
            "fmap_base": (row.fmap_base, f"that {program}"),
            "mapping_layers": (row.mapping_layers, f"that {program}"),
        }
        if name == "cifar":
            network |= {"style_mixing_prob": (0.0, f"that {program}"),
                        "D_architecture": ("orig", f"that {program}")}  # fmt: skip
    else:
        training |= {
            "lr_D": (0.002, f"that {program}"),
            "r1_gamma": (row.gamma, f"the advice {program}: 2 at 256 px, 4 times that at twice "
                                    "the size"),
        }  # fmt: skip
        network["magnitude_beta"] = (0.5 ** (batch / 20_000), f"half-life {program}: 20 kimg")
        if config == "stylegan3-r":
            training |= {
                "blur_sigma": (10.0, f"that {program}: R starts with blurred pictures"),
                "blur_kimg": (batch * 200 / 32, f"that {program}"),
            }
    if name in ("auto", "photos") and second:
        training["r1_gamma"] = (row.gamma, "StyleGAN2-ADA's rule: 0.0002 · side² / batch")
    return network, training | (_few(given, tick=4.0) if name == "photos" else {})


def _few(given: Mapping[str, Any], tick: float) -> Reasoned:
    """Return what ``photos`` changes of a family's own preset."""
    total = float(given.get("total_kimg", PHOTOS_KIMG))
    return {
        "total_kimg": (total, "a fifth of the published: after that a network memorises few "
                              "pictures"),
        "mirror": (True, "twice the pictures; --no-mirror where left and right differ, as in "
                         "writing"),
        "snapshot_ticks": (max(1, round(total / tick / 25)), "25 networks and sheets over the run"),
    }  # fmt: skip


def _small_common(resolution: int, given: Mapping[str, Any]) -> tuple[Reasoned, Reasoned]:
    """Return what ``small`` sets in every family that does not grow."""
    total = float(given.get("total_kimg", SMALL_KIMG))
    text = _OWN["small"]
    training: Reasoned = {
        "total_kimg": (total, text["total_kimg"]),
        "batch": ({}, "one for all sizes: nothing grows"),
        "batch_base": (SMALL_BATCH, "8 per process on two cores"),
        "lr": ({}, "one for all sizes: nothing grows"),
        "minibatch_repeats": (1, "settings that move do so every step"),
        "ema_kimg": (min(max(total / 30, 0.05), 10.0), text["ema_kimg"]),
        "tick_kimg": (max(total / 60, 0.05), text["tick_kimg"]),
        "snapshot_ticks": (6, text["snapshot_ticks"]),
        "sample_psi": (0.7, text["sample_psi"]),
        "sample_noise": ("none", text["sample_noise"]),
    }
    network: Reasoned = {
        "z_dim": (64, text["*"]),
        "fmap_base": (max(512, 16 * resolution), "16 feature maps at the full resolution"),
        "fmap_max": (64, text["*"]),
    }
    return network, training


def _small_modulated(
    config: str, resolution: int, given: Mapping[str, Any]
) -> tuple[Reasoned, Reasoned]:
    network, training = _small_common(resolution, given)
    text = _OWN["small"]
    network |= {"w_dim": (64, text["*"]), "mapping_layers": (2, "as many as auto has")}
    if make_config(config).family == "stylegan3":
        network["num_layers"] = (6, "of 14: each costs a processor a step of StyleGAN")
        for key in ("fmap_base", "fmap_max"):
            network[f"D_{key}"] = network[key]  # elsewhere D follows G's widths
            network[key] = (network[key][0] // 2, "half of what other families have: filters cost")
    training |= {
        "phases": ("lazy", "the order of the published programs"),
        "lr_base": (0.003, text["lr_base"]),
        "r1_gamma": (1.0, text["r1_gamma"]),
        "r1_interval": (8, "every 8th step, 8 times as strong: a penalty costs as much as D"),
        "ema_rampup": (0.05, f"that {_ADA}: the first average is not of noise"),
    }
    return network, training


# ---- R3GAN


@dataclass(frozen=True)
class _PublishedR3:
    """A row of R3GAN's table; its settings move over ``kimg``."""

    kimg: float
    gamma: float  # at first; a tenth of it at last
    augment_p: float  # at last
    ema_kimg: float  # at last
    batch: int
    network: Mapping[str, int]


_IMAGENET = {"fmap_max": 1536, "group_fmaps": 16}
_R3GAN = {
    "r3gan-cifar10": _PublishedR3(20_000, 0.05, 0.55, 5_000, 512, {}),
    "r3gan-ffhq64": _PublishedR3(20_000, 2.0, 0.3, 500, 256, {}),
    "r3gan-ffhq256": _PublishedR3(20_000, 150.0, 0.3, 500, 256, {}),
    "r3gan-imagenet32": _PublishedR3(200_000, 0.5, 0.5, 50_000, 4096,
                                     {"fmap_base": 49_152, **_IMAGENET}),
    "r3gan-imagenet64": _PublishedR3(200_000, 1.0, 0.4, 50_000, 4096,
                                     {"fmap_base": 98_304, **_IMAGENET}),
}  # fmt: skip
_R3GAN_SIDES = {32: "r3gan-cifar10", 64: "r3gan-ffhq64"}  # up to so many pixels


def _r3gan(
    name: str, config: str, resolution: int, gpus: int, given: Mapping[str, Any]
) -> tuple[Reasoned, Reasoned]:
    """Return what a preset of R3GAN sets."""
    there = "R3GAN's"
    training: Reasoned = {
        "phases": ("paired", f"{there} program: D and G each on pictures of their own"),
        "loss": ("relativistic", f"{there}"),
        "adam_beta2": (0.9, f"{there}, at first"),
        "beta2_final": (0.99, f"{there}"),
        "minibatch_repeats": (1, "settings that move do so every step"),
        "augment": ("fixed", f"{there}: its p is a schedule"),
        "augment_pipe": ("halfcolor", f"{there}"),
        "batch": ({}, "one for all sizes: nothing grows"),
        "lr": ({}, "one for all sizes: nothing grows"),
    }
    if name == "small":
        network, common = _small_common(resolution, given)
        total = common["total_kimg"][0]
        network["group_fmaps"] = (8, f"{there}")
        lr, gamma, p, half_life = 0.0006, 1.0, 0.3, common["ema_kimg"][0]
        training |= common
        why = "three times R3GAN's: fewer steps, smaller network"
        weak = "between R3GAN's for 32 and 64 px"
    else:
        row = _R3GAN[choose_preset("r3gan", "cuda", None, resolution)[0]
                     if name == "photos" else name]  # fmt: skip
        total, lr, gamma, p = float(row.kimg), 2e-4, row.gamma, row.augment_p
        half_life = float(row.ema_kimg)
        network = {key: (value, f"{there}") for key, value in row.network.items()}
        training |= {"batch_base": (row.batch, f"{there}, over all processes")}
        why = weak = f"{there}, at first"
        if name == "photos":
            few = _few(given, tick=4.0)
            total, p = few["total_kimg"][0], 0.55
            training |= few | {
                "batch_base": (64, "what one GPU holds"),
                "tick_kimg": (4.0, "as in the other families"),
            }
    training |= {
        "total_kimg": training.get("total_kimg", (total, "as long as its settings move")),
        "anneal_kimg": (float(given.get("total_kimg", total)), "over the length of the run"),
        "lr_base": (lr, why),
        "lr_final": (lr / 4, f"a quarter at last, {there}"),
        "r1_gamma": (gamma, weak),
        "r2_gamma": (gamma, f"as R1, {there}"),
        "gamma_final": (gamma / 10, f"a tenth at last, {there}"),
        "augment_p": (p, f"reached at last; {there} are 0.3 to 0.55"),
        "ema_kimg": (half_life, "reached at last"),
    }
    return network, training

"""Presets: what each sets, the paper's and our own, and why. Stdlib only.

What is published is the paper's (Karras, Laine, Aila 2018) or its authors' program's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from stylecli.errors import UsageError, unknown_name
from stylecli.networks.registry import make_config
from stylecli.training.config import BATCH, BATCH_BASE, LR, LR_BASE

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

PRESET_TEXTS = {
    "paper": "the paper's FFHQ settings",
    "celebahq": "the paper's CelebA-HQ settings: WGAN-GP, learning rates up to 0.002",
    "lsun-bedroom": "the paper's LSUN Bedroom settings, 256 px",
    "lsun-car": "the paper's LSUN Car settings, 512 × 384 within 512 px",
    "lsun-cat": "the paper's LSUN Cat settings, 256 px",
    "photos": "our own for hundreds to thousands of photographs at 128 to 256 px on one GPU",
    "small": "our own small network and short schedule, for processors",
}

_OWN: dict[str, dict[str, str]] = {
    "none": {"*": "the default"},
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


def derived_reason(preset: str, config: str, name: str, gpus: int) -> str:
    """Return why a preset sets a field as it does, for a configuration and number of GPUs."""
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


def choose_preset(device: str, pictures: int | None) -> tuple[str, str]:
    """Return the preset for a device and a number of pictures when none is asked for, and why."""
    if device == "cpu":
        return "small", "the default without a GPU"
    if pictures is not None and pictures < FEW_PICTURES:
        return "photos", f"the default on a GPU under {FEW_PICTURES:,} pictures"
    return "paper", "the default on a GPU"


def preset_for(
    preset: str | None, config: str, device: str, pictures: int | None
) -> tuple[str, str]:
    """Return the preset's name, and what it is and why it is taken; NO_PRESET where none is made.

    Raises UsageError for an unknown name, a preset that another family is trained with, and a
    family whose losses are not here: those of another would train it to something else.
    """
    network = make_config(config)
    if not network.trainable:
        raise UsageError(
            f"stylecli cannot train configuration {config!r} yet, only draw and measure it: give "
            f"a StyleGAN configuration such as --config f"
        )
    fits = network.family == _FAMILY
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


def preset_fields(
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

"""A plan: every setting of a run with its reason, its stages, and what looks wrong about it.

Advice never changes a setting. Stdlib only, but for counting parameters.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from stylecli.errors import UsageError, plural
from stylecli.networks.config import NetworkConfig
from stylecli.networks.registry import build_discriminator, build_generator, make_config
from stylecli.settings import PAPER, settings_of, with_tables
from stylecli.shapes import SQUARE, Grid
from stylecli.training.config import GAMMA, TrainingConfig
from stylecli.training.presets import (
    GAMMA_RULE,
    SETS,
    WGAN_GP_MAX_LR,
    PresetFields,
    preset_fields,
    preset_for,
)
from stylecli.training.schedule import PlannedStage, batch_at, grown_kimg, list_stages

FAR = 4.0  # so many times above or below what is usual counts as far
FEW_FOR_PUBLISHED = 5_000  # pictures
# Pictures below which D is shown changed ones unless asked otherwise. The paper on adaptive
# augmentation gains at 10,000 faces and little at 30,000.
FEW_TO_AUGMENT = 20_000
TRANSFER_AUGMENT_KIMG = 100.0  # a trained D overfits at once; that of StyleGAN2-ADA


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


def plan_training(
    preset: str | None = None,
    *,
    config: str = "f",
    resolution: int,
    channels: int = 3,
    label_dim: int = 0,
    grid: Grid = SQUARE,
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
    is known. A ``grid`` of another shape has the settings of the square with most nearly as many
    pixels. A ``ByResolution`` is laid over the preset's table. Raises UsageError for unknown
    names, fields and values.
    """
    config = config.lower()
    squares = grid.square_level(resolution)  # what presets know
    name, why = preset_for(preset, config, device, pictures, squares)
    given_network, given_training = dict(network or {}), dict(training or {})
    derived = [Derived("preset", name, why)]
    chosen_ranks, ranks_reason = _choose_ranks(device, cpus, ranks)
    if ranks is None:
        derived.append(Derived("ranks", str(chosen_ranks), ranks_reason))
    gpus = chosen_ranks if device == "cuda" else 1  # further processes share one GPU's batch
    chosen = preset_fields(name, config, squares, gpus, given_training)
    chosen = _at_level(chosen, resolution, squares)
    network_fields, training_fields = chosen.network, chosen.training
    given_training = with_tables(given_training, training_fields, TrainingConfig)
    for values, given in ((network_fields, given_network), (training_fields, given_training)):
        for key, value in values.items():
            if key not in given and value != {}:  # an empty table only clears the paper's
                derived.append(Derived(key, show_value(value), chosen.reasons[key]))
    settings = TrainingConfig(**{**training_fields, **given_training})
    changed, reasons = _augmentation(settings, given_training, pictures)
    settings = replace(settings, **changed)
    derived += reasons
    own = {"resolution": resolution, "channels": channels, "label_dim": label_dim, "base": grid}
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
        derived += [
            Derived(key, show_value(getattr(settings, key)), "has no effect: nothing grows")
            for key in ("hold_kimg", "fade_kimg")
        ]
    if settings.initial_resolution > resolution:
        reason = f"growth cannot begin above the {made.size} px of the pictures"
        derived.append(Derived("initial_resolution", str(resolution), reason))
        settings = replace(settings, initial_resolution=resolution)
    names = frozenset(given_network) | frozenset(given_training) | {
        key for key, value in (("preset", preset), ("ranks", ranks)) if value is not None
    }  # fmt: skip
    return TrainingPlan(made, settings, chosen_ranks, tuple(derived), name, names)


def _at_level(chosen: PresetFields, level: int, squares: int) -> PresetFields:
    """Return what a preset sets for a grid whose ``level`` has the pixels of ``squares`` px²."""
    if level == squares:
        return chosen
    tables = {
        name: {side * level // squares: value for side, value in table.items()}
        for name, table in chosen.training.items()
        if isinstance(table, dict)
    }
    network = dict(chosen.network)
    if "fmap_base" in network:  # as many feature maps for as many pixels
        network["fmap_base"] = max(1, network["fmap_base"] * level // squares)
    return replace(chosen, network=network, training=chosen.training | tables)


def _augmentation(
    settings: TrainingConfig, given: Mapping[str, Any], pictures: int | None
) -> tuple[dict[str, Any], list[Derived]]:
    """Return how D's pictures are changed where nobody asked, and why."""
    found: dict[str, Any] = {}
    why = ""
    always_on = settings.augment_pipe == "diffaugment"
    if "augment" not in given:
        few = pictures is not None and pictures < FEW_TO_AUGMENT
        if "augment_p" in given:
            found["augment"], why = "fixed", "--augment-p is a fixed probability"
        elif always_on:
            found["augment"], why = "fixed", "diffaugment as published is always on"
        elif {"augment_pipe", "augment_target", "augment_kimg"} & set(given):
            found["augment"], why = "adaptive", "asked for by settings of it"
        elif few and settings.knows_reals:
            why = (
                f"D would memorise {plural(pictures or 0, 'picture')}; "
                f"below {FEW_TO_AUGMENT:,} it helps"
            )
            found["augment"] = "adaptive"
    reasons = [Derived("augment", value, why) for value in found.values()]
    if found.get("augment", settings.augment) == "fixed" and always_on and "augment_p" not in given:
        found["augment_p"] = 1.0
        reasons.append(Derived("augment_p", "1", "diffaugment as published is always on"))
    return found, reasons


def _choose_ranks(device: str, cpus: int, ranks: int | None) -> tuple[int, str]:
    if device not in ("cpu", "cuda") and (ranks or 1) > 1:
        raise UsageError(
            f"{ranks} processes can share a batch only on CPUs or CUDA GPUs: give --ranks 1"
        )
    if device == "cpu":
        return ranks or min(2, cpus), (
            "one-thread processes: small convolutions gain little from threads"
        )
    return ranks or 1, "one GPU"


def show_value(value: Any) -> str:
    """Write a setting's value for people."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} px: {show_value(item)}" for key, item in value.items()) or "none"
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e5 else str(value)


@dataclass(frozen=True)
class PlanDescription:
    """All that follows from a plan, for people and as plain JSON."""

    network: tuple[Derived, ...]
    training: tuple[Derived, ...]
    stages: tuple[PlannedStage, ...]
    parameters: Mapping[str, int]  # of G and of D

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def describe_plan(plan: TrainingPlan) -> PlanDescription:
    """Return every setting of a plan with its reason, the stages, and what the networks weigh."""
    reasons = {item.name: item.reason for item in plan.derived}
    network = [
        Derived(item.name, show_value(getattr(plan.network, item.name)),
                _network_reason(plan, item.name, reasons))
        for item in fields(plan.network) if item.name in plan.network.to_dict()
    ]  # fmt: skip
    training = [
        Derived(item.name, _shown_training(plan.training, item.name),
                _training_reason(plan, item.name, reasons))
        for item in fields(TrainingConfig)
    ]  # fmt: skip
    return PlanDescription(
        network=tuple(network),
        training=tuple(training),
        stages=tuple(list_stages(plan.training, plan.network.resolution)),
        parameters=count_parameters(plan.network),
    )


def count_parameters(config: NetworkConfig) -> dict[str, int]:
    """Return how many numbers G and D learn, without holding any of them."""
    import torch

    with torch.device("meta"):
        networks = {"G": build_generator(config), "D": build_discriminator(config)}
    return {
        name: sum(parameter.numel() for parameter in network.parameters())
        for name, network in networks.items()
    }


def _network_reason(plan: TrainingPlan, name: str, reasons: Mapping[str, str]) -> str:
    config = plan.network.preset
    if name in plan.given:
        return "asked for"
    if name == "preset":
        return plan.network.preset_text
    if name == "label_dim" and not plan.network.label_dim:
        return "trained without classes"
    declared = settings_of(type(plan.network)).get(name)
    if declared is not None and declared.from_dataset:
        return declared.reason
    if name in reasons:
        return reasons[name]
    if name in plan.network.preset_fields:
        return f"part of configuration {config}"
    return PAPER


def _training_reason(plan: TrainingPlan, name: str, reasons: Mapping[str, str]) -> str:
    if name in plan.given and name not in reasons:
        return "asked for"
    if name in reasons:
        return reasons[name]
    declared = settings_of(TrainingConfig)[name]
    if declared.base and not getattr(plan.training, name):
        return f"one value for all resolutions, {declared.base}"
    return declared.reason


def _shown_training(config: TrainingConfig, name: str) -> str:
    value = getattr(config, name)
    if value is None:
        return settings_of(TrainingConfig)[name].unset
    if isinstance(value, Mapping):  # tables stand with the stages
        return "by resolution" if value else "-"
    return show_value(value)


def advise(
    plan: TrainingPlan, *, pictures: int | None = None, classes: int = 0, transform: str = ""
) -> list[str]:
    """Return a sentence for everything that looks wrong about a plan.

    ``pictures``, ``classes`` and ``transform`` (how pictures came onto the square) describe the
    dataset where they are known.
    """
    return [
        *_of_the_loss(plan),
        *_of_the_gamma(plan),
        *_of_the_schedule(plan),
        *_of_the_set(plan, pictures, classes, transform),
    ]


def _of_the_loss(plan: TrainingPlan) -> Iterator[str]:
    training = plan.training
    logistic = training.takes_r1
    for name, option, weight in (("R1", "--gamma", training.r1_gamma),
                                 ("R2", "--gamma-fake", training.r2_gamma)):  # fmt: skip
        field = "r1_gamma" if name == "R1" else "r2_gamma"
        if not logistic and weight and field in plan.given:
            yield (
                f"{option} {weight:g} has no effect: {name} is for logistic and relativistic "
                f"losses, not for {training.loss}"
            )
    if logistic and not training.r1_gamma and not training.r2_gamma:
        yield (
            f"the {training.loss} loss without R1 or R2 rarely converges: set --gamma, "
            f"{GAMMA:g} in the paper"
        )
    rates = [stage.lr for stage in list_stages(training, plan.network.resolution)]
    if training.loss == "wgan-gp" and max(rates) > WGAN_GP_MAX_LR:
        yield (
            f"learning rates above {WGAN_GP_MAX_LR:g} are more than the paper uses with wgan-gp: "
            "--lr 0.001,128:0.0015,256:0.002,512:0.002,1024:0.002"
        )
    if training.augment == "adaptive" and not training.knows_reals:
        yield (
            f"--augment adaptive goes by the sign of D's logits, which {training.loss} leaves "
            "free: give --augment fixed, or another --loss"
        )
    idle = {"none": {"pipe", "p", "target", "kimg"}, "fixed": {"target", "kimg"}, "adaptive": {"p"}}
    for name in sorted(idle[training.augment]):
        if f"augment_{name}" in plan.given:
            yield f"--augment-{name} has no effect with --augment {training.augment}"
    if "style_mixing_prob" in plan.given and not plan.network.has_w:
        yield (
            f"--mixing has no effect: configuration {plan.network.preset} has no styles to mix; "
            "c to f have"
        )


def usual_gamma(training: TrainingConfig, network: NetworkConfig) -> tuple[float, float]:
    """Return the range in which R1's weight is usual for pictures of a size.

    From the rule of thumb 0.0002 · side² / batch to the paper's 10, whichever is lower first.
    """
    batch = batch_at(training, network.resolution)
    rule = GAMMA_RULE * network.size.pixels / batch
    return min(rule, GAMMA), max(rule, GAMMA)


def _of_the_gamma(plan: TrainingPlan) -> Iterator[str]:
    training = plan.training
    if not training.takes_r1 or training.is_relativistic or not training.r1_gamma:
        return  # with pairs of reals and fakes, R3GAN's weights are up to 150
    low, high = usual_gamma(training, plan.network)
    if not low / FAR <= training.r1_gamma <= high * FAR:
        yield (
            f"gamma {training.r1_gamma:g} is far from the usual {low:.2g} to {high:.2g} at "
            f"{plan.network.size} px with this batch: too little lets D overfit, too much blurs"
        )


def _of_the_schedule(plan: TrainingPlan) -> Iterator[str]:
    training, side = plan.training, plan.network.resolution
    grown = grown_kimg(training, side)
    if grown >= training.total_kimg:
        doublings = side.bit_length() - training.initial_resolution.bit_length()
        shorter = round(0.6 * training.total_kimg / (2 * max(doublings, 1)), 2)
        yield (
            f"training ends at {training.total_kimg:g} kimg, before the network is grown to "
            f"{plan.network.size} px at {grown:g}: give --kimg {2 * grown:g}, or --hold-kimg "
            f"{shorter:g} --fade-kimg {shorter:g}"
        )


def _of_the_set(
    plan: TrainingPlan, pictures: int | None, classes: int, transform: str
) -> Iterator[str]:
    side, published = plan.network.resolution, SETS.get(plan.preset)
    if published is not None:
        if side not in published.resolutions and plan.preset != "paper":
            expected = " or ".join(str(px) for px in published.resolutions)
            yield (
                f"preset {plan.preset} was published at {expected} px, these pictures have "
                f"{plan.network.size}: "
                f"pack them again with --resolution {published.resolutions[0]}, or expect other "
                "results"
            )
        if transform and published.transform == "wide" and transform not in ("wide", "letterbox"):
            yield (
                f"preset {plan.preset} was published on pictures of 4:3 within the square: these "
                f"were packed with {transform}; pack them with --transform {published.transform}"
            )
        if pictures is not None and pictures < FEW_FOR_PUBLISHED:
            yield (
                f"{plural(pictures, 'picture is', 'pictures are')} few for preset {plan.preset}, "
                f"whose length suits tens of thousands: give --preset photos"
            )
    if classes and not plan.network.label_dim:
        yield (
            f"training ignores the {plural(classes, 'class', 'classes')} of the dataset: "
            "give --labels to use them"
        )

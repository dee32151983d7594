"""A plan spelled out: every setting with its reason, every stage, the size of the networks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from stylecli.networks.config import NetworkConfig
from stylecli.networks.registry import build_discriminator, build_generator
from stylecli.training.config import TrainingConfig
from stylecli.training.presets import Derived, TrainingPlan, show_value
from stylecli.training.schedule import PlannedStage, list_stages

# Fields whose default is the paper's; the defaults of all others are the tool's own.
PAPER_FIELDS = {
    "total_kimg", "initial_resolution", "hold_kimg", "fade_kimg", "batch", "batch_base",
    "minibatch_repeats", "lr", "lr_base", "adam_beta1", "adam_beta2", "adam_epsilon", "ema_kimg",
    "loss", "r1_gamma", "r2_gamma", "r1_interval", "snapshot_ticks", "sample_psi",
    "tick_kimg",
}  # fmt: skip
_FROM_DATASET = {
    "resolution": "the dataset's",
    "channels": "the dataset's",
    "label_dim": "the dataset's classes",
}


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
        for item in fields(plan.network)
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
    if name in _FROM_DATASET:
        return _FROM_DATASET[name]
    if name in reasons:
        return reasons[name]
    if name in plan.network.preset_fields:
        return f"what makes configuration {config}"
    return "the paper's"


def _training_reason(plan: TrainingPlan, name: str, reasons: Mapping[str, str]) -> str:
    if name in plan.given and name not in reasons:
        return "asked for"
    if name in reasons:
        return reasons[name]
    if name in ("batch", "lr") and not getattr(plan.training, name):
        return f"one value for all resolutions, {name}_base"
    return "the paper's" if name in PAPER_FIELDS else "the default"


def _shown_training(config: TrainingConfig, name: str) -> str:
    value = getattr(config, name)
    if name == "tick_kimg" and value is None:
        return "by resolution"
    if name in ("batch", "lr"):  # tables stand with the stages
        return "by resolution" if value else "-"
    return show_value(value)

"""A plan spelled out: every setting with its reason, every stage, the size of the networks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from stylecli.networks.config import NetworkConfig
from stylecli.networks.registry import build_discriminator, build_generator
from stylecli.settings import PAPER, settings_of
from stylecli.training.config import TrainingConfig
from stylecli.training.presets import Derived, TrainingPlan, show_value
from stylecli.training.schedule import PlannedStage, list_stages


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
    declared = settings_of(type(plan.network)).get(name)
    if declared is not None and declared.from_dataset:
        return declared.reason
    if name in reasons:
        return reasons[name]
    if name in plan.network.preset_fields:
        return f"what makes configuration {config}"
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
        return "by resolution"
    if isinstance(value, Mapping):  # tables stand with the stages
        return "by resolution" if value else "-"
    return show_value(value)

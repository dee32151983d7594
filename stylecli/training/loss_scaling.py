"""Keep gradients in the range of float16: multiply the loss by a number that is found on the way.

float16 ends at 65504 and loses what is below 6e-8, so gradients are computed of the loss times S
and divided by S afterwards (Micikevicius et al. 2017, "Mixed Precision Training"). Where one is not
finite the step is left out and S halved; after 2000 good steps S is doubled.
"""

from dataclasses import asdict, dataclass
from typing import Any

FIRST_SCALE = 2.0**16
LARGEST_SCALE = 2.0**24
STEPS_TO_GROW = 2000


@dataclass
class LossScaler:
    """The scale of one network's loss. All ranks see the same gradient and agree without a word."""

    scale: float = 1.0
    good_steps: int = 0  # since the scale last changed
    enabled: bool = False  # False: the scale stays 1

    @classmethod
    def for_precision(cls, precision: str) -> "LossScaler":
        """Return a scaler that works for fp16 and does nothing for other precisions."""
        enabled = precision == "fp16"
        return cls(FIRST_SCALE if enabled else 1.0, 0, enabled)

    def update(self, *, finite: bool) -> None:
        """Learn whether the gradient of a step was finite."""
        if not self.enabled:
            return
        if not finite:
            self.scale, self.good_steps = max(self.scale / 2, 1.0), 0
            return
        self.good_steps += 1
        if self.good_steps == STEPS_TO_GROW:
            self.scale, self.good_steps = min(self.scale * 2, LARGEST_SCALE), 0

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return asdict(self)

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint kept, unless it is of a run without scaling."""
        if self.enabled and state.get("enabled"):
            self.scale, self.good_steps = float(state["scale"]), int(state["good_steps"])

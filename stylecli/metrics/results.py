"""What a measurement says: a value, what it stands on, or why there is none."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class MetricResult:
    """One number with its definition. Frozen; ``value`` is None when it was skipped."""

    name: str  # says what was computed: fid50k, fid@5000, kid@efficientnet-lite0, ppl_wfull
    value: float | None
    std: float | None = None  # over subsets, where there are subsets
    skipped: str | None = None  # why there is no value, and the step that helps
    note: str | None = None  # how to get something better, or when to doubt this
    definition: Mapping[str, Any] = field(default_factory=dict)  # all that the value depends on

    @property
    def meaning(self) -> str:
        """One phrase that says what the value is; it repeats no caveat of the note."""
        if self.skipped is not None or self.value is None:
            return f"skipped: {self.skipped}"
        if self.name.startswith("fid"):
            return "distance to the dataset, lower is better"
        if self.name.startswith("kid"):
            what = "" if "@efficientnet" not in self.name else ", not a FID"
            return f"×1000 = {1000 * self.value:.1f}; distance to the dataset, 0 is best{what}"
        if self.name.startswith("diversity"):
            return "variety of the fakes, 1 = as varied as the dataset"
        space = "z" if self.name.startswith("ppl_z") else "w"
        return f"change of the picture per step in {space}, lower is smoother"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "definition": dict(self.definition), "meaning": self.meaning}

"""What a measurement says: a value, what it stands on, or why there is none."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class MetricResult:
    """One number with its definition. Frozen; ``value`` is None when it was skipped."""

    name: str  # says what was computed: fid50k, fid@5000, kid@efficientnet-lite0, ppl_wfull
    value: float | None
    std: float | None = None  # over subsets (kid) or splits (is)
    skipped: str | None = None  # why there is no value, and the step that helps
    note: str | None = None  # how to get something better, or when to doubt this
    definition: Mapping[str, Any] = field(default_factory=dict)  # all that the value depends on
    phrase: str = ""  # what the value is; it repeats no caveat of the note
    higher_is_better: bool = False
    instead_of: str | None = None  # the metric that was asked for, where a stand-in answered

    @property
    def meaning(self) -> str:
        """One phrase that says what the value is, or why there is none."""
        if self.skipped is not None or self.value is None:
            return f"skipped: {self.skipped}"
        return self.phrase

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        document = {**asdict(self), "definition": dict(self.definition), "meaning": self.meaning}
        del document["phrase"]
        return document

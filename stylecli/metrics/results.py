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

    @property
    def meaning(self) -> str:
        """One phrase that says what the value is; it repeats no caveat of the note."""
        if self.skipped is not None or self.value is None:
            return f"skipped: {self.skipped}"
        stand_in = ", a stand-in" * ("@efficientnet" in self.name)
        resized = " after PIL's resize" * ("-clean" in self.name)
        if self.name.startswith("fid"):
            return f"distance to the dataset{resized}, lower is better{stand_in and ', not a FID'}"
        if self.name.startswith("is"):
            return f"how sure and varied classes are, higher is better{stand_in}"
        if "precision" in self.name:
            return f"share of fakes that look real, 1 is best{stand_in}"
        if "recall" in self.name:
            return f"share of reals that fakes reach, 1 is best{stand_in}"
        if self.name.startswith("kid"):
            what = "" if "@efficientnet" not in self.name else ", not a FID"
            return (
                f"×1000 = {1000 * self.value:.1f}; distance to the dataset{resized}, "
                f"0 is best{what}"
            )
        if self.name.startswith("diversity"):
            return "variety of the fakes, 1 = as varied as the dataset"
        if self.name.startswith("ls"):
            bits = self.definition.get("bits", float("nan"))
            own = ", own classifiers: compare on this dataset only" * ("@own" in self.name)
            return f"= 2^{bits:.2f} bits; 1: a hyperplane tells every attribute{own}"
        space = "z" if self.name.startswith("ppl_z") else "w"
        return f"change of the picture per step in {space}, lower is smoother"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "definition": dict(self.definition), "meaning": self.meaning}

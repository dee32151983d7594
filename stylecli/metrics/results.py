"""What a measurement says: a value, what it stands on, or why there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from stylecli.images import notebook_html


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

    def text(self) -> str:
        """Return the value with its spread, such as ``0.0337 ± 0.0021``; a dash for none."""
        if self.value is None:
            return "-"
        return f"{self.value:.4f}" + (f" ± {self.std:.4f}" if self.std is not None else "")


class MetricResults(list[MetricResult]):
    """The results of one measurement, in order; notebooks and the prompt show them as a table."""

    def __repr__(self) -> str:
        """Return a line for each number."""
        width = max((len(result.name) for result in self), default=0)
        return "\n".join(f"{one.name:{width}}  {one.text()}  {one.meaning}" for one in self) or "[]"

    def _repr_html_(self) -> str:
        """Return a table: name, value with its spread, what it is."""
        facts = {one.name: f"{one.text()}, {one.meaning}" for one in self}
        notes = {f"note {number}": note for number, note in enumerate(self.notes, 1)}
        return notebook_html("metrics", facts | notes)

    @property
    def notes(self) -> list[str]:
        """What the results have to add, each once."""
        return list(dict.fromkeys(one.note for one in self if one.note))


def values_by_psi(
    results: Sequence[MetricResult],
) -> tuple[list[float], dict[str, list[MetricResult | None]]]:
    """Return the psis of a sweep, ascending, and by name without psi the result at each of them."""
    psis = sorted({float(one.definition.get("truncation_psi", 1.0)) for one in results})
    rows: dict[str, list[MetricResult | None]] = {}
    for one in results:
        psi = float(one.definition.get("truncation_psi", 1.0))
        name = one.name.removesuffix(f"-psi{psi:g}")
        rows.setdefault(name, [None] * len(psis))[psis.index(psi)] = one
    return psis, rows

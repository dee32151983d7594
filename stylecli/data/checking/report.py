"""What a check found: problems with what mends them, and facts, ready for people and for JSON."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
MAX_NAMES = 100  # pictures named per problem; the count says how many there are


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong or worth knowing, and the command or flag that mends it.

    An ``error`` is damage, or stops packing or training; a ``warning`` costs quality; a ``note``
    is a choice the user may want to make otherwise.
    """

    severity: Severity
    kind: str  # a short name for programs
    text: str
    fix: str
    count: int = 1  # pictures concerned, where it is about pictures
    names: list[str] = field(default_factory=list)  # the first of them

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}: {self.fix}"


@dataclass(frozen=True)
class CheckReport:
    """Everything a check found. ``rows`` are facts for people, ``facts`` the same for programs."""

    path: str
    kind: str  # "dataset" or "source"
    name: str
    complete: bool  # all pictures were looked at
    rows: list[tuple[str, str]]
    facts: dict[str, Any]
    problems: list[Problem]  # worst first
    files: list[str] = field(default_factory=list)  # pictures and JSON that were written

    @property
    def usable(self) -> bool:
        """Whether nothing was found that is damaged or would stop training."""
        return all(problem.severity != "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        return {**asdict(self), "rows": dict(self.rows), "usable": self.usable}


def worst_first(problems: list[Problem]) -> list[Problem]:
    """Sort problems: errors, warnings, notes; within each, as they were found."""
    return sorted(problems, key=lambda problem: SEVERITIES.index(problem.severity))

"""How one session of a run is driven: what may differ between two sessions of the same run.

Nothing here belongs to the run's result, which ``TrainingConfig`` decides. Stdlib only.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

from stylecli.errors import UsageError
from stylecli.files import parse_json, to_json

WATCH = ("warn", "stop", "rollback", "off")


@dataclass(frozen=True)
class Session:
    """Settings of one session; the same run may be continued with others."""

    batch_gpu: int | None = None  # most samples per rank and pass; None: the rank's whole share
    tf32: bool = False  # let CUDA round float32 products to 10 bits of mantissa
    keep: int | None = None  # network snapshots to keep, the newest; None: all
    watch: str = "warn"  # what to do about a run that goes wrong: one of WATCH
    tensorboard: bool = False  # write event files for TensorBoard as well
    evaluate_ticks: int | None = None  # measure every so many ticks; None: at every snapshot

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        for name in ("batch_gpu", "keep", "evaluate_ticks"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} {value} is not above zero")
        if self.watch not in WATCH:
            raise UsageError(f"watch {self.watch!r} is unknown: expected one of {', '.join(WATCH)}")

    def to_json(self) -> str:
        """Return one line of JSON, for the command line of a worker process."""
        return to_json(asdict(self)).decode()


def session_from_json(text: str) -> Session:
    """Rebuild what ``to_json`` wrote; raise UsageError for anything else."""
    values = parse_json(text, "--session", error=UsageError)
    if set(values) - {item.name for item in fields(Session)}:
        raise UsageError(f"session settings {text!r} are unknown")
    settings: dict[str, Any] = dict(values)
    return Session(**settings)

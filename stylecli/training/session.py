"""How one session of a run is driven: what may differ between two sessions of the same run.

Nothing here belongs to the run's result, which ``TrainingConfig`` decides. Stdlib only.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

from stylecli.errors import UsageError
from stylecli.files import parse_json, to_json
from stylecli.settings import MACHINE, WATCHING, check_settings, one_of, setting

WATCH = ("warn", "stop", "rollback", "off")
JSONL = "jsonl"
LOGS = (JSONL, "tensorboard", "wandb", "mlflow")


def _at_least_one(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UsageError(f"{name} {value} is not above zero")


def _known_logs(name: str, value: str) -> None:
    for word in value.split(",") if value else ():
        if word not in LOGS:
            raise UsageError(f"{name} {word!r} is unknown: expected {', '.join(LOGS)}")


def _read_logs(text: str, flag: str) -> str:
    """Read names with commas, in any spacing and case."""
    words = ",".join(word.strip().lower() for word in text.split(",") if word.strip())
    _known_logs(flag, words)
    return words


@dataclass(frozen=True)
class Session:
    """Settings of one session; the same run may be continued with others."""

    batch_gpu: int | None = setting(  # of a rank's share; None: all of it
        None, flag="--batch-gpu", heading=MACHINE, after="gpus", least=1, costs=True, fixed=True,
        help="Most images of a process at a time; a batch takes several passes. Saves memory.",
        check=_at_least_one,
    )  # fmt: skip
    exact: bool = setting(
        False, flag="--exact", heading=MACHINE, after="precision", costs=True, fixed=True,
        help="On CUDA, no TF32 and the same algorithms every time: slower.",
    )  # fmt: skip
    keep: int | None = setting(
        None, flag="--keep", heading=WATCHING, least=1, fixed=True,
        help="Snapshots to keep: the newest, and the best. Default: all.", check=_at_least_one,
    )  # fmt: skip
    watch: str = setting(
        "warn", flag="--watch", heading=WATCHING, fixed=True,
        help="When a run goes wrong: warn, stop, rollback to the best or newest checkpoint, off.",
        check=one_of(*WATCH),
    )  # fmt: skip
    evaluate_ticks: int | None = setting(
        None, flag="--metrics-every", heading=WATCHING, after="classifiers", least=1, fixed=True,
        help="Measure the first snapshot of every so many ticks. Default: each snapshot.",
        check=_at_least_one,
    )  # fmt: skip
    tensorboard: bool = setting(
        False, flag="--tensorboard", heading=WATCHING, after="evaluate_ticks", fixed=True,
        help="Write event files for TensorBoard too.",
    )  # fmt: skip

    log: str = setting(
        "", flag="--log", heading=WATCHING, after="tensorboard", read=_read_logs,
        help="Report elsewhere too: jsonl (lines on stdout), tensorboard, wandb, mlflow, or "
        "several with commas.",
        check=_known_logs,
    )  # fmt: skip

    @property
    def trackers(self) -> tuple[str, ...]:
        """The programs that are told of the run."""
        words = [*(["tensorboard"] if self.tensorboard else []), *self.log.split(",")]
        return tuple(dict.fromkeys(word for word in words if word not in ("", JSONL)))

    @property
    def writes_lines(self) -> bool:
        """Whether stdout gets a line of JSON for every tick."""
        return JSONL in self.log.split(",")

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        check_settings(self)

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

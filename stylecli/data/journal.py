"""How far an unfinished dataset is: the ``_state`` record.

It is written in the same transaction as the pictures it counts, so whatever ended the process, what
it says is true. Every picture of the source is either stored or left out, so these two numbers are
also the place in the source at which the next run goes on.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from stylecli.data.format import LabelKind
from stylecli.errors import DataError
from stylecli.files import parse_json, to_json

VERSION = 1


@dataclass(frozen=True)
class State:
    """What is stored so far, and of what work it is a part."""

    identity: dict[str, Any]  # source and settings: only the same work goes on
    count: int = 0  # pictures
    skipped: int = 0  # pictures left out
    base_count: int = 0  # pictures that were there before this work (an addition)
    base_skipped: int = 0
    label_kind: LabelKind | None = None
    tally: dict[str, int] = field(default_factory=dict)  # counts for the report, by name

    @property
    def position(self) -> int:
        """How many pictures of the source are dealt with."""
        return self.count - self.base_count + self.skipped - self.base_skipped

    def to_json(self) -> bytes:
        """Return the record as it is stored."""
        return to_json({"version": VERSION, **asdict(self)})


def read_state(where: object, text: bytes) -> State:
    """Read a record. Raises DataError when it is damaged or of another version."""
    try:
        fields = parse_json(text, where)
        version = fields.pop("version")
        state = State(**fields) if version == VERSION else None
    except (DataError, TypeError, KeyError):
        raise DataError(
            f"what {where} says of its unfinished work is damaged: begin again with --force"
        ) from None
    if state is None:
        raise DataError(
            f"{where} was begun by another version of stylecli: finish it with that one, or begin "
            "again with --force"
        )
    numbers = (state.count, state.skipped, state.base_count, state.base_skipped)
    if (
        any(type(number) is not int or number < 0 for number in numbers)
        or state.count < state.base_count
        or state.skipped < state.base_skipped
        or state.label_kind not in (None, "class", "vector")
        or not isinstance(state.identity, dict)
        or not isinstance(state.tally, dict)
    ):
        raise DataError(
            f"what {where} says of its unfinished work is damaged: begin again with --force"
        )
    return state


def differences(before: Any, identity: dict[str, Any]) -> str:
    """Name what differs between two works, as a sentence does: "another resolution, codec"."""
    before = before if isinstance(before, dict) else {}
    names = [name for name in identity if before.get(name) != identity[name]]
    if "resolution" in names:
        names = [name for name in names if name not in ("width", "height")]  # they follow from it
    if "fingerprint" in names:
        names[names.index("fingerprint")] = "set of pictures"
    return ", ".join(names) or "settings"

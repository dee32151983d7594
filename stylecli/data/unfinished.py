"""Take up what an interrupted writer left: read it back, check that it is the same work."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylecli.data.database import Database
from stylecli.data.format import (
    DIGEST_BYTES,
    META_KEY,
    STATE_KEY,
    LabelKind,
    digest_key,
    image_key,
    label_key,
    levels_key,
    metadata_key,
    parse_header,
    skipped_key,
)
from stylecli.data.journal import State, differences, read_state
from stylecli.errors import DataError


@dataclass(frozen=True)
class Stored:
    """What a database holds already."""

    state: State
    digests: bytes = b""
    labels: bytes = b""
    label_kind: LabelKind | None = None
    header: dict[str, Any] | None = None  # of a complete dataset


def read_part(database: Database, identity: dict[str, Any]) -> Stored:
    """Read an unfinished dataset, or a finished one that has not taken its name yet.

    Raises DataError when it is the work of other settings or another source.
    """
    part = database.folder
    if (text := database.get(META_KEY)) is not None:
        header = parse_header(part, text)
        _check_identity(part, header.get("settings"), identity)
        skipped = header.get("skipped", 0)
        return Stored(State(identity, header["count"], skipped), header=header)
    text = database.get(STATE_KEY)
    if not text:
        return Stored(State(identity))
    state = read_state(part, text)
    _check_identity(part, state.identity, identity)
    return _read_rows(database, state)


def read_complete(database: Database, identity: dict[str, Any], *, drop: bool = False) -> Stored:
    """Read a complete dataset that is added to, and what of the addition is there already.

    Raises DataError when an addition of other pictures was left unfinished, unless ``drop``
    says to take that one out.
    """
    path = database.folder
    header = parse_header(path, database.get(META_KEY))
    count, skipped = header["count"], header.get("skipped", 0)
    state = State(identity, count, skipped, base_count=count, base_skipped=skipped)
    if text := database.get(STATE_KEY):
        begun = read_state(path, text)
        if begun.identity == identity and (begun.base_count, begun.base_skipped) == (
            count,
            skipped,
        ):
            state = begun
        elif drop:
            drop_addition(database, header)
        else:
            raise DataError(
                f"{path} has an unfinished addition of {begun.identity.get('source')}: run that "
                "command again to finish it, or add --force to drop it"
            )
    return _read_rows(database, state, header)


def drop_addition(database: Database, header: dict[str, Any]) -> None:
    """Take out all that lies beyond what the header counts."""
    count, skipped = header["count"], header.get("skipped", 0)
    firsts = [
        image_key(count),
        *(image_key(count, level) for level in range(1, header["levels"])),
        label_key(count),
        metadata_key(count),
        digest_key(count),
        levels_key(count),
        skipped_key(skipped),
    ]
    keys = [key for first in firsts for key, _ in database.scan(first[:-8], first)]
    database.commit([(STATE_KEY, b"")], deletes=keys)


def _read_rows(database: Database, state: State, header: dict[str, Any] | None = None) -> Stored:
    """Read the digests and labels of all pictures that the state counts."""
    digests = b"".join(value for _, value in database.scan(b"d/"))
    rows = [value for _, value in database.scan(b"l/")]
    labels = b"".join(rows)
    is_whole = len(digests) == DIGEST_BYTES * state.count and len(rows) in (0, state.count)
    if not is_whole or len(labels) != len(rows) * len(rows[0] if rows else b""):
        raise DataError(
            f"{database.folder} does not hold the {state.count} pictures that it counts: it is "
            "damaged, begin again with --force"
        )
    kind: LabelKind | None = None
    if rows:
        kind = header["label_kind"] if header else state.label_kind
    return Stored(state, digests, labels, kind, header)


def _check_identity(part: Path, before: Any, identity: dict[str, Any]) -> None:
    if before != identity:
        raise DataError(
            f"{part} was begun with another {differences(before, identity)}: finish it with the "
            "command that began it, or begin again with --force"
        )

"""An unfinished dataset: how far it is, taking it up again, giving it its name when it is done.

The ``_state`` record is written in the same transaction as the pictures it counts, so whatever
ended the process, what it says is true. Every picture of the source is either stored or left out,
so these two numbers are also the place in the source at which the next run continues.
"""

import contextlib
import os
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stylecli.data.format import (
    DATA_FILE,
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
from stylecli.data.lmdb_files import Database
from stylecli.errors import DataError, plural
from stylecli.files import LOCK_FILE, OwnerLock, parse_json, sync_directory, to_json

VERSION = 1

OWN_FILES = {DATA_FILE, "lock.mdb", LOCK_FILE}  # a killed writer may leave the locks behind


@dataclass(frozen=True)
class State:
    """What is stored so far, and of what work it is a part."""

    identity: dict[str, Any]  # source and settings: only the same work continues
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
            f"the record of unfinished work in {where} is damaged: start again with --force"
        ) from None
    if state is None:
        raise DataError(
            f"another version of stylecli started {where}: finish it with that version, or start "
            f"again with --force"
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
            f"the record of unfinished work in {where} is damaged: start again with --force"
        )
    return state


def differences(before: Any, identity: dict[str, Any]) -> str:
    """Name what differs between two works, as a sentence does: "other --resolution, --codec"."""
    before = before if isinstance(before, dict) else {}
    known = dict.fromkeys([*identity, "base"])  # which only pictures of another shape record
    names = [name for name in known if before.get(name) != identity.get(name)]
    if {"resolution", "transform", "base"} & set(names):
        names = [name for name in names if name not in ("width", "height")]  # they follow from it
    return ", ".join(option_name(name) for name in names) or "settings"


def option_name(name: str) -> str:
    """Return what people know a recorded setting by: its option, where it has one."""
    words = {"fingerprint": "pictures", "source": "name of the pictures", "kind": "kind of work"}
    words |= {
        "base": "--shape",
        "exif": "--as-stored",
        "labels": "--no-labels",
        "subject": "finder of --transform subject",
    }
    return words.get(name) or "--" + name.replace("_", "-")


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
            f"{database.folder} does not hold the {plural(state.count, 'picture')} that it "
            f"counts: it is "
            f"damaged, start again with --force"
        )
    kind: LabelKind | None = None
    if rows:
        kind = header["label_kind"] if header else state.label_kind
    return Stored(state, digests, labels, kind, header)


def _check_identity(part: Path, before: Any, identity: dict[str, Any]) -> None:
    if before != identity:
        raise DataError(
            f"{part} was started with other {differences(before, identity)}: finish it with the "
            f"command that started it, or start again with --force"
        )


def real_path(path: Path) -> Path:
    """Return where a dataset lies: a link to a larger disk is followed, never replaced."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def check_target(path: Path, *, force: bool) -> None:
    """Raise DataError when something stands at ``path`` that must not be replaced."""
    if not path.exists():
        return
    if not force:
        raise DataError(f"{path} exists: give another --out, or --force to replace it")
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if DATA_FILE not in names or not names <= OWN_FILES:
        raise DataError(
            f"{path} is not a dataset, so --force does not replace it: give another --out"
        )


def publish(part: Path, path: Path, owner: OwnerLock) -> None:
    """Rename ``part`` to ``path``; what stands there is removed only after that.

    A full folder cannot be replaced in one step, so the old one is moved aside, and back if its
    place cannot be taken. Whatever ends the process in between, ``settle`` brings in order.
    """
    if sys.platform == "win32":
        owner.release()  # a folder with an open file in it cannot be renamed there
    aside = replaced_path(path)
    if path.exists():
        settle(path)
        for name in ("", DATA_FILE):  # as private as it was
            shutil.copymode(path / name, part / name)
        os.replace(path, aside)
    try:
        os.replace(part, path)
    except BaseException:
        if aside.exists():
            os.replace(aside, path)
        raise
    owner.folder = path
    sync_directory(path.parent)
    settle(path)


def replaced_path(path: Path) -> Path:
    """Return where a dataset lies while another one takes its place; no hand gives such a name."""
    return path.with_name(f".{path.name}.replaced")


def settle(path: Path) -> None:
    """Bring in order what was left by a kill while ``path`` was being replaced.

    The old dataset is removed where the new one has its name, and else gets its name back. Only
    for who holds the lock of the unfinished dataset.
    """
    aside = replaced_path(path)
    if not aside.exists():
        return
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.replace(aside, path)


def sweep_locks(path: Path) -> None:
    """Remove the lock files that a killed writer left in a complete dataset."""
    with contextlib.suppress(DataError):  # somebody is writing
        if (path / LOCK_FILE).exists():
            owner = OwnerLock(path)
            (path / "lock.mdb").unlink(missing_ok=True)
            owner.release()


def wipe(folder: Path) -> None:
    """Remove the database of an unfinished dataset."""
    for name in (DATA_FILE, "lock.mdb"):
        (folder / name).unlink(missing_ok=True)

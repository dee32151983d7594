"""Write a dataset, a transaction at a time, so that nothing is lost whatever ends the process."""

import shutil
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stylecli.data.format import (
    DIGEST_BYTES,
    LABELS_KEY,
    MAX_LABEL_DIM,
    META_KEY,
    STATE_KEY,
    Codec,
    LabelKind,
    box_mean,
    check_settings,
    count_levels,
    dataset_digest,
    digest_key,
    encode,
    header_fields,
    image_key,
    label_key,
    levels_key,
    metadata_key,
    parse_header,
    pixel_digest,
    skipped_key,
)
from stylecli.data.lmdb_files import Database, StorageError, free_bytes, picture_bytes
from stylecli.data.unfinished import (
    State,
    Stored,
    check_target,
    drop_addition,
    publish,
    read_complete,
    read_part,
    real_path,
    settle,
    wipe,
)
from stylecli.errors import DataError, plural
from stylecli.files import OwnerLock, parse_json, to_json
from stylecli.progress import format_bytes
from stylecli.shapes import SQUARE, Grid

_SMALLEST = 1 << 10

Label = int | Sequence[float] | npt.NDArray[np.float32]

BATCH_BYTES = 32 << 20  # a transaction holds its dirty pages in memory, so it is kept small
BATCH_ITEMS = 1000
BATCH_SECONDS = 10.0  # the most work that a kill -9 can cost


class SeenDigests:
    """Digests in order of arrival: ``append``, and ``find`` -> the first index or None.

    A Python dictionary of digests takes about 200 bytes a picture, a gigabyte for LSUN's cars. Here
    the digests lie in one byte string, which the dataset's own digest is made from anyway, and a
    table of indices into it is searched from the digest's first bytes (open addressing, at most
    half full): 48 to 64 bytes a picture.
    """

    def __init__(self, digests: bytes = b"") -> None:
        self.content = bytearray(digests)
        self._grow()

    def __len__(self) -> int:
        return len(self.content) // DIGEST_BYTES

    def append(self, digest: bytes) -> None:
        """Add a digest of 32 bytes under the next index."""
        self.content += digest
        if 2 * len(self) > len(self._table):
            self._grow()
        else:
            self._enter(len(self) - 1)

    def find(self, digest: bytes) -> int | None:
        """Return the first index that has this digest."""
        place = self._place(digest)
        return None if self._table[place] < 0 else self._table[place]

    def _grow(self) -> None:
        size = max(_SMALLEST, 1 << (4 * len(self)).bit_length())
        self._table = array("q", [-1]) * size
        for index in range(len(self)):
            self._enter(index)

    def _enter(self, index: int) -> None:
        place = self._place(self._digest(index))
        if self._table[place] < 0:  # else an equal one came first
            self._table[place] = index

    def _place(self, digest: bytes) -> int:
        """Return where a digest stands in the table, or the free place where it would."""
        mask = len(self._table) - 1
        place = int.from_bytes(digest[:8], "little") & mask
        while (index := self._table[place]) >= 0 and self._digest(index) != digest:
            place = (place + 1) & mask
        return place

    def _digest(self, index: int) -> bytes:
        return bytes(self.content[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES])


class LabelRows:
    """Collects labels as they are stored: int64, or float32 [L], little-endian, end to end."""

    def __init__(self, content: bytes = b"", count: int = 0, kind: LabelKind | None = None) -> None:
        """Go on after ``count`` pictures with these labels."""
        self.content = bytearray(content)
        self.kind = kind
        self._row_bytes = len(content) // count if count else 0

    def check(self, label: Label | None, index: int) -> bytes:
        """Return the row of picture ``index``, which must be of the same kind as all before it."""
        if label is None:
            if index and self.kind is not None:
                raise DataError(
                    f"picture {index} has no label but earlier pictures have one: label all or none"
                )
            return b""
        if index and self.kind is None:
            raise DataError(
                f"picture {index} has a label but earlier pictures have none: label all or none"
            )
        kind: LabelKind
        if isinstance(label, int | np.integer):
            if not 0 <= label < MAX_LABEL_DIM:
                raise DataError(f"label {label} of picture {index} is not a class number")
            kind, row = "class", np.asarray(label, "<i8").tobytes()
        else:
            vector = np.asarray(label, "<f4")
            if vector.ndim != 1 or not 0 < len(vector) <= MAX_LABEL_DIM:
                raise DataError(
                    f"the label of picture {index} has shape {vector.shape}, expected [L]"
                )
            kind, row = "vector", vector.tobytes()
        if index and (kind, len(row)) != (self.kind, self._row_bytes):
            raise DataError(
                f"the label of picture {index} is of another kind than that of the first picture"
            )
        self.kind, self._row_bytes = kind, len(row)
        return row

    def row(self, index: int) -> bytes:
        """Return the row of picture ``index``; empty when there are no labels."""
        return bytes(self.content[index * self._row_bytes : (index + 1) * self._row_bytes])

    def drop_unused(self, names: list[str], kept: int) -> tuple[list[str], dict[int, bytes]]:
        """Drop classes without pictures that come after the first ``kept``, and close the gaps.

        Return the names that stay and the rows that changed, by picture.
        """
        classes = np.frombuffer(bytes(self.content), "<i8")
        used = set(np.unique(classes).tolist())
        stay = [number for number in range(len(names)) if number < kept or number in used]
        numbers = np.zeros(len(names), "<i8")
        numbers[stay] = np.arange(len(stay))
        changed = np.flatnonzero(numbers[classes] != classes).tolist()
        self.content = bytearray(numbers[classes].tobytes())
        return [names[number] for number in stay], {index: self.row(index) for index in changed}

    def describe(self, class_names: list[str] | None) -> tuple[LabelKind | None, int]:
        """Return the kind of the labels and how many classes, or how long vectors, there are."""
        if self.kind is None:
            return None, 0
        if self.kind == "vector":
            return "vector", self._row_bytes // 4
        highest = int(np.frombuffer(self.content, "<i8").max())
        if class_names is not None and highest >= len(class_names):
            raise DataError(
                f"label {highest} has no name: {plural(len(class_names), 'class', 'classes')} named"
            )
        return "class", len(class_names) if class_names else highest + 1


@dataclass(frozen=True)
class Entry:
    """What one picture of the source comes to: stored, or left out with a cause."""

    images: Sequence[bytes] = ()  # by level
    digest: bytes = b""
    label: bytes = b""
    metadata: bytes = b""
    left_out: bytes = b""
    counted: tuple[str, ...] = ()

    def rows(self, index: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield the picture's keys and values."""
        yield digest_key(index), self.digest
        for level, image in enumerate(self.images):
            yield image_key(index, level), image
        if len(self.images) > 1:
            digests = (pixel_digest(image) for image in self.images[1:])
            yield levels_key(index), b"".join(digests)
        if self.metadata:
            yield metadata_key(index), self.metadata
        if self.label:
            yield label_key(index), self.label


@dataclass
class Batch:
    """Entries in order, since a moment."""

    entries: list[Entry] = field(default_factory=list)
    stored_bytes: int = 0
    since: float = field(default_factory=time.monotonic)

    def append(self, entry: Entry) -> None:
        """Take in one more."""
        self.entries.append(entry)
        self.stored_bytes += sum(map(len, entry.images))

    @property
    def is_full(self) -> bool:
        """Whether it is time to store it."""
        return (
            self.stored_bytes >= BATCH_BYTES
            or len(self.entries) >= BATCH_ITEMS
            or time.monotonic() - self.since >= BATCH_SECONDS
        )

    def after(self, state: State) -> tuple[State, list[tuple[bytes, bytes]]]:
        """Return the state once it is stored after ``state``, and its keys and values.

        It counts from ``state`` alone: storing it twice, after an interrupt, is harmless.
        """
        rows: list[tuple[bytes, bytes]] = []
        count, skipped, tally = state.count, state.skipped, Counter(state.tally)
        for entry in self.entries:
            tally.update(entry.counted)
            if entry.left_out:
                rows.append((skipped_key(skipped), entry.left_out))
                skipped += 1
            else:
                rows += entry.rows(count)
                count += 1
        return replace(state, count=count, skipped=skipped, tally=dict(tally)), rows


class DatasetWriter:
    """Writes pictures in order into ``<path>.part``, which takes its name when all is done.

        with DatasetWriter(path, resolution=32, channels=3) as writer:
            writer.add(pixels, label=2, metadata={"author": "..."})

    Either every picture has a label (an int class, or a float32 vector) or none has. ``info`` is
    merged into the header. When the block fails, nothing is left behind and what stood at ``path``
    stays. Not so with an ``identity``, which says what the work is, in JSON's terms, and equals
    ``info["settings"]``: then ``<path>.part`` is kept, the next writer of that identity continues
    from ``position``, and one of another raises DataError (unless ``force``). With ``append`` the
    pictures are added to the complete dataset at ``path``, which can be read all the while and has
    them once the block ends, less new classes without a picture.
    ``expected`` pictures in all are only spoken of when the disk is full. ``grid`` is what
    pictures of another shape double (``shapes``), to the level ``resolution``.
    Raises DataError when ``path`` exists and ``force`` is off, or when another process writes it.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        resolution: int,
        channels: int,
        codec: Codec = "raw",
        pyramid: bool = False,
        class_names: list[str] | None = None,
        info: dict[str, Any] | None = None,
        force: bool = False,
        identity: dict[str, Any] | None = None,
        append: bool = False,
        expected: int = 0,
        grid: Grid = SQUARE,
    ) -> None:
        self.path = Path(path)
        check_settings(resolution, channels, codec)
        if not append:
            check_target(self.path, force=force)
        self.resolution, self.grid = resolution, grid
        self.shape = (channels, *grid.at(resolution))
        self.codec: Codec = codec
        self.levels = count_levels(resolution) if pyramid else 1
        self.class_names = class_names
        self.info = dict(info or {})
        self.expected = expected
        self._identity, self._append = identity, append
        self._resumable = identity is not None
        self._batch = Batch()
        self._target = real_path(self.path)
        self._part = self._target.with_name(self._target.name + ".part")
        self._folder = self.path if append else self._part
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self._folder} cannot be written: {error}") from None
        self._owner = OwnerLock(self._folder)
        try:
            self._database, stored = self._open(force)
            if not append and stored.header is None:
                self._restore(force)
        except BaseException:
            if not append:
                settle(self._target)
                if not self._resumable:
                    shutil.rmtree(self._folder, ignore_errors=True)
            self._owner.release()
            raise
        self._state, self._before = stored.state, stored.header
        self._seen = SeenDigests(stored.digests)
        self.count = stored.state.count  # pictures stored, those of earlier runs included
        self._labels = LabelRows(stored.labels, self.count, stored.label_kind)

    @property
    def position(self) -> int:
        """How many pictures of the source are dealt with, in earlier runs too."""
        return self._state.position + len(self._batch.entries)

    @property
    def left_out(self) -> int:
        """How many pictures of the source were left out, in earlier runs too."""
        return self.position - (self.count - self._state.base_count)

    def add(
        self,
        pixels: npt.NDArray[np.uint8],
        label: Label | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        digest: bytes | None = None,
        stored: bytes | None = None,
        counted: tuple[str, ...] = (),
    ) -> None:
        """Append one picture: uint8 [C, H, W].

        ``digest`` and ``stored`` (the pixels in the dataset's codec) spare computing them;
        ``counted`` names what the tally counts it for. Raises DataError when its shape or the kind
        of its label differs from the others'.
        """
        if pixels.shape != self.shape or pixels.dtype != np.uint8:
            raise DataError(
                f"picture {self.count} is {pixels.dtype} {list(pixels.shape)}: "
                f"expected uint8 {list(self.shape)}"
            )
        entry = Entry(
            [
                stored if stored and not level else encode(box_mean(pixels, level), self.codec)
                for level in range(self.levels)
            ],
            digest or pixel_digest(pixels.tobytes()),
            self._labels.check(label, self.count),
            to_json(metadata) if metadata else b"",
            counted=counted,
        )
        self._seen.append(entry.digest)
        self._labels.content += entry.label
        self.count += 1
        self._take_in(entry)

    def skip(self, name: str, cause: str, *, counted: tuple[str, ...] = ()) -> None:
        """Note that a picture of the source is left out, and why."""
        text = to_json({"name": name, "cause": cause})
        self._take_in(Entry(left_out=text, counted=counted))

    def find(self, digest: bytes) -> int | None:
        """Return the first picture of this digest, or None."""
        return self._seen.find(digest)

    def has_label(self, index: int, label: Label | None) -> bool:
        """Tell whether a picture has this label."""
        return self._labels.check(label, self.count) == self._labels.row(index)

    def metadata(self, index: int) -> bytes:
        """Return the metadata of a picture as JSON; empty when nothing is known."""
        if index >= self._state.count:
            pictures = [entry for entry in self._batch.entries if entry.images]
            return pictures[index - self._state.count].metadata
        return self._database.get(metadata_key(index)) or b""

    def forget(self) -> None:
        """Leave nothing behind if the block fails, as without an identity."""
        self._resumable = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        done = False
        try:
            if kind is None:
                self._finish()
                done = True
            elif self._resumable and not isinstance(error, StorageError):
                self._commit()  # so that Ctrl-C costs nothing
        finally:
            self._end(done)

    def _open(self, force: bool) -> tuple[Database, Stored]:
        """Open the database that is written, and read what it holds already."""
        if self._identity is None:
            wipe(self._folder)  # what an interrupted command left
            return Database(self._folder, durable=False), Stored(State({}))
        identity = parse_json(to_json(self._identity), "the work")
        try:
            return self._take_up(identity, drop=force)
        except StorageError:
            raise
        except DataError:
            if self._append or not force:
                raise
        wipe(self._folder)
        return self._take_up(identity)

    def _restore(self, force: bool) -> None:
        """Give back the name of what other work was about to replace when it was killed."""
        try:
            settle(self._target)
            check_target(self.path, force=force)
        except BaseException:
            self._database.close()
            raise

    def _take_up(self, identity: dict[str, Any], *, drop: bool = False) -> tuple[Database, Stored]:
        database = Database(self._folder, shared=self._append)
        try:
            if self._append:
                return database, read_complete(database, identity, drop=drop)
            return database, read_part(database, identity)
        except BaseException:
            database.close()
            raise

    def _take_in(self, entry: Entry) -> None:
        self._batch.append(entry)
        if self._batch.is_full:
            self._commit()

    def _commit(self, *last: tuple[bytes, bytes]) -> None:
        """Store the batch and how far it reaches in one transaction, with ``last`` at its end."""
        state, rows = self._batch.after(self._state)
        state = replace(state, label_kind=self._labels.kind)
        if self._resumable and not last:
            rows.append((STATE_KEY, state.to_json()))
        try:
            self._database.commit([*rows, *last])
        except StorageError as error:
            raise StorageError(f"{error}{self._what_is_missing()}") from None
        self._state, self._batch = state, Batch()

    def _finish(self) -> None:
        """Write the header, in one transaction with the last pictures and all labels."""
        if self._before is not None and not self._append:
            return  # only the name was missing
        if self.count == 0:
            self.forget()
            raise DataError(f"{self.path} would hold no picture, so it was not written")
        state, _ = self._batch.after(self._state)
        tally = Counter((self._before or {}).get("tally", {}))
        tally.update(state.tally)
        rows = self._drop_new_classes()
        kind, label_dim = self._labels.describe(self.class_names)
        header = {
            **(self._before or {}),
            **self.info,
            **header_fields(self.resolution, self.shape[0], self.codec, self.levels, self.grid),
            "count": state.count,
            "skipped": state.skipped,
            "label_kind": kind,
            "label_dim": label_dim,
            "class_names": self.class_names if kind == "class" else None,
            "digest": dataset_digest([bytes(self._seen.content)]),
            "tally": dict(tally),
            "complete": True,
        }
        parse_header(self.path, to_json(header))  # never write what we would refuse
        last = [*rows, (META_KEY, to_json(header))]
        if kind is not None:
            last.append((LABELS_KEY, bytes(self._labels.content)))
        if self._resumable:
            # Emptied, not deleted: a deletion may give back pages that were never written.
            last.append((STATE_KEY, b""))
        self._commit(*last)

    def _drop_new_classes(self) -> list[tuple[bytes, bytes]]:
        """Drop what an addition would add of classes without a picture; return changed rows."""
        known = (self._before or {}).get("class_names")
        if not known or not self.class_names or self._labels.kind != "class":
            return []
        self.class_names, rows = self._labels.drop_unused(self.class_names, len(known))
        return [(label_key(index), row) for index, row in rows.items()]

    def _end(self, done: bool) -> None:
        """Close everything; give the finished folder its name, or leave what is to be left."""
        try:
            if self._append and not done and not self._resumable:
                drop_addition(self._database, self._before or {})
            self._database.close()
            if done and not self._append:
                publish(self._part, self._target, self._owner)
            elif not (done or self._resumable or self._append):
                shutil.rmtree(self._folder, ignore_errors=True)
        finally:
            self._owner.release()

    def _what_is_missing(self) -> str:
        """Say how much room there is and how much the rest needs, after a failed transaction."""
        free = free_bytes(self._folder)
        if not self.expected:
            return f"; {format_bytes(free)} are free there"
        channels, height, width = self.shape
        rest = (self.expected - self._state.position) * picture_bytes(
            channels, height * width, self.codec, self.levels
        )
        return (
            f"; about {format_bytes(rest)} more are needed and {format_bytes(free)} are free "
            "there: make room, then run the same command to continue from picture "
            f"{self._state.position:,}"
        )

"""What a writer has taken in and not yet stored: the content of its next transaction."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from stylecli.data.format import (
    digest_key,
    image_key,
    label_key,
    levels_key,
    metadata_key,
    pixel_digest,
    skipped_key,
)
from stylecli.data.journal import State

BATCH_BYTES = 32 << 20  # a transaction holds its dirty pages in memory, so it is kept small
BATCH_ITEMS = 1000
BATCH_SECONDS = 10.0  # the most work that a kill -9 can cost


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

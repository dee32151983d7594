"""Why a foreign file is not read: it holds what no such file needs, or it is damaged.

The readers raise these two among themselves; whoever opened the file turns them into one sentence
with its name. ``Budget`` is the cap on what one file may make the reader build: a stream of a few
bytes can name one long string a million times, so copies are counted and not only the file's size.
"""

from dataclasses import dataclass


class RefusedError(Exception):
    """The file holds something that no file of its kind needs, or asks for too much."""


class DamagedError(Exception):
    """The file ends early or contradicts itself."""


SLACK_BYTES = 16 << 20


def shown(value: object) -> str:
    """Return a short text for a message: numbers and text as they are, else what it is.

    Never ``repr`` of what a file holds: a tuple of two equal tuples, sixty deep, would fill memory.
    """
    if isinstance(value, tuple) and all(type(item) is int for item in value[:9]):
        return str(list(value[:8])) + ("…" if len(value) > 8 else "")
    if isinstance(value, str | bytes):
        return repr(value[:40])
    return repr(value) if value is None or isinstance(value, int | float) else type(value).__name__


@dataclass
class Budget:
    """What is left to one file and everything nested in it."""

    opcodes: int = 1_000_000  # a snapshot of StyleGAN3 at 1024 px has some 40,000
    text_bytes: int = 64 << 20  # all text together; an official file holds under 1 MB
    array_bytes: int = SLACK_BYTES  # arrays copied out of the file

    @staticmethod
    def of(size: int, *, opcodes: int = 1_000_000) -> "Budget":
        """Return the budget of a file of ``size`` bytes: its arrays, at most twice their bytes.

        Twice, for bfloat16 becomes float32.
        """
        return Budget(opcodes=opcodes, array_bytes=2 * size + SLACK_BYTES)

    def spend_opcodes(self, count: int = 1) -> None:
        """Count steps of the stream, and items that one step copies."""
        self.opcodes -= count
        if self.opcodes < 0:
            raise RefusedError("it has more steps than any network needs")

    def spend_text(self, size: int) -> None:
        """Count bytes of text."""
        self.text_bytes -= size
        if self.text_bytes < 0:
            raise RefusedError("it holds more text than any network needs")

    def spend_array(self, size: int) -> None:
        """Count bytes of arrays."""
        self.array_bytes -= size
        if self.array_bytes < 0:
            raise RefusedError("its arrays are larger than the file could hold")

"""Which digest was met before, in a few bytes a picture.

A Python dictionary of digests takes about 200 bytes a picture, a gigabyte for LSUN's cars. Here the
digests lie in one byte string, which the dataset's own digest is made from anyway, and a table of
indices into it is searched from the digest's first bytes (open addressing, at most half full):
48 to 64 bytes a picture.
"""

from array import array

from stylecli.data.format import DIGEST_BYTES

_SMALLEST = 1 << 10


class SeenDigests:
    """Digests in order of arrival: ``append``, and ``find`` -> the first index or None."""

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

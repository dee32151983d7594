"""The table of contents of a zip that stores its entries as they are, such as torch writes.

Only the positions of entries are found; nothing is unpacked, so nothing can grow. Entries must be
uncompressed, lie inside the file without overlapping, and have plain relative names.
"""

import struct

from stylecli.interop.refusal import DamagedError, RefusedError

_END = struct.Struct("<4s4H2IH")  # end of central directory
_LOCATOR = struct.Struct("<4sIQI")  # where the zip64 end record is
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")  # central directory entry
_LOCAL = struct.Struct("<4s5H3I2H")
_MAX_ENTRIES = 20_000
_MAX_COMMENT = 1 << 16


def read_directory(content: memoryview) -> dict[str, memoryview]:
    """Return the entries' contents by name, as views of the file.

    Program text of TorchScript, which is compressed and never needed, comes back empty. Raises
    DamagedError for what is no zip and RefusedError for other compressed, encrypted or overlapping
    entries, names that lead elsewhere, and more than 20,000 of them.
    """
    try:
        entries = _entries(content)
    except (struct.error, OverflowError):  # an offset that no index can be
        raise DamagedError("it is not a whole zip file") from None
    found: dict[str, memoryview] = {}
    behind = 0
    for start, stop, name, readable in sorted(entries):
        if start < behind:
            raise RefusedError("its zip entries overlap")
        if name in found:
            raise RefusedError("its zip names an entry twice")
        behind = stop
        found[name] = content[start : stop if readable else start]
    return found


def _entries(content: memoryview) -> list[tuple[int, int, str, bool]]:
    count, position = _directory(content)
    if count > _MAX_ENTRIES:
        raise RefusedError(f"its zip has {count:,} entries")
    entries = []
    for _ in range(count):
        fields = _ENTRY.unpack_from(content, position)
        magic, flags, method = fields[0], fields[3], fields[4]
        packed, size, name_length, extra_length, comment_length = fields[8:13]
        if magic != b"PK\1\2":
            raise DamagedError("its zip directory is damaged")
        position += _ENTRY.size
        name = _name(bytes(content[position : position + name_length]))
        extra = bytes(content[position + name_length : position + name_length + extra_length])
        position += name_length + extra_length + comment_length
        packed, size, offset = _large(packed, size, fields[16], extra)
        readable = not (method or packed != size or flags & 1)
        if not readable and (flags & 1 or name.split("/")[1:2] != ["code"]):
            raise RefusedError("its zip entries are compressed or encrypted")
        local = _LOCAL.unpack_from(content, offset)
        start = offset + _LOCAL.size + local[9] + local[10]
        if local[0] != b"PK\3\4" or start + packed > len(content):
            raise DamagedError("its zip entries lie outside the file")
        entries.append((start, start + packed, name, readable))
    return entries


def _directory(content: memoryview) -> tuple[int, int]:
    """Return how many entries the central directory has, and where it begins."""
    tail = bytes(content[-(_MAX_COMMENT + _END.size) :])
    place = tail.rfind(b"PK\5\6")
    if place < 0:
        raise DamagedError("it is not a whole zip file")
    end = len(content) - len(tail) + place
    _, _, _, _, count, _, offset, _ = _END.unpack_from(content, end)
    if count == 0xFFFF or offset == 0xFFFFFFFF or _has_locator(content, end):
        magic, _, where, _ = _LOCATOR.unpack_from(content, max(0, end - _LOCATOR.size))
        if magic != b"PK\6\7" or where > len(content):
            raise DamagedError("its zip directory is damaged")
        record = _END64.unpack_from(content, where)
        if record[0] != b"PK\6\6":
            raise DamagedError("its zip directory is damaged")
        count, offset = record[7], record[9]
    if offset > len(content):
        raise DamagedError("its zip directory lies outside the file")
    return count, offset


def _has_locator(content: memoryview, end: int) -> bool:
    start = end - _LOCATOR.size
    return start >= 0 and bytes(content[start : start + 4]) == b"PK\6\7"


def _large(packed: int, size: int, offset: int, extra: bytes) -> tuple[int, int, int]:
    """Replace numbers that did not fit 32 bits by those of the zip64 extra field, in its order."""
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        if kind == 1:
            numbers = list(struct.unpack(f"<{length // 8}Q", extra[place + 4 :][: length // 8 * 8]))
            wanted = [size, packed, offset]
            for index, value in enumerate(wanted):
                if value == 0xFFFFFFFF and numbers:
                    wanted[index] = numbers.pop(0)
            size, packed, offset = wanted
        place += 4 + length
    return packed, size, offset


def _name(raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedError("its zip has a name that is no text") from None
    parts = name.split("/")
    if "\\" in name or "\0" in name or name.startswith("/") or ".." in parts:
        raise RefusedError(f"its zip names the entry {ascii(name)[:80]}")
    return name

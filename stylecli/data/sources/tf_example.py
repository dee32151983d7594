"""Parse the tf.train.Example of a StyleGAN record: a shape of three integers and raw bytes.

Protocol buffers on the wire: a field is a varint, number * 8 + type (0 varint, 1 eight bytes, 2 a
length and so many bytes, 5 four bytes), then its value. The message is

    Example  { 1: Features }           Features { 1: repeated entry }
    entry    { 1: name, 2: Feature }   Feature  { 1: bytes list, 2: floats, 3: int64 list }

and both kinds of lists hold their values in field 1.
"""

from collections.abc import Iterator

from stylecli.errors import DataError

_MAX_FIELDS = 1000  # at each level; a StyleGAN record has two features
_FIXED = {1: 8, 5: 4}


def parse_example(record: "memoryview[int]") -> tuple[tuple[int, int, int], "memoryview[int]"]:
    """Return (shape [C, H, W], pixels as uint8 bytes in that order), views of the record.

    Raises DataError when the record holds anything else, or not as many bytes as the shape says.
    """
    features: dict[bytes, memoryview[int]] = {}
    for features_message in _messages(record, 1):
        for entry in _messages(features_message, 1):
            name = next(iter(_messages(entry, 1)), memoryview(b""))
            features[bytes(name[:64])] = next(iter(_messages(entry, 2)), memoryview(b""))
    if not {b"shape", b"data"} <= features.keys():
        raise DataError(f"is a record of {sorted(features)}: expected shape and data")
    shape = [number for values in _messages(features[b"shape"], 3) for number in _integers(values)]
    data = next(
        (value for values in _messages(features[b"data"], 1) for value in _messages(values, 1)),
        memoryview(b""),
    )
    if len(shape) != 3 or min(shape) < 1 or shape[0] * shape[1] * shape[2] != len(data):
        raise DataError(f"is a record of shape {shape[:8]} with {len(data):,} bytes of pixels")
    return (shape[0], shape[1], shape[2]), data


def _messages(message: "memoryview[int]", wanted: int) -> "Iterator[memoryview[int]]":
    """Yield the values of a field that have a length."""
    for number, value in _fields(message):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _integers(message: "memoryview[int]") -> Iterator[int]:
    """Yield the integers of an int64 list, packed into one value or not."""
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            yield value
        elif number == 1 and isinstance(value, memoryview):
            place = 0
            while place < min(len(value), _MAX_FIELDS):
                integer, place = _varint(value, place)
                yield integer


def _fields(message: "memoryview[int]") -> "Iterator[tuple[int, memoryview[int] | int]]":
    """Yield (number, value) of a message's fields."""
    place = 0
    for _ in range(_MAX_FIELDS):
        if place == len(message):
            return
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            integer, place = _varint(message, place)
            yield tag >> 3, integer
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise DataError(f"is not a readable record: it has a field of type {kind}")
        if size > len(message) - place:
            raise DataError("is not a readable record: a field runs out of it")
        yield tag >> 3, message[place : place + size]
        place += size
    raise DataError(f"is not a StyleGAN record: it has over {_MAX_FIELDS:,} fields")


def _varint(message: "memoryview[int]", place: int) -> tuple[int, int]:
    """Return (integer, where it ends): seven bits a byte, the lowest first."""
    integer = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        integer |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return integer, place
    raise DataError("is not a readable record: an integer does not end")

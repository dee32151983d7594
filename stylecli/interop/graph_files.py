"""What a graph in a file says of itself: ONNX, TorchScript, torch.export. Nothing in it is run.

An ONNX file is one protobuf message: its fields are walked, the graph among them is stepped over.
The others are zips, of which the table of contents is read and the one entry with the record.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylecli.errors import NetworkError
from stylecli.files import parse_json
from stylecli.interop.pickles import DamagedError, RefusedError
from stylecli.interop.torch_files import read_directory

RECORD = "stylecli.json"
"""The name under which every such file keeps what it says of itself, as JSON."""

FORMATS = {"onnx": ".onnx", "torchscript": ".pt", "torch-export": ".pt2"}
"""What ``stylecli export`` writes, and how the names of files end."""

_KINDS = {"onnx": "ONNX", "torchscript": "TorchScript", "torch-export": "torch.export"}

_PRODUCER, _VERSION, _GRAPH, _OPSETS, _METADATA = 2, 3, 7, 8, 14  # fields of ONNX's ModelProto
_NUMBER, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # protobuf's kinds of field
_MOST_FIELDS = 10_000
_MOST_BYTES = 1 << 20  # of one text, and of a record


@dataclass
class GraphFile:
    """A graph's ``kind``; what the file says of itself, None where stylecli did not write it."""

    kind: str
    record: dict[str, Any] | None = None
    producer: str = ""
    opset: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def read_graph_file(path: Path) -> GraphFile | None:
    """Return what an ONNX file, or a zip that ``stylecli export`` wrote, says of itself.

    None for every other zip. At most the table of contents, the fields and 1 MiB of text are read,
    whatever the size of the file. Raises NetworkError, naming the file, for one that is damaged.
    """
    is_onnx = path.suffix.lower() == ".onnx"
    if is_onnx and not path.stat().st_size:
        raise NetworkError(f"{path} is not a readable ONNX file: it is empty")
    with open(path, "rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return _read_onnx(content, path) if is_onnx else _read_zip(content, path)


def _read_zip(content: memoryview, path: Path) -> GraphFile | None:
    try:
        entries = read_directory(content)
    except (DamagedError, RefusedError):  # whoever reads its weights says so
        return None
    inside = {name.partition("/")[2]: entry for name, entry in entries.items()}
    if f"extra/{RECORD}" not in inside:
        return None
    raw = bytes(inside[f"extra/{RECORD}"][: _MOST_BYTES + 1])
    if len(raw) > _MOST_BYTES:
        raise NetworkError(f"{path} is not readable: its {RECORD} is longer than 1 MiB")
    record = parse_json(raw, f"{RECORD} in {path}", error=NetworkError)
    format = "torch-export" if "models/model.json" in inside else "torchscript"
    return GraphFile(_KINDS[format], record)


# ---- ONNX


def _read_onnx(content: memoryview, path: Path) -> GraphFile:
    found, texts, has_graph = GraphFile(_KINDS["onnx"]), 0, False
    producer = version = ""
    try:
        for number, value in _fields(content):
            if number == _GRAPH:
                has_graph = True
            elif isinstance(value, memoryview) and number in (
                _PRODUCER, _VERSION, _OPSETS, _METADATA,
            ):  # fmt: skip
                texts += len(value)
                if texts > _MOST_BYTES:
                    raise DamagedError("it holds more than 1 MiB of text")
                if number == _METADATA:
                    pair = dict(_fields(value))
                    found.metadata[_text(pair.get(1))] = _text(pair.get(2))
                elif number == _OPSETS:
                    opset = dict(_fields(value))
                    if not _text(opset.get(1)) and isinstance(opset.get(2), int):
                        found.opset = opset[2]  # type: ignore[assignment]
                elif number == _PRODUCER:
                    producer = _text(value)
                else:
                    version = _text(value)
        if not has_graph:
            raise DamagedError("it has no graph")
    except DamagedError as error:
        raise NetworkError(f"{path} is not a readable ONNX file: {error}") from None
    found.producer = f"{producer} {version}".strip()
    if producer == "stylecli" and RECORD in found.metadata:
        record = found.metadata[RECORD]
        found.record = parse_json(record, f"{RECORD} in {path}", error=NetworkError)
    return found


def _text(value: "int | memoryview | None") -> str:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, memoryview) else ""


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a protobuf message: whole numbers as such, all else as views."""
    place = 0
    for _ in range(_MOST_FIELDS):
        if place == len(content):
            return
        key, place = _whole(content, place)
        kind = key & 7
        if kind == _NUMBER:
            value, place = _whole(content, place)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, place = _whole(content, place)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise DamagedError("it holds a field of no known kind")
        if length > len(content) - place:
            raise DamagedError("it is incomplete, or no ONNX file")
        yield key >> 3, content[place : place + length]
        place += length
    raise DamagedError(f"it has more than {_MOST_FIELDS:,} fields")


def _whole(content: memoryview, place: int) -> tuple[int, int]:
    """Return the number at a place, seven bits to a byte, and the place behind it."""
    value = 0
    for index in range(10):
        if place + index >= len(content):
            break
        byte = content[place + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, place + index + 1
    raise DamagedError("it is incomplete, or no ONNX file")

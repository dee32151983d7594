"""What exported graphs say of themselves is read without running them, whoever wrote them."""

import json
import zipfile
from pathlib import Path

import pytest

from stylecli.descriptions import info
from stylecli.errors import NetworkError
from stylecli.interop import graph_files
from stylecli.interop.graph_files import read_graph_file

RECORD = {"family": "stylegan2", "inputs": {"z": ["batch", 8]}, "source_sha256": "0" * 64}


def whole(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found, value = found + bytes([value & 0x7F | 0x80]), value >> 7
    return found + bytes([value])


def text(number: int, value: bytes) -> bytes:
    return whole(number << 3 | 2) + whole(len(value)) + value


def model(
    metadata: dict[str, str], producer: bytes = b"stylecli", graph: bytes = b"x" * 300
) -> bytes:
    """Return the protobuf message that an ONNX file is: its graph is never looked at."""
    pairs = (text(14, text(1, k.encode()) + text(2, v.encode())) for k, v in metadata.items())
    opsets = text(8, text(1, b"ai.onnx.ml") + b"\x10\x03") + text(8, text(1, b"") + b"\x10\x12")
    return b"\x08\x0a" + text(2, producer) + text(7, graph) + opsets + b"".join(pairs)


def archive(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(f"archive/{name}", content)
    return path


def test_an_onnx_file_is_told_by_its_metadata(tmp_path: Path) -> None:
    """Also where somebody else has added to it."""
    told = {"stylecli.json": json.dumps(RECORD), "family": "stylegan2", "author": "me, not JSON"}
    (tmp_path / "x.onnx").write_bytes(model(told))
    facts = info(tmp_path / "x.onnx")
    assert facts["what"] == "network as ONNX" and facts["record"] == RECORD
    assert facts["opset"] == 18 and facts["network is"].startswith("not here")


def test_another_programs_onnx_file_names_its_producer(tmp_path: Path) -> None:
    (tmp_path / "x.ONNX").write_bytes(model({"inputs": "no JSON"}, producer=b"pytorch"))
    facts = info(tmp_path / "x.ONNX")
    assert facts["made by"] == "pytorch" and facts["record"] == {"inputs": "no JSON"}


@pytest.mark.parametrize(
    ("inside", "kind"), [("models/model.json", "torch.export"), ("constants.pkl", "TorchScript")]
)
def test_a_torch_file_is_told_by_its_record(tmp_path: Path, inside: str, kind: str) -> None:
    entries = {"extra/stylecli.json": json.dumps(RECORD).encode(), inside: b"{"}
    facts = info(archive(tmp_path / "x.pt", entries))
    assert facts["what"] == f"network as {kind}" and facts["record"] == RECORD


def test_a_zip_without_our_record_is_left_to_others(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pt2", {"models/model.json": b"{}"})
    assert read_graph_file(path) is None
    with pytest.raises(NetworkError, match=r"x\.pt2"):
        info(path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "empty"), (b"\x0b\x00", "no known kind"), (model({})[:200], "incomplete"),
        (b"\xff" * 40, "incomplete"), (text(2, b"stylecli"), "no graph"),
        (model({"stylecli.json": "eighteen"}), "stylecli.json in"),
        (model({"stylecli.json": "[" * 3000}), "stylecli.json in"),
        (model({"stylecli.json": "[]"}), "stylecli.json in"),
        (text(7, b"") + b"\x08\x01" * 10_001, "fields"),
        (model({"how_to_call": "a" * (1 << 20)}), "1 MiB"),
    ],
    ids=["empty", "kind", "cut", "endless", "bare", "text", "deep", "list", "fields", "long"],
)  # fmt: skip
def test_a_damaged_onnx_file_is_one_sentence(tmp_path: Path, content: bytes, named: str) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(NetworkError, match=named) as caught:
        info(tmp_path / "x.onnx")
    assert "x.onnx" in str(caught.value) and caught.value.exit_code == 3


@pytest.mark.parametrize("raw", [b"[]", b"{", b"\xff\xfe\xfd", b'{"a": 1e999}', b" " * (1 << 21)])
def test_a_damaged_record_is_one_sentence(tmp_path: Path, raw: bytes) -> None:
    path = archive(tmp_path / "x.pt2", {"extra/stylecli.json": raw})
    with pytest.raises(NetworkError, match=r"stylecli\.json"):
        info(path)


def test_the_numbers_of_a_large_graph_are_stepped_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.onnx").write_bytes(model({}, graph=bytes(1 << 24)))
    read = []
    original = graph_files._whole
    monkeypatch.setattr(
        graph_files, "_whole", lambda content, place: read.append(place) or original(content, place)
    )
    assert read_graph_file(tmp_path / "x.onnx") is not None and len(read) < 30

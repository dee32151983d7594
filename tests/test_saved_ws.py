"""Styles in files: everybody's layouts are read, damaged and hostile ones are refused."""

import io
import itertools
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylecli import saved_ws
from stylecli.errors import NetworkError, UsageError
from stylecli.saved_ws import load_ws, read_ws_provenance, save_ws

WS = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)  # [N, num_ws, w_dim]


def _npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def _npy(header: dict[str, Any], body: bytes = b"") -> bytes:
    text = repr(header).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def test_saved_styles_are_read_back_with_their_record(tmp_path: Path) -> None:
    save_ws(tmp_path / "a.npz", WS, provenance={"seeds": "0-1", "name": "größer"})

    assert torch.equal(load_ws(tmp_path / "a.npz", (3, 4)), WS)
    assert read_ws_provenance(tmp_path / "a.npz") == {"seeds": "0-1", "name": "größer"}


def test_the_same_styles_are_the_same_bytes(tmp_path: Path) -> None:
    save_ws(tmp_path / "a.npz", WS)
    save_ws(tmp_path / "b.npz", WS)

    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("shape", [(2, 4), (2, 1, 4)])
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_one_w_per_face_serves_every_layer(
    tmp_path: Path, shape: tuple[int, ...], suffix: str
) -> None:
    w = np.arange(8, dtype=np.float64).reshape(shape)
    path = tmp_path / f"w.{suffix}"
    np.savez(path, w=w) if suffix == "npz" else np.save(path, w)

    assert load_ws(path).shape == (2, 1, 4)
    wanted = torch.from_numpy(w).float().reshape(2, 1, 4).expand(2, 3, 4)
    assert torch.equal(load_ws(path, (3, 4)), wanted)


def test_compressed_files_and_fortran_order_are_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", w=np.asfortranarray(WS.numpy()))

    assert torch.equal(load_ws(tmp_path / "a.npz"), WS)


def _written(path: Path, array: Any, key: str) -> Path:
    """Write styles in the way that the suffix says; a key makes a .pt a dict."""
    tensor = torch.from_numpy(array)
    if path.suffix == ".npz":
        np.savez(path, **{key or "arr_0": array, "seeds": np.arange(3)})
    elif path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".pt":
        torch.save({key: tensor, "step": 3} if key else tensor, path)
    else:
        torch.save([tensor], path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pt", ".pth"])
@pytest.mark.parametrize("key", ["w", "", "projected_w"])
def test_styles_of_others_are_read(tmp_path: Path, suffix: str, key: str) -> None:
    axes = [(2, 3, 4), (1, 2, 3, 4), (2, 1, 3, 4), (1, 1, 2, 3, 4)]
    for shape, kind in itertools.product(axes, [np.float16, np.float32, np.float64]):
        told: list[str] = []
        array = np.arange(24).astype(kind)
        path = _written(tmp_path / f"a{suffix}", array.reshape(shape), key)

        ws = load_ws(path, (3, 4), tell=told.append)

        assert torch.equal(ws, torch.arange(24.0).reshape(2, 3, 4)), (shape, kind)
        name = {".npz": key or "arr_0", ".npy": "", ".pt": key, ".pth": "0"}[suffix]
        assert bool(told) == (name not in ("", "w")) and all(f"'{name}'" in text for text in told)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pt", ".pth"])
def test_one_face_with_a_style_per_layer_is_one_face(tmp_path: Path, suffix: str) -> None:
    told: list[str] = []
    w = np.arange(12, dtype=np.float32).reshape(3, 4)
    path = _written(tmp_path / f"a{suffix}", w, "w")

    ws = load_ws(path, (3, 4), tell=told.append)

    assert torch.equal(ws, torch.from_numpy(w)[None])
    assert any("one face" in text and "3 layers" in text for text in told)
    assert load_ws(path, (5, 4)).shape == (3, 5, 4)  # of another network they are three faces


def test_among_several_arrays_the_one_that_fits_is_taken(tmp_path: Path) -> None:
    told: list[str] = []
    arrays = {"ws": WS.numpy(), "noise": np.zeros((1, 1, 8, 8), np.float32), "n": np.arange(2)}
    nested = {"face.png": {"latent": WS, "noise": [torch.zeros(1, 1, 8, 8)], "img": "x"}}
    np.savez(tmp_path / "a.npz", **arrays)
    torch.save(nested, tmp_path / "a.pt")

    for name in ("a.npz", "a.pt"):
        assert torch.equal(load_ws(tmp_path / name, (3, 4), tell=told.append), WS)
    assert "'ws'" in told[0] and "'face.png.latent'" in told[1]


def test_a_torch_file_that_would_run_code_is_not_loaded(tmp_path: Path) -> None:
    torch.save({"w": _Trap()}, tmp_path / "a.pt")

    with pytest.raises(NetworkError, match="nothing in it was run"):
        load_ws(tmp_path / "a.pt", (3, 4))


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('executed code from a file')",))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"w": np.zeros((2, 5, 4), np.float32)}, r"styles \[N, 5, 4\]: this network takes"),
        ({"w": np.zeros((2, 3, 5), np.float32)}, r"this network takes \[N, 3, 4\]"),
        ({"w": np.zeros((4,), np.float32)}, r"shape \[4\]"),
        ({"w": np.zeros((0, 4), np.float32)}, r"shape \[0, 4\]"),
        ({"w": np.zeros((2, 4), np.int64)}, "int64"),
        ({"w": np.full((2, 4), np.nan)}, "not finite"),
        ({"z": np.zeros((2, 4), np.int64)}, r"no array 'w' .* it holds z \[2, 4\]"),
        ({"a": np.zeros((2, 4)), "b": np.zeros((2, 3, 4))}, r"several others \(a \[2, 4\], b "),
        ({"w": np.zeros((2, 2, 3, 4))}, r"shape \[2, 2, 3, 4\]"),
        ({"w": np.array([_Trap()], dtype=object)}, "array of object"),
    ],
    ids=[
        "layers",
        "width",
        "axes",
        "empty",
        "whole numbers",
        "nan",
        "no floats",
        "several",
        "two axes of faces",
        "objects",
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = _npz(tmp_path / "a.npz", **arrays)

    with pytest.raises(NetworkError, match=message):
        load_ws(path, (3, 4))


def test_a_shape_is_not_taken_on_its_word(tmp_path: Path) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 4)}
    (tmp_path / "a.npy").write_bytes(_npy(header, bytes(64)))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("w.npy", _npy(header, bytes(64)))

    for name in ("a.npy", "a.npz"):
        with pytest.raises(NetworkError, match="claims an array of shape"):
            load_ws(tmp_path / name)


def test_other_files_and_missing_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"GIF89a no array")
    (tmp_path / "page.npz").write_bytes(b"<!DOCTYPE html><html>")
    (tmp_path / "a.pt").write_bytes(b"\x80\x04no pickle")

    with pytest.raises(NetworkError, match=r"neither a \.npz nor a \.npy"):
        load_ws(tmp_path / "a.npz")
    with pytest.raises(NetworkError, match="is a web page"):
        load_ws(tmp_path / "page.npz")
    with pytest.raises(NetworkError, match="nothing in it was run"):
        load_ws(tmp_path / "a.pt")
    with pytest.raises(NetworkError, match="do not exist"):
        load_ws(tmp_path / "b.npz")
    with pytest.raises(UsageError, match=r"ends in \.npz"):
        save_ws(tmp_path / "a.txt", WS)


def _damaged(content: bytes, place: int, value: int, length: int) -> bytes:
    changed = bytearray(content)
    changed[place % len(content)] = value
    return bytes(changed[: length % (2 * len(content))])


@settings(max_examples=150, deadline=None)
@given(st.integers(0), st.integers(0, 255), st.integers(1), st.booleans())
def test_damage_ends_in_one_sentence_or_in_styles(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, length: int, packed: bool
) -> None:
    stream = io.BytesIO()
    if packed:
        np.savez_compressed(stream, w=WS.numpy())
    else:
        np.save(stream, WS.numpy())
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(_damaged(stream.getvalue(), place, value, length))

    try:
        ws = load_ws(path)
    except NetworkError as error:
        assert str(path) in str(error)
    else:
        assert ws.ndim == 3 and bool(torch.isfinite(ws).all())


def test_a_record_that_is_no_record_is_none(tmp_path: Path) -> None:
    text = np.frombuffer(json.dumps([1]).encode(), np.uint8)
    _npz(tmp_path / "a.npz", w=WS.numpy(), stylecli=text)

    assert read_ws_provenance(tmp_path / "a.npz") is None
    assert read_ws_provenance(_npz(tmp_path / "b.npz", w=WS.numpy())) is None


def test_the_length_of_a_header_is_not_taken_on_its_word(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        start = b"\x93NUMPY\x02\x00" + (1 << 25).to_bytes(4, "little")
        archive.writestr("w.npy", start + b" " * (1 << 25))
    tracemalloc.start()
    with pytest.raises(NetworkError, match="damaged"):
        load_ws(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 22


def test_a_record_nested_without_end_is_none(tmp_path: Path) -> None:
    record = np.frombuffer(b"[" * 100_000, np.uint8)
    assert read_ws_provenance(_npz(tmp_path / "deep.npz", stylecli=record)) is None


def test_one_style_for_all_layers_does_not_multiply_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_ws, "MAX_BYTES", 4 * 18 * 8 * 2)
    np.save(tmp_path / "two.npy", np.zeros((2, 8), np.float32))
    np.save(tmp_path / "three.npy", np.zeros((3, 8), np.float32))

    assert load_ws(tmp_path / "two.npy", (18, 8)).shape == (2, 18, 8)
    with pytest.raises(NetworkError, match="3 faces"):
        load_ws(tmp_path / "three.npy", (18, 8))

"""Network files: the round trip, and one clear sentence for everything that is wrong with one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import stylecli
from stylecli import checkpoint
from stylecli.checkpoint import read_tensors, write_tensors
from stylecli.errors import NetworkError
from stylecli.networks.headers import read_header


def test_round_trip_is_exact_and_keeps_lod_and_info(tiny_network: Any, tmp_path: Path) -> None:
    tiny_network.G_ema.lod = 1.25
    tiny_network.info["kimg"] = 12.5
    path = tmp_path / "net.safetensors"
    stylecli.save_network(path, tiny_network)
    again = stylecli.load_network(path)
    assert again.config == tiny_network.config
    assert (again.G_ema.lod, again.G.lod, again.info["kimg"]) == (1.25, 0.0, 12.5)
    for name in ("G_ema", "G", "D"):
        before, after = (getattr(net, name).state_dict() for net in (tiny_network, again))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_absent_networks_are_none(tiny_network: Any, tmp_path: Path) -> None:
    tiny_network.G = tiny_network.D = None
    stylecli.save_network(tmp_path / "ema.safetensors", tiny_network)
    again = stylecli.load_network(tmp_path / "ema.safetensors")
    assert again.G is None
    assert again.D is None
    assert again.generator is again.G_ema


def test_loading_leaves_the_global_random_state_alone(tiny_network_file: Path) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    stylecli.load_network(tiny_network_file)
    assert torch.equal(torch.rand(1), wanted)


def test_differences_are_listed_in_one_table(tiny_network_file: Path) -> None:
    header, tensors = read_tensors(tiny_network_file)
    tensors["G.surprise"] = torch.zeros(2)
    del tensors["D.head.dense1.bias"]
    tensors["G_ema.mapping.w_avg"] = torch.zeros(3)
    write_tensors(tiny_network_file, tensors, header)
    with pytest.raises(NetworkError) as caught:
        stylecli.load_network(tiny_network_file)
    assert "shape       G_ema.mapping.w_avg: the file has [3], the configuration [8]" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "is empty"), (b"GIF89a........", "not a readable")]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(NetworkError, match=words):
        stylecli.load_network(path)


def test_unknown_version_and_foreign_safetensors_are_refused(
    tiny_network_file: Path, tmp_path: Path
) -> None:
    tensors = load_file(tiny_network_file)
    save_file(tensors, tmp_path / "foreign.safetensors")
    with pytest.raises(NetworkError, match="not written by stylecli"):
        stylecli.load_network(tmp_path / "foreign.safetensors")
    header = {**read_header(tiny_network_file), "format": 99}
    write_tensors(tmp_path / "new.safetensors", tensors, header)
    with pytest.raises(NetworkError, match="format version 99"):
        stylecli.load_network(tmp_path / "new.safetensors")


def test_a_header_of_any_length_is_read(tiny_network: Any, tmp_path: Path) -> None:
    """Its length is how a file begins, and 0x80 is how pickles begin."""
    path = tmp_path / "long.safetensors"
    begins = set()
    for length in range(0, 256, 8):
        tiny_network.info["licence"] = "x" * length
        stylecli.save_network(path, tiny_network)
        begins.add(path.read_bytes()[:1])
        assert stylecli.load_network(path).info["licence"] == "x" * length
    assert b"\x80" in begins


def test_missing_file_is_named() -> None:
    with pytest.raises(NetworkError, match=r"nowhere\.pkl does not exist"):
        stylecli.load_network("nowhere.pkl")


def test_to_draw_only_what_draws_is_read(tiny_network_file: Path, monkeypatch: Any) -> None:
    whole = stylecli.load_network(tiny_network_file)
    read = []
    fill = checkpoint.load_state

    def spy(path: Path, name: str, network: Any, tensors: Any) -> None:
        read.extend(tensors)
        fill(path, name, network, tensors)

    monkeypatch.setattr(checkpoint, "load_state", spy)
    drawing = checkpoint.open_network(tiny_network_file)

    assert whole.G is not None and (drawing.G, drawing.D) == (None, None)
    assert {name.partition(".")[0] for name in read} == {"G_ema"}
    for name, value in whole.generator.state_dict().items():
        assert torch.equal(value, drawing.generator.state_dict()[name])

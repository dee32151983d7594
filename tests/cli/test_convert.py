"""``stylecli convert``: one safetensors file that draws the same and says where it came from."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from safetensors import safe_open
from typer.testing import CliRunner, Result

from stylecli import checkpoint
from stylecli.checkpoint import load_network
from stylecli.cli import convert, info
from stylecli.errors import NetworkError, UsageError
from tests.conftest import FIXTURES

Run = Callable[..., Result]
OFFICIAL = FIXTURES / "official"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    shutil.copy(OFFICIAL / "stylegan1_labels_G_D_Gs.pkl", "faces.pkl")
    app = typer.Typer()
    app.command("convert")(convert.command)
    app.command("info")(info.command)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_converted_network_draws_the_official_pictures_and_scores(run: Run) -> None:
    result = run("convert", "faces.pkl")
    net = load_network("faces.safetensors")

    assert result.stdout.splitlines()[-1] == "faces.safetensors"
    assert result.stderr == "written, read back and found equal\n"
    with np.load(OFFICIAL / "stylegan1_labels_G_io.npz") as file, torch.no_grad():
        z, c, wanted = (torch.from_numpy(file[name]) for name in ("z", "labels", "img_lod0"))
        torch.testing.assert_close(net.G_ema(z, c), wanted, rtol=0, atol=1e-4 * float(wanted.max()))
    with np.load(OFFICIAL / "stylegan1_labels_D_io.npz") as file, torch.no_grad():
        parts = (file[name] for name in ("d_images", "labels8", "d_scores_lod0"))
        images, c, wanted = map(torch.from_numpy, parts)
        torch.testing.assert_close(net.D(images, c), wanted, rtol=1e-4, atol=1e-4)


def test_the_licence_is_printed_and_kept(run: Run) -> None:
    result = run("convert", "faces.pkl", "--out", "kept.safetensors")

    assert "licence           CC BY-NC 4.0 (NVIDIA); check the source" in result.stdout
    with safe_open("kept.safetensors", framework="pt") as file:
        info = json.loads(file.metadata()["stylecli"])["info"]
    assert info["source_licence"].startswith("CC BY-NC 4.0")
    assert (info["source"], info["source_family"]) == ("faces.pkl", "StyleGAN (NVIDIA, TensorFlow)")
    assert len(info["source_sha256"]) == 64


def test_the_same_again_changes_nothing(run: Run) -> None:
    run("convert", "faces.pkl")
    before = Path("faces.safetensors").stat().st_mtime_ns
    again = run("convert", "faces.pkl", "--json")

    assert json.loads(again.stdout)["converted"] is False
    assert "faces.pkl is already converted" in again.stderr
    assert Path("faces.safetensors").stat().st_mtime_ns == before


def test_another_file_is_overwritten_only_by_force(run: Run) -> None:
    Path("faces.safetensors").write_text("mine")
    refused = run("convert", "faces.pkl")

    assert isinstance(refused.exception, UsageError) and "--force" in str(refused.exception)
    assert Path("faces.safetensors").read_text() == "mine"
    assert run("convert", "faces.pkl", "--force").exit_code == 0
    assert load_network("faces.safetensors").config.label_dim == 4


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["none.pkl"], NetworkError, "does not exist"),
        (["faces.pkl", "--out", "x.pkl"], UsageError, "does not end in .safetensors"),
        (["ours.safetensors", "--out", "x.safetensors"], NetworkError, "ours.safetensors"),
    ],
)
def test_what_cannot_be_converted_is_told(
    run: Run, tiny_network_file: Path, arguments: list[str], kind: type, words: str
) -> None:
    shutil.copy(tiny_network_file, "ours.safetensors")
    result = run("convert", *arguments)

    assert isinstance(result.exception, kind) and words in str(result.exception)
    assert not Path("x.safetensors").exists()


def test_a_file_that_reads_back_otherwise_is_removed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint.write_tensors

    def spoilt(path: Path, tensors: dict[str, torch.Tensor], header: object) -> None:
        write(path, {name: tensor + 1 for name, tensor in tensors.items()}, header)

    monkeypatch.setattr(checkpoint, "write_tensors", spoilt)
    result = run("convert", "faces.pkl")

    assert isinstance(result.exception, NetworkError)
    assert "check the disk" in str(result.exception)
    assert not Path("faces.safetensors").exists()

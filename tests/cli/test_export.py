"""``stylecli export``: where the file goes, what it says, what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from safetensors import safe_open
from typer.testing import CliRunner, Result

from stylecli.checkpoint import save_network
from stylecli.cli import export
from stylecli.errors import NetworkError, StyleCLIError, UsageError
from stylecli.networks.model import new_network
from tests.conftest import FIXTURES

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    shutil.copy(FIXTURES / "official" / "stylegan2_stylegan3_snapshot.pkl", "cats.pkl")
    app = typer.Typer()
    app.add_typer(export.app, name="export")
    return lambda *words: CliRunner().invoke(app, ["export", "state-dict", *words])


def test_the_file_says_what_builds_the_module_there(run: Run) -> None:
    result = run("cats.pkl", "--json")
    told = json.loads(result.stdout)
    assert told["file"] == "cats-G_ema-nvidia.safetensors" and told["network"] == "G_ema"
    with safe_open("cats-G_ema-nvidia.safetensors", "np") as file:
        kept = json.loads(file.metadata()["state_dict"])
        assert len(list(file.keys())) == told["tensors"]
    assert kept["class_name"] == "training.networks_stylegan2.Generator"
    assert kept["arguments"]["img_resolution"] == 16 and len(kept["source_sha256"]) == 64
    assert kept["source_licence"].startswith("NVIDIA")


def test_rosinalitys_layout_warns_of_what_it_does_not_clamp(run: Run) -> None:
    result = run("cats.pkl", "--layout", "rosinality", "--which", "D", "--out", "d.safetensors")
    assert result.exit_code == 0 and result.stdout.splitlines()[-1] == "d.safetensors"
    assert "256" in result.stderr


def test_what_is_there_is_overwritten_only_by_force(run: Run) -> None:
    Path("x.safetensors").write_text("mine")
    refused = run("cats.pkl", "--out", "x.safetensors")
    assert isinstance(refused.exception, UsageError) and "--force" in str(refused.exception)
    assert Path("x.safetensors").read_text() == "mine"
    assert run("cats.pkl", "--out", "x.safetensors", "--force").exit_code == 0


@pytest.mark.parametrize(
    ("words", "kind", "named"),
    [
        (("--layout", "keras"), UsageError, "'keras'"), (("--which", "E"), UsageError, "'E'"),
        (("--out", "x.pt"), UsageError, "x.pt"), (("--out", "x.pkl"), UsageError, "x.pkl"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(
    run: Run, words: tuple[str, ...], kind: type[StyleCLIError], named: str
) -> None:
    refused = run("cats.pkl", *words)
    assert isinstance(refused.exception, kind) and named in str(refused.exception)
    assert sorted(path.name for path in Path().iterdir()) == ["cats.pkl"]


def test_a_network_that_the_file_lacks_is_named(run: Run) -> None:
    shutil.copy(FIXTURES / "official" / "stylegan1_labels_G_D_Gs.pkl", "one.pkl")
    refused = run("one.pkl")
    assert isinstance(refused.exception, UsageError) and "convert" in str(refused.exception)
    missing = run("none.pkl")
    assert isinstance(missing.exception, NetworkError) and "none.pkl" in str(missing.exception)


# ---- graphs


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    save_network(
        Path("net.safetensors"),
        new_network("r3gan", resolution=8, fmap_base=16, fmap_max=4, z_dim=4, group_fmaps=2),
    )
    app = typer.Typer()
    app.add_typer(export.app, name="export")
    return lambda *words: CliRunner().invoke(app, ["export", *words])


@pytest.mark.slow
def test_a_graph_is_written_beside_its_network_and_described(graph: Run) -> None:
    result = graph("torch-export", "net.safetensors", "--json")
    told = json.loads(result.stdout)
    assert told["file"] == "net-G_ema.pt2" and Path(told["file"]).stat().st_size == told["bytes"]
    assert told["inputs"] == {"z": ["batch", 4], "psi": [1]} and told["apart"] <= 1e-4
    shown = graph("torch-export", "net.safetensors", "--latents", "ws", "--force")
    assert shown.stdout.splitlines()[-1] == "net-G_ema.pt2" and "ws [batch, 1, 4]" in shown.stdout


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("onnx", "--which", "E"), "'E'"),
        (("torchscript", "--which", "D", "--latents", "ws"), "--latents"),
        (("torchscript", "--latents", "y"), "'y'"),
        (("torch-export", "--noise-mode", "random"), "'random'"),
        (("torchscript", "--out", "x.onnx"), "x.onnx"), (("onnx", "--opset", "9"), "opset 9"),
        (("onnx", "--precision", "int8"), "'int8'"),
    ],
    ids=str,
)  # fmt: skip
def test_graphs_that_there_are_not_are_refused(
    graph: Run, words: tuple[str, ...], named: str
) -> None:
    refused = graph(words[0], "net.safetensors", *words[1:])
    assert isinstance(refused.exception, UsageError) and named in str(refused.exception)
    assert [path.name for path in Path().iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize("format", ["torchscript", "torch-export"])
def test_bad_input_is_one_sentence_with_its_exit_code(graph: Run, format: str) -> None:
    suffix = {"torchscript": ".pt", "torch-export": ".pt2"}[format]
    taken, folder = Path(f"net-G_ema{suffix}"), Path(f"folder{suffix}")
    taken.write_text("mine")
    folder.mkdir()
    Path("words.safetensors").write_text("no network")
    for words, code, named in (
        (("net.safetensors",), 2, "--force"),
        (("net.safetensors", "--out", str(folder), "--force"), 2, "folder"),
        (("net.safetensors", "--psi-cutoff", "-1", "--force"), 2, "cutoff -1"),
        (("none.safetensors",), 3, "none.safetensors"),
        (("words.safetensors",), 3, "words.safetensors"),
    ):
        refused = graph(format, *words).exception
        assert isinstance(refused, StyleCLIError) and refused.exit_code == code, (words, refused)
        assert named in str(refused) and "\n" not in str(refused)
    assert taken.read_text() == "mine" and not any(folder.iterdir())


def test_a_feature_network_is_named_as_in_weights(
    graph: Run, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, code, named in (
        (("vgg16",), 3, "stylecli weights fetch vgg16"),  # its weights are not here
        (("vgg16", "--which", "D"), 2, "--which"),
        (("vgg16", "--psi-cutoff", "3"), 2, "--psi-cutoff"),
        (("vgg16", "--out", "x.onnx"), 2, "x.onnx"),
        (("vgg61",), 3, "vgg61"),
    ):
        refused = graph("torchscript", *words).exception
        assert isinstance(refused, StyleCLIError) and refused.exit_code == code, (words, refused)
        assert named in str(refused) and "\n" not in str(refused)
    shutil.copy("net.safetensors", "vgg16")  # a file of this name comes first
    refused = graph("torchscript", "vgg16", "--latents", "y").exception
    assert isinstance(refused, UsageError) and "'y'" in str(refused)

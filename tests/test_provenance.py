"""The command that a picture names makes the same pixels again, whatever its options were."""

import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import stylecli
from stylecli import provenance
from stylecli.cli.app import app
from stylecli.images import read_provenance
from stylecli.provenance import remake_command

NETWORK = "runs/00001-labelled/network-snapshot-000000004.safetensors"


@pytest.fixture(scope="module")
def made_once(tiny_config_fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _make_run(tiny_config_fields)
    return folder


def _make_run(tiny_config_fields: dict[str, Any]) -> None:
    net = stylecli.new_network("f", label_dim=3, **tiny_config_fields)
    with torch.no_grad():
        net.G_ema.mapping.w_avg.fill_(0.2)
        for layer in net.G_ema.synthesis.layers:
            layer.noise_strength.fill_(0.1)
    stylecli.save_network(NETWORK, net)
    _run("generate --seeds 7-9 --psi 1 --out first --save-ws faces.npz")


@pytest.fixture
def labelled_run(made_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a labelled network whose noise shows, and a file of styles."""
    shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(line: str) -> None:
    result = CliRunner().invoke(app, shlex.split(line), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize(
    "line",
    [
        "generate --seeds 3",
        "generate --seeds 3 --psi -0.5 --psi-cutoff 2 --class 2",
        "generate --seeds 3 --psi-layers coarse:1,4:-0.3",
        "generate --seeds 3 --center 42 --noise-mode none",
        "generate --seeds 3 --center class --lod 1",
        "generate --seeds 3 --center class:1 --noise-mode random",
        "generate --seeds 3 --center faces.npz --noise-seed 4 --scale 3",
        "generate --seeds 3 --precision bf16",
        "generate --seeds 3 --precision auto",
        "generate --seeds 3 --format webp --quality 100",
        "generate --seeds 3 --format jpeg --quality 60",
        "generate --ws faces.npz --ws-rows 1",
        "generate --ws faces.npz --ws-rows 2 --psi 0.5 --noise-mode random",
        "generate --seeds 0-2,9 --grid --columns 3 --noise-mode random",
        "generate --ws faces.npz --grid --format webp",
        "generate --seeds 0-2 --grid --no-labels --size 200x120 --crop",
        "generate --seeds 0-2 --grid --size 200x120 --pixels",
        "generate --seeds 3 --size 40x90",
        "generate --seeds 3 --like 7 --vary 0.2",
        "mix --rows 2 --cols 7,9 --styles fine --psi 0.6 --noise-seed 3",
        "figures 2 --seed 3 --psi 0.6 --class 1",
        "figures 3 --row-seeds 1-3 --col-seeds 5",
        "figures 4 --seeds 5 --psi 0.5 --psi-cutoff 0",
        "figures 5",
        "figures 8 --precision bf16",
        "figures 11",
        "figures layers --row-seeds 1 --col-seeds 2",
    ],
)
def test_the_named_command_makes_the_same_pixels(
    labelled_run: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylecli.hardware.bf16_gain", lambda: 2.0)  # refused elsewhere
    _run(f"{line} --out made --quiet")
    (made,) = [path for path in Path("made").iterdir() if path.suffix != ".html"]

    command = remake_command(read_provenance(made) or {})
    assert command is not None and command.startswith("stylecli ")
    _run(f"{command.removeprefix('stylecli ')} --out again --quiet")

    again = Path("again", made.name)
    np.testing.assert_array_equal(_pixels(again), _pixels(made))
    assert again.read_bytes() == made.read_bytes()


@pytest.mark.parametrize("command", ["generate", "mix", "interpolate", "figures"])
def test_what_is_repeated_is_what_the_command_knows(command: str) -> None:
    """A new option of a drawing command belongs into ``_REPEATED``, or here with the reason."""
    told: Any = typer.main.get_command(app)
    options = {
        option.lstrip("-").replace("-", "_"): getattr(parameter, "is_flag", False)
        for parameter in told.commands[command].params
        if parameter.param_type_name == "option"
        for option in parameter.opts
        if option.startswith("--")
    }
    where_to_write = {"out", "force", "save_ws"}
    how_to_run = {"json", "quiet", "batch"}  # decide nothing about the pixels
    other_names = {"network", "class"}
    rest = options.keys() - where_to_write - how_to_run - other_names

    flags = {name for name in rest if options[name]}
    assert flags == set(provenance.FLAGS[command])
    assert rest - flags == provenance._REPEATED[command]

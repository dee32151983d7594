"""``stylecli generate``: what it writes, what it prints, and when it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

import stylecli
from stylecli.cli import generate_images
from stylecli.errors import NetworkError, UsageError
from stylecli.images import read_provenance

Run = Callable[..., Result]


@pytest.fixture
def run(tiny_network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``generate`` in a folder whose newest run holds the tiny network."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/00002-tiny")
    stylecli.save_network(folder / "network-snapshot-000004.safetensors", tiny_network)
    app = typer.Typer()
    app.command()(generate_images.command)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def _pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_works_bare_on_the_newest_run(run: Run) -> None:
    result = run()

    assert result.exit_code == 0
    files = [f"out/00002-tiny-000004/seed{seed:04d}.png" for seed in range(16)]
    assert result.stdout.splitlines() == files
    assert result.stderr.splitlines()[0] == (
        "network: runs/00002-tiny/network-snapshot-000004.safetensors "
        "(the newest network of runs/00002-tiny)"
    )


def test_files_hold_the_library_s_pictures(run: Run, tiny_network: Any) -> None:
    run("--seeds", "3", "--psi", "0.5", "--psi-cutoff", "2", "--out", "here")

    expected = next(stylecli.generate(tiny_network, [3], 0.5, psi_cutoff=2))[1]
    np.testing.assert_array_equal(_pixels("here/seed0003.png"), expected)


def test_psi_defaults_to_the_network_s_own(run: Run) -> None:
    run("--seeds", "1", "--out", "bare")
    run("--seeds", "1", "--psi", "0.7", "--psi-cutoff", "8", "--out", "spelled")

    assert Path("bare/seed0001.png").read_bytes() == Path("spelled/seed0001.png").read_bytes()


def test_the_same_command_again_only_fills_gaps(run: Run) -> None:
    run("--seeds", "0-3", "--out", "here")
    kept = Path("here/seed0000.png").stat().st_mtime_ns
    Path("here/seed0002.png").unlink()

    result = run("--seeds", "0-3", "--out", "here")

    assert "3 of 4 pictures are already there" in result.stderr
    assert Path("here/seed0002.png").exists()
    assert Path("here/seed0000.png").stat().st_mtime_ns == kept


def test_other_pictures_are_only_overwritten_by_force(run: Run) -> None:
    run("--seeds", "0", "--out", "here")

    refused = run("--seeds", "0", "--psi", "1", "--out", "here")
    forced = run("--seeds", "0", "--psi", "1", "--out", "here", "--force")

    assert isinstance(refused.exception, UsageError)
    assert str(refused.exception) == (
        "here/seed0000.png exists and was made otherwise: give another --out, or --force"
    )
    assert forced.exit_code == 0
    assert (read_provenance("here/seed0000.png") or {})["settings"]["psi"] == 1


def test_grid_is_one_enlarged_sheet(run: Run) -> None:
    result = run("--grid", "--seeds", "0-5", "--columns", "3", "--scale", "2", "--out", "g.png")

    assert result.stdout == "g.png\n"
    assert _pixels("g.png").shape == (64, 96, 3)


def test_json_is_one_document(run: Run) -> None:
    document = json.loads(run("--seeds", "2,4", "--json", "--quiet", "--out", "here").stdout)

    assert document["seeds"] == [2, 4] and document["psi"] == 0.7
    assert document["paths"] == ["here/seed0002.png", "here/seed0004.png"]


def test_noise_seed_means_random_noise(run: Run) -> None:
    run("--seeds", "1", "--noise-seed", "5", "--out", "a")
    run("--seeds", "1", "--noise-mode", "random", "--noise-seed", "6", "--out", "b")

    assert (_pixels("a/seed0001.png") != _pixels("b/seed0001.png")).any()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--noise-mode", "const", "--noise-seed", "1"], UsageError, "needs --noise-mode random"),
        (["--noise-mode", "loud"], UsageError, "noise mode 'loud' is unknown"),
        (["--seeds", "4-1"], UsageError, "runs backwards"),
        (["--label", "1"], UsageError, "trained without labels"),
        (["--network", "nowhere.safetensors"], NetworkError, "does not exist"),
    ],
)
def test_bad_input_is_one_sentence(
    run: Run, arguments: list[str], error: type[Exception], message: str
) -> None:
    result = run(*arguments)

    assert isinstance(result.exception, error) and message in str(result.exception)
    assert not Path("out").exists()

"""``stylecli mix``: sheets per band, counts and seeds."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

import stylecli
from stylecli.cli import mix
from stylecli.errors import UsageError
from stylecli.images import read_provenance
from stylecli.provenance import remake_command
from stylecli.rendering import render
from stylecli.sampling import map_seeds, mix_ws
from stylecli.saved_ws import save_ws
from stylecli.video import read_video_provenance

Run = Callable[..., Result]


@pytest.fixture
def run(tiny_network_file: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tiny_network_file.parent)
    app = typer.Typer()
    app.command()(mix.command)
    network = ["--network", tiny_network_file.name]
    return lambda *arguments: CliRunner().invoke(app, [*network, *arguments])


def test_every_band_becomes_a_sheet(run: Run) -> None:
    result = run("--rows", "2", "--cols", "3")

    assert result.exit_code == 0  # this network has no middle band
    assert result.stdout == "out/tiny/mix-coarse.png\nout/tiny/mix-fine.png\n"
    run("--rows", "2", "--cols", "3", "--no-labels", "--styles", "fine", "--out", "bare.png")
    with Image.open("bare.png") as sheet:
        assert sheet.size == (4 * 128 + 3 * 2, 3 * 128 + 2 * 2)


def test_counted_columns_take_other_seeds_than_counted_rows(run: Run) -> None:
    document = json.loads(run("--rows", "2", "--cols", "3", "--json").stdout)

    assert (document["row_seeds"], document["col_seeds"]) == ("0-1", "2-4")
    assert document["layers"] == {"coarse": [0, 1, 2, 3], "fine": [4, 5]}


def test_commas_and_dashes_are_seeds_and_so_are_seed_options(run: Run) -> None:
    run("--rows", "7,9", "--col-seeds", "888", "--styles", "0-1", "--out", "m.png")

    settings = (read_provenance("m.png") or {})["settings"]
    assert (settings["row_seeds"], settings["col_seeds"]) == ("7,9", "888")
    assert settings["styles"] == "0-1" and settings["psi"] == 0.7


def test_several_bands_share_a_named_file(run: Run) -> None:
    assert run("--rows", "1", "--cols", "1", "--out", "m.png").stdout == (
        "m-coarse.png\nm-fine.png\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "0"], "--rows 0 is a count from 1 to 100"),
        (["--styles", "8-9"], "this network has layers 0-5"),
        (["--styles", "middle"], "has no middle styles"),
        (["--bands", "coarse:2,fine:2", "--rows", "3"], "have 4 rows, but 3 are asked for"),
        (["--bands", "coarse:1", "--styles", "fine"], "--styles fine and --bands coarse:1"),
        (
            ["--rows", "2", "--row-seeds", "4"],
            "--rows, --row-seeds and --row-ws exclude each other",
        ),
        (["--video", "sideways"], "--video 'sideways'"),
        (["--video", "cols", "--video-format", "png"], "unknown video format 'png'"),
        (["--video", "rows", "--bands", "coarse:1,fine:1"], "--video cols"),
        (["--fps", "5"], "--fps 5.0 is for a video: add --video"),
    ],
)
def test_bad_input_is_one_sentence(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments)

    assert isinstance(result.exception, UsageError) and message in str(result.exception)
    assert not Path("out").exists()


def test_one_sheet_shows_several_bands(run: Run) -> None:
    document = json.loads(run("--bands", "coarse:2,fine:1", "--cols", "2", "--json").stdout)

    assert document["paths"] == ["out/tiny/mix-bands.png"]
    assert document["row_seeds"] == "0-2" and document["col_seeds"] == "3-4"
    assert document["layers"] == {"bands": [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5]]}


def test_layers_beyond_the_network_are_left_out_with_a_warning(run: Run) -> None:
    result = run("--rows", "1", "--cols", "1", "--styles", "4-17", "--json")

    assert "warning: styles '4-17' name layer 17: this network has layers 0-5" in result.stderr
    assert json.loads(result.stdout)["layers"] == {"4-17": [4, 5]}


def test_every_pair_becomes_a_picture_that_says_how(run: Run, tiny_network: Any) -> None:
    result = run("--row-seeds", "7,9", "--col-seeds", "3", "--styles", "fine", "--each", "--psi",
                 "1", "--out", "m.png")  # fmt: skip

    assert result.stdout == "m.png\nm/7-3.png\nm/9-3.png\n"
    row, column = map_seeds(tiny_network.G_ema, [9, 3])
    (expected,) = render(tiny_network.G_ema, mix_ws(row[None], column[None], [4, 5]))
    with Image.open("m/9-3.png") as picture:
        assert (np.asarray(picture) == expected).all()
    command = remake_command(read_provenance("m/9-3.png") or {}) or ""
    assert "--row-seeds 9 --col-seeds 3 --styles fine --each" in command


@pytest.mark.parametrize(
    "arguments",
    [
        ["--styles", "coarse,5"],
        ["--bands", "coarse,fine", "--rows", "2", "--no-labels", "--format", "webp"],
        ["--noise-seed", "4", "--styles", "0", "--psi-layers", "coarse:0.2"],
    ],
)
def test_the_record_of_a_sheet_makes_it_again(run: Run, arguments: list[str]) -> None:
    path = run("--rows", "2", "--cols", "1", *arguments).stdout.strip()
    first = Path(path).read_bytes()
    command = shlex.split(remake_command(read_provenance(path) or {}) or "")

    again = run(*command[4:], "--force")

    assert again.stdout.strip() == path and Path(path).read_bytes() == first


def test_saved_styles_are_rows_as_they_are(run: Run, tiny_network: Any) -> None:
    save_ws("faces.npz", map_seeds(tiny_network.G_ema, [7, 8]))

    options = ["--styles", "coarse", "--col-seeds", "3", "--psi", "1", "--no-labels", "--out"]
    run("--row-ws", "faces.npz", *options, "file.png")
    run("--row-seeds", "7,8", *options, "seeds.png")

    record = read_provenance("file.png") or {}
    assert record["settings"]["row_ws"] == "faces.npz" and "row_ws" in record["inputs"]
    with Image.open("file.png") as file, Image.open("seeds.png") as seeds:
        assert (np.asarray(file) == np.asarray(seeds)).all()


@pytest.mark.parametrize(("side", "frames"), [("cols", 6), ("rows", 4)])
def test_one_side_moves_in_a_video(run: Run, side: str, frames: int) -> None:
    arguments = ["--rows", "2", "--cols", "3", "--styles", "fine", "--video", side, "--fps", "5",
                 "--key-seconds", "0.4", "--video-format", "gif"]  # fmt: skip

    assert run(*arguments).stdout.splitlines()[1] == f"out/tiny/mix-fine-{side}.gif"

    with Image.open(f"out/tiny/mix-fine-{side}.gif") as video:
        assert video.n_frames == frames  # type: ignore[attr-defined]
    record = read_video_provenance(f"out/tiny/mix-fine-{side}.gif") or {}
    assert record["settings"]["video"] == side
    assert "already exists" in run(*arguments).stderr


def test_networks_without_styles_are_refused(run: Run, tiny_config_fields: dict[str, Any]) -> None:
    stylecli.save_network("b.safetensors", stylecli.new_network("b", **tiny_config_fields))

    result = run("--network", "b.safetensors")

    assert "configuration 'b' has no styles to mix" in str(result.exception)


def test_cells_of_an_alias_free_network_move(run: Run) -> None:
    small = {"fmap_base": 256, "fmap_max": 8, "z_dim": 8, "w_dim": 8, "output_scale": 8.0}
    net = stylecli.new_network("stylegan3-t", resolution=32, **small)
    stylecli.save_network("free.safetensors", net)
    words = ("--network", "free.safetensors", "--rows", "1", "--cols", "1", "--styles", "coarse",
             "--no-labels", "--scale", "1")  # fmt: skip

    still = run(*words, "--out", "still.png")
    moved = run(*words, "--translate", "0.25,0", "--out", "moved.png")

    assert (still.exit_code, moved.exit_code) == (0, 0)
    a, b = (np.asarray(Image.open(name)).astype(float) for name in ("still.png", "moved.png"))
    a, b = a[-32:, -32:], b[-32:, -32:]  # the cell
    assert np.abs(a[:, 1:-9] - b[:, 9:-1]).mean() < 0.2 * np.abs(a - b).mean()


def test_cells_of_other_networks_stay(run: Run) -> None:
    assert isinstance(run("--rows", "1", "--rotate", "5").exception, UsageError)

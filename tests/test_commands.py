"""The drawing commands from Python: what they return is what the commands draw."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import stylecli
from stylecli.cli.app import app
from stylecli.errors import UsageError
from stylecli.latents.projector import Projection
from stylecli.saved_ws import save_ws


@pytest.fixture
def drawn(tiny_network_file: Path, tmp_path: Path) -> Any:
    """Return a function that runs a command and gives its only picture [H, W, C]."""

    def run(*words: str) -> np.ndarray:
        out = tmp_path / "drawn.png"
        done = CliRunner().invoke(app, [*words, "--network", str(tiny_network_file), "--psi", "1",
                                        "--out", str(out), "--device", "cpu",
                                        "--force"])  # fmt: skip
        assert done.exit_code == 0, done.stderr
        return np.asarray(Image.open(out))

    return run


def test_a_path_goes_wherever_a_network_goes(tiny_network_file: Path, tiny_network: Any) -> None:
    for net in (tiny_network_file, str(tiny_network_file), tiny_network):
        [(seed, picture)] = stylecli.generate(net, 7)
        assert seed == 7 and picture.shape == (16, 16, 3)
    with pytest.raises(stylecli.StyleCLIError, match="nowhere"):
        stylecli.grid("nowhere.safetensors")


def test_seeds_are_one_or_several_or_text(tiny_network: Any) -> None:
    for seeds in (3, [3], "3", np.int64(3), range(3, 4)):
        assert [seed for seed, _ in stylecli.generate(tiny_network, seeds)] == [3]
    assert [seed for seed, _ in stylecli.generate(tiny_network, "1,4-5")] == [1, 4, 5]
    with pytest.raises(UsageError, match="-1"):
        list(stylecli.generate(tiny_network, -1))


def test_a_center_is_named_as_on_the_command_line(tiny_network: Any, tmp_path: Path) -> None:
    w = tiny_network.G_ema.mapping(torch.from_numpy(
        np.random.RandomState(42).randn(1, tiny_network.config.z_dim)).float())[:, 0]  # fmt: skip
    pictures = [next(stylecli.generate(tiny_network, 1, 0.3, center=center))[1]
                for center in (42, "42", w.detach())]  # fmt: skip
    plain = next(stylecli.generate(tiny_network, 1, 0.3))[1]
    assert not np.array_equal(pictures[0], plain)
    for picture in pictures[1:]:
        assert np.abs(picture.astype(int) - pictures[0]).max() <= 1


def test_a_grid_and_a_mix_are_the_commands(tiny_network_file: Path, drawn: Any) -> None:
    sheet = stylecli.grid(tiny_network_file, "0-5", 3)
    assert np.array_equal(sheet, drawn("generate", "--seeds", "0-5", "--grid", "--columns", "3"))
    sheet = stylecli.mix(tiny_network_file, 2, "7,9", styles="fine", labels=True)
    words = ("mix", "--rows", "2", "--cols", "7,9", "--styles", "fine", "--labels")
    assert np.array_equal(sheet, drawn(*words))
    bands = "coarse:1,fine:2"
    sheet = stylecli.mix(tiny_network_file, cols=[4], bands=bands)
    assert np.array_equal(sheet, drawn("mix", "--bands", bands, "--col-seeds", "4"))


def test_a_mix_takes_files_of_styles_and_projections(
    tiny_network_file: Path, drawn: Any, tmp_path: Path
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    found = stylecli.project(tiny_network_file, picture, steps=3, distance="pyramid")
    assert isinstance(found, Projection)
    file = tmp_path / "photo.npz"
    save_ws(file, found.ws[None], noise=found.noise)
    wanted = drawn("mix", "--row", str(file), "--row", "3", "--cols", "7,9", "--styles", "fine",
                   "--no-labels", "--scale", "1")  # fmt: skip
    plain = {"styles": "fine", "labels": False, "scale": 1}
    for face in (file, str(file), found):
        sheet = stylecli.mix(tiny_network_file, [face, 3], "7,9", **plain)
        assert np.array_equal(sheet, wanted)
        alone = stylecli.mix(tiny_network_file, face, "7,9", **plain)
        assert np.array_equal(alone, wanted[: len(alone)])
    assert np.array_equal(wanted[17:33, :16], found.picture)
    without = stylecli.mix(tiny_network_file, found, "7,9", noise_mode="const", **plain)
    assert not np.array_equal(without[17:33, :16], found.picture)
    (tmp_path / "photo.jpg").touch()
    for face in (
        tmp_path / "photo.jpg",
        str(tmp_path / "photo.jpg"),
        replace(found, ws=found.ws[:1]),
    ):
        with pytest.raises(UsageError, match=r"photo.jpg|\[1, 8\]"):
            stylecli.mix(tiny_network_file, face)


def test_a_walk_has_the_commands_frames(tiny_network_file: Path, tmp_path: Path) -> None:
    frames = list(stylecli.interpolate(tiny_network_file, [0, 5], seconds=0.5, fps=8))
    assert len(frames) == 4
    done = CliRunner().invoke(app, [
        "interpolate", "--network", str(tiny_network_file), "--seeds", "0,5", "--seconds", "0.5",
        "--fps", "8", "--psi", "1", "--out", str(tmp_path / "frames"), "--format", "png",
        "--device", "cpu"])  # fmt: skip
    assert done.exit_code == 0, done.stderr
    files = sorted((tmp_path / "frames").glob("*.png"))
    assert len(files) == 4
    for file, frame in zip(files, frames, strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), frame)
    assert len(list(stylecli.interpolate(tiny_network_file, 1, fps=5))) == 10  # 2 s to a key


def test_figures_are_named_by_number_or_word(tiny_network_file: Path) -> None:
    drawn = stylecli.figures(tiny_network_file, 8, seeds="1,2")
    assert list(drawn) == ["truncation"] and drawn["truncation"].ndim == 3
    drawn = stylecli.figures(tiny_network_file, ["mixing", 8], row_seeds=[1], col_seeds=[2, 3])
    assert list(drawn) == ["mixing", "truncation"]
    with pytest.raises(UsageError, match="'9'"):
        stylecli.figures(tiny_network_file, 9)


def test_info_is_what_the_command_prints(tiny_network_file: Path) -> None:
    facts = stylecli.info(tiny_network_file)
    assert facts["what"] == "network" and facts["file"] == str(tiny_network_file)


def test_what_does_not_fit_is_refused(tiny_network: Any) -> None:
    for call in (
        lambda: stylecli.mix(tiny_network, 0),
        lambda: stylecli.mix(tiny_network, styles="40"),
        lambda: stylecli.interpolate(tiny_network, fps=0),
        lambda: stylecli.grid(tiny_network, psi=1000.0),
    ):
        with pytest.raises(UsageError):
            call()
    with pytest.raises(TypeError, match="centre"):
        stylecli.grid(tiny_network, centre=3)


def test_networks_datasets_and_results_show_themselves(
    tiny_network: Any, tiny_lmdb: Path, tiny_config_fields: dict[str, Any]
) -> None:
    labelled = stylecli.new_network("f", **tiny_config_fields | {"label_dim": 3})
    for net in (tiny_network, labelled, stylecli.new_network(
            "r3gan", resolution=16, channels=3, label_dim=0)):  # fmt: skip
        said = repr(net)
        assert 2 < len(said.splitlines()) < 8 and f"{net.config.resolution} px" in said
        assert "data:image/png;base64," in net._repr_html_()
    dataset = stylecli.open_dataset(tiny_lmdb)
    assert str(tiny_lmdb) in repr(dataset) and "24" in repr(dataset)
    assert "data:image/png;base64," in dataset._repr_html_()
    results = stylecli.metrics.evaluate("ls", tiny_network)
    assert results[0].value is None and "ls_z" in repr(results)
    assert "<table>" in results._repr_html_() and "skipped" in results._repr_html_()


def test_project_finds_a_picture_of_the_network(tiny_network: Any) -> None:
    ((_, picture),) = stylecli.generate(tiny_network, 3)
    how: dict[str, Any] = {"distance": "pyramid", "steps": 5}
    found = stylecli.project(tiny_network, picture, **how)
    assert isinstance(found, Projection) and found.picture.shape == picture.shape
    several = stylecli.project(tiny_network, [picture, picture], **how, batch=2)
    assert isinstance(several, list) and len(several) == 2
    assert found.distance == pytest.approx(several[1].distance, rel=1e-2)
    with pytest.raises(UsageError, match="16, 16, 3"):
        stylecli.project(tiny_network, np.zeros((8, 8, 3), np.uint8), **how)
    for function in (stylecli.project, stylecli.sharpen):  # what PIL opened is no picture yet
        with pytest.raises(UsageError, match=r"not Image: .*numpy\.asarray"):
            function(tiny_network, Image.new("RGB", (16, 16)))
    with pytest.raises(UsageError, match="mask"):
        stylecli.project(tiny_network, picture, mask="mask.png", **how)

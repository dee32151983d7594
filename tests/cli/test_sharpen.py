"""``stylecli sharpen``: files, what they say of themselves, continuing, refusals."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import stylecli
from stylecli.cli.app import app
from stylecli.errors import ExitCode
from stylecli.images import read_provenance
from stylecli.latents import projector, searched_files, sharpened_files
from stylecli.latents.sharpening import PLAUSIBLE
from stylecli.provenance import remake_command
from stylecli.saved_ws import load_ws, read_ws_provenance

Run = Callable[..., Result]
FOLDER = Path("out/tiny/sharpened")


@pytest.fixture
def run(tiny_network_file: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command with quick settings on a.png, a picture of 4 px for a network of 16."""
    monkeypatch.chdir(tiny_network_file.parent)
    monkeypatch.setattr("stylecli.weights._package_file", lambda network: None)  # no LPIPS
    save("a.png", 0)
    quick = ["--network", tiny_network_file.name, "--steps", "4", "--candidates", "3"]
    quick += ["--starts", "1"]
    return lambda *words: CliRunner().invoke(app, ["sharpen", *words, *quick])


def save(name: str, seed: int, size: tuple[int, ...] = (4, 4, 3), **how: Any) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    Image.fromarray(pixels).save(name, **how)


def test_a_small_picture_becomes_faces_that_say_what_they_are(run: Run) -> None:
    result = run("a.png")

    assert result.exit_code == 0, result.stderr
    start = "a-plausible-not-the-person"
    names = [f"{start}-1.png", f"{start}-2.png", f"{start}-3.png", f"{start}-sheet.png"]
    assert result.stdout.splitlines()[:5] == [str(FOLDER / name) for name in names] + [
        str(FOLDER / f"{start}.npz")
    ]
    assert PLAUSIBLE in result.stderr
    record = read_ws_provenance(FOLDER / f"{start}.npz")
    assert record is not None and record["claim"] == PLAUSIBLE
    assert all(read_provenance(FOLDER / name) == record for name in names)
    assert len(record["results"]["errors"]) == 3
    assert load_ws(FOLDER / f"{start}.npz").shape == (3, 6, 8)
    for name in names[:3]:
        with Image.open(FOLDER / name) as picture:
            assert picture.size == (16, 16)
    assert not list(FOLDER.glob("*.unfinished"))


def test_python_finds_the_same_faces(run: Run) -> None:
    run("a.png")
    found = stylecli.sharpen("tiny.safetensors", "a.png", steps=4, candidates=3, starts=1)
    for number, one in enumerate(found, 1):
        with Image.open(FOLDER / f"a-plausible-not-the-person-{number}.png") as written:
            assert (np.asarray(written) == one.picture).all()


def test_the_record_has_the_command_that_does_it_again(run: Run) -> None:
    run("a.png", "--seed", "7")
    file = "a-plausible-not-the-person.npz"
    record = read_ws_provenance(FOLDER / file)
    assert record is not None
    words = shlex.split(remake_command(record) or "")[1:]
    again = CliRunner().invoke(app, [*words, "--out", "again"])
    assert again.exit_code == 0, again.stderr
    assert read_ws_provenance(Path("again") / file) == record


def test_generate_draws_them_from_the_file(run: Run) -> None:
    run("a.png")
    words = [
        "--network",
        "tiny.safetensors",
        "--ws",
        str(FOLDER / "a-plausible-not-the-person.npz"),
    ]
    assert CliRunner().invoke(app, ["generate", *words, "--out", "drawn"]).exit_code == 0
    pictures = [np.asarray(Image.open(path)) for path in sorted(Path("drawn").glob("*.png"))]
    for number, picture in enumerate(pictures, 1):
        with Image.open(FOLDER / f"a-plausible-not-the-person-{number}.png") as written:
            assert (np.asarray(written) == picture).all()
    assert len(pictures) == 3


def test_the_same_command_keeps_what_is_done_and_others_are_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads(run("a.png", "--json").stdout)
    monkeypatch.setattr(sharpened_files, "write_candidates", None)  # nothing is searched for again
    assert json.loads(run("a.png", "--json").stdout) == first
    other = run("a.png", "--seed", "1")
    assert other.exit_code == ExitCode.USAGE and "--force" in other.stderr


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
        if count == 6:  # in the second picture
            raise KeyboardInterrupt

    monkeypatch.setattr(searched_files, "write_tensors", stop)
    stopped = run("a.png", "b.png", "--out", "part")
    assert stopped.exit_code == ExitCode.INTERRUPTED and "1 of 2 pictures" in stopped.stderr
    monkeypatch.setattr(searched_files, "write_tensors", write)
    assert run("a.png", "b.png", "--out", "part").exit_code == 0
    for path in Path("whole").iterdir():
        assert path.read_bytes() == (Path("part") / path.name).read_bytes(), path


def test_what_cannot_be_sharpened_is_one_sentence(run: Run) -> None:
    save("large.png", 0, (16, 16, 3))
    save("odd.png", 0, (5, 5, 3))
    save("clear.png", 0, (4, 4, 4))
    frame = Image.new("RGB", (4, 4), "red")
    frame.save("film.gif", save_all=True, append_images=[Image.new("RGB", (4, 4), "blue")])
    Path("text.png").write_text("no picture")
    for name, word in (("large.png", "8x8"), ("odd.png", "8x8"), ("clear.png", "transparent"),
                       ("film.gif", "2 frames"), ("text.png", "text.png")):  # fmt: skip
        refused = run(name)
        assert refused.exit_code == ExitCode.UNUSABLE, name
        assert word in refused.stderr and name in refused.stderr
        assert len(refused.stderr.strip().splitlines()) <= 2  # the network that was taken
    assert run("none.png").exit_code == ExitCode.UNUSABLE
    assert run("a.png", "--bound", "2").exit_code == ExitCode.USAGE
    assert run("a.png", "--out", "x.png").exit_code == ExitCode.USAGE
    some = run("a.png", "odd.png")  # of several the others are sharpened
    assert some.exit_code == 0 and "odd.png" in some.stderr


def test_a_grey_picture_is_sharpened_and_said_to_be_grey(run: Run) -> None:
    save("grey.png", 0, (4, 4))
    result = run("grey.png")
    assert result.exit_code == 0 and "grey" in result.stderr
    with Image.open(FOLDER / "grey-plausible-not-the-person-sheet.png") as sheet:
        assert sheet.mode == "RGB"


def test_no_face_within_the_bound_is_told_and_all_are_written(run: Run) -> None:
    result = run("a.png", "--bound", "0.00001")
    assert result.exit_code == 0 and "no face fits" in result.stderr
    assert len(list(FOLDER.glob("*-[123].png"))) == 3

"""Seeds, files of styles and photographs as faces: projected once, remembered by content."""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from stylecli.cli import faces
from stylecli.cli.app import app
from stylecli.data.alignment.portrait import Portrait, read_portrait
from stylecli.errors import ExitCode
from stylecli.features.perceptual import open_distance
from stylecli.images import read_provenance
from stylecli.latents import projected_files, projection
from stylecli.provenance import remake_command
from stylecli.saved_ws import load_noise, load_ws, read_ws_provenance, save_ws

Run = Callable[..., Result]


@pytest.fixture
def run(tiny_network_file: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command where two photographs are; they need no face, and few steps are done."""
    monkeypatch.chdir(tiny_network_file.parent)
    monkeypatch.setattr("stylecli.weights._package_file", lambda network: None)  # no LPIPS

    def central(path: Path, size: int, channels: int, *, align: bool, **more: Any) -> Portrait:
        return read_portrait(path, size, channels, align=False, **more)

    monkeypatch.setattr("stylecli.data.alignment.portrait.read_portrait", central)
    quick = tuple(replace(plan, steps=3) for plan in projection.FAST["w"])
    monkeypatch.setitem(projection.FAST, "w", quick)
    for seed, name in enumerate(("a.png", "b.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(name)
    return lambda command, *words: CliRunner().invoke(
        app, [command, "--network", "tiny.safetensors", *words]
    )


def pixels(path: str | Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture)


MIX = (
    "mix",
    "--row",
    "a.png",
    "--col",
    "b.png",
    "--col",
    "7",
    "--styles",
    "coarse",
    "--scale",
    "1",
)


def test_photographs_stand_in_rows_and_columns(run: Run) -> None:
    result = run(*MIX, "--no-labels", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["row"], document["col"]) == (["a.png"], ["b.png", "7"])
    sheet = pixels(document["paths"][0])
    # The row's face stands at the left as project draws it, noise maps and all.
    gap = sheet.shape[0] - 32
    assert (sheet[16 + gap :, :16] == pixels("out/tiny/projected/a.png")).all()
    assert (sheet[:16, 16 + gap : 32 + gap] == pixels("out/tiny/projected/b.png")).all()
    record = read_provenance(Path(document["paths"][0]))
    assert record is not None and set(record["inputs"]) == {
        "row_1", "row_1_ws", "col_1", "col_1_ws"
    }  # fmt: skip
    words = shlex.split(remake_command(record) or "")[1:]
    again = CliRunner().invoke(app, [*words, "--out", "again.png"])
    assert again.exit_code == 0, again.stderr
    assert (pixels("again.png") == sheet).all()


@pytest.mark.parametrize("mover", ["cols", "rows"])
def test_a_video_shows_the_sheet_s_pictures_noise_and_all(
    run: Run, mover: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first frame has the first of the faces that move, the one at half time the second."""
    shown: list[Any] = []

    def write(path: Path, frames: Any, *_: Any, **__: Any) -> None:
        shown.extend(frames)
        path.touch()

    monkeypatch.setattr("stylecli.video.write_video", write)
    words = ("--row", "a.png", "--row", "3", "--col", "b.png", "--col", "7", "--styles", "coarse",
             "--scale", "1", "--no-labels", "--json")  # fmt: skip
    more = ("--video", mover, "--fps", "4", "--key-seconds", "1")
    result = run("mix", *words, *more, "--out", "m.png")
    assert result.exit_code == 0, result.stderr
    sheet = cells(pixels("m.png"))
    assert len(shown) == 8
    for key in (0, 1):
        frame = cells(shown[4 * key])
        if mover == "rows":
            assert (frame[0, 1:] == sheet[0, 1:]).all() and (frame[1] == sheet[1 + key]).all()
        else:
            assert (frame[0, 1:] == sheet[1:, 0]).all() and (frame[1, 0] == sheet[0, 1 + key]).all()
            assert (frame[1, 1:] == sheet[1:, 1 + key]).all()


def cells(sheet: Any) -> Any:
    """Cut a sheet into its cells of 16 px, with gaps of 1 between them."""
    rows, columns = (range(0, side, 17) for side in sheet.shape[:2])
    return np.array([[sheet[y : y + 16, x : x + 16] for x in columns] for y in rows])


def test_a_file_of_styles_brings_its_noise_by_either_option(run: Run) -> None:
    assert run("generate", "--center", "a.png", "--seeds", "0").exit_code == 0
    file = "out/tiny/projected/a.npz"
    for words in (("--row", file), ("--row-ws", file)):
        done = run("mix", *words, "--col", "7", "--styles", "fine", "--scale", "1", "--no-labels",
                   "--out", "m.png", "--force")  # fmt: skip
        assert done.exit_code == 0, done.stderr
        assert (cells(pixels("m.png"))[1, 0] == pixels("out/tiny/projected/a.png")).all()


def test_a_photograph_is_projected_once_and_known_by_its_content(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*MIX).exit_code == 0
    Path("a.png").rename("other.png")
    monkeypatch.setattr(projected_files, "_search", None)  # nothing is searched for again
    known = run("mix", "--row", "other.png", "--col", "b.png", "--styles", "fine")
    assert known.exit_code == 0, known.stderr
    assert "projected/a.npz" in known.stderr.replace("\\", "/")


def test_another_detector_or_other_weights_make_another_projection(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def project(detector: str, digest: str) -> int:
        only = "stylecli.data.alignment.detectors.is_installed"
        monkeypatch.setattr(only, lambda name: name == detector)
        lpips = replace(open_distance("pyramid", "cpu"), name="lpips", sha256=digest)
        monkeypatch.setattr("stylecli.latents.projector.open_distance", lambda *_: lpips)
        done = run("generate", "--center", "a.png", "--seeds", "0", "--force")
        assert done.exit_code == 0, done.output
        return len(list(Path("out/tiny/projected").glob("*.npz")))

    known = (("dlib", "12"), ("mtcnn", "12"), ("mtcnn", "34"), ("", "34"))
    assert [project(*each) for each in known] == [1, 2, 3, 4]
    assert [project(*each) for each in known] == [4, 4, 4, 4]
    record = read_ws_provenance("out/tiny/projected/a.npz")
    assert record is not None and record["settings"]["detector"] == "dlib"
    assert record["weights"] == {"lpips": "12"}


def test_another_photograph_of_the_same_name_gets_its_own_file(run: Run) -> None:
    assert run(*MIX).exit_code == 0
    Path("b.png").replace("a.png")
    assert run("generate", "--center", "a.png", "--seeds", "0").exit_code == 0
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save("a.png")
    assert run("generate", "--center", "a.png", "--seeds", "1", "--psi", "0").exit_code == 0
    assert len(list(Path("out/tiny/projected").glob("a-????????.npz"))) == 1


def test_a_photograph_among_results_is_not_written_over(run: Run) -> None:
    assert run("generate", "--center", "a.png", "--seeds", "0").exit_code == 0
    folder = Path("out/tiny/projected")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for number, name in enumerate(("a.png", "a-sheet.png")):
        done = run("generate", "--center", str(folder / name), "--seeds", str(number + 1))
        assert done.exit_code == 0, done.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(folder.glob("*.npz"))) == 3


@pytest.mark.parametrize(
    "record",
    [
        [], {"results": {}, "network": {}, "inputs": {"photo": "x"}},
        {"command": "project", "results": {}, "network": {}, "inputs": {"photo": 3}},
        {"command": "project", "results": 3, "network": [], "inputs": []},
    ],
)  # fmt: skip
def test_files_of_strangers_are_passed_over(run: Run, record: Any) -> None:
    folder = Path("out/tiny/projected")
    folder.mkdir(parents=True)
    save_ws(folder / "0.npz", torch.zeros(1, 6, 8), provenance=record)
    done = run("generate", "--center", "a.png", "--seeds", "0")
    assert done.exit_code == 0, done.output
    # Some that claim to be the projection, and hold something else.
    found = read_ws_provenance(folder / "a.npz")
    assert found is not None
    save_ws(folder / "2.npz", torch.zeros(1, 6, 8), provenance={**found, "results": 3})
    save_ws(folder / "0.npz", torch.zeros(2, 6, 8), provenance=found)
    save_ws(folder / "1.npz", torch.zeros(1, 6, 9), provenance=found)
    again = run("generate", "--center", "a.png", "--seeds", "1")
    assert again.exit_code == 0, again.output
    assert "projected/a.npz" in again.stderr.replace("\\", "/")


def test_a_count_fills_the_named_faces_up_with_seeds(run: Run) -> None:
    result = run(*MIX, "--rows", "3", "--json")
    assert json.loads(result.stdout)["row"] == ["a.png", "0", "1"]
    refused = run(*MIX, "--cols", "1")
    assert refused.exit_code == ExitCode.USAGE and "--cols 1" in refused.stderr
    refused = run(*MIX, "--row-seeds", "1")
    assert refused.exit_code == ExitCode.USAGE and "--row-seeds" in refused.stderr


def test_a_photograph_is_a_centre_and_a_stop_of_a_walk(run: Run) -> None:
    drawn = run("generate", "--center", "a.png", "--psi", "0", "--seeds", "3", "--out", "c.png")
    assert drawn.exit_code == 0, drawn.stderr
    plain = run("generate", "--ws", "out/tiny/projected/a.npz", "--noise-mode", "const",
                "--out", "d.png")  # fmt: skip
    assert plain.exit_code == 0
    assert (pixels("c.png") == pixels("d.png")).all()
    walk = ("--through", "a.png", "--through", "3", "--seconds", "1", "--fps", "4", "--format",
            "png", "--scale", "1")  # fmt: skip
    walked = run("interpolate", *walk, "--out", "walk")
    assert walked.exit_code == 0, walked.stderr
    assert (pixels(sorted(Path("walk").glob("*.png"))[0]) == pixels("d.png")).all()
    refused = run("interpolate", *walk, "--seeds", "1")
    assert refused.exit_code == ExitCode.USAGE and "--seeds" in refused.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("mix", "--row", "a.png", "--col", "7", "--styles", "fine"),
        ("generate", "--center", "a.png", "--seeds", "1"),
        ("interpolate", "--through", "a.png", "--through", "3", "--seconds", "1", "--fps", "2"),
    ],
)
def test_pictures_of_another_projection_are_not_taken_for_these(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """As where LPIPS has got its weights since: the record names the styles, not the photograph."""
    out = ("--out", "x.mp4" if command[0] == "interpolate" else "x.png")
    assert run(*command, *out).exit_code == 0
    assert run(*command, *out).exit_code == 0  # they are there
    styles = Path("out/tiny/projected/a.npz")
    record = read_ws_provenance(styles)
    noise = load_noise(styles, [(1, 1, side, side) for side in (4, 4, 8, 8, 16, 16)])
    assert noise is not None
    save_ws(styles, load_ws(styles) + 1, noise=noise, provenance=record)
    refused = run(*command, *out)
    assert refused.exit_code == ExitCode.USAGE and out[1] in refused.stderr


def test_faces_of_the_same_name_have_pictures_of_their_own(run: Run) -> None:
    Path("x").mkdir()
    for number, name in enumerate(("s.npz", "x/s.npz", "7-s.npz", "s-7.npz")):
        run("generate", "--seeds", str(number), "--save-ws", name, "--out", f"{number}.png")
    words = ("--styles", "fine", "--each", "--json", "--out", "m.png")
    done = run("mix", "--row", "s.npz", "--row", "x/s.npz", "--col", "7", *words)
    paths = json.loads(done.stdout)["paths"]
    assert [Path(path).name for path in paths] == ["m.png", "s-7.png", "s(2)-7.png"]
    assert (pixels(paths[1]) != pixels(paths[2])).any()
    # s and 7-s, s-7 and s: both are s-7-s.
    words = ("--row", "s.npz", "--row", "s-7.npz", "--col", "7-s.npz", "--col", "s.npz", *words)
    done = run("mix", *words, "--force")
    paths = json.loads(done.stdout)["paths"]
    assert len({*paths}) == len(paths) == 5 and all(Path(path).is_file() for path in paths)


@pytest.mark.parametrize(
    ("words", "rows", "columns"),
    [
        (("--row", "s.npz", "--row", "3", "--rows", "5"), ["s.npz", "3", "0", "1", "2"], "4-5"),
        (("--row", "1", "--rows", "3"), ["1", "0", "2"], "3-4"),
        (("--row", "1"), ["1"], "0,2"),
        (("--row", "s.npz"), ["s.npz"], "0-1"),
    ],
)
def test_counts_are_filled_up_without_repeats(
    run: Run, words: tuple[str, ...], rows: list[str], columns: str
) -> None:
    run("generate", "--seeds", "9", "--save-ws", "s.npz")
    done = run("mix", *words, "--cols", "2", "--styles", "fine", "--json")
    document = json.loads(done.stdout)
    assert (document["row"], document["col_seeds"]) == (rows, columns)


def test_a_file_of_several_faces_does_not_break_the_count(run: Run) -> None:
    run("generate", "--seeds", "8,9", "--save-ws", "two.npz")
    refused = run("mix", "--row", "two.npz", "--rows", "3")
    assert refused.exit_code == ExitCode.USAGE
    assert "two.npz" in refused.stderr and "--rows 3" in refused.stderr
    assert run("mix", "--row", "two.npz", "--row", "0", "--styles", "fine").exit_code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("mix", "--row", "none.png"), "none.png"),
        (("interpolate", "--through", "none.png"), "none.png"),
        (("generate", "--center", "none.png"), "none.png"),
    ],
)
def test_a_face_that_is_not_there_is_one_sentence(
    run: Run, words: tuple[str, ...], told: str
) -> None:
    result = run(*words)
    assert result.exit_code == ExitCode.UNUSABLE and told in result.stderr


@pytest.mark.parametrize("center", ["none.jpg", "none.npz", "-4", "x"])
def test_a_centre_that_is_not_there_is_told_before_the_network_is_read(
    run: Run, monkeypatch: pytest.MonkeyPatch, center: str
) -> None:
    monkeypatch.setattr("stylecli.cli.drawing.open_source", None)
    for command in (("generate",), ("mix",), ("interpolate",)):
        refused = run(*command, "--center", center)
        assert refused.exit_code == (ExitCode.USAGE if center == "-4" else ExitCode.UNUSABLE)
        assert "--center" in refused.stderr and center in refused.stderr
        assert "seed" in refused.stderr and "class" in refused.stderr


def test_a_seed_is_a_centre_however_it_is_written(run: Run) -> None:
    for center, out in (("42", "plain.png"), (" 42 ", "spaced.png")):
        done = run("generate", "--seeds", "1", "--center", center, "--out", out)
        assert done.exit_code == 0, done.stderr
    assert (pixels("plain.png") == pixels("spaced.png")).all()


COMMANDS: dict[str, tuple[str, ...]] = {
    "project": ("project",), "mix": ("mix", "--row"), "interpolate": ("interpolate", "--through"),
    "generate": ("generate", "--seeds", "0", "--center"),
}  # fmt: skip
# What of a photograph cannot be used, and what is said of it beside its name.
SPOILT = {"faceless.png": "--no-align", "film.gif": "2 frames", "huge.png": "too large",
          "text.jpg": "text.jpg", "other.npz": "[N, 6, 9]", "none.png": "none.png"}  # fmt: skip


@pytest.mark.parametrize("file", SPOILT)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_photograph_that_cannot_be_used_is_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, file: str
) -> None:
    look_for_faces(monkeypatch)
    monkeypatch.setattr("stylecli.data.pictures.max_pixels", lambda: 1000)
    frames = [Image.new("L", (20, 20), grey) for grey in (0, 200)]
    frames[0].save("film.gif", save_all=True, append_images=frames[1:])
    frames[0].save("faceless.png")
    Image.new("L", (40, 40)).save("huge.png")
    Path("text.jpg").write_text("no picture")
    save_ws("other.npz", torch.zeros(1, 6, 9))
    result = run(*COMMANDS[command], file)
    assert result.exit_code == ExitCode.UNUSABLE, result.output
    *notes, sentence = result.stderr.strip().splitlines()
    assert file in sentence
    assert SPOILT[file] in sentence or (command, file) == ("project", "other.npz")
    assert all("pyramid" in note for note in notes)
    assert "--no-align" not in sentence or file == "faceless.png"
    assert not Path("out").exists()


def look_for_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what the fixture puts in the place of reading; a detector finds nothing."""
    home = "stylecli.data.alignment.portrait"
    monkeypatch.setattr(f"{home}.read_portrait", read_portrait)
    monkeypatch.setattr(f"{home}.choose_detector", lambda *_: "dlib")
    monkeypatch.setattr(f"{home}.load_detector", lambda name: None)
    monkeypatch.setattr(f"{home}.search_faces", lambda *_, min_crop: [])


def test_a_picture_of_the_network_s_size_needs_no_face(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And projections by ``project`` are those that ``mix`` remembers; the stand-in is named."""
    look_for_faces(monkeypatch)
    assert run("generate", "--seeds", "5", "--psi", "1", "--out", "own.png").exit_code == 0
    mixed = run("mix", "--row", "own.png", "--col", "1", "--styles", "fine")
    assert mixed.exit_code == 0, mixed.stderr
    assert "taken as it is" in mixed.stderr and "pyramid" in mixed.stderr
    monkeypatch.setattr(projected_files, "_search", None)  # nothing is searched for again
    again = run("project", "own.png")
    assert again.exit_code == 0, again.output


def test_saved_styles_and_seeds_are_faces(run: Run) -> None:
    run("generate", "--seeds", "4,5", "--save-ws", "two.npz")
    result = run("mix", "--row", "two.npz", "--col", "1", "--styles", "fine", "--each", "--json")
    document = json.loads(result.stdout)
    assert [Path(path).name for path in document["paths"][1:]] == ["two#0-1.png", "two#1-1.png"]
    assert torch.isfinite(load_ws("two.npz")).all() and faces.is_seed("4")


def test_noise_maps_of_another_number_of_faces_are_refused(run: Run) -> None:
    shapes = [(1, 1, side, side) for side in (4, 4, 8, 8, 16, 16)]
    save_ws("two.npz", torch.zeros(2, 6, 8), noise=[torch.zeros(shape) for shape in shapes])
    for words in (("generate", "--ws"), ("mix", "--row"), ("mix", "--row-ws")):
        refused = run(*words, "two.npz")
        assert refused.exit_code == ExitCode.UNUSABLE and "[2, 1, 4, 4]" in refused.stderr


def test_photographs_of_the_same_name_have_results_of_their_own(tmp_path: Path) -> None:
    """As phones save them twice, and as folders of a year hold them."""
    for name in ("a.jpg", "a.PNG", "b.png", "one/c.png", "two/c.png", "two/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    named = faces.list_named([tmp_path, tmp_path / "b.png"])
    assert {name: path.relative_to(tmp_path).as_posix() for name, path in named.items()} == {
        "a-jpg": "a.jpg", "a-png": "a.PNG", "b": "b.png", "one-c-png": "one/c.png",
        "two-c-png": "two/c.png", "d": "two/d.png",
    }  # fmt: skip


def test_saved_styles_of_a_photograph_keep_its_noise(run: Run) -> None:
    """So they draw the same picture; without, another one."""
    assert run("project", "a.png").exit_code == 0
    (found,) = Path("out").rglob("a.npz")
    words = ("--ws", str(found), "--out", "one", "--save-ws", "kept.npz")
    assert run("generate", *words).exit_code == 0
    assert run("generate", "--ws", "kept.npz", "--out", "two").exit_code == 0
    (first,), (second,) = Path("one").glob("*.png"), Path("two").glob("*.png")
    assert np.array_equal(pixels(first), pixels(second))
    assert run("generate", "--ws", "kept.npz", "--noise-mode", "none", "--out", "x").exit_code == 0
    assert not np.array_equal(pixels(first), pixels(next(Path("x").glob("*.png"))))

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
from stylecli.cli import generate
from stylecli.cli.app import app
from stylecli.errors import DataError, Interrupted, NetworkError, UsageError
from stylecli.images import read_provenance
from stylecli.sheets.mixing import name_height

Run = Callable[..., Result]


@pytest.fixture
def run(tiny_network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``generate`` in a folder whose newest run holds the tiny network."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/00002-tiny")
    stylecli.save_network(folder / "network-snapshot-000004000.safetensors", tiny_network)
    app = typer.Typer()
    app.command()(generate.command)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def _pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_works_bare_on_the_newest_run(run: Run) -> None:
    result = run()

    assert result.exit_code == 0
    files = [f"out/00002-tiny-000004000/seed{seed:04d}.png" for seed in range(16)]
    assert result.stdout.splitlines() == files
    assert result.stderr.splitlines()[0] == (
        "network: runs/00002-tiny/network-snapshot-000004000.safetensors "
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

    assert "3 of 4 pictures" in result.stderr
    assert Path("here/seed0002.png").exists()
    assert Path("here/seed0000.png").stat().st_mtime_ns == kept


def test_other_pictures_are_only_overwritten_by_force(run: Run) -> None:
    run("--seeds", "0", "--out", "here")

    refused = run("--seeds", "0", "--psi", "1", "--out", "here")
    forced = run("--seeds", "0", "--psi", "1", "--out", "here", "--force")

    assert isinstance(refused.exception, UsageError)
    assert "here/seed0000.png" in str(refused.exception) and "--force" in str(refused.exception)
    assert forced.exit_code == 0
    assert (read_provenance("here/seed0000.png") or {})["settings"]["psi"] == 1


def test_grid_is_one_enlarged_sheet(run: Run) -> None:
    result = run("--grid", "--seeds", "0-5", "--columns", "3", "--scale", "2", "--out", "g.png")

    assert result.stdout == "g.png\n"
    seeds = 2 * name_height(32)  # below two rows of 32 px
    assert _pixels("g.png").shape == (64 + seeds, 96, 3)
    run("--grid", "--seeds", "0-5", "--columns", "3", "--scale", "2", "--no-labels", "--out",
        "plain.png")  # fmt: skip
    assert _pixels("plain.png").shape == (64, 96, 3)
    assert (_pixels("plain.png")[:32] == _pixels("g.png")[:32]).all()


def test_a_sheet_of_a_size_has_its_seeds_in_it(run: Run) -> None:
    run("--grid", "--seeds", "0-5", "--size", "300x200", "--out", "g.png")

    assert _pixels("g.png").shape == (200, 300, 3)


@pytest.mark.parametrize("more", [[], ["--crop"], ["--pixels"], ["--pixels", "--crop"]])
def test_a_picture_of_a_size_has_it(run: Run, more: list[str]) -> None:
    run("--seeds", "3", "--size", "60x100", *more, "--out", "a.png")
    run("--seeds", "3", "--out", "own.png")

    picture, own = _pixels("a.png").astype(int), _pixels("own.png")
    assert picture.shape == (100, 60, 3)
    margin = picture[0, 0]
    if "--crop" in more:
        assert (picture[:20] != margin).any()
    else:
        assert (picture[:15] == margin).all()  # fitted: all margin
        assert abs(margin - own.reshape(-1, 3).mean(axis=0)).max() <= 2


def test_pictures_like_a_face_are_nearer_to_it_the_less_they_vary(run: Run) -> None:
    for vary in ("0", "0.3", "1"):
        run("--like", "7", "--vary", vary, "--seeds", "1", "--out", f"vary{vary}")
    run("--seeds", "1,7", "--out", "own")

    near, middle, far = (_pixels(f"vary{vary}/like0007-0001.png") for vary in ("0", "0.3", "1"))
    assert (near == _pixels("own/seed0007.png")).all()
    assert np.abs(far.astype(int) - _pixels("own/seed0001.png")).max() <= 1
    assert np.abs(middle.astype(int) - near).mean() < np.abs(far.astype(int) - near).mean()
    # A sheet of them has a name of its own: beside that of any faces, as in the lesson.
    run("--seeds", "1,7", "--grid", "--out", "sheets")
    run("--like", "7", "--seeds", "1,7", "--grid", "--out", "sheets")
    assert {path.name for path in Path("sheets").iterdir()} == {"grid.png", "like0007-grid.png"}


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
        (["--noise-mode", "loud"], UsageError, "unknown noise mode 'loud'"),
        (["--seeds", "4-1"], UsageError, "runs backwards"),
        (["--seeds", ""], UsageError, "cannot read seeds"),
        (["--label", "1"], UsageError, "trained without labels"),
        (["--network", "nowhere.safetensors"], NetworkError, "does not exist"),
        (["--columns", "3"], UsageError, "add --grid"),
        (["--no-labels"], UsageError, "--no-labels is for a sheet: add --grid"),
        (["--grid", "--labels", "--size", "99x99", "--crop"], UsageError, "--labels"),
        (["--crop"], UsageError, "add --size"),
        (["--size", "1080"], UsageError, "cannot read size '1080'"),
        (["--size", "0x9"], UsageError, "cannot read size '0x9'"),
        (["--size", "90x90", "--scale", "2"], UsageError, "both set the size"),
        (["--size", "8x8", "--pixels"], UsageError, "at least 16 x 16"),
        (["--size", "99999x9999"], UsageError, "too large to be"),
        (["--vary", "0.2"], UsageError, "--like 7"),
        (["--like", "7", "--vary", "1.5"], UsageError, "vary 1.5 is out of range"),
        (["--like", "7", "--ws", "a.npz"], UsageError, "two sources of faces"),
        (["--format", "gif"], UsageError, "--format 'gif'"),
        (["--quality", "80"], UsageError, "add --format jpeg"),
        (["--out", "a.jpg", "--format", "png", "--grid"], UsageError, "contradicts --out a.jpg"),
        (["--out", "out/a.png"], UsageError, "one file for 16 pictures"),
        (["--out", "sheet.tiff", "--grid"], UsageError, "sheet.tiff"),
        (["--out", __file__], UsageError, "is a file: give a folder"),
        (["--psi-layers", "0-3:1,9:0.5"], UsageError, "has layers 0-5"),
        (["--psi-layers", "0-3:1,3:0.5"], UsageError, "names layer 3 twice"),
        (["--psi-layers", "0-3"], UsageError, "has no number"),
        (["--center", "class"], UsageError, "without labels"),
        (["--center", "nowhere.npz"], DataError, "nowhere.npz does not exist"),
        (["--center", "-4"], UsageError, "-4"),
        (["--ws", "nowhere.npz"], NetworkError, "nowhere.npz does not exist"),
        (["--ws", "a.npz", "--seeds", "1"], UsageError, "two sources of faces"),
        (["--ws-rows", "1"], UsageError, "give --ws FILE too"),
        (["--lod", "7"], UsageError, "lod"),
        (["--psi", "nan"], UsageError, "psi nan is out of range"),
        (["--psi", "1e30"], UsageError, "psi 1e+30 is out of range"),
        (["--precision", "int4"], UsageError, "unknown precision 'int4'"),
    ],
)
def test_bad_input_is_one_sentence(
    run: Run, arguments: list[str], error: type[Exception], message: str
) -> None:
    result = run(*arguments)

    assert isinstance(result.exception, error) and message in str(result.exception)
    assert not Path("out").exists()


def test_truncation_of_single_layers_is_that_of_the_library(run: Run, tiny_network: Any) -> None:
    run("--seeds", "3", "--psi", "0.5", "--psi-layers", "coarse:1,4:0.2", "--out", "here")

    psi = [1, 1, 1, 1, 0.2, 0.5]
    expected = next(stylecli.generate(tiny_network, [3], psi))[1]
    np.testing.assert_array_equal(_pixels("here/seed0003.png"), expected)


def test_truncation_goes_towards_another_centre(run: Run) -> None:
    run("--seeds", "3,42", "--psi", "0", "--psi-cutoff", "0", "--center", "42", "--out", "a")
    run("--seeds", "42", "--psi", "1", "--out", "b")

    np.testing.assert_array_equal(_pixels("a/seed0003.png"), _pixels("a/seed0042.png"))
    difference = _pixels("a/seed0003.png").astype(int) - _pixels("b/seed0042.png")
    assert np.abs(difference).max() <= 1


def test_saved_styles_draw_the_same_pictures(run: Run) -> None:
    first = run("--seeds", "3,5", "--psi", "0.6", "--out", "a", "--save-ws", "faces.npz")
    second = run("--ws", "faces.npz", "--out", "b")

    assert first.stdout.splitlines()[-1] == "faces.npz"
    assert second.stdout.splitlines() == ["b/row0000.png", "b/row0001.png"]
    for seed, row in ((3, 0), (5, 1)):
        pair = _pixels(f"a/seed{seed:04d}.png"), _pixels(f"b/row{row:04d}.png")
        np.testing.assert_array_equal(*pair)


def test_rows_of_a_file_can_be_chosen(run: Run) -> None:
    run("--seeds", "3-6", "--out", "a", "--save-ws", "faces.npz")

    result = run("--ws", "faces.npz", "--ws-rows", "1,3", "--out", "b")
    refused = run("--ws", "faces.npz", "--ws-rows", "4", "--out", "b")

    assert result.stdout.splitlines() == ["b/row0001.png", "b/row0003.png"]
    assert str(refused.exception) == "--ws-rows 4: the file has faces 0 to 3"


def test_pictures_of_a_changed_file_of_styles_are_not_taken_for_done(run: Run) -> None:
    run("--seeds", "3", "--out", "a", "--save-ws", "faces.npz")
    run("--ws", "faces.npz", "--out", "b")
    run("--seeds", "4", "--out", "a", "--save-ws", "faces.npz", "--force")

    refused = run("--ws", "faces.npz", "--out", "b")

    assert "row0000.png exists" in str(refused.exception)


@pytest.mark.parametrize(("name", "kind"), [("jpeg", "jpg"), ("webp", "webp"), ("png", "png")])
def test_files_come_in_the_format_asked_for(run: Run, name: str, kind: str) -> None:
    result = run("--seeds", "1", "--format", name, "--out", "a")
    again = run("--seeds", "1", "--format", name, "--out", "a")

    assert result.stdout == f"a/seed0001.{kind}\n"
    assert "1 of 1 picture\n" in again.stderr
    with Image.open(f"a/seed0001.{kind}") as image:
        assert image.format == name.upper()


def test_one_picture_may_be_given_a_name(run: Run) -> None:
    assert run("--seeds", "1", "--out", "a/face.webp").stdout == "a/face.webp\n"


@pytest.mark.parametrize("grid", [[], ["--grid"]])
def test_batch_size_changes_no_byte(run: Run, grid: list[str]) -> None:
    for batch in ("1", "3", "8"):
        run("--seeds", "0-8", "--batch", batch, "--noise-mode", "random", "--out", batch, *grid)

    for path in Path("1").iterdir():
        contents = {Path(batch, path.name).read_bytes() for batch in ("1", "3", "8")}
        assert len(contents) == 1


def test_an_interruption_leaves_whole_files_and_says_how_to_go_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylecli import files

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    run("--seeds", "0-1", "--out", "a")
    with monkeypatch.context() as patch:
        patch.setattr(files, "replacing", interrupted)
        result = run("--seeds", "0-3", "--out", "a")

    assert isinstance(result.exception, Interrupted)
    assert str(result.exception).startswith("interrupted: 2 of 4 pictures written")
    assert sorted(path.name for path in Path("a").iterdir()) == ["seed0000.png", "seed0001.png"]
    assert run("--seeds", "0-3", "--out", "a").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [["--psi", "0.7"], ["--psi-layers", "0:0.5"], ["--center", "1"], ["--save-ws", "a.npz"]],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_networks_without_w_refuse_what_needs_it(
    run: Run, tiny_config_fields: dict[str, Any], arguments: list[str]
) -> None:
    net = stylecli.new_network("b", **tiny_config_fields)
    stylecli.save_network("b.safetensors", net)

    result = run("--network", "b.safetensors", *arguments)

    assert isinstance(result.exception, UsageError)
    assert "configuration 'b'" in str(result.exception) and not Path("out").exists()
    assert run("--network", "b.safetensors", "--seeds", "1").exit_code == 0


def test_a_precision_that_is_slower_here_is_refused(run: Run, monkeypatch: Any) -> None:
    monkeypatch.setattr("stylecli.hardware.bf16_gain", lambda: 1 / 46)
    asked = ("--seeds", "0", "--device", "cpu", "--out", "here", "--precision")

    refused = run(*asked, "bf16")
    assert isinstance(refused.exception, UsageError)
    assert "46.0 times slower" in str(refused.exception) and "--force" in str(refused.exception)
    assert not Path("here").exists()

    assert run(*asked, "auto").exit_code == 0
    settings = (read_provenance("here/seed0000.png") or {})["settings"]
    assert settings["precision"] == "float32"
    assert run(*asked, "bf16", "--force").exit_code == 0
    settings = (read_provenance("here/seed0000.png") or {})["settings"]
    assert settings["precision"] == "bf16"


def test_pictures_of_an_alias_free_network_move(run: Run) -> None:
    small = {"fmap_base": 256, "fmap_max": 8, "z_dim": 8, "w_dim": 8}
    # Fresh networks draw next to nothing; 1×1 kernels turn with the picture.
    net = stylecli.new_network("stylegan3-r", resolution=32, output_scale=8.0, **small)
    stylecli.save_network("free.safetensors", net)
    where = ("--network", "free.safetensors", "--seeds", "1", "--psi", "1")

    assert run(*where, "--out", "still").exit_code == 0
    result = run(*where, "--translate", "-0.25,0.125", "--rotate", "90", "--out", "moved")
    assert result.exit_code == 0, result.output

    still, moved = (_pixels(f"{name}/seed0001.png").astype(float) for name in ("still", "moved"))
    wanted = np.roll(np.rot90(still), (4, -8), (0, 1))  # counter-clockwise, then left and down
    inside = (slice(5, -1), slice(1, -9))
    assert np.abs(wanted - moved)[inside].mean() < 0.1 * np.abs(still - moved)[inside].mean()
    command = read_provenance(Path("moved/seed0001.png"))
    assert command is not None
    from stylecli.provenance import remake_command

    assert "--translate=-0.25,0.125 --rotate 90.0" in str(remake_command(command))


@pytest.mark.parametrize("words", [["--translate", "0.1,0"], ["--rotate", "10"]])
def test_networks_with_a_fixed_place_do_not_move(run: Run, words: list[str]) -> None:
    result = run("--seeds", "1", *words)

    assert isinstance(result.exception, UsageError)
    assert "--translate" in str(result.exception)


@pytest.mark.parametrize("value", ["0.1", "a,b", "1,2,3", "nan,0"])
def test_a_shift_is_two_numbers(run: Run, value: str) -> None:
    result = run("--seeds", "1", "--translate", value)

    assert isinstance(result.exception, UsageError)
    assert value in str(result.exception)


def test_styles_of_other_faces_are_mixed_in_as_mix_does(run: Run) -> None:
    assert run("--seeds", "2", "--save-ws", "two.npz", "--out", "of-two").exit_code == 0
    mixed = run("--seeds", "1", "--mix", "coarse:2", "--mix", "4-5:two.npz", "--out", "mixed")
    pair = CliRunner().invoke(
        app, ["mix", "--row", "1", "--col", "2", "--styles", "0-5", "--each", "--out", "pair"]
    )
    noiseless = (
        run("--seeds", "1", *how, "--out", f"noise{place}")
        for place, how in enumerate((("--noise-scale", "0"), ("--noise-mode", "none")))
    )

    assert mixed.exit_code == 0 and pair.exit_code == 0, mixed.output + pair.output
    (cell,) = Path("pair").rglob("1-2.png")
    assert np.array_equal(_pixels("mixed/seed0001.png"), _pixels(str(cell)))
    assert (read_provenance("mixed/seed0001.png") or {})["settings"]["mix"] == [
        "coarse:2", "4-5:two.npz",
    ]  # fmt: skip
    assert [result.exit_code for result in noiseless] == [0, 0]
    assert np.array_equal(_pixels("noise0/seed0001.png"), _pixels("noise1/seed0001.png"))


@pytest.mark.parametrize(
    ("word", "named"), [("coarse", "coarse:7"), (":7", ":7"), ("purple:7", "purple")]
)
def test_a_mix_that_cannot_be_read_is_refused(word: str, named: str, run: Run) -> None:
    refused = run("--seeds", "1", "--mix", word)

    assert isinstance(refused.exception, UsageError) and named in str(refused.exception)

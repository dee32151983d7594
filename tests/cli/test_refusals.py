"""Wrong words, paths and numbers are refused before torch and pydantic load, by every command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import stylecli
from stylecli import hardware
from stylecli.cli.app import app

REFUSED = [
    (["generate", "--network", "nope.pkl"], 3, "nope.pkl"),
    (["generate", "--network", "page.pkl"], 3, "page.pkl"),
    (["generate", "--network", "old.safetensors"], 3, "old.safetensors"),
    (["generate", "--seeds", "abc"], 2, "abc"),
    (["generate", "--device", "cdua"], 2, "'cuda'"),
    (["generate", "--precision", "bf61"], 2, "'bf16'"),
    (["generate", "--ws", "nope.npz"], 3, "nope.npz"),
    (["generate", "--out", "x.tif"], 2, "x.tif"),
    (["generate", "--network", "https://x.org/a.pkl"], 3, "network https://x.org/a.pkl is"),
    (["mix", "--network", "nope.pkl"], 3, "nope.pkl"),
    (["mix", "--row-ws", "nope.npz"], 3, "nope.npz"),
    (["mix", "--video", "cols", "--video-format", "gift"], 2, "'gif'"),
    (["mix", "--video", "cols", "--fps", "0"], 2, "fps 0"),
    (["pack", "nope-{00..02}.tar"], 3, "nope-00.tar"),
    (["check", "nope-{00..02}.tar"], 3, "nope-00.tar"),
    (["train", "nope-{00..02}.tar"], 3, "nope-00.tar"),
    (["explore", "--network", "nope.pkl"], 3, "nope.pkl"),
    (["explore", "--device", "cdua"], 2, "'cuda'"),
    (["explore", "--port", "0"], 2, "--port 0: expected at least 1"),
    (["interpolate", "--network", "nope.pkl"], 3, "nope.pkl"),
    (["interpolate", "--grid", "big"], 2, "big"),
    (["interpolate", "--codec", "h265"], 2, "h265"),
    (["interpolate", "--crf", "99"], 2, "crf 99"),
    (["interpolate", "--format", "giff"], 2, "'gif'"),
    (["interpolate", "--out", "x.avi"], 2, "x.avi"),
    (["interpolate", "--space", "x"], 2, "'x'"),
    (["interpolate", "--method", "lrep"], 2, "'lerp'"),
    (["figures", "mixxing"], 2, "'mixing'"),
    (["figures", "3", "--network", "nope.pkl"], 3, "nope.pkl"),
    (["metrics", "fdi"], 2, "'fid'"),
    (["metrics", "fid", "--network", "nope.pkl"], 3, "nope.pkl"),
    (["metrics", "fid", "--data", "nope.lmdb"], 3, "nope.lmdb"),
    (["metrics", "fid", "--data", ".", "--against", "nope"], 3, "nope"),
    (["metrics", "fid", "--data", "loose", "--against", "photos"], 3, "1 of 2 pictures in loose"),
    (
        ["metrics", "fid", "--data", "photos", "--against", "loose"],
        3,
        "measured: b.png is not a picture",
    ),
    (["metrics", "fid50k", "--network", "shipped"], 3, "give --data PATH"),
    (["metrics", "fid", "--against", "picture.png"], 3, "give --data PATH"),
    (["train"], 3, "give PATH"),
    (["train", "--dry-run"], 3, "give PATH"),
    (["train", "photos", "--dry-run"], 2, "stylecli pack photos"),
    (["plan"], 3, "give PATH"),
    (["check"], 3, "give PATH"),
    (["train", "nope"], 3, "nope"),
    (["train", ".", "--metrics", "kdi"], 2, "'kid'"),
    (["train", ".", "--config", "stylegan33-t"], 2, "stylegan33-t"),
    (["train", ".", "--preset", "smal"], 2, "'small'"),
    (["train", ".", "--kimg", "-5"], 2, "-5"),
    (["train", ".", "--resume", "nope.pkl"], 3, "nope.pkl"),
    (["train", ".", "--resume", "https://x.org/a.pkl"], 3, "--resume https://x.org/a.pkl is"),
    (["plan", "nope.lmdb"], 3, "nope.lmdb"),
    (["plan", "--resolution", "64", "--config", "stylegan22"], 2, "'stylegan2'"),
    (["pack", "nope"], 3, "nope"),
    (["pack", ".", "--codec", "jpeg"], 2, "'jpeg'"),
    (["check", "nope"], 3, "nope"),
    (["demo", "--out", "page.pkl"], 2, "page.pkl is a file"),
    (["demo", "--out", "."], 2, "--out"),
    (["prepare-ffhq", "nope"], 3, "nope"),
    (["convert", "nope.pkl"], 3, "nope.pkl"),
    (["export", "state-dict", "nope.pkl"], 3, "nope.pkl"),
    (["export", "state-dict", "page.pkl", "--layout", "nvida"], 2, "nvidia"),
    (["project", "nope.jpg"], 3, "nope.jpg"),
    (["directions", "list", "--network", "nope.pkl"], 3, "nope.pkl"),
    (["hub", "push", "nope.safetensors", "alice/cats"], 3, "nope.safetensors"),
    (["hub", "pull", "../cats"], 2, "'../cats'"),
    (["sharpen", "nope.png"], 3, "nope.png"),
    (["info", "nope"], 3, "nope"),
    (["info", "picture.png"], 3, "picture.png"),
    (["report", "nope"], 3, "nope"),
    (["bench", "--config", "stylegan22"], 2, "'stylegan2'"),
    (["bench", "--precisions", "bf61"], 2, "'bf16'"),
    (["weights", "explain", "inception"], 2, "inception"),
    (["genrate"], 2, "stylecli generate"),
    (["generate", "--sedes", "1"], 2, "--seeds"),
    (["generate", "--columns", "0"], 2, "--columns 0: expected at least 1"),
    (["bench", "--repeats", "x"], 2, "--repeats x: expected a whole number"),
    (["generate", "--psi", "x"], 2, "--psi x: expected a number"),
    (["pack"], 2, "stylecli pack photos/"),
    (["weights", "fetch"], 2, "stylecli weights fetch inception-2015-12-05"),
    (["weights", "add", "nope.pth"], 3, "nope.pth"),
]
if hardware._cannot_have_cuda():
    REFUSED += [
        (["train", ".", "--gpus", "8"], 4, "no CUDA GPU, not --gpus 8"),
        (["plan", "--resolution", "16", "--gpus", "2"], 4, "no CUDA GPU, not --gpus 2"),
        (["generate", "--device", "cuda"], 4, "device 'cuda' is not available here"),
        (["metrics", "fid", "--device", "cuda:1"], 4, "device 'cuda:1' is not available here"),
    ]
# All of them in one process, in turn: a new one each would take a quarter of a second.
RUN = """
import contextlib, io, json, sys
from stylecli.__main__ import main

for words in json.loads(sys.argv[1]):
    sys.argv = ["stylecli", *words]
    said, code = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), 0
    with contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as error:
            code = error.code
    said.seek(0)
    loaded = [name for name in ("torch", "pydantic") if name in sys.modules]
    print(json.dumps([words, code, said.read(), loaded]))
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, list[str]]]:
    """How each command line ended: exit code, stderr, what heavy was loaded by then."""
    folder = tmp_path_factory.mktemp("refusals")
    fill(folder)
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps([words for words, _, _ in REFUSED])],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {" ".join(words): (code, said, loaded) for words, code, said, loaded in rows}


def fill(folder: Path) -> None:
    """Put files into a folder that are not what their names say."""
    (folder / "page.pkl").write_text("<!DOCTYPE html><title>Quota exceeded</title>")
    (folder / "old.safetensors").write_bytes(b"not safetensors")
    (folder / "picture.png").write_bytes(b"not a picture")
    (folder / "datasets").mkdir()
    (folder / "photos").mkdir()
    (folder / "loose").mkdir()
    for name in ("photos/a.png", "loose/a.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    (folder / "loose/b.png").write_bytes(b"not a picture")


@pytest.mark.parametrize(("words", "code", "named"), REFUSED, ids=lambda value: str(value)[:60])
def test_it_is_refused_without_loading_much(
    words: list[str], code: int, named: str, refused: dict[str, tuple[int, str, list[str]]]
) -> None:
    ended, said, loaded = refused[" ".join(words)]

    assert (ended, loaded) == (code, []), said
    assert named in said


def test_every_command_that_takes_something_is_here() -> None:
    from stylecli.cli.app import COMMANDS

    assert set(COMMANDS) - {words[0] for words, _, _ in REFUSED} == {"doctor"}


WRONG = [
    (["genrate"], "stylecli generate"),
    (["calc_metrics"], "stylecli metrics"),
    (["gen_video.py"], "stylecli interpolate"),
    (["nonsense"], "generate, mix"),
    (["train", "--minutes", "3"], "--kimg"),
    (["demo", "--time", "3"], "see stylecli demo --help"),
    (["generate", "--n", "4"], "see stylecli generate --help"),
    (["generate", "--trunc", "0.7"], "--psi"),
    (["generate", "--truncation-psi", "0.7"], "--psi"),
    (["generate", "--truncation_psi=0.7"], "--psi"),
    (["generate", "--outdir", "x"], "--out"),
    (["generate", "--sedes", "1"], "--seeds"),
    (["train", "--outdir", "x"], "--out"),
    (["train", "--snap", "5"], "--snapshot-ticks"),
    (["train", "--cfg", "stylegan2"], "--config"),
    (["train", "--data", "x.zip"], "stylecli train PATH"),
    (["generate", "net.pkl"], "--network net.pkl"),
    (["generate", "--network"], "--network needs a value"),
    (["generate", "--columns", "0"], "--columns 0"),
    (["bench", "--repeats", "x"], "--repeats x"),
    (["demo", "--minutes=soon"], "--minutes soon"),
    (["pack"], "stylecli pack photos/"),
    (["convert"], "stylecli convert karras2019stylegan-ffhq-1024x1024.pkl"),
    (["weights", "expain"], "stylecli weights explain"),
    (["weights", "fetch"], "stylecli weights fetch inception-2015-12-05"),
    (["info", "a", "b"], "'b'"),
    (["help", "genrate"], "stylecli generate"),
    (["evil\x1b[2J"], "x1b[2J"),
]


@pytest.mark.parametrize(("words", "named"), WRONG, ids=lambda value: repr(value)[:50])
def test_a_wrong_command_line_is_one_sentence(words: list[str], named: str) -> None:
    done = CliRunner().invoke(app, words, prog_name="stylecli")

    assert (done.exit_code, done.stdout) == (2, "")
    assert named in done.stderr
    assert done.stderr.startswith("stylecli: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["help"], ["-h"], ["--help"]])
def test_the_help_has_three_names(words: list[str]) -> None:
    done = CliRunner().invoke(app, words, prog_name="stylecli")
    assert (done.exit_code, "interpolate" in done.stdout) == (0, True)


@pytest.mark.parametrize("words", [["help", "mix"], ["mix", "-h"], ["help", "weights", "add"]])
def test_so_has_a_commands(words: list[str]) -> None:
    done = CliRunner().invoke(app, words, prog_name="stylecli")
    name = " ".join(word for word in words if word not in ("help", "-h"))
    assert (done.exit_code, done.stdout.split(" [")[0]) == (0, f"Usage: stylecli {name}")


def test_version_is_a_word_too() -> None:
    done = CliRunner().invoke(app, ["version"])
    assert (done.exit_code, done.stdout) == (0, f"stylecli {stylecli.__version__}\n")


@pytest.mark.parametrize(
    "words",
    [["generate", "--network"], ["info"], ["train"], ["pack"], ["train", "a.lmdb", "--resume"]],
    ids=" ".join,
)
def test_an_address_is_answered_with_how_to_download(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*words, "https://example.org/ffhq.pkl"])

    assert done.exit_code == 3
    assert "curl -L -O 'https://example.org/ffhq.pkl'" in done.stderr

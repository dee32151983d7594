"""Wrong command lines: one sentence with the word, near names, and other tools' names for ours."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import stylecli
from stylecli.cli.app import app

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

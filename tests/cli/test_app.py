"""The command as a whole: version, help, errors as one sentence each, exit codes."""

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import stylecli
from stylecli import __main__ as command_line
from stylecli import errors
from stylecli.cli import app as application

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]")

ERRORS = [
    (errors.StyleCLIError, 1),
    (errors.UsageError, 2),
    (errors.DataError, 3),
    (errors.NetworkError, 3),
    (errors.WeightsError, 3),
    (errors.DeviceError, 4),
    (errors.Interrupted, 130),
]


def raising(error: BaseException) -> Any:
    def find(*_: Any) -> None:
        raise error

    return find


def test_the_version_is_printed_alone() -> None:
    result = CliRunner().invoke(application.app, ["--version"])

    assert (result.exit_code, result.stdout) == (0, f"stylecli {stylecli.__version__}\n")


def test_a_module_call_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stylecli", "--version"], capture_output=True, text=True, check=True
    )

    assert done.stdout == f"stylecli {stylecli.__version__}\n"


def test_the_console_script_is_this_command() -> None:
    scripts = [entry for entry in entry_points(group="console_scripts") if entry.name == "stylecli"]
    if not scripts:
        pytest.skip("the package is not installed in this environment")

    assert scripts[0].load() is command_line.main


def test_ctrl_c_while_modules_load_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(application, "main", raising(KeyboardInterrupt()))

    with pytest.raises(SystemExit) as ended:
        command_line.main()

    assert ended.value.code == 130
    assert capsys.readouterr().err == f"stylecli: {errors.INTERRUPTED_TEXT}\n"


def test_without_a_word_the_help_is_shown() -> None:
    result = CliRunner().invoke(application.app, [])

    assert "Example: stylecli demo" in result.output
    assert "interpolate" in result.output


@pytest.mark.parametrize(("kind", "code"), ERRORS)
def test_an_error_is_one_line_on_stderr_and_its_exit_code(
    kind: type[errors.StyleCLIError], code: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr("stylecli.cli.metrics.find_shown", raising(kind("what - expected - run")))

    result = CliRunner().invoke(application.app, ["metrics"])

    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == "stylecli: what - expected - run\n"


def test_every_kind_of_error_has_an_exit_code_here() -> None:
    kinds = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.StyleCLIError)
    }

    assert kinds == {kind for kind, _ in ERRORS}


def test_an_interruption_says_how_to_go_on(monkeypatch: Any) -> None:
    monkeypatch.setattr("stylecli.cli.report.newest_run", raising(KeyboardInterrupt()))

    result = CliRunner().invoke(application.app, ["report"])

    assert result.exit_code == 130
    assert result.stderr == f"stylecli: {errors.INTERRUPTED_TEXT}\n"


def test_debugging_brings_the_traceback_back(monkeypatch: Any) -> None:
    monkeypatch.setenv("STYLECLI_DEBUG", "1")
    monkeypatch.setattr("stylecli.cli.metrics.find_shown", raising(errors.DataError("x")))

    result = CliRunner().invoke(application.app, ["metrics"])

    assert isinstance(result.exception, errors.DataError)


@pytest.mark.parametrize("words", [["paint"], ["mix", "--rows"], ["metrics", "--samples", "one"]])
def test_a_wrong_command_line_is_a_usage_error(words: list[str]) -> None:
    result = CliRunner().invoke(application.app, words)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("stylecli: ") and words[-1] in result.stderr


@pytest.mark.parametrize("command", ["generate", "mix", "interpolate", "metrics", "train", "info"])
def test_nothing_to_work_on_is_one_sentence(command: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stylecli.shipped.shipped_network", lambda: None)

    result = CliRunner().invoke(application.app, [command])

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("stylecli: ")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_system_error_is_one_sentence(tmp_path: Path, tiny_network_file: Path) -> None:
    (tmp_path / "blocked").write_text("a file where a folder is wanted")
    out = str(tmp_path / "blocked" / "pictures")
    arguments = ["generate", "--network", str(tiny_network_file), "--seeds", "1", "--out", out]
    result = CliRunner().invoke(application.app, [*arguments, "--quiet"])
    assert result.exit_code == 1
    assert "blocked" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RecursionError("too deep"), KeyError("x"), OSError(122, "Disk quota exceeded")],
    ids=lambda error: type(error).__name__,
)
def test_the_last_net_holds_every_error(error: BaseException, monkeypatch: Any) -> None:
    monkeypatch.setattr("stylecli.cli.report.newest_run", raising(error))

    result = CliRunner().invoke(application.app, ["report"])

    text, code = errors.explain(error)
    assert (result.exit_code, result.stderr) == (code, f"stylecli: {text}\n")


ESCAPES = "a\x1b]0;PWN\x07\x1b[2J\x9b31m\u202e"


@pytest.mark.parametrize(
    "words",
    [
        [ESCAPES], [f"--{ESCAPES}"], ["mix", f"--{ESCAPES}"], ["mix", "--psi", ESCAPES],
        ["mix", "--rows", ESCAPES], ["info", ESCAPES], ["version", ESCAPES], ["doctor", ESCAPES],
        ["generate", "--network", ESCAPES], ["generate", "--seeds", ESCAPES], ["check", ESCAPES],
        ["weights", ESCAPES], ["weights", "fetch", ESCAPES], ["weights", "add", ESCAPES, ESCAPES],
        ["pack", ESCAPES], ["train", ESCAPES], ["train", "--preset", ESCAPES],
        ["report", ESCAPES], ["metrics", ESCAPES], ["convert", ESCAPES], ["figures", ESCAPES],
        ["interpolate", "--kind", ESCAPES], ["plan", ESCAPES], ["prepare-ffhq", ESCAPES],
        ["bench", "--device", ESCAPES], ["generate", "--device", ESCAPES],
    ],
)  # fmt: skip
def test_what_is_typed_is_repeated_without_control_characters(
    words: list[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(application.app, words)

    assert result.exit_code in (1, 2, 3, 4)
    assert "failed unexpectedly" not in result.stderr
    assert CONTROL.search(result.output) is None


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_letters_that_the_terminal_lacks_end_no_command(encoding: str, tmp_path: Path) -> None:
    folder = tmp_path / "猫"
    folder.mkdir()
    for words in (["info", str(folder)], ["mix", "--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "stylecli", *words], capture_output=True, cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": encoding}, check=False,
        )  # fmt: skip

        assert b"Traceback" not in done.stderr
        assert done.returncode == (0 if "--help" in words else 3)
        assert "--help" in words or rb"\u732b" in done.stderr


def test_a_tilde_behind_an_equals_sign_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(application.app, ["pack", "none", "--out=~/x.lmdb", "--labels=~/l"])
    assert result.exit_code == 3
    assert application._expand_home("--out=~/x") == f"--out={tmp_path}/x"
    for text in ("--seeds=1,2", "--out=x~", "~/x", "-o=~"):
        assert application._expand_home(text) == text
    result = CliRunner().invoke(application.app, ["pack", "x", "--out=~nobody-of-this-name/x"])
    assert result.exit_code == 2 and "~nobody-of-this-name/x" in result.output
    assert not list(tmp_path.iterdir())


def test_every_command_sweeps_what_killed_ones_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".grid-abcd1234.part").mkdir()
    CliRunner().invoke(application.app, ["info", "none"])
    assert not list(tmp_path.iterdir())

"""The one sink: what goes to stdout, what to stderr, and what --quiet and --json do to it."""

import json
from pathlib import Path
from typing import Any

import pytest

from stylecli.cli.output import Output, lay_out_table, wrap_words


def test_numbers_that_json_has_not_are_null(capsys: Any) -> None:
    Output(json=True).result({"loss": float("nan"), "most": float("inf"), "NaN": "NaN"}, [])
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "loss": None, "most": None, "NaN": "NaN"
    }  # fmt: skip


def test_results_are_lines_on_stdout(capsys: Any) -> None:
    Output().result({"path": "a.png"}, ["a.png", "b.png"])

    assert capsys.readouterr() == ("a.png\nb.png\n", "")


def test_json_is_one_document_instead_of_the_lines(capsys: Any) -> None:
    Output(json=True).result({"path": Path("é.png"), "value": None}, ["é.png"])

    out, err = capsys.readouterr()
    assert json.loads(out) == {"path": "é.png", "value": None}
    assert err == ""


def test_notes_go_to_stderr_unless_quiet(capsys: Any) -> None:
    Output().note("using demo/run")
    Output(quiet=True).note("unheard")

    assert capsys.readouterr() == ("", "using demo/run\n")


def test_warnings_are_heard_even_when_quiet(capsys: Any) -> None:
    Output(quiet=True).warn("2 pictures were skipped")

    assert capsys.readouterr() == ("", "warning: 2 pictures were skipped\n")


def test_a_table_is_aligned_without_trailing_space() -> None:
    lines = Output().table(("metric", "value"), [("ppl_wfull", "38.1"), ("kid", "0")])

    assert lines == ["metric     value", "ppl_wfull  38.1", "kid        0"]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_message_breaks_between_words_and_keeps_commands_whole(width: int) -> None:
    text = (
        "there is no dataset in this folder: make one with stylecli pack photos/cats --resolution "
        "256, or give --data datasets/a-rather-long-name-of-a-dataset.lmdb"
    )
    lines = wrap_words(text, width)

    assert " ".join(line.strip() for line in lines) == text
    assert len(lines) > 1
    if width >= 80:
        assert all(len(line) <= width for line in lines)
        assert any("stylecli pack photos/cats --resolution 256" in line for line in lines)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_table_uses_the_width_and_wraps_the_longest_cells(width: int) -> None:
    rows = [("what", "value"), ("near duplicates", "12 of 300 pictures " * 6), ("path", "x" * 20)]
    lines = lay_out_table(rows, width)

    assert all(len(line) <= width for line in lines)
    assert len(lines) > 3 and lines[-1].startswith("path")
    assert lay_out_table(rows, 400) == lay_out_table(rows)


SAID = """
import sys
from stylecli.cli.output import Output, print_error
output = Output()
output.note("training in here.txt, which is a file of this folder, not in gone.txt that is none")
output.warn("two words")
print_error("this is wrong")
output.result({}, ["here.txt"])
"""


def test_colour_says_what_a_line_is_and_where_a_path_is(tmp_path: Path) -> None:
    screens = pytest.importorskip("tests.cli.screens", exc_type=ImportError)
    (tmp_path / "here.txt").touch()
    terminal = screens.Terminal(screens.python(SAID), folder=tmp_path, columns=60)
    terminal.read()
    first, second, warning, error, result = terminal.lines()
    rows = terminal.screen.buffer

    assert (first, second) == (
        "training in here.txt, which is a file of this folder, not in",
        "  gone.txt that is none",
    )
    colours = [rows[0][12].fg, rows[1][2].fg, rows[2][0].fg, rows[3][0].fg, rows[4][0].fg]
    assert colours == ["cyan", "default", "brown", "red", "cyan"]  # brown: ANSI's dark yellow
    assert (warning, error, result) == ("warning: two words", "stylecli: this is wrong", "here.txt")

    plain = screens.Terminal(screens.python(SAID), folder=tmp_path, settings={"NO_COLOR": "1"})
    plain.read()
    used = {plain.screen.buffer[row][column].fg for row in range(6) for column in range(80)}
    assert used == {"default"}


def test_the_notice_about_the_shipped_network_is_one_short_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylecli.workspace import find_network

    monkeypatch.chdir(tmp_path)
    notice = f"network: {find_network().shown}"
    assert len(notice) <= 78 and "/" not in notice and "shipped" not in notice

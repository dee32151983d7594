"""The one sink: what goes to stdout, what to stderr, and what --quiet and --json do to it."""

import json
from pathlib import Path
from typing import Any

import pytest

from stylecli.cli.output import Output


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

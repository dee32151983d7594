"""The one sink: what goes to stdout, what to stderr, and what --quiet and --json do to it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from stylecli.cli.output import Output, format_seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"), (0.4, "0s"), (42, "42s"), (59.6, "1m00s"), (185, "3m05s"),
        (7800, "2h10m"), (4 * 86400 + 7200, "4d02h"),
    ],
)  # fmt: skip
def test_durations_are_short(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


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


def test_plain_progress_ends_with_one_line_of_what_it_took(capsys: Any) -> None:
    with Output().progress("packing", "pictures") as report:
        for done in range(5):
            report(done, 4)
        report(4, 4)

    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("packing: 4/4 pictures, ")
    assert "took 0s" in err


def test_plain_progress_speaks_every_ten_seconds_of_rate_and_time_left(
    capsys: Any, monkeypatch: Any
) -> None:
    clock = iter([0.0, 1.0, 9.0, 11.0, 12.0])
    monkeypatch.setattr("stylecli.cli.output.time.monotonic", lambda: next(clock))

    with Output().progress("training", "kimg") as report:
        for done in (0, 8, 10, 11):
            report(done, 32, "32 px")

    assert capsys.readouterr().err == "training: 10/32 kimg, 0.9 kimg/s, 24s left, 32 px\n"


def test_work_without_a_unit_still_has_a_rate(capsys: Any, monkeypatch: Any) -> None:
    clock = iter([0.0, 0.0, 2.0])
    monkeypatch.setattr("stylecli.cli.output.time.monotonic", lambda: next(clock))

    with Output().progress("metrics") as report:
        report(0, 10)
        report(10, 10)

    assert capsys.readouterr().err == "metrics: 10/10, 5.0/s, took 2s\n"


def test_quiet_work_reports_nothing(capsys: Any) -> None:
    with Output(quiet=True).progress("packing", "pictures") as report:
        report(1, 1)

    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_live_bar_and_stdout_stays_clean(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    with Output().progress("training", "kimg") as report:
        report(0, 2)
        report(2, 2, "loss 0.5")

    out, err = capsys.readouterr()
    assert out == ""
    assert "training" in err
    assert "2/2 kimg" in err
    assert "loss 0.5" in err

"""The one sink: what goes to stdout, what to stderr, and what --quiet and --json do to it."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from stylecli.cli.output import (
    Output,
    format_rate,
    lay_out_bar,
    lay_out_table,
    wrap_words,
)


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


SHOWN = """
import numpy as np
from stylecli.cli.output import Output

picture = np.zeros((4, 8, 3), np.uint8)
picture[:2] = 255, 0, 0
Output(quiet=QUIET).picture(picture)
print("after")
"""


def test_a_picture_is_shown_where_there_are_colours(tmp_path: Path) -> None:
    screens = pytest.importorskip("tests.cli.screens", exc_type=ImportError)
    script = screens.python(SHOWN.replace("QUIET", "False"))
    settings = {"COLORTERM": "truecolor"}
    terminal = screens.Terminal(script, folder=tmp_path, settings=settings)
    terminal.read()
    assert terminal.lines()[:3] == ["▀" * 8, "▀" * 8, "after"]
    cells = [terminal.screen.buffer[row][7] for row in (0, 1)]
    assert [(cell.fg, cell.bg) for cell in cells] == [("ff0000", "ff0000"), ("000000", "000000")]
    for other in ({"settings": {"NO_COLOR": "1"}}, {"quiet": "True"}):
        said = screens.python(SHOWN.replace("QUIET", other.get("quiet", "False")))
        plain = screens.Terminal(said, folder=tmp_path, settings=other.get("settings", {}))
        plain.read()
        assert plain.lines()[0] == "after"


DAYS = """
import time
from stylecli.cli.output import Output

with Output().progress("training", "kimg", lambda done: 12.75 * 86400) as report:
    report(8123.0, 25000, "1024 px fading in 40%, 41.2 sec/kimg, loss G 1.23 D 1.01, 37152 MiB")
    time.sleep(0.3)
    report(8123.512, 25000, "1024 px fading in 40%, 41.2 sec/kimg, loss G 1.23 D 1.01, 37152 MiB")
    time.sleep(60)
"""
SHORT = """
import time
from stylecli.cli.output import Output

with Output().progress("packing", "pictures") as report:
    for done in range(287):
        report(done, 286, "2 skipped")
        time.sleep(0.001)
"""


@pytest.mark.parametrize(
    ("per_second", "unit", "text"),
    [
        (0.0243, "kimg", "24.3 pictures/s"), (1.5, "kimg", "1,500 pictures/s"),
        (0.0004, "kimg", "2,500 s/kimg"), (0.2, "frames", "5.0 s/frame"), (0.5, "", "2.0 s/step"),
        (0.4, "MB", "0.4 MB/s"), (123.4, "faces", "123 faces/s"),
    ],
)  # fmt: skip
def test_a_rate_is_never_nought(per_second: float, unit: str, text: str) -> None:
    assert format_rate(per_second, unit) == text


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_the_bar_of_days_shows_what_counts(columns: int) -> None:
    screens = pytest.importorskip("tests.cli.screens", exc_type=ImportError)
    terminal = screens.Terminal(screens.python(DAYS), columns=columns)
    assert terminal.read(lambda lines: any("/s" in line for line in lines))
    first, second = terminal.lines()
    terminal.type("\x03")
    terminal.read()

    assert re.match(r"training   32%  ━+╌+  ", first)
    assert re.search(r"  [\d,.]+ pictures/s  12d18h left  1024 px fading in 40%", first)
    assert ("8,123.5/25,000 kimg" in first) == (columns >= 100)
    assert ("41.2 sec/kimg" in second) == (columns < 120)  # what has no room stands below
    assert not any("training" in line for line in terminal.lines())  # no stale copy


def test_a_finished_bar_shows_the_time_it_took() -> None:
    screens = pytest.importorskip("tests.cli.screens", exc_type=ImportError)
    (line,) = screens.screen_of(screens.python(SHORT))
    assert re.match(r"packing  100%  ━+  286/286 pictures  [\d,]+ pictures/s  took \ds", line)


def test_warnings_stand_above_the_bar_and_no_copy_of_it_stays() -> None:
    screens = pytest.importorskip("tests.cli.screens", exc_type=ImportError)
    code = SHORT + '        if done == 99: Output().warn("p99.png is damaged")\n'
    lines = screens.screen_of(screens.python(code))
    assert [line.split()[0] for line in lines] == ["warning:", "packing"]


def test_lines_of_json_stand_above_the_bar() -> None:
    """``train --log jsonl`` on a terminal, where both would be written into one line."""
    screens = pytest.importorskip("tests.cli.screens", exc_type=ImportError)
    row = {"tick": 1, "note": "[red]:smile: " + "x" * 90}
    code = SHORT + f"        if done in (99, 199): Output().line({row})\n"
    *above, bar = screens.screen_of(screens.python(code))
    assert bar.startswith("packing  100%")
    written = json.dumps(row, separators=(",", ":"))
    assert above == [written[:80], written[80:]] * 2


@pytest.mark.parametrize("width", range(20, 140, 3))
def test_no_line_is_wider_than_there_is_room(width: int) -> None:
    parts = [("8,123.5/25,000 kimg", 3), ("24.3 pictures/s", 1), ("12d18h left", 0), ("32 px", 2),
             *((f"remark {n}", n) for n in range(4, 12))]  # fmt: skip
    lines = lay_out_bar(width, "a long title", 0.5, parts)

    assert len(lines) <= 2
    assert all(len(line) <= max(width, 18) for line in lines)
    assert ("12d18h left" in lines[0]) == (width >= 18 + 2 + 6 + 13)


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


class Clock:
    """A clock that tests turn on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("stylecli.cli.output.time.monotonic", lambda: self.now)


def test_plain_progress_speaks_every_ten_seconds_of_rate_and_time_left(
    capsys: Any, monkeypatch: Any
) -> None:
    clock = Clock(monkeypatch)
    with Output().progress("training", "kimg") as report:
        for clock.now, done in ((1.0, 0), (9.0, 8.0), (11.0, 10.0), (12.0, 11)):
            report(done, 32, "32 px")

    said = capsys.readouterr().err
    assert said == "training: 10/32 kimg, 1,000 pictures/s, 22s left, 32 px\n"


def test_the_rate_is_that_of_the_last_minute(capsys: Any, monkeypatch: Any) -> None:
    clock = Clock(monkeypatch)
    with Output().progress("training", "kimg") as report:
        for clock.now in range(1, 200):
            report(min(clock.now, 100) + 0.1 * max(0, clock.now - 100), 1000)

    assert "100.0 pictures/s" in capsys.readouterr().err.splitlines()[-1]


def test_work_without_a_unit_still_has_a_rate(capsys: Any, monkeypatch: Any) -> None:
    clock = Clock(monkeypatch)
    with Output().progress("metrics") as report:
        report(0, 10)
        clock.now = 2.0
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


def test_no_spinner_turns_under_a_bar() -> None:
    """``doctor`` loads torch while its bar is drawn: every turn was a line of its own."""
    screens = pytest.importorskip("tests.cli.screens", exc_type=ImportError)
    code = "import time\nfrom stylecli.cli.output import live_bar, loading\n" + (
        "with loading('numpy'):\n    time.sleep(0.6)\n"
        "with live_bar('checking', 'cases') as report:\n"
        "    with loading('torch'):\n        time.sleep(0.6)\n    report(1, 1)\n"
    )
    (line,) = screens.screen_of(screens.python(code))
    assert line.startswith("checking  100%")

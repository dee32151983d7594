"""``stylecli report``: where the page goes, what is printed, what is refused."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stylecli.cli.app import app
from tests.report.made_runs import make_run


def test_bare_it_takes_the_run_written_to_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/00000-new"))
    old = make_run(Path("runs/00001-old"), finished=True)
    for path in old.iterdir():
        os.utime(path, (1_600_000_000, 1_600_000_000))

    done = CliRunner().invoke(app, ["report"])
    assert (done.exit_code, done.stdout) == (0, "runs/00000-new/report.html\n")
    assert done.stderr.splitlines()[0] == "using runs/00000-new, the newest run"
    assert Path("runs/00000-new/report.html").is_file()


def test_the_same_command_brings_the_page_up_to_date(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    first = CliRunner().invoke(app, ["report", str(run)])
    second = CliRunner().invoke(app, ["report", str(run)])

    assert (first.exit_code, second.exit_code) == (0, 0)


def test_a_file_that_is_no_report_is_not_overwritten(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    page = tmp_path / "thesis.html"
    page.write_text("<p>years of work")

    refused = CliRunner().invoke(app, ["report", str(run), "--out", str(page)])
    assert refused.exit_code == 2 and "thesis.html exists" in refused.stderr
    assert page.read_text() == "<p>years of work"

    forced = CliRunner().invoke(app, ["report", str(run), "--out", str(page), "--force"])
    assert forced.exit_code == 0 and page.read_text().startswith("<!doctype html>")


def test_the_facts_are_one_document(tmp_path: Path) -> None:
    runs = [str(make_run(tmp_path / name)) for name in ("a", "b")]
    out = tmp_path / "both.html"

    done = CliRunner().invoke(app, ["report", *runs, "--out", str(out), "--json", "--quiet"])
    document = json.loads(done.stdout)
    assert document["bytes"] == out.stat().st_size and done.stderr == ""
    assert [run["kimg"] for run in document["runs"]] == [60.0, 60.0]
    assert document["runs"][0]["settings"]["training"]["r1_gamma"] == 1.0


def test_what_is_no_run_ends_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    nothing = CliRunner().invoke(app, ["report"])
    assert nothing.exit_code == 3 and "there is no run in this folder" in nothing.stderr
    folder = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert folder.exit_code == 3 and "is not a run" in folder.stderr

"""What the page may see: names that are listed, whatever strangers call their files."""

import json
import os
import re
from pathlib import Path

import pytest

import stylecli.explorer
from stylecli.explorer.states import NotListedError
from stylecli.explorer.workplace import Workplace
from tests.report.made_runs import make_run

HOSTILE = ("<img src=x onerror=alert(1)>", "a' onmouseover='x", "\x1b[2J", "\u202egnp.exe", "100%")


@pytest.mark.skipif(os.name == "nt", reason="Windows refuses these names itself")
def test_hostile_names_are_data_in_every_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(HOSTILE):
        make_run(Path(f"runs/{number:05d}-{name}"))
    listed = Workplace().list_runs()["runs"]

    assert sorted(row["name"] for row in listed) == sorted(
        f"runs/{number:05d}-{name}" for number, name in enumerate(HOSTILE)
    )
    for row in listed:
        assert Workplace().describe_run(row["name"])["name"] == row["name"]


SPOILT = (
    ("run.json", "[" * 5000), ("run.json", '{"format": 1, "dataset": 3.5, "stylecli": []}'),
    ("run.json", "[]"), ("run.json", "\0"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "text"), SPOILT, ids=["deep", "types", "list", "binary"])
def test_a_run_that_cannot_be_read_says_why_and_hides_no_other(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/00000-good"))
    (make_run(Path("runs/00001-spoilt")) / name).write_text(text, encoding="utf-8")
    rows = {row["name"]: row for row in Workplace().list_runs()["runs"]}

    assert rows["runs/00000-good"]["state"] != "unreadable"
    assert rows["runs/00001-spoilt"]["state"] == "unreadable"
    assert "run.json" in rows["runs/00001-spoilt"]["reason"]


def test_a_chart_says_all_that_the_page_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/00000-a"))
    script = Path(stylecli.explorer.__file__).parent / "page" / "charts.js"
    read = set(re.findall(r"\bchart\.(\w+)", script.read_text("utf-8")))

    assert "clip" in read
    for chart in Workplace().describe_run("runs/00000-a")["charts"]:
        assert read <= set(chart)


def test_numbers_that_are_none_leave_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(Path("runs/00000-a"))
    rows = (run / "stats.jsonl").read_text(encoding="utf-8").splitlines()
    spoilt = json.loads(rows[2]) | {"loss_G": "<script>", "loss_D": [1]}
    rows[2] = json.dumps(spoilt).replace("[1]", "NaN")
    (run / "stats.jsonl").write_text("\n".join([*rows, "{torn"]), encoding="utf-8")
    facts = Workplace().describe_run("runs/00000-a")

    assert "NaN" not in json.dumps(facts, allow_nan=False) and "<script>" not in json.dumps(facts)
    assert None in facts["charts"][0]["lines"][0]["ys"]


def test_a_run_is_curves_events_and_sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/00000-a"))
    facts = Workplace().describe_run("runs/00000-a")
    before = Workplace().run_state("runs/00000-a")
    with open("runs/00000-a/stats.jsonl", "a", encoding="utf-8") as file:
        file.write("\n")

    losses = facts["charts"][0]
    assert losses["title"] == "Losses" and len(losses["lines"]) == 2
    assert all(len(line["xs"]) == len(line["ys"]) for line in losses["lines"])
    assert facts["sheets"] == sorted(facts["sheets"]) and facts["sheets"]
    sheet = Workplace().find_sheet("runs/00000-a", str(facts["sheets"][-1]))
    assert sheet.is_file() and sheet.parent == Path("runs/00000-a")
    assert Workplace().run_state("runs/00000-a") != before


@pytest.mark.parametrize(
    "name", ["", "..", "/", "runs", "runs/00000-a/..", "./runs/00000-a", "runs/00000-a/", "\0"]
)
def test_only_listed_runs_are_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/00000-a"))
    for look in (Workplace().find_run, Workplace().describe_run):
        with pytest.raises(NotListedError):
            look(name)
    if name:
        with pytest.raises(NotListedError):
            Workplace().find_network(name)
    for nimg in ("x", "-1", "999999999999", "٣"):
        with pytest.raises(NotListedError):
            Workplace().find_sheet("runs/00000-a", nimg)


@pytest.mark.parametrize("name", ["../x", "", "a/b", "a\\b", "...", "a\nb", "x" * 61])
def test_a_face_is_kept_in_its_folder_alone(name: str) -> None:
    with pytest.raises(NotListedError):
        Workplace().kept_face(Path("net.safetensors"), name)

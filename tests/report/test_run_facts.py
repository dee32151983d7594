"""Reading runs: whole and torn, going on and gone, with gaps and without numbers."""

import json
import math
import os
from pathlib import Path

import pytest

from stylecli.errors import NetworkError, UsageError
from stylecli.report.run_facts import read_all, read_facts, read_metrics
from tests.report.made_runs import make_event, make_row, make_run, write_rows

OLD = 1_600_000_000  # seconds since 1970: long before any test


def _make_old(run: Path) -> None:
    for path in run.iterdir():
        os.utime(path, (OLD, OLD))


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "00000-a", ticks=3)
    with open(run / "stats.jsonl", "a") as file:
        file.write('{"tick": 4, "nimg": 80')

    assert [row["tick"] for row in read_facts(run).rows] == [1, 2, 3]


def test_of_two_rows_for_one_moment_the_later_counts(tmp_path: Path) -> None:
    run = make_run(tmp_path / "00000-a", ticks=3, kimg=60)
    write_rows(run / "stats.jsonl", [make_row(2, 40_000, loss_G=9.0)])

    facts = read_facts(run)
    assert [row["nimg"] for row in facts.rows] == [20_000, 40_000, 60_000]
    assert facts.column("loss_G")[1] == 9.0


def test_what_a_row_lacks_is_a_gap(tmp_path: Path) -> None:
    run = make_run(tmp_path / "00000-a", ticks=1)
    write_rows(run / "stats.jsonl", [{"tick": 2, "nimg": 70_000, "kimg": 70.0, "loss_G": None}])

    assert math.isnan(read_facts(run).column("loss_G")[-1])


def test_a_finished_run_says_so(tmp_path: Path) -> None:
    assert read_facts(make_run(tmp_path / "a", finished=True)).state == "finished"


def test_a_run_is_going_on_while_its_process_lives(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    (run / "writer.lock").write_text(str(os.getpid()))
    _make_old(run)

    assert read_facts(run).state == "in progress"


def test_a_run_written_to_just_now_seems_to_go_on(tmp_path: Path) -> None:
    facts = read_facts(make_run(tmp_path / "a"))

    assert facts.state == "in progress" and "probably" in facts.reason


def test_a_run_that_died_is_stopped_without_a_reason(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    _make_old(run)

    facts = read_facts(run)
    assert facts.state == "stopped" and "no reason" in facts.reason


@pytest.mark.parametrize(
    ("event", "text"), [("stopped", "Ctrl-C"), ("warning", "loss_G is not finite")]
)
def test_the_last_event_says_why_a_run_stopped(tmp_path: Path, event: str, text: str) -> None:
    run = make_run(tmp_path / "a")
    rows = [make_event(0, "started"), make_event(60_000, event, text), make_event(60_000, "saved")]
    write_rows(run / "events.jsonl", rows)
    _make_old(run)

    facts = read_facts(run)
    assert facts.state == "stopped" and text in facts.reason


def test_saving_and_the_first_start_are_not_worth_a_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    names = ["started", "saved", "started", "saved", "rollback"]
    write_rows(run / "events.jsonl", [make_event(0, name) for name in names])

    assert [row["event"] for row in read_facts(run).notable] == ["started", "rollback"]


def test_the_facts_are_strict_json(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", ticks=1)
    write_rows(run / "stats.jsonl", [make_row(2, 90_000, loss_G=math.nan, loss_D=math.inf)])

    document = json.loads(json.dumps(read_facts(run).to_dict(), allow_nan=False))
    assert document["last_tick"]["loss_G"] is None and document["kimg"] == 90.0


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / folder / "00000-a") for folder in ("x", "y")]

    first, second = (facts.name for facts in read_all(runs))
    assert first != second


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run = make_run(tmp_path / "a")

    with pytest.raises(NetworkError, match="does not exist"):
        read_facts(tmp_path / "none")
    with pytest.raises(NetworkError, match="is a file"):
        read_facts(run / "run.json")
    with pytest.raises(NetworkError, match="not a run"):
        read_facts(tmp_path / "empty")
    with pytest.raises(UsageError, match="twice"):
        read_all([run, run])


def _row(kimg: int, value: float, name: str = "kid", **more: object) -> dict[str, object]:
    return {"nimg": 1000 * kimg, "kimg": kimg, "name": name, "value": value, "std": 0.1 * value,
            **more}  # fmt: skip


def test_values_stand_in_order_with_their_spread(tmp_path: Path) -> None:
    write_rows(tmp_path / "metric-kid.jsonl", [_row(20, 0.2), _row(10, 0.5)])

    (metric,) = read_metrics(tmp_path)
    assert [(value.kimg, value.value) for value in metric.values] == [(10, 0.5), (20, 0.2)]
    assert metric.values[1].std == pytest.approx(0.02)


def test_the_best_is_the_least_distance_or_the_most_diversity(tmp_path: Path) -> None:
    for name in ("kid", "diversity"):
        more = {"higher_is_better": True} if name == "diversity" else {}
        rows = [_row(kimg, value, name, **more) for kimg, value in ((1, 0.5), (2, 0.2), (3, 0.9))]
        write_rows(tmp_path / f"metric-{name}.jsonl", rows)

    best = {metric.name: metric.best for metric in read_metrics(tmp_path)}
    assert best == {"kid": 1, "diversity": 2}


def test_rows_of_the_metrics_command_are_placed_by_their_snapshot(tmp_path: Path) -> None:
    row = {
        "metric": "kid", "snapshot": "network-snapshot-000150016.safetensors",
        "results": {"kid": 0.12, "kid_std": 0.003}, "definition": {"fakes": 500},
    }  # fmt: skip
    write_rows(tmp_path / "metric-kid.jsonl", [row, {**row, "snapshot": "elsewhere.safetensors"}])

    (metric,) = read_metrics(tmp_path)
    assert [(value.kimg, value.std) for value in metric.values] == [(150.016, 0.003)]
    assert metric.title == "kid, 500 pictures"


def test_values_from_other_numbers_of_pictures_are_no_one_curve(tmp_path: Path) -> None:
    rows = [_row(1, 0.5, definition={"fakes": 500}), _row(2, 0.4, definition={"fakes": 2000})]
    write_rows(tmp_path / "metric-kid.jsonl", rows)

    assert [metric.samples for metric in read_metrics(tmp_path)] == [2000, 500]


def test_torn_lines_and_missing_values_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metric-kid.jsonl"
    write_rows(path, [_row(1, 0.5), {**_row(2, 0.0), "value": None, "std": None}])
    path.write_text(path.read_text() + '{"nimg": 3')

    (metric,) = read_metrics(tmp_path)
    assert [value.kimg for value in metric.values] == [1]

"""Metrics of a run: from training and from the metrics command, by kimg, the best found."""

from pathlib import Path

import pytest

from stylecli.report.run_measurements import read_metrics
from tests.report.made_runs import write_rows


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
        rows = [_row(kimg, value, name) for kimg, value in ((1, 0.5), (2, 0.2), (3, 0.9))]
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

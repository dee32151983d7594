"""The page of a run and of several: what is on it, whatever the run is like."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stylecli.errors import UsageError
from stylecli.report.run_facts import read_all, read_facts
from stylecli.report.run_page import write_comparison, write_run_report
from tests.report.made_runs import make_event, make_row, make_run, save_sheet, write_rows


def _page(run: Path) -> str:
    write_run_report(run / "report.html", read_facts(run))
    return (run / "report.html").read_text(encoding="utf-8")


def _charts(page: str) -> Iterator[tuple[str, str]]:
    """Yield every chart of a page, by what is read aloud of it, and its SVG."""
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        yield re.search(r'aria-label="([^"]*)"', svg)[1], svg  # type: ignore[index]


def test_every_curve_that_was_recorded_is_drawn(tmp_path: Path) -> None:
    titles = [spoken.split(",")[0] for spoken, _ in _charts(_page(make_run(tmp_path / "a")))]

    assert titles == [
        "Losses", "What the discriminator thinks", "Diversity", "R1 penalty", "Time",
        "Waiting for pictures", "Memory", "Learning rate", "Batch",
    ]  # fmt: skip


def test_a_run_of_one_tick_and_a_run_of_none_have_a_page(tmp_path: Path) -> None:
    one = _page(make_run(tmp_path / "one", ticks=1, sheets=0))
    none = make_run(tmp_path / "none", ticks=1, sheets=0)
    (none / "stats.jsonl").unlink()

    assert "<circle" in one and "No sample sheets yet" in one
    assert "No ticks yet" in _page(none)


def test_losses_that_are_not_finite_leave_gaps_and_are_counted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", ticks=10)
    rows = [make_row(tick, tick * 6_000, loss_G=math.nan) for tick in (7, 8)]
    write_rows(run / "stats.jsonl", rows)

    page = _page(run)
    assert "In 2 of 10 ticks a loss was not finite" in page
    losses = next(svg for spoken, svg in _charts(page) if spoken.startswith("Losses"))
    path = re.search(r'class="line c0" d="([^"]*)"', losses)
    assert path and path[1].count("M") == 2


def test_events_stand_in_the_table_and_in_the_curves(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    events = [("started", ""), ("saved", ""), ("warning", "D is <winning>"), ("rollback", "back")]
    rows = [make_event(20_000 * index, *event) for index, event in enumerate(events)]
    write_rows(run / "events.jsonl", rows)

    page = _page(run)
    assert '<tr class="marked"><td class="right">1</td>' in page
    assert "D is &lt;winning&gt;" in page and "<winning>" not in page
    assert page.count('path class="mark grave"') == 2 * len(list(_charts(page)))


def test_a_long_story_is_cut_to_its_end(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    write_rows(run / "events.jsonl", [make_event(i * 100, "resumed") for i in range(200)])

    page = _page(run)
    assert "The newest 60 of 200 events" in page
    assert ">200</td>" in page and ">140</td>" not in page


def test_the_best_value_of_a_metric_is_ringed_and_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    rows = [
        {"nimg": 1000 * kimg, "name": "kid", "value": value, "std": 0.01}
        for kimg, value in ((20, 0.5), (40, 0.2), (60, 0.3))
    ]
    write_rows(run / "metric-kid.jsonl", rows)
    best = {"network": "n", "nimg": 40_000, "kimg": 40.0, "metric": "kid", "value": 0.2}
    (run / "best.json").write_text(json.dumps(best))
    save_sheet(run / "fakes000040000.png", 16)

    page = _page(run)
    svg = next(svg for spoken, svg in _charts(page) if spoken.startswith("kid"))
    assert svg.count('class="best') == 1 and svg.count('class="spread') == 3
    assert "Best: 0.2 at 40 kimg" in page and "40 kimg · 16 px · best" in page


def test_changed_settings_stand_beside_the_presets(tmp_path: Path) -> None:
    page = _page(make_run(tmp_path / "a", r1_gamma=7.0, total_kimg=500.0))

    assert "nearest preset: small; 2 settings differ" in page
    assert '<td>r1_gamma</td><td class="right">7</td><td class="right">1</td>' in page
    assert '<td>total_kimg</td><td class="right">500</td><td class="right">200</td>' in page


def test_the_command_that_goes_on_leads_to_the_same_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", label_dim=3, r1_gamma=7.0, batch_base=8, mirror=True)

    line = re.search(r"stylecli train [^<]*", _page(run))[0]  # type: ignore[index]
    assert "--gamma 7 --mirror --batch 8 --labels --ranks 2" in line
    assert line.endswith(f"--out {run}")


@pytest.mark.parametrize("augment", ["none", "adaptive"])
def test_the_command_follows_how_few_pictures_there_are(
    augment: str, tmp_path: Path, tiny_lmdb: Path
) -> None:
    """24 pictures are augmented by themselves, so a run that is not has to ask for it."""
    (tmp_path / "faces.lmdb").symlink_to(tiny_lmdb)
    run = make_run(tmp_path / "a", augment=augment)

    line = re.search(r"stylecli train [^<]*", _page(run))[0]  # type: ignore[index]
    assert ("--augment none" in line) == (augment == "none")
    assert "--augment adaptive" not in line


def test_a_setting_without_an_option_leaves_the_command_open(tmp_path: Path) -> None:
    page = _page(make_run(tmp_path / "a", sample_psi=0.5))

    assert "With the options that started the run" in page


def test_a_configuration_of_no_preset_has_a_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    record = json.loads((run / "run.json").read_text())
    record["network"]["preset"] = "elsewhere"
    (run / "run.json").write_text(json.dumps(record))

    assert "Configuration elsewhere, which no preset has" in _page(run)


def test_a_finished_run_is_not_gone_on_with(tmp_path: Path) -> None:
    page = _page(make_run(tmp_path / "a", finished=True))

    assert "Finished: trained for 60 kimg" in page and "stylecli train " not in page


def test_thousands_of_rows_make_a_page_of_few_points(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", ticks=5000, kimg=25_000, total_kimg=25_000.0)

    assert len(_page(run)) < 2_000_000


def test_a_row_that_shoots_off_does_not_flatten_the_rest(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", ticks=100, kimg=100)
    write_rows(run / "stats.jsonl", [make_row(50, 50_000, loss_G=22_080.0)])

    losses = next(svg for spoken, svg in _charts(_page(run)) if spoken.startswith("Losses"))
    ticks = re.findall(r'class="tick y"[^>]*>([^<]*)<', losses)
    assert float(ticks[-1]) < 10
    assert "<title>2.208e+04 at 50</title>" in losses


def test_several_runs_lie_over_each_other(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", r1_gamma=7.0)]
    write_comparison(tmp_path / "runs.html", read_all(runs))

    page = (tmp_path / "runs.html").read_text(encoding="utf-8")
    spoken = dict(_charts(page))
    assert all("a goes from" in words and "b goes from" in words for words in spoken)
    assert '<td>r1_gamma</td><td class="right">1</td><td class="right">7</td>' in page
    assert "<td>lr_base</td>" not in page


def test_a_run_has_one_colour_in_all_charts(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b")]
    write_rows(runs[1] / "metric-kid.jsonl", [{"nimg": 9000, "name": "kid", "value": 0.5}])
    write_comparison(tmp_path / "runs.html", read_all(runs))

    page = (tmp_path / "runs.html").read_text(encoding="utf-8")
    keys = set(re.findall(r'class="key (c\d)"><i></i>(\w+)<', page))
    assert keys == {("c0", "a"), ("c1", "b")}


def test_more_runs_than_colours_are_refused(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(index), sheets=0) for index in range(7)]

    with pytest.raises(UsageError, match="at most 6"):
        write_comparison(tmp_path / "runs.html", read_all(runs))

"""``stylecli bench``: the table and the document, and what it refuses."""

import json

import pytest
from typer.testing import CliRunner

from stylecli.cli.app import app

QUICK = ["bench", "--small", "--resolutions", "8", "--repeats", "1", "--quiet"]


def test_every_case_has_a_row_and_a_record() -> None:
    done = CliRunner().invoke(
        app, [*QUICK, "--train", "--batches", "4", "--json", "--precisions", "float32,bf16"]
    )

    document = json.loads(done.stdout)
    names = [case["name"] for case in document["cases"]]
    assert done.exit_code == 0
    assert names[2:] == [
        "draw 8 px, batch 4, float32",
        "draw 8 px, batch 4, bf16",
        "train 8 px, batch 4, float32",
        "train 8 px, batch 4, bf16",
    ]
    assert all(0 < case["cpu_seconds"]["median"] for case in document["cases"])
    assert 0 < document["cases"][2]["share_of_ceiling"] <= 1


@pytest.mark.parametrize(("gain", "drawn"), [(2.0, ["float32", "bf16"]), (0.02, ["float32"])])
def test_bf16_is_measured_where_it_is_quicker(
    monkeypatch: pytest.MonkeyPatch, gain: float, drawn: list[str]
) -> None:
    for name, value in (("bf16_gain", gain), ("has_bf16_units", True)):
        monkeypatch.setattr(f"stylecli.hardware.{name}", lambda value=value: value)
    monkeypatch.setattr("stylecli.cli.bench.bf16_gain", lambda: gain)

    done = CliRunner().invoke(app, [*QUICK, "--device", "cpu", "--json"])

    document = json.loads(done.stdout)
    assert [case["name"].split()[-1] for case in document["cases"]] == drawn + drawn
    assert document["bf16_gain"] == gain


def test_numbers_that_are_none_are_refused() -> None:
    for wrong in (["--resolutions", "48"], ["--batches", "0"], ["--precisions", "half"]):
        done = CliRunner().invoke(app, [*QUICK, *wrong])

        assert done.exit_code == 2
        assert wrong[1] in done.stderr

"""The notebook of the documentation: its cells run, and what it shows is what they give."""

import json
from pathlib import Path

import pytest

from tests.update_notebook import NOTEBOOK, code_cells, run_notebook


def test_the_notebook_runs_and_shows_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its metrics look at small pictures here: their values are not compared."""
    monkeypatch.setattr("stylecli.features.efficientnet.SIDE", 64)
    found = code_cells(run_notebook(tmp_path))
    kept = code_cells(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    for now, then in zip(found, kept, strict=True):
        for new, old in zip(now["outputs"], then["outputs"], strict=True):
            assert new.get("text") == old.get("text")
            assert set(new.get("data", {})) == set(old.get("data", {}))
        assert now["execution_count"] == then["execution_count"]
    shown = [output["data"] for cell in kept for output in cell["outputs"] if "data" in output]
    assert sum("image/png" in data for data in shown) >= 4
    network, dataset, results = (data["text/html"] for data in shown if "text/html" in data)
    assert "data:image/png" in network and "data:image/png" in dataset and "<table>" in results


def test_the_notebook_names_no_place_of_the_machine_it_ran_on() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not [word for word in ("/work/", "/home/", "/tmp/", "/root/") if word in text]

"""``stylecli demo``: what it asks of the library and what it prints, not the demo itself."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stylecli import demo
from stylecli.cli.app import app
from stylecli.distributed.ranks import Ranks

METRICS = [
    {"name": "ppl_wfull", "value": 12.345678, "meaning": "how smooth"},
    {"name": "kid", "value": None, "meaning": "needs weights"},
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What the command asked for; a made demo is what it gets, far from any real one."""
    calls: list[Any] = []
    monkeypatch.chdir(tmp_path)

    def made(out: Path, **settings: Any) -> demo.DemoResult:
        calls.append((out, settings))
        settings["say"]("as said")
        network, page = out / "network.safetensors", out / "index.html"
        return demo.DemoResult(out, network, page, METRICS, True, 61.0)

    monkeypatch.setattr(demo, "run_demo", made)
    return calls


def test_every_option_reaches_the_library(asked: list[Any]) -> None:
    words = ["demo", "--minutes", "0.5", "--out", "here", "--ranks", "1", "--seed", "7", "--force"]

    done = CliRunner().invoke(app, words)

    ((out, settings),) = asked
    assert (done.exit_code, out) == (0, Path("here"))
    told = {name: settings[name] for name in ("minutes", "ranks", "seed", "force")}
    assert told == {"minutes": 0.5, "ranks": Ranks(), "seed": 7, "force": True}


def test_the_metrics_are_a_table_with_the_page_to_open_below(asked: list[Any]) -> None:
    done = CliRunner().invoke(app, ["demo", "--ranks", "1"])

    header, first, second, _, last = done.stdout.splitlines()
    assert header.split() == ["metric", "value", "meaning"]
    assert first.split()[:2] == ["ppl_wfull", "12.35"] and second.split()[:2] == ["kid", "–"]
    assert last == f"done in 1m01s; open {Path('demo', 'index.html')}"
    assert done.stderr == "as said\n"


def test_the_document_is_all_that_json_prints(asked: list[Any]) -> None:
    done = CliRunner().invoke(app, ["demo", "--json", "--quiet", "--ranks", "1"])

    document = json.loads(done.stdout)
    assert document["metrics"] == METRICS and document["finished"] is True
    assert document["report"] == str(Path("demo", "index.html")) and done.stderr == ""

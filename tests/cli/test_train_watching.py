"""`stylecli train` watched: refused before anything is made, stopped, measured."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stylecli.cli.app import app
from stylecli.metrics.results import MetricResult

SMALL = ["--kimg", "0.048", "--batch", "8", "--ranks", "1", "--fmap-base", "64", "--fmap-max", "8",
         "--z-dim", "8", "--w-dim", "8", "--mapping-layers", "1", "--device", "cpu"]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["train", *arguments])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--watch", "hope"], "watch 'hope' is unknown: expected one of warn, stop, rollback, off"),
        (["--metrics", "kid,beauty"], "metric 'beauty' is unknown: expected one of"),
        (["--metric-samples", "500"], "says nothing without --metrics"),
        (["--classifiers", "x"], "says nothing without --metrics: add --metrics ls"),
        (["--metrics", "kid", "--classifiers", "x"], "classifiers are for ls alone"),
        (["--metrics", "ppl_wfull", "--config", "a"], "ppl_wfull"),
    ],
    ids=["watch", "metric", "samples", "classifiers", "not ls", "network"],
)
def test_what_cannot_work_is_refused_before_a_run_is_made(
    options: list[str], sentence: str, here: Path, tiny_lmdb: Path
) -> None:
    result = train(str(tiny_lmdb), *SMALL, *options)

    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not (here / "runs").exists()


def test_tensorboard_is_asked_for_before_a_run_is_made(
    here: Path, tiny_lmdb: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None)
    result = train(str(tiny_lmdb), *SMALL, "--tensorboard")

    assert result.exit_code == 2
    assert "pip install 'stylecli[tensorboard]'" in result.stderr
    assert not (here / "runs").exists()


def test_a_run_that_diverges_is_stopped_with_advice(here: Path, tiny_lmdb: Path) -> None:
    result = train(str(tiny_lmdb), *SMALL, "--lr", "100", "--watch", "stop", "--tick-kimg", "0.008")

    assert result.exit_code == 1
    assert "warning: " in result.stderr
    assert "stopped and saved by the watchdog" in result.stderr
    assert "try a lower --lr (now 100)" in result.stderr


def test_snapshots_are_measured_with_what_was_asked_for(
    here: Path, tiny_lmdb: Path, monkeypatch: Any
) -> None:
    asked: list[Any] = []

    def evaluate(names: list[str], bundle: Any, dataset: Any, **how: Any) -> list[MetricResult]:
        asked.append((names, len(dataset), how))
        return [MetricResult("kid", 0.25, 0.01, definition={"fakes": 16})]

    monkeypatch.setattr("stylecli.metrics.evaluation.evaluate", evaluate)
    result = train(str(tiny_lmdb), *SMALL, "--metrics", "kid, ppl", "--metric-samples", "16")

    assert result.exit_code == 0, result.stderr
    assert asked[-1] == (["kid", "ppl"], 24, {"samples": 16, "device": "cpu", "classifiers": None})
    [run] = (here / "runs").iterdir()
    rows = [json.loads(line) for line in (run / "metric-kid.jsonl").read_text().splitlines()]
    assert rows[-1]["snapshot"] == Path(result.stdout.strip()).name
    assert rows[-1]["results"] == {"kid": 0.25, "kid_std": 0.01}


def test_separability_is_measured_with_classifiers_and_left_out_without(
    here: Path, tiny_lmdb: Path
) -> None:
    from stylecli.metrics.classifiers import (
        AttributeClassifier,
        AttributeClassifiers,
        new_classifier_network,
        save_classifiers,
    )
    from stylecli.networks.stylegan1_config import StyleGAN1Config

    config = StyleGAN1Config(resolution=16, fmap_base=64, fmap_max=8, mbstd_group_size=1)
    network = new_classifier_network(config, 0)
    save_classifiers(
        here / "own.safetensors",
        AttributeClassifiers([AttributeClassifier("shade", ("dark", "bright"), network)], {}),
    )
    measuring = ["--metrics", "ls", "--metric-samples", "20"]
    for number, given in enumerate(([], ["--classifiers", "own.safetensors"])):
        words = [*SMALL, *measuring, *given, "--out", f"run{number}"]
        result = train(str(tiny_lmdb), *words)
        assert result.exit_code == 0, result.stderr
    assert not list((here / "run0").glob("metric-*"))
    [event] = [
        line for line in (here / "run0/events.jsonl").read_text().splitlines() if "ls_w" in line
    ]
    assert "stylecli metrics ls --train-classifiers" in event
    row = json.loads((here / "run1/metric-ls_w@own-classifiers.jsonl").read_text().splitlines()[-1])
    assert row["value"] >= 1 and row["definition"]["fakes"] == 20

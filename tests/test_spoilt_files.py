"""Every JSON file, spoilt in every way, through the commands that read it: sentences, no traceback.

Each test takes a part of all the ways, another one for each value, so that it stays quick.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from stylecli import images
from stylecli.cache_folder import cache_folder
from stylecli.cli.app import app
from tests.report.made_runs import make_event, make_run, write_rows
from tests.spoiling import WHOLE, spoilt_documents, spoilt_rows

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")
SNAPSHOT = "network-snapshot-000060000.safetensors"
METRIC = {"name": "fid50k", "metric": "fid50k", "value": 2.5, "std": None,
          "results": {"fid50k": 2.5, "fid50k_std": 0.1}, "definition": {"fakes": 5}}  # fmt: skip
LABELS = {"labels": [[f"{number}.png", number % 2] for number in range(6)]}
RECORD = {"name": "vgg16", "file": "x", "source": "y", "sha256": "a" * 64, "published": True,
          "safetensors_sha256": "b" * 64, "added": "2026-01-01T00:00:00Z"}  # fmt: skip

pytestmark = pytest.mark.slow

Cases = Iterable[tuple[str, bytes]]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def some(cases: Cases, every: int) -> Iterator[tuple[str, bytes]]:
    """Yield what is wrong with a file as a whole, and each ``every``-th of the rest."""
    for index, case in enumerate(cases):
        if index < len(WHOLE) + 2 or index % every == 0:
            yield case


def check(what: str, *words: str) -> int:
    """Run a command; fail unless it ends in a sentence that expects what it met."""
    result = CliRunner().invoke(app, list(words))
    said = f"{what}: {words} {result.output[-300:]!a}"

    assert result.exception is None or isinstance(result.exception, SystemExit), said
    assert result.exit_code in range(5), said
    assert "STYLECLI_DEBUG" not in result.stderr, said  # the last net is for the unexpected
    assert CONTROL.search(result.output) is None, said
    return result.exit_code


@pytest.fixture
def run(tmp_path: Path, tiny_network_file: Path) -> Path:
    run = make_run(tmp_path / "runs" / "00000-x", sheets=2)
    shutil.copy(tiny_network_file, run / SNAPSHOT)
    events = [make_event(0, "started"), {**make_event(20_000, "saved"), "files": [SNAPSHOT]},
              make_event(60_000, "stopped", "Ctrl-C")]  # fmt: skip
    write_rows(run / "events.jsonl", events)
    rows = [{"nimg": nimg, **METRIC} for nimg in (20_000, 40_000, 60_000)]
    write_rows(run / "metric-fid50k.jsonl", rows)
    best = {"network": SNAPSHOT, "nimg": 60_000, "kimg": 60.0, "metric": "fid50k", "value": 2.5}
    (run / "best.json").write_text(json.dumps(best))
    return run


RUN_FILES = ("run.json", "best.json", "stats.jsonl", "events.jsonl", "metric-fid50k.jsonl")


@pytest.mark.parametrize("name", RUN_FILES)
def test_the_files_of_a_run(name: str, run: Path) -> None:
    assert check("whole", "report", str(run), "--force") == 0
    file = run / name
    read = [json.loads(line) for line in file.read_text().splitlines()]
    cases = spoilt_rows(read) if name.endswith("l") else spoilt_documents(read[0])
    for what, content in some(cases, 97):
        file.write_bytes(content)
        code = check(what, "report", str(run), "--force")
        assert code == 0 or name == "run.json", what
        check(what, "info", str(run), "--json")


@pytest.mark.parametrize("name", RUN_FILES)
def test_folders_and_pipes_in_the_place_of_files(name: str, run: Path) -> None:
    for make in (os.mkdir, os.mkfifo):
        (run / name).rename(run / "kept")
        make(run / name)
        check(make.__name__, "report", str(run), "--force")
        check(make.__name__, "info", str(run))
        (run / name).rmdir() if make is os.mkdir else (run / name).unlink()
        (run / "kept").rename(run / name)


def test_one_bad_run_stops_no_command_that_looks_at_all(
    run: Path, tmp_path: Path, tiny_lmdb: Path
) -> None:
    for number, content in enumerate(WHOLE.values(), 1):
        bad = tmp_path / "runs" / f"{number:05d}-bad"
        bad.mkdir()
        (bad / "run.json").write_bytes(content)
    os.utime(run / "stats.jsonl", (2e9, 2e9))

    assert check("all", "info") == 0
    assert check("all", "report", "--force") == 0
    assert check("all", "generate", "--seeds", "1", "--quiet") == 0
    assert check("all", "train", str(tiny_lmdb), "--dry-run", "--kimg", "1") == 0


def test_a_networks_header(tiny_network_file: Path) -> None:
    tensors = load_file(tiny_network_file)
    with safe_open(tiny_network_file, "pt") as file:
        header = json.loads(file.metadata()["stylecli"])
    for what, content in some(spoilt_documents(header), 61):
        text = content.decode("utf-8", "replace")
        save_file(tensors, "n.safetensors", metadata={"stylecli": text})
        check(what, "info", "n.safetensors")
        check(what, "generate", "--network", "n.safetensors", "--seeds", "1", "--force", "--quiet")


def test_what_a_picture_says_of_itself(tiny_network_file: Path) -> None:
    words = ("--network", str(tiny_network_file), "--seeds", "1", "--out", "out", "--quiet")
    assert check("whole", "generate", *words) == 0
    made = images.read_provenance("out/seed0001.png")
    for what, content in some(spoilt_documents(made), 19):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt(images.PROVENANCE_KEY, content.decode("utf-8", "replace"))
        Image.new("RGB", (4, 4)).save("p.png", pnginfo=chunks)
        check(what, "info", "p.png")
        check(what, "info", "p.png", "--json")


def test_labels(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for number in range(6):
        Image.fromarray(np.full((16, 16, 3), 9 * number, np.uint8)).save(f"p/{number}.png")
    for what, content in some(spoilt_documents(LABELS), 11):
        Path("labels.json").write_bytes(content)
        check(what, "pack", "p", "--labels", "labels.json", "--out", "d.lmdb", "--force", "-q")


def test_a_demo_and_a_cache_of_weights(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    for what, content in some(spoilt_documents({"minutes": 5.0, "seed": 0}), 2):
        (tmp_path / "demo" / "demo.json").write_bytes(content)
        check(what, "info", "demo")
    folder = cache_folder() / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({}, folder / "vgg16.safetensors")
    for what, content in some(spoilt_documents(RECORD), 7):
        (folder / "vgg16.json").write_bytes(content)
        check(what, "weights", "verify", "vgg16")
        check(what, "weights", "list", "--json")
    shutil.rmtree(folder)


def test_every_way_is_another(run: Path) -> None:
    """The spoilt documents are what they are called: none is the whole one, few are equal."""
    whole: dict[str, Any] = json.loads((run / "best.json").read_text())
    contents = [content for _, content in spoilt_documents(whole)]

    assert len(contents) > 60
    assert len(set(contents)) > 0.9 * len(contents)
    assert json.dumps(whole).encode() not in contents

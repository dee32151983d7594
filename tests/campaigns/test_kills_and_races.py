"""The campaigns of kills and races over all commands, short ones: nothing wrong, nothing left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaigns import commands

ROOT = Path(__file__).parents[2]
KILLED = [
    "pack --append", "export", "prepare-ffhq", "project", "generate --grid", "train --resume",
]  # fmt: skip
RACED = ["pack", "pack --force", "prepare-ffhq", "train --resume"]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sessions are forked")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("campaign", "options", "name", "least"),
    [("kills", ["--kills", "10"], "kills", 10), ("races", ["--rounds", "1"], "races", 4)],
)
def test_nothing_is_wrong_afterwards(
    campaign: str, options: list[str], name: str, least: int
) -> None:
    cases = KILLED if campaign == "kills" else RACED
    only = [word for case in cases for word in ("--only", case)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "campaigns" / f"{campaign}.py"), *options, *only],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *said, end = done.stdout.splitlines()
    counts = dict(line.split(": ") for line in said if ": " in line)
    assert int(counts[name]) >= least  # a command may be killed more than once
    assert end.startswith("wrong: 0;")


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    """A campaign that finds nothing proves nothing: these are the faults it looks for."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".x.part.json").write_text("{}")
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a"')
    assert commands.leftovers(tmp_path) == ["a/.x.part.json"]
    found = commands.contents(tmp_path)
    assert "a torn line" in found["rows.jsonl"]
    (tmp_path / "rows.jsonl").write_text('{"a": 2, "seconds": 3}\n')
    wanted = commands.contents(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"a": 2, "seconds": 4}\n')
    assert commands.differences(commands.contents(tmp_path), wanted) == []
    assert len(commands.differences(found, wanted)) == 1
    assert commands.differences({}, wanted) and commands.differences({**wanted, "b": ""}, wanted)
    assert commands.faults_in("fine\nTraceback (most recent call last):\n") != []
    running = commands.start(["no-such-command"], tmp_path)
    assert commands.finish(running)[0] == 2

"""All that commands print, from the first line to the last, as outputs.txt beside this file has it.

What a machine or a day decides (hashes, times, measured numbers) is # there, bars are left out, and
columns stand two spaces apart. ``2>`` is before the lines of stderr.
"""

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stylecli.cli.app import app
from stylecli.health import describe_processor
from stylecli.training import costs
from tests.conftest import FIXTURES

SECTIONS = Path(__file__).with_name("outputs.txt").read_text("utf-8").split("$ stylecli ")[1:]
EXPECTED = dict(section.split("\n", 1) for section in SECTIONS)
QUICK = ("check", "convert", "export", "info", "weights")  # others train or measure


BF16 = ("precision: ", "bf16 is ")  # lines that each kind of processor words in its way
# Hashes, dates and times, sizes of files and memory, shares, durations, all other fractions.
MACHINES = re.compile(
    r"\b[0-9a-f]{12,64}\b|\b\d{4}-\d\d-\d\d(T[\d:+]+)?|\b[\d.]+(?= [kMG]i?B\b)|\b\d+(?=%)"
    r"|\b(\d+m)?\d+(?=s\b)|\b\d[\d,]*\.\d[\d.]*|\b[\d,]+(?=  +\d+%)"
)


def masked(text: str) -> str:
    """Return text without what differs from machine to machine and from day to day."""
    return re.sub(r"(?<=\S) {2,}", "  ", MACHINES.sub("#", text))


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, marks=() if words.split()[0] in QUICK else pytest.mark.slow)
        for words in EXPECTED
    ],
)
def test_a_command_prints_this_and_nothing_else(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_lmdb: Path,
    tiny_network_file: Path, filled_cache: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(costs, "SECONDS_PER_STAGE", 0.0)
    shutil.copytree(tiny_lmdb, "datasets/tiny.lmdb")
    shutil.copy(FIXTURES / "official" / "stylegan2_stylegan3_snapshot.pkl", "cats.pkl")

    result = CliRunner().invoke(app, words.split())

    stdout = result.stdout.replace(describe_processor(), "PROCESSOR")
    printed = [line for line in stdout.splitlines() if not line.startswith(BF16)]
    said = [line for line in result.stderr.splitlines() if not re.match(r"[a-z]+: [\d.,]+/", line)]
    found = "\n".join([*printed, *(f"2> {line}" for line in said)])
    assert (result.exit_code, masked(found.replace(str(tmp_path), "."))) == (
        0,
        EXPECTED[words].rstrip("\n"),
    )

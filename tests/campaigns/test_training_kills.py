"""The kill campaign, a short one: four kills, every run equal to the one never stopped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="sessions are forked")
def test_a_run_survives_being_killed() -> None:
    script = Path(__file__).with_name("training_kills.py")
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "4", "--seed", "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "kills: 4" in done.stdout.splitlines()

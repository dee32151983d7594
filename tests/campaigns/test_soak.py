"""The soak in short: nothing a tick makes stays behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaigns import soak


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_ticks_leave_nothing_behind() -> None:
    """In a process of its own: in one that ran a thousand tests, freed memory comes and goes."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, soak.__file__, "64"], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip

    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "flat"), done.stdout + done.stderr


def test_what_stays_behind_is_named() -> None:
    rows = [
        {"memory_now_mib": 300.0 + tick, "files": 8.0 + tick // 30, "threads": 1.0, "tensors": 9.0}
        for tick in range(40)
    ]

    assert soak.grows(rows) == [
        "memory_now_mib grew from 314.5 to 334.5",
        "files grew from 8 to 9",
    ]

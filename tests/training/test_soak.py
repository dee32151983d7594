"""The soak in short: nothing a tick makes stays behind."""

import sys
from pathlib import Path

import pytest

from tests.training import soak


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_ticks_leave_nothing_behind(tmp_path: Path) -> None:
    rows = soak.soak(tmp_path, 64)

    assert len(rows) == 64
    assert soak.grows(rows) == []


def test_what_stays_behind_is_named() -> None:
    rows = [
        {"memory_now_mib": 300.0 + tick, "files": 8.0 + tick // 30, "threads": 1.0, "tensors": 9.0}
        for tick in range(40)
    ]

    assert soak.grows(rows) == [
        "memory_now_mib grew from 314.5 to 334.5",
        "files grew from 8 to 9",
    ]

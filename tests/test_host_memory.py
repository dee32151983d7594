"""Large blocks that are freed and taken again: no new pages after the allocator was asked."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from stylecli.host_memory import keep_large_blocks

if sys.argv[1] == "ask":
    assert keep_large_blocks()
blocks = 8
for _ in range(8):  # until the heap has grown
    torch.ones(64 << 18)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(blocks):
    torch.ones(64 << 18)  # 64 MiB, freed at once
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose malloc it tunes")
def test_freed_blocks_are_used_again() -> None:
    faults = {
        asked: int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, asked], capture_output=True, text=True, check=True
            ).stdout
        )
        for asked in ("ask", "leave")
    }

    assert faults["ask"] * 4 < faults["leave"]

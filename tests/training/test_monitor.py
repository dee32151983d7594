"""What a tick costs: waiting for pictures is told from computing, memory from its peak."""

import mmap
import sys
from typing import Any

import pytest
import torch

from stylecli.training import monitor
from stylecli.training.monitor import LoaderClock, memory_figures
from stylecli.training.ticks import describe_row

CPU = torch.device("cpu")


def test_the_wait_for_pictures_adds_up_until_it_is_taken(monkeypatch: Any) -> None:
    now = [0.0]
    monkeypatch.setattr(monitor.time, "perf_counter", lambda: now[0])
    clock = LoaderClock(CPU)
    for seconds in (0.25, 0.5):
        with clock.waiting():
            now[0] += seconds
        now[0] += 8.0  # computing

    assert clock.take() == 0.75
    assert clock.take() == 0.0


class FakeStream:
    """A device that is through with what it was given at ``free_at``."""

    now = 0.0  # of the host
    free_at = 0.0

    @classmethod
    def reach(cls) -> float:
        """Return when the device comes to what is put onto its stream now."""
        return max(cls.now, cls.free_at)


class FakeEvent:
    """An event of CUDA: its time is the device's, not the host's."""

    def __init__(self, enable_timing: bool) -> None:
        self.time = -1.0

    def record(self, stream: Any) -> None:
        self.time = FakeStream.reach()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, later: "FakeEvent") -> float:
        return 1000 * (later.time - self.time)


def test_on_cuda_only_an_idle_device_waits(monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: FakeStream)
    clock = LoaderClock(torch.device("cuda"))
    FakeStream.now, FakeStream.free_at = 0.0, 3.0  # launched, 3 s of work to come
    with clock.waiting():
        FakeStream.now = 2.0  # the batch is there before the device asks for it
    assert clock.take() == 0.0

    FakeStream.now, FakeStream.free_at = 10.0, 10.5
    with clock.waiting():
        FakeStream.now = 12.0
    assert clock.take() == 1.5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_that_is_given_back_remains_in_the_peak() -> None:
    before = memory_figures(CPU)
    block = mmap.mmap(-1, 64 << 20)  # its own pages, none of the heap's
    block[:: mmap.PAGESIZE] = b"1" * ((64 << 20) // mmap.PAGESIZE)
    during = memory_figures(CPU)
    assert during["memory_now_mib"] > before["memory_now_mib"] + 60
    block.close()
    after = memory_figures(CPU)

    assert after["memory_mib"] > before["memory_now_mib"] + 60


@pytest.mark.parametrize(
    ("share", "words"), [(0.02, "compute-bound (loader 2%)"), (0.4, "loader-bound (loader 40%)")]
)
def test_the_progress_line_says_what_training_waits_for(share: float, words: str) -> None:
    row = {"sec_per_kimg": 3.04, "loss_G": 2.1, "loss_D": 0.55, "loader_share": share,
           "memory_mib": 512.3}  # fmt: skip

    assert describe_row(row) == f"3.0 sec/kimg, loss G 2.10 D 0.55, {words}, 512 MiB"

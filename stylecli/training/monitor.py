"""What a tick costs beside arithmetic: waiting for pictures, and memory.

Loader time. On CPUs the loop asks for a batch and computes with it, one after the other, so a clock
around the asking tells the whole wait. On CUDA launches return before the work is done, and
reading pictures while the device still computes costs nothing; there two events on the device's own
stream enclose the asking, and the time between them is how long the device stood idle meanwhile.
Nothing waits for the device before the tick ends.
"""

import contextlib
import sys
import time
from collections.abc import Iterator

import torch

_SUM_EVERY = 256  # pairs of events kept before they are added up


class LoaderClock:
    """Adds up how long the device waits for the loader."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.device = device
        self._seconds = 0.0
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time the asking for one batch."""
        if not self.cuda:
            started = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - started
            return
        before = self._mark()
        yield
        self._pairs.append((before, self._mark()))
        if len(self._pairs) >= 2 * _SUM_EVERY:
            self._add_up(_SUM_EVERY)  # long done by now

    def take(self) -> float:
        """Return the seconds since the last call; on CUDA this waits for the device."""
        self._add_up(len(self._pairs))
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _add_up(self, count: int) -> None:
        for before, after in self._pairs[:count]:
            after.synchronize()
            self._seconds += before.elapsed_time(after) / 1000
        del self._pairs[:count]


def memory_figures(device: torch.device) -> dict[str, float]:
    """Return this process's memory in MiB, and on CUDA the device's since the last call.

    ``memory_mib`` is the most this process has ever held (0 where the system does not say),
    ``memory_now_mib`` what it holds now (Linux); ``gpu_allocated_mib`` and ``gpu_reserved_mib`` are
    peaks of tensors and of what torch took from the device for them.
    """
    peak, now = _peak_resident_mib(), _resident_mib()
    # Linux brings its record of the peak up to date now and then only.
    figures = {"memory_mib": max(peak, now or 0.0)}
    if now is not None:
        figures["memory_now_mib"] = now
    if device.type == "cuda":
        figures["gpu_allocated_mib"] = _mib(torch.cuda.max_memory_allocated(device))
        figures["gpu_reserved_mib"] = _mib(torch.cuda.max_memory_reserved(device))
        torch.cuda.reset_peak_memory_stats(device)
    return figures


def _peak_resident_mib() -> float:
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _mib(peak if sys.platform == "darwin" else peak * 1024)


def _resident_mib() -> float | None:
    if not sys.platform.startswith("linux"):
        return None
    import resource

    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return _mib(pages * resource.getpagesize())


def _mib(size: float) -> float:
    return round(size / 2**20, 1)

"""The most memory a piece of work held: of the GPU, or of this process in main memory."""

import contextlib
import ctypes
import gc
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")  # writing 5 makes the peak begin anew (Linux 4.0)
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


class PeakMemory:
    """Measures from ``start`` on."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.kind = "GPU memory allocated" if device.type == "cuda" else "process memory, peak"
        if device.type != "cuda" and not self._restart():
            self.kind = "process memory, peak so far"

    def start(self) -> None:
        """Begin anew, with what is free given back."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._restart()

    def mib(self) -> float:
        """Return the peak since ``start`` in MiB; 0 where the system does not say."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        if (peak := _kib(_STATUS, "VmHWM")) is not None:
            return peak / 1024
        return _highest_ever_mib()

    def _restart(self) -> bool:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        try:
            _CLEAR.write_text("5")
        except OSError:
            return False
        return True


def available_mib(device: torch.device) -> float | None:
    """Return the memory that a process may still take, in MiB; None where the system is silent."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free / 2**20
    found = _kib(_MEMINFO, "MemAvailable")
    if found is None:
        return None
    mib = found / 1024
    with contextlib.suppress(OSError, ValueError):  # a container may have less
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        mib = min(mib, (limit - used) / 2**20)
    return mib


def _kib(path: Path, name: str) -> int | None:
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


def _highest_ever_mib() -> float:
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)

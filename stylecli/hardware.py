"""The machine: its devices and how they compute, memory free or held at most, the allocator."""

import contextlib
import ctypes
import functools
import gc
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from stylecli.errors import DeviceError, UsageError, unknown_name

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
Precision = Literal["float32", "bf16"]  # of drawing and measuring
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
AUTO = "auto"  # the precision that is quicker where it computes
_TRIAL_MAPS, _TRIAL_SIDE, _TRIALS = 64, 32, 4  # of a convolution: 10 ms with the first calls
_X86 = ("x86_64", "amd64")
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")  # writing 5 makes the peak start over (Linux 4.0)
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory.current")
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
_LARGEST_BLOCK = 1 << 30
_KEPT_AT_THE_TOP = 2**31 - 1
_GROWTH = 64 << 20


def check_precision(precision: str) -> None:
    """Raise UsageError unless it is float32 or bf16."""
    if precision not in PRECISIONS:
        raise UsageError(unknown_name("precision", precision, PRECISIONS))


def choose_precision(wanted: str, device: "torch.device", *, force: bool = False) -> str:
    """Return the precision to compute in on a device: ``auto`` is the quicker one there.

    Raises UsageError for bf16 on a processor that is slower in it, unless ``force``: without units
    for it a picture takes up to 46 times as long.
    """
    if wanted == AUTO:
        return quicker_precision(device)
    if wanted == "bf16" and device.type == "cpu" and not force and (gain := bf16_gain()) <= 1:
        raise UsageError(
            f"bf16 is {1 / gain:.1f} times slower than float32 on this processor: "
            "leave --precision out, or add --force"
        )
    return wanted


def quicker_precision(device: "torch.device") -> Precision:
    """Return bf16 where a device has units for it and, on a CPU, a trial shows them quicker."""
    import torch

    if device.type == "cuda":
        # A GPU that is elsewhere is one that people rent: all since 2020 have it.
        here = torch.cuda.is_available()
        return "bf16" if not here or torch.cuda.is_bf16_supported(False) else "float32"
    units = device.type == "cpu" and has_bf16_units()
    return "bf16" if units and bf16_gain() > 1 else "float32"


def has_bf16_units() -> bool:
    """Tell whether this processor multiplies bf16 by itself, and oneDNN makes use of that.

    oneDNN takes bf16 on every processor with AVX-512, also where it only imitates it.
    """
    import torch

    try:
        known = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        if platform.machine().lower() not in _X86:
            return known
        return known and bool(torch.cpu._is_avx512_bf16_supported())  # AMX brings it too
    except (AttributeError, RuntimeError):  # private names, and builds without oneDNN
        return False


@functools.cache
def bf16_gain() -> float:
    """Return how many times as quick in bf16 as in float32 this processor convolves; tried once."""
    import torch
    from torch.nn import functional as F

    def seconds(dtype: torch.dtype) -> float:
        started = time.perf_counter()
        F.conv2d(x[dtype], w[dtype], padding=1)
        return time.perf_counter() - started

    dtypes, last = (torch.float32, torch.bfloat16), torch.channels_last
    shapes = (1, _TRIAL_MAPS, _TRIAL_SIDE, _TRIAL_SIDE), (_TRIAL_MAPS, _TRIAL_MAPS, 3, 3)
    with torch.inference_mode(), torch.device("cpu"):
        x, w = (
            {dtype: torch.ones(shape).to(dtype, memory_format=last) for dtype in dtypes}
            for shape in shapes
        )
        rounds = [[seconds(dtype) for dtype in dtypes] for _ in range(1 + _TRIALS)]
    whole, half = (min(column) for column in zip(*rounds[1:], strict=True))  # the first prepares
    return float(whole / max(half, 1e-9))


def describe_precision(gain: float) -> str:
    """Say which precision is quicker on this processor, from ``bf16_gain``."""
    if gain > 1:
        return f"bf16 is {gain:.1f} times as fast as float32 here (one convolution)"
    return f"float32 is {1 / gain:.1f} times as fast as bf16 here (one convolution)"


def check_device_name(name: str) -> None:
    """Raise UsageError unless a device is called ``name``, here or elsewhere."""
    kind, _, index = name.partition(":")
    if kind not in DEVICES or (index and not (kind == "cuda" and index.isdecimal())):
        raise UsageError(unknown_name("device", name, DEVICES))


def check_device_here(name: str) -> None:
    """Raise DeviceError for a device that this machine is known to lack before torch loads."""
    kind = name.partition(":")[0]
    if (kind == "cuda" and lacks_cuda()) or (kind == "mps" and sys.platform != "darwin"):
        raise _not_here(name)


def lacks_cuda() -> bool:
    """Whether it is known that torch would find no CUDA GPU; False once torch is loaded.

    Without the driver's library none can be used; torch's builds for CPUs never look for one.
    AMD's GPUs, which torch calls CUDA too, have another driver.
    """
    return "torch" not in sys.modules and _cannot_have_cuda()


@functools.cache
def _cannot_have_cuda() -> bool:
    if sys.platform == "darwin":
        return True
    from importlib.metadata import PackageNotFoundError, version

    with contextlib.suppress(PackageNotFoundError):
        if version("torch").endswith("+cpu"):
            return True
    if sys.platform != "linux" or os.path.exists("/dev/kfd"):
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False


def _not_here(name: str) -> DeviceError:
    return DeviceError(f"device {name!r} is not available here: run again with --device cpu")


def resolve_device(name: str = "auto") -> "torch.device":
    """Return the torch device called ``name``; ``auto`` takes CUDA, then MPS, then the CPU.

    For a CPU the process's allocator is told to keep large blocks.
    Raises UsageError for an unknown name and DeviceError for a device this machine lacks.
    """
    check_device_name(name)
    import torch

    kind, _, index = name.partition(":")
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if kind == "auto":
        kind = next(choice for choice in ("cuda", "mps", "cpu") if available[choice])
    if not available[kind] or (index and int(index) >= torch.cuda.device_count()):
        raise _not_here(name)
    if kind == "cpu":
        tune_memory()
    return torch.device(f"{kind}:{index}" if index else kind)


@contextlib.contextmanager
def cuda_arithmetic(device: "torch.device", *, exact: bool) -> Iterator[None]:
    """Say how CUDA computes float32 products and convolutions in here, whatever was set outside.

    ``exact``: in full, by the same algorithms every time. Otherwise tensor cores may round the
    factors to TF32's 10 bits of mantissa, and cuDNN tries its algorithms once for every shape and
    keeps the quickest. The only place that sets these switches, by the names that are per operator:
    reading the old ``allow_tf32`` raises where a program has set the new ones. Does nothing on
    other devices.
    """
    if device.type != "cuda":
        yield
        return
    import torch

    backends: Any = torch.backends
    cudnn = backends.cudnn
    places = (backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    before = [place.fp32_precision for place in places]
    chosen = cudnn.benchmark, cudnn.deterministic
    try:
        for place in places:
            place.fp32_precision = "ieee" if exact else "tf32"
        cudnn.benchmark, cudnn.deterministic = not exact, exact
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = chosen
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def widest_float(device: "torch.device") -> "torch.dtype":
    """Return the floating-point type with the most digits there: MPS has no float64."""
    import torch

    return torch.float32 if device.type == "mps" else torch.float64


class PeakMemory:
    """Measures from ``start`` on."""

    def __init__(self, device: "torch.device") -> None:
        self.device = device
        self.kind = "GPU memory allocated" if device.type == "cuda" else "process memory, peak"
        if device.type != "cuda" and not self._restart():
            self.kind = "process memory, peak so far"

    def start(self) -> None:
        """Start over, with what is free given back."""
        free_unused(self.device)
        if self.device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._restart()

    def mib(self) -> float:
        """Return the peak since ``start`` in MiB; 0 where the system does not say."""
        if self.device.type == "cuda":
            import torch

            return torch.cuda.max_memory_allocated(self.device) / 2**20
        if (peak := _kib(_STATUS, "VmHWM")) is not None:
            return peak / 1024
        return _highest_ever_mib()

    def _restart(self) -> bool:
        give_back()
        try:
            _CLEAR.write_text("5", "ascii")
        except OSError:
            return False
        return True


def give_back() -> None:
    """Hand freed memory back to the system, where the C library can (glibc)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def free_unused(device: "torch.device") -> None:
    """Let go of memory that nothing uses, for larger or smaller pieces to be taken."""
    gc.collect()
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()


def memory_figures(device: "torch.device") -> dict[str, float]:
    """Return this process's memory in MiB, and on CUDA the device's since the last call.

    ``memory_mib`` is the most this process has ever held (0 where the system does not say),
    ``memory_now_mib`` what it holds now (Linux); ``gpu_allocated_mib`` and ``gpu_reserved_mib`` are
    peaks of tensors and of what torch took from the device for them.
    """
    peak, now = round(_highest_ever_mib(), 1), _resident_mib()
    # Linux brings its record of the peak up to date now and then only.
    figures = {"memory_mib": max(peak, now or 0.0)}
    if now is not None:
        figures["memory_now_mib"] = now
    if device.type == "cuda":
        import torch

        figures["gpu_allocated_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
        figures["gpu_reserved_mib"] = round(torch.cuda.max_memory_reserved(device) / 2**20, 1)
        torch.cuda.reset_peak_memory_stats(device)
    return figures


def available_mib(device: "torch.device") -> float | None:
    """Return the memory that a process may still take, in MiB; None where the system is silent."""
    if device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return free / 2**20
    room = available_bytes()
    return None if room is None else room / 2**20


def available_bytes() -> int | None:
    """Return the memory that is free here, by the system and by the container; None: not known."""
    rooms = []
    if (free := _kib(_MEMINFO, "MemAvailable")) is not None:
        rooms.append(free << 10)
    try:
        limit, used = (int((_CGROUP / name).read_text("ascii")) for name in _LIMITS)
        rooms.append(max(limit - used, 0))
    except (OSError, ValueError):
        pass  # no container, or "max": no limit
    if not rooms and hasattr(os, "sysconf"):
        try:
            rooms.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (OSError, ValueError):
            pass
    return min(rooms, default=None)


def _kib(path: Path, name: str) -> int | None:
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None


def _highest_ever_mib() -> float:
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _resident_mib() -> float | None:
    if not sys.platform.startswith("linux"):
        return None
    import resource

    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * resource.getpagesize() / 2**20, 1)


def tune_memory() -> bool:
    """Let the process keep freed memory, which drawing on a CPU is quicker by; tell if it could.

    The commands do so for themselves; call it once in programs that draw.

    glibc hands every block over some megabytes back to the system when it is freed and takes fresh,
    unmapped pages for the next one. The features of one 1024 px picture are such blocks, so that
    drawing on a CPU spends as much time in page faults as in arithmetic. Afterwards freed memory,
    up to 2 GiB at the top of the heap, is used again. Does nothing outside Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (_MMAP_THRESHOLD, _LARGEST_BLOCK),
        (_TRIM_THRESHOLD, _KEPT_AT_THE_TOP),
        (_TOP_PAD, _GROWTH),
    )
    accepted = [mallopt(name, value) == 1 for name, value in settings]
    return all(accepted)

"""Turn ``--device auto|cpu|cuda|mps`` into a torch device, or say why it cannot be."""

from typing import TYPE_CHECKING

from stylecli.errors import DeviceError, UsageError
from stylecli.host_memory import keep_large_blocks

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str = "auto") -> "torch.device":
    """Return the torch device called ``name``; ``auto`` takes CUDA, then MPS, then the CPU.

    For a CPU the process's allocator is told to keep large blocks (``host_memory``).
    Raises UsageError for an unknown name and DeviceError for a device this machine lacks.
    """
    import torch

    kind, _, index = name.partition(":")
    if kind not in DEVICES or (index and not (kind == "cuda" and index.isdecimal())):
        raise UsageError(f"device {name!r} is unknown: expected one of {', '.join(DEVICES)}")
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if kind == "auto":
        kind = next(choice for choice in ("cuda", "mps", "cpu") if available[choice])
    if not available[kind] or (index and int(index) >= torch.cuda.device_count()):
        raise DeviceError(f"device {name!r} is not available here: run again with --device cpu")
    if kind == "cpu":
        keep_large_blocks()
    return torch.device(f"{kind}:{index}" if index else kind)

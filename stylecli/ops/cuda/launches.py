"""What a kernel launch is, and who carries it out: a backend per type of device.

``calls.py`` turns tensors into launches and knows nothing of drivers. A backend takes a launch and
runs it: on CUDA devices that of ``runtime.py``; on the CPU, in tests only, the host build of the
same kernel source.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from stylecli.errors import DeviceError

INT_MAX = 2**31 - 1

DTYPE_NAMES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
}
"""What a dtype is called in the kernel source."""


@dataclass(frozen=True)
class Int64:
    """An argument that the kernel takes as ``long long``."""

    value: int


Argument = Tensor | None | int | float | Int64


@dataclass(frozen=True)
class Launch:
    """One kernel launch.

    ``kernel`` is a C++ template-id of the source, such as ``bias_act<float, 0, 128>``. Arguments:
    a tensor is passed as its address and None as the null pointer; ``int`` as a 32-bit int, which
    must fit; ``Int64`` as ``long long``; ``float`` as ``double``. The work is queued on the current
    stream of ``device``.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: int
    shared_bytes: int
    arguments: tuple[Argument, ...]
    device: torch.device


class Backend(Protocol):
    """Something that runs launches on one type of device."""

    def launch(self, record: Launch) -> None:
        """Queue or run one launch; raise errors.DeviceError when that cannot be."""
        ...


_BACKENDS: dict[str, Backend] = {}


def set_backend(device_type: str, backend: Backend | None) -> Backend | None:
    """Install the backend of a type of device ("cuda", "cpu"), or None; return the one before."""
    before = _BACKENDS.pop(device_type, None)
    if backend is not None:
        _BACKENDS[device_type] = backend
    return before


def backend_for(device: torch.device) -> Backend | None:
    """Return the backend that serves ``device``, None when there is none."""
    return _BACKENDS.get(device.type)


def hand_over(record: Launch) -> None:
    """Check a launch against the limits that every device has and hand it to its backend.

    Raises DeviceError for a launch that is over them, which plain PyTorch may still carry out.
    """
    backend = backend_for(record.device)
    if backend is None:
        raise LookupError(f"no kernel backend is installed for {record.device.type} devices")
    x, y, z = record.grid
    if not (1 <= x <= INT_MAX and 1 <= y <= 65535 and 1 <= z <= 65535):
        raise DeviceError(f"{record.kernel}: grid {record.grid} is out of range")
    for argument in record.arguments:
        if isinstance(argument, int) and not -INT_MAX <= argument <= INT_MAX:
            raise DeviceError(f"{record.kernel}: {argument} does not fit 32 bits, use Int64")
    backend.launch(record)

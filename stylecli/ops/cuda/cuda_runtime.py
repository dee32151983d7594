"""CUDA itself, through ``cuda-core``: load a cubin, launch a kernel. The only file of its kind.

Made only where torch sees a CUDA device. Not run on a GPU by this project's tests: what can go
wrong here is found by the first use of every kernel (selfcheck.py), which falls back.
"""

import contextlib
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stylecli.errors import DeviceError
from stylecli.ops.cuda.compiler import INSTALL, Compiled
from stylecli.ops.cuda.driver import CudaBackend, Value
from stylecli.ops.cuda.launch import Launch, backend_for, set_backend


def ready_backend(device: torch.device) -> CudaBackend:
    """Return the backend of a device, installing the one for CUDA when it is first asked for.

    Raises DeviceError without cuda-core, or for a device that has no kernels.
    """
    installed = backend_for(device)
    if isinstance(installed, CudaBackend):
        return installed
    if device.type != "cuda" or torch.version.hip:
        raise DeviceError(f"there are no kernels for {device}")
    try:
        runtime = CudaRuntime()
    except ImportError as error:
        raise DeviceError(f"cuda-core is not usable here ({error}), run: {INSTALL}") from error
    backend = CudaBackend(runtime)
    set_backend(device.type, backend)
    return backend


class CudaRuntime:
    """The driver as cuda-core wraps it, on torch's devices, contexts and streams."""

    def __init__(self) -> None:
        import cuda.core as core

        self._core = core
        self._streams: dict[int, Any] = {}
        self._threads = threading.local()

    def capability(self, device: torch.device) -> tuple[int, int]:
        """Return the compute capability, such as (9, 0)."""
        return torch.cuda.get_device_capability(device)

    def capturing(self) -> bool:
        """Say whether the current stream is being captured into a CUDA graph."""
        return torch.cuda.is_current_stream_capturing()

    def load(self, compiled: Compiled, device: torch.device) -> dict[str, Any]:
        """Load a cubin onto a device; return its kernels by template-id.

        CUDA loads a kernel when it is first launched unless told otherwise, which may wait for
        the device and must not happen during capture: so every one is asked for here.
        """
        from cuda.bindings import driver

        with torch.cuda.device(device):
            self._make_current(device)
            code = self._core.ObjectCode.from_cubin(compiled.cubin, name="stylecli")
            kernels = {}
            for template_id, symbol in compiled.symbols.items():
                kernels[template_id] = kernel = code.get_kernel(symbol)
                error, function = driver.cuKernelGetFunction(kernel.handle)
                if error != driver.CUresult.CUDA_SUCCESS:
                    raise RuntimeError(f"{template_id}: {error.name}")
                with contextlib.suppress(RuntimeError):  # drivers before CUDA 12.4 lack it
                    driver.cuFuncLoad(function)
            return kernels

    def address(self, tensor: Tensor, device: torch.device) -> int:
        """Return the address of a tensor's first element; raise ValueError for another device."""
        if tensor.device != device:
            raise ValueError(f"an argument is on {tensor.device}: expected {device}")
        return tensor.data_ptr()

    def launch(self, kernel: Any, record: Launch, values: Sequence[Value]) -> None:
        """Queue a kernel on the current stream of its device; return before it has run."""
        if torch.cuda.current_device() != record.device.index:
            with torch.cuda.device(record.device):
                self._launch_here(kernel, record, values)
        else:
            self._launch_here(kernel, record, values)

    def _launch_here(self, kernel: Any, record: Launch, values: Sequence[Value]) -> None:
        self._make_current(record.device)
        config = self._core.LaunchConfig(
            grid=record.grid, block=(record.block, 1, 1), shmem_size=record.shared_bytes
        )
        handle = torch.cuda.current_stream(record.device).cuda_stream
        stream = self._streams.get(handle)
        if stream is None:
            # Not owned and never closed: torch keeps its streams for good.
            stream = self._streams[handle] = self._core.Stream.from_handle(handle)
        self._core.launch(stream, config, kernel, *values)

    def _make_current(self, device: torch.device) -> None:
        """Make the device's primary context, torch's own, current in this thread, once.

        torch leaves that to the CUDA runtime, which a fresh thread (autograd has its own) may not
        have called yet, and the driver refuses a launch without a context.
        """
        seen = self._threads.__dict__.setdefault("devices", set())
        if device.index not in seen:
            self._core.Device(device.index).set_current()
            seen.add(device.index)

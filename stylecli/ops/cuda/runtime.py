"""The backend of CUDA devices: kernels compiled or fetched, loaded once a device, and launched.

Launches go through ``cuda-core``.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from stylecli.errors import DeviceError
from stylecli.ops.cuda.compiler import (
    INSTALL,
    Compiled,
    architecture_for,
    compile_cached,
    compile_kernels,
    kernel_source,
    nvrtc_architectures,
    nvrtc_problem,
    nvrtc_version,
)
from stylecli.ops.cuda.launches import (
    INT_MAX,
    Argument,
    Int64,
    Launch,
    backend_for,
    set_backend,
)

# Everything that touches CUDA goes through a small runtime object, so that tests can put a
# recording one in its place; the real one is CudaRuntime below.

MAX_THREADS = 1024
MAX_SHARED_BYTES = 48 * 1024
"""Dynamic shared memory that every GPU grants without being asked; no kernel needs more."""

Value = int | float | np.int32


class Runtime(Protocol):
    """What the backend needs of CUDA."""

    def capability(self, device: torch.device) -> tuple[int, int]:
        """Return the compute capability of a device."""
        ...

    def capturing(self) -> bool:
        """Say whether the current stream is being captured into a CUDA graph."""
        ...

    def load(self, compiled: Compiled, device: torch.device) -> dict[str, Any]:
        """Load code onto a device; return a kernel for every template-id, ready to be captured."""
        ...

    def address(self, tensor: Tensor, device: torch.device) -> int:
        """Return where a tensor lies; raise ValueError unless it is on ``device``."""
        ...

    def launch(self, kernel: Any, record: Launch, values: Sequence[Value]) -> None:
        """Queue a kernel on the current stream of ``record.device``."""
        ...


class Nvrtc:
    """The compiler as the backend sees it; tests put another in its place."""

    def problem(self) -> str | None:
        """Return why NVRTC cannot be used, None when it can."""
        return nvrtc_problem()

    def compiled(self, template_ids: Sequence[str], capability: tuple[int, int]) -> Compiled:
        """Return the kernels for a GPU, from the cache or compiled now."""
        problem = self.problem()
        if problem:
            raise DeviceError(problem)
        return compile_cached(
            kernel_source(),
            template_ids,
            architecture_for(capability, nvrtc_architectures()),
            nvrtc_version=nvrtc_version(),
            compile_kernels=compile_kernels,
        )


class CudaBackend:
    """Launches kernels on CUDA devices. One object serves all threads.

    The kernels of a device are a dictionary that is only ever added to, so launching takes no
    lock; compiling and loading do.
    """

    def __init__(self, runtime: Runtime, compiler: Nvrtc | None = None) -> None:
        self._runtime = runtime
        self._compiler = compiler or Nvrtc()
        self._kernels: dict[tuple[str, torch.device], Any] = {}
        self._lock = threading.Lock()

    def prepare(self, template_ids: Sequence[str], device: torch.device) -> None:
        """Compile (or fetch) and load kernels, so that launching them does neither.

        Raises DeviceError when that fails, or during CUDA-graph capture.
        """
        missing = [name for name in template_ids if (name, device) not in self._kernels]
        if not missing:
            return
        with self._lock:
            # Another thread may have loaded them meanwhile; the set stays whole, as the cache
            # is keyed by it.
            if all((name, device) in self._kernels for name in template_ids):
                return
            if self.capturing():
                raise DeviceError(
                    f"{missing[0]} is not loaded, and a CUDA graph is being captured: "
                    "run one step before the capture"
                )
            try:
                compiled = self._compiler.compiled(template_ids, self._runtime.capability(device))
                loaded = self._runtime.load(compiled, device)
            except DeviceError:
                raise
            except Exception as error:
                raise DeviceError(f"the kernels cannot be loaded on {device}: {error}") from error
            self._kernels.update({(name, device): one for name, one in loaded.items()})

    def capturing(self) -> bool:
        """Say whether the current stream is being captured into a CUDA graph."""
        return self._runtime.capturing()

    def launch(self, record: Launch) -> None:
        """Queue one launch on the current stream of its device.

        Raises DeviceError when the kernel cannot be had or CUDA refuses the launch.
        """
        kernel = self._kernels.get((record.kernel, record.device))
        if kernel is None:
            self.prepare((record.kernel,), record.device)
            kernel = self._kernels[record.kernel, record.device]
        if not 1 <= record.block <= MAX_THREADS:
            raise DeviceError(f"{record.kernel}: a block of {record.block} threads is impossible")
        if not 0 <= record.shared_bytes <= MAX_SHARED_BYTES:
            raise DeviceError(
                f"{record.kernel}: {record.shared_bytes} bytes of shared memory are more than "
                f"the {MAX_SHARED_BYTES} that every GPU grants"
            )
        try:
            values = marshalled(record, self._runtime.address)
            self._runtime.launch(kernel, record, values)
        except Exception as error:
            raise DeviceError(f"{record.kernel} cannot be launched: {error}") from error


def marshalled(record: Launch, address: Callable[[Tensor, torch.device], int]) -> tuple[Value, ...]:
    """Return the arguments as cuda-core takes them.

    A plain int is eight bytes to it (a pointer or ``long long``), a float is a double, and a
    32-bit int has to be asked for (a numpy scalar costs it a quarter of a ctypes one). Nothing
    here is shared between calls or threads.
    """
    return tuple(_value(argument, record.device, address) for argument in record.arguments)


def _value(
    argument: Argument, device: torch.device, address: Callable[[Tensor, torch.device], int]
) -> Value:
    if argument is None:
        return 0
    if isinstance(argument, Tensor):
        return address(argument, device)
    if isinstance(argument, Int64):
        return argument.value
    if isinstance(argument, float):
        return argument
    if not -INT_MAX - 1 <= argument <= INT_MAX:
        raise ValueError(f"{argument} does not fit 32 bits")
    return np.int32(argument)


# ---- CUDA itself, through cuda-core: load a cubin, launch a kernel
#
# Made only where torch sees a CUDA device. What can go wrong here is found by the first use of
# every kernel (selfcheck.py), which falls back.


def ready_backend(device: torch.device) -> CudaBackend:
    """Return the backend of a device, installing the one for CUDA when it is first asked for.

    Raises DeviceError without cuda-core, or for a device that has no kernels.
    """
    installed = backend_for(device)
    if isinstance(installed, CudaBackend):
        return installed
    if torch.version.hip:
        raise DeviceError(f"{device} is an AMD GPU: kernels are for NVIDIA GPUs only")
    if device.type != "cuda":
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

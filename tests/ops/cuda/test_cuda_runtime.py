"""The one file that speaks to CUDA, against cuda-core's own classes where they need no driver."""

import threading
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from stylecli.errors import DeviceError
from stylecli.ops.cuda import runtime
from stylecli.ops.cuda.compiler import Compiled
from stylecli.ops.cuda.runtime import Launch, set_backend
from tests.ops.cuda.standins import CPU, GPUS

needs_cuda_core = pytest.mark.skipif(
    find_spec("cuda") is None, reason="cuda-core is not installed (extra cuda)"
)


@pytest.fixture
def core(monkeypatch):
    """Replace what needs a driver, in cuda-core, its bindings and torch; return what they saw."""
    from cuda.bindings import driver

    seen = SimpleNamespace(device=0, stream=0, launched=[], current=[], guarded=[], loaded=[])

    class Code:
        @staticmethod
        def from_cubin(cubin, *, name):
            seen.loaded.append(cubin)
            return Code()

        def get_kernel(self, symbol):
            return SimpleNamespace(handle=symbol)

    @contextmanager
    def guard(device):
        seen.guarded.append(device)
        before, seen.device = seen.device, device.index
        yield
        seen.device = before

    own = runtime.CudaRuntime()
    real = own._core
    own._core = SimpleNamespace(
        ObjectCode=Code,
        LaunchConfig=real.LaunchConfig,
        Stream=SimpleNamespace(from_handle=lambda handle: f"stream {handle}"),
        Device=lambda index: SimpleNamespace(set_current=lambda: seen.current.append(index)),
        launch=lambda *given: seen.launched.append((*given, seen.device)),
    )
    success = driver.CUresult.CUDA_SUCCESS
    seen.function = lambda handle: (success, handle)
    monkeypatch.setattr(driver, "cuKernelGetFunction", lambda handle: seen.function(handle))
    monkeypatch.setattr(driver, "cuFuncLoad", lambda function: (success,))
    monkeypatch.setattr(torch.cuda, "device", guard)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: seen.device)
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=seen.stream)
    )
    seen.runtime = own
    return seen


def plain_record(device=GPUS[0]):
    return Launch("k<float>", (3, 2, 1), 128, 64, (), device)


@needs_cuda_core
def test_what_is_used_of_cuda_core_is_there():
    import cuda.core as core
    from cuda.bindings import driver

    assert core.ObjectCode.from_cubin and core.ObjectCode.get_kernel and core.Stream.from_handle
    assert core.Device.set_current and core.Kernel.handle and core.launch
    assert driver.cuKernelGetFunction and driver.cuFuncLoad


@needs_cuda_core
def test_launches_with_the_configuration_on_the_current_stream(core):
    core.stream = 1234
    core.runtime.launch("kernel", plain_record(), (5, 0.5))
    ((stream, config, kernel, *values, device),) = core.launched
    assert (stream, kernel, values, device) == ("stream 1234", "kernel", [5, 0.5], 0)
    assert (config.grid, config.block, config.shmem_size) == ((3, 2, 1), (128, 1, 1), 64)


@needs_cuda_core
def test_follows_the_stream_when_it_changes(core):
    for core.stream in (0, 7, 0):
        core.runtime.launch("kernel", plain_record(), ())
    assert [stream for stream, *_ in core.launched] == ["stream 0", "stream 7", "stream 0"]


@needs_cuda_core
def test_switches_to_the_device_of_the_launch_and_back(core):
    core.runtime.launch("kernel", plain_record(GPUS[1]), ())
    core.runtime.launch("kernel", plain_record(GPUS[0]), ())
    assert [device for *_, device in core.launched] == [1, 0]
    assert core.guarded == [GPUS[1]] and core.device == 0


@needs_cuda_core
def test_every_thread_gets_the_context_once(core):
    def twice():
        for _ in range(2):
            core.runtime.launch("kernel", plain_record(), ())

    twice()
    thread = threading.Thread(target=twice)
    thread.start()
    thread.join()
    assert core.current == [0, 0] and len(core.launched) == 4


@needs_cuda_core
def test_loads_every_kernel_at_once_on_its_device(core):
    compiled = Compiled("sm_90", b"cubin", {"a<1>": "_Za", "b<2>": "_Zb"}, {})
    kernels = core.runtime.load(compiled, GPUS[1])
    assert {name: kernel.handle for name, kernel in kernels.items()} == compiled.symbols
    assert core.guarded == [GPUS[1]] and core.loaded == [b"cubin"]


@needs_cuda_core
def test_a_kernel_that_does_not_load_is_named(core):
    from cuda.bindings import driver

    core.function = lambda handle: (driver.CUresult.CUDA_ERROR_NO_BINARY_FOR_GPU, None)
    with pytest.raises(RuntimeError, match=r"a<1>: CUDA_ERROR_NO_BINARY_FOR_GPU"):
        core.runtime.load(Compiled("sm_90", b"cubin", {"a<1>": "_Za"}, {}), GPUS[0])


@needs_cuda_core
def test_an_argument_on_another_device_is_refused(core):
    with pytest.raises(ValueError, match="an argument is on cpu: expected cuda:1"):
        core.runtime.address(torch.zeros(1), GPUS[1])
    assert core.runtime.address(x := torch.zeros(1), CPU) == x.data_ptr()


@needs_cuda_core
def test_the_backend_is_made_once(monkeypatch):
    try:
        first = runtime.ready_backend(GPUS[0])
        assert runtime.ready_backend(GPUS[1]) is first
    finally:
        set_backend("cuda", None)


@needs_cuda_core
def test_no_cuda_core_is_told_with_the_command(monkeypatch):
    def missing(self):
        raise ImportError("No module named 'cuda.core'")

    monkeypatch.setattr(runtime.CudaRuntime, "__init__", missing)
    with pytest.raises(DeviceError, match=r"No module named 'cuda.core'\), run: pip install 's"):
        runtime.ready_backend(GPUS[0])


@needs_cuda_core
def test_other_devices_have_no_kernels():
    with pytest.raises(DeviceError, match="no kernels for mps"):
        runtime.ready_backend(torch.device("mps"))

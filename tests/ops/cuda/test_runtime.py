"""The launch path: against a recording CUDA, and against cuda-core's own classes.

The first shows arguments, limits, threads and what is compiled when. The second is the one class
that speaks to CUDA, where that needs no driver.
"""

import ctypes
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stylecli.errors import DeviceError
from stylecli.ops.cuda import runtime
from stylecli.ops.cuda.compiler import Compiled
from stylecli.ops.cuda.launches import Int64, Launch, hand_over, set_backend
from stylecli.ops.cuda.runtime import MAX_SHARED_BYTES, marshalled
from tests.ops.cuda.standins import CPU, GPUS, FakeCuda

# ---- against a recording CUDA


@pytest.fixture
def cuda():
    """Install a recording CUDA for launches on "cuda" devices."""
    fake = FakeCuda()
    before = set_backend("cuda", fake.backend)
    yield fake
    set_backend("cuda", before)


def record(kernel="k<float>", device=GPUS[0], **changes):
    fields = {"grid": (3, 1, 1), "block": 128, "shared_bytes": 0, "arguments": (), **changes}
    return Launch(kernel, device=device, **fields)


def test_a_launch_reaches_cuda_with_grid_block_and_arguments(cuda):
    x = torch.zeros(4)
    asked = record(arguments=(x, None, 7, Int64(2**40), 0.5))
    hand_over(asked)
    ((kernel, seen, values, _),) = cuda.runtime.launches
    assert kernel == "k<float> on cuda:0" and seen is asked
    address, null, small, large, real = values
    assert (address, null, large, real) == (x.data_ptr(), 0, 2**40, 0.5)
    assert small == 7 and isinstance(small, np.int32)
    assert type(large) is int and type(real) is float


@pytest.mark.skipif(find_spec("cuda") is None, reason="cuda-core is not installed (extra cuda)")
def test_cuda_core_lays_the_arguments_out_as_the_kernel_reads_them():
    from cuda.core._kernel_arg_handler import ParamHolder

    x = torch.zeros(4)
    values = marshalled(
        record(arguments=(x, None, -7, Int64(-(2**40)), 0.5)), lambda tensor, _: tensor.data_ptr()
    )
    holder = ParamHolder(values)
    places = ctypes.cast(holder.ptr, ctypes.POINTER(ctypes.c_void_p))
    kinds = (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int32, ctypes.c_int64, ctypes.c_double)
    read = [kind.from_address(places[index]).value for index, kind in enumerate(kinds)]
    assert read == [x.data_ptr(), 0, -7, -(2**40), 0.5]


def test_an_int_that_does_not_fit_is_refused_before_anything_runs(cuda):
    with pytest.raises(DeviceError, match="does not fit 32 bits"):
        hand_over(record(arguments=(2**31,)))
    with pytest.raises(DeviceError, match="does not fit 32 bits"):
        cuda.backend.launch(record(arguments=(2**31,)))
    assert cuda.runtime.launches == []


@pytest.mark.parametrize("grid", [(0, 1, 1), (2**31, 1, 1), (1, 65536, 1), (1, 1, 65536)])
def test_a_grid_that_no_gpu_takes_is_refused(cuda, grid):
    with pytest.raises(DeviceError, match="out of range"):
        hand_over(record(grid=grid))
    assert cuda.runtime.launches == []


def test_the_largest_grid_is_taken(cuda):
    hand_over(record(grid=(2**31 - 1, 65535, 65535)))
    assert len(cuda.runtime.launches) == 1


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"block": 0}, "0 threads"),
        ({"block": 1025}, "1025 threads"),
        ({"shared_bytes": MAX_SHARED_BYTES + 1}, "49153 bytes of shared memory"),
    ],
)
def test_block_and_shared_memory_stay_within_every_gpu(cuda, changes, what):
    with pytest.raises(DeviceError, match=what):
        hand_over(record(**changes))
    assert cuda.runtime.launches == []


def test_a_kernel_is_compiled_and_loaded_once_for_each_device(cuda):
    for device in (*GPUS, *GPUS):
        hand_over(record(device=device))
    assert [device for _, device in cuda.runtime.loads] == list(GPUS)
    assert [kernel for kernel, *_ in cuda.runtime.launches] == [
        f"k<float> on cuda:{index}" for index in (0, 1, 0, 1)
    ]


def test_prepared_kernels_are_neither_compiled_nor_loaded_at_launch(cuda):
    cuda.backend.prepare(("a<1>", "b<2>"), GPUS[0])
    hand_over(record("a<1>"))
    hand_over(record("b<2>"))
    cuda.backend.prepare(("a<1>", "b<2>"), GPUS[0])
    assert cuda.compiler.calls == [(("a<1>", "b<2>"), (9, 0))]


def test_threads_that_come_at_once_load_a_kernel_once(cuda):
    together = threading.Barrier(8)

    def use(index):
        together.wait()
        hand_over(record(arguments=(index,)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    assert len(cuda.runtime.loads) == 1
    assert len({thread for *_, thread in cuda.runtime.launches}) == 8
    # each launch kept its own arguments
    assert sorted(int(values[0]) for _, _, values, _ in cuda.runtime.launches) == list(range(8))


def test_nothing_is_compiled_while_a_graph_is_captured(cuda):
    cuda.backend.prepare(("ready<1>",), GPUS[0])
    cuda.runtime.is_capturing = True
    hand_over(record("ready<1>"))
    with pytest.raises(DeviceError, match="graph is being captured: run one step before"):
        hand_over(record("late<1>"))
    assert len(cuda.compiler.calls) == 1 and len(cuda.runtime.launches) == 1


def test_a_failed_load_is_tried_again_and_told_in_one_sentence(cuda):
    cuda.runtime.load_error = RuntimeError("CUDA_ERROR_NO_BINARY_FOR_GPU")
    with pytest.raises(DeviceError, match="cannot be loaded on cuda:0: CUDA_ERROR_NO_BINARY"):
        hand_over(record())
    cuda.runtime.load_error = None
    hand_over(record())
    assert len(cuda.runtime.launches) == 1


def test_a_failed_launch_names_the_kernel(cuda):
    cuda.runtime.launch_error = RuntimeError("CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES")
    with pytest.raises(DeviceError, match=r"k<float> cannot be launched: CUDA_ERROR_LAUNCH_OUT"):
        hand_over(record())


def test_a_failed_compilation_reaches_the_caller(cuda):
    cuda.compiler.error = DeviceError("NVRTC 13.0 refused the kernels for sm_90: error")
    with pytest.raises(DeviceError, match="refused"):
        hand_over(record())


# ---- against cuda-core's own classes


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


def test_an_amd_gpu_is_called_that(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    with pytest.raises(DeviceError, match="cuda:0 is an AMD GPU"):
        runtime.ready_backend(torch.device("cuda", 0))

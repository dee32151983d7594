"""A pretended GPU: tensors that say they are on CUDA, hold CPU memory, refuse what CUDA would.

``pretend()`` comes before ``import torch``: it loads the guard (guard.cpp) that a CPU build of
torch takes for two CUDA devices. From then on ``device="cuda"`` gives tensors that compute on the
CPU with true numbers, refuse to be mixed with tensors elsewhere, obey CUDA's autocast and are
differentiated on the device's own thread. ``seen`` counts what a GPU would wait for. Kernels are
those of the host build.

What this cannot show: speed, cuDNN's choices, memory, and anything asynchronous.
"""

import contextlib
import ctypes
import hashlib
import importlib.util
import os
import subprocess
import tempfile
import traceback
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

GUARD = Path(__file__).with_name("guard.cpp")
seen: Counter[str] = Counter()  # waits: the host for the device; uploads: copies that block
where: dict[str, set[str]] = {}  # kind of wait -> places in the product
rounding: set[str] = set()  # how float32 is multiplied, which a CPU has no switch for
_LIBRARIES = ("libc10.so", "libtorch_cpu.so")
capturing = False  # whether what runs now would be captured: no waits, copies and random numbers
_COUNT = 2


def build_guard(compiler: str) -> Path:
    """Compile the guard against the installed torch, once for each torch; return the library."""
    torch = _torch_folder()
    text = GUARD.read_bytes() + (torch / "version.py").read_bytes()
    folder = Path(tempfile.gettempdir()) / f"stylecli-host-{os.getuid()}"
    made = folder / f"guard-{hashlib.sha256(text).hexdigest()[:20]}.so"
    if not made.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            output = Path(work) / "guard.so"
            places = [f"-I{torch / 'include'}", f"-L{torch / 'lib'}"]
            subprocess.run(
                [compiler, "-std=c++20", "-O0", "-w", "-shared", "-fPIC", *places, str(GUARD),
                 "-o", str(output), "-lc10", "-ltorch_cpu"], check=True,
            )  # fmt: skip
            output.replace(made)
    return made


def _torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def pretend(guard: Path) -> None:
    """Give this process two GPUs; torch must not have been imported yet."""
    believe(guard)
    import torch

    _pretend_tensors(torch)


def believe(guard: Path) -> None:
    """Have torch, not imported yet, believe in two GPUs on which there are no tensors."""
    for name in _LIBRARIES:
        ctypes.CDLL(str(_torch_folder() / "lib" / name), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(guard), mode=ctypes.RTLD_GLOBAL)
    import torch

    _pretend_module(torch)


def replayed(work: Callable[[], None]) -> Callable[[], None]:
    """Return what stands for the replay of a CUDA graph: the work, refused what no graph has."""

    def replay() -> None:
        global capturing
        capturing = True
        try:
            work()
        finally:
            capturing = False
        seen["replay"] += 1

    return replay


def note(kind: str) -> None:
    """Count a wait or a copy, and remember which line of the product asked for it."""
    if capturing:
        raise RuntimeError(f"operation not permitted when stream is capturing: {kind}")
    seen[kind] += 1
    for frame in reversed(traceback.extract_stack()):
        if f"{os.sep}stylecli{os.sep}" in frame.filename:
            name = frame.filename.rpartition(f"{os.sep}stylecli{os.sep}")[2]
            where.setdefault(kind, set()).add(f"{name}:{frame.name}")
            return
    where.setdefault(kind, set()).add("outside")


def _pretend_tensors(torch: Any) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

    aten = torch.ops.aten
    tensor_of_cuda: Any = None
    pinned: set[int] = set()
    generators: dict[int, tuple[Any, Any]] = {}  # address -> (generator, its device)
    real_generator = torch.Generator
    waits = {aten._local_scalar_dense.default: "wait", aten.nonzero.default: "wait",
             aten.equal.default: "wait", aten.masked_select.default: "wait",
             aten.is_nonzero.default: "wait"}  # fmt: skip

    multiplies = {aten.convolution.default: "convolution", aten.mm.default: "product",
                  aten.convolution_backward.default: "convolution", aten.bmm.default: "product",
                  aten.addmm.default: "product"}  # fmt: skip

    def run(func: Any, args: Any, kwargs: Any) -> Any:
        kwargs = dict(kwargs or {})
        flat, shape = tree_flatten((args, kwargs))
        ours = [one for one in flat if isinstance(one, tensor_of_cuda)]
        asked = kwargs.get("device")
        asked = None if asked is None else torch.device(asked)
        devices = {one.device for one in ours}
        if len(devices) > 1:
            raise RuntimeError(f"{func}: tensors on {sorted(map(str, devices))}")
        device = next(iter(devices), None)
        target = asked or device
        moves = func in (aten._to_copy.default, aten.copy_.default)
        if device is not None and not moves:
            for one in flat:
                if isinstance(one, torch.Tensor) and not isinstance(one, tensor_of_cuda):
                    if one.dim() > 0:
                        raise RuntimeError(f"{func}: expected all tensors on {device}, found cpu")
        if (generator := kwargs.get("generator")) is not None and target is not None:
            if capturing:
                raise RuntimeError(f"{func}: random numbers in what is captured")
            own = generators.get(generator._cdata, (None, torch.device("cpu")))[1]
            if own.type != target.type:
                raise RuntimeError(f"{func}: expected a {target} generator, found {own}")
        if device is not None and (kind := multiplies.get(func)) and ours[0].dtype == torch.float32:
            backend = torch.backends.cuda.matmul if kind == "product" else torch.backends.cudnn.conv
            rounding.add(f"{kind} in {backend.fp32_precision}")
        if device is not None and func in waits:
            note(waits[func])
        if func is aten.index.Tensor and device is not None:
            if any(one is not None and one.dtype == torch.bool for one in args[1]):
                note("wait")
        if moves:
            source = args[0] if func is aten._to_copy.default else args[1]
            from_gpu = isinstance(source, tensor_of_cuda)
            if func is aten._to_copy.default:
                to_gpu = asked.type == "cuda" if asked is not None else from_gpu
            else:
                to_gpu = isinstance(args[0], tensor_of_cuda)
            if from_gpu and not to_gpu:
                note("wait")
            elif to_gpu and not from_gpu:
                quiet = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
                is_pinned = source.untyped_storage().data_ptr() in pinned
                note("pinned upload" if quiet and is_pinned else "upload")
        if asked is not None and asked.type == "cuda":
            kwargs["device"] = torch.device("cpu")
            flat, shape = tree_flatten((args, kwargs))
        plain = [one.inner if isinstance(one, tensor_of_cuda) else one for one in flat]
        plain_args, plain_kwargs = tree_unflatten(plain, shape)
        result = func(*plain_args, **plain_kwargs)
        on_gpu = target is not None and target.type == "cuda"
        if func is aten.copy_.default:
            return args[0]
        if not on_gpu:
            return result
        if target.index is None:
            target = torch.device("cuda", torch.accelerator.current_device_index())
        known = {id(one.inner): one for one in ours}

        def wrap(one: Any) -> Any:
            if not isinstance(one, torch.Tensor) or isinstance(one, tensor_of_cuda):
                return one
            held = known.get(id(one))
            if held is not None:
                return held
            if one._is_zerotensor():  # of autograd: without memory, which nothing below here knows
                one = torch.zeros(one.shape, dtype=one.dtype)
            return tensor_of_cuda(one, target)

        return tree_map(wrap, result)

    class OnGpu(torch.Tensor):
        """A tensor that says it is on a GPU."""

        @staticmethod
        def __new__(cls: Any, inner: Any, device: Any = "cuda:0", **_: Any) -> Any:
            made = torch.Tensor._make_wrapper_subclass(
                cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
                dtype=inner.dtype, layout=inner.layout, device=torch.device(device),
                requires_grad=inner.requires_grad,
            )  # fmt: skip
            made.inner = inner.detach()
            return made

        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            return run(func, args, kwargs)

        def data_ptr(self) -> int:
            return int(self.inner.data_ptr())

        def tolist(self) -> Any:
            note("wait")
            return self.inner.tolist()

        def numpy(self, **_: Any) -> Any:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

        def record_stream(self, stream: Any) -> None:
            pass

        def __deepcopy__(self, memo: Any) -> Any:
            copy = OnGpu(self.inner.clone(), self.device).requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                copy = torch.nn.Parameter(copy.detach(), requires_grad=self.requires_grad)
            memo[id(self)] = copy
            return copy

        @property
        def data(self) -> Any:
            return self.detach()

        @data.setter
        def data(self, value: Any) -> None:
            assert isinstance(value, OnGpu) and value.shape == self.shape
            self.inner = value.inner

    tensor_of_cuda = OnGpu
    torch.pretended = OnGpu

    class Factories(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            return run(func, args, kwargs)

    Factories().__enter__()
    torch.__future__.set_overwrite_module_params_on_conversion(True)

    real_tensor, real_empty = torch.tensor, torch.empty

    def tensor(data: Any, *, device: Any = None, **kwargs: Any) -> Any:
        made = real_tensor(data, **kwargs)
        return made if device is None else made.to(device)

    def empty(*size: Any, pin_memory: bool = False, **kwargs: Any) -> Any:
        made = real_empty(*size, **kwargs)
        if pin_memory:
            seen_in = f"pinned by cuda:{torch.accelerator.current_device_index()}"
            where.setdefault(seen_in, set()).add("a thread")
            pinned.add(made.untyped_storage().data_ptr())
            generators[-len(generators) - 1] = (made, None)  # kept: its address stays its own
        return made

    class Generator:
        def __new__(cls, device: Any = "cpu") -> Any:
            made = real_generator()
            generators[made._cdata] = (made, torch.device(device))
            return made

    def inference_mode(mode: bool = True) -> Any:  # wrappers have no inference form
        return torch.no_grad() if mode else contextlib.nullcontext()

    torch.tensor, torch.empty, torch.Generator = tensor, empty, Generator
    torch.inference_mode = inference_mode


def _pretend_module(torch: Any) -> None:
    """Make torch.cuda answer as with two GPUs, and count where the host waits."""

    class Event:
        def __init__(self, **_: Any) -> None:
            pass

        def record(self, stream: Any = None) -> None:
            pass

        def query(self) -> bool:
            return True

        def synchronize(self) -> None:
            pass  # of the events of other threads and past work: see ``wait`` for the device

        def elapsed_time(self, other: Any) -> float:
            return 1.0

    class Stream:
        cuda_stream = 0

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None:
            pass

        def synchronize(self) -> None:
            note("wait")

        def wait_event(self, event: Any) -> None:
            pass

        def wait_stream(self, stream: Any) -> None:
            pass

        record_event = wait_event

    here = torch.accelerator.current_device_index  # the guard's: a number in each thread

    def become(device: Any) -> None:
        index = device if isinstance(device, int) else torch.device(device).index
        if index is not None:
            torch.accelerator.set_device_index(index)

    class CurrentDevice:
        """``torch.cuda.device``: another device within, in this thread."""

        def __init__(self, device: Any) -> None:
            self.device = device

        def __enter__(self) -> None:
            self.before = here()
            become(self.device)

        def __exit__(self, *_: Any) -> None:
            become(self.before)

    cuda: Any = torch.cuda
    answers: dict[str, Any] = {
        "_lazy_init": lambda: None, "is_available": lambda: True, "is_initialized": lambda: True,
        "device_count": lambda: _COUNT, "device": CurrentDevice,
        "current_device": here, "set_device": become,
        "synchronize": lambda device=None: note("wait"),
        "get_device_name": lambda device=None: "pretended", "Event": Event, "Stream": Stream,
        "get_device_capability": lambda device=None: (9, 0), "empty_cache": lambda: None,
        "current_stream": lambda device=None: Stream(), "stream": lambda stream: Stream(),
        "get_device_properties": lambda device=None: types.SimpleNamespace(
            name="pretended", total_memory=16 << 30, major=9, minor=0, multi_processor_count=1),
        "mem_get_info": lambda device=None: (8 << 30, 16 << 30),
        "memory_allocated": lambda device=None: 1 << 20,
        "max_memory_allocated": lambda device=None: 1 << 20,
        "max_memory_reserved": lambda device=None: 2 << 20,
        "reset_peak_memory_stats": lambda device=None: None,
        "is_current_stream_capturing": lambda: False, "is_bf16_supported": lambda *_: True,
        "manual_seed_all": lambda seed: None, "manual_seed": lambda seed: None,
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(cuda, name, answer)
    import torch.cuda.amp.common as amp

    amp.amp_definitely_not_available = lambda: False  # or CUDA's autocast is off


def use_host_kernels() -> Any:
    """Have the product's kernels run by the host build; return the list of what was launched."""
    from stylecli.ops.cuda.launches import set_backend
    from stylecli.ops.cuda.runtime import CudaBackend
    from tests.ops.cuda.host_build import HostBackend
    from tests.ops.cuda.standins import CountingCompiler, RecordingRuntime

    host = HostBackend()
    set_backend("cuda", CudaBackend(RecordingRuntime(run=host.launch), CountingCompiler()))
    return host.launched

"""A recording CUDA for tests: stands under the backend where cuda-core stands on a GPU."""

import threading
from dataclasses import dataclass, field

import pytest
import torch

from stylecli.errors import DeviceError
from stylecli.ops.cuda.compiler import Compiled
from stylecli.ops.cuda.runtime import CudaBackend


@dataclass
class RecordingRuntime:
    """Writes down what CUDA would be asked for; ``run`` may carry a launch out."""

    run: object = None
    architecture: tuple[int, int] = (9, 0)
    is_capturing: bool = False
    load_error: Exception | None = None
    launch_error: Exception | None = None
    loads: list = field(default_factory=list)
    launches: list = field(default_factory=list)

    def capability(self, device):
        return self.architecture

    def capturing(self):
        return self.is_capturing

    def load(self, compiled, device):
        if self.load_error:
            raise self.load_error
        self.loads.append((compiled, device))
        return {name: f"{name} on {device}" for name in compiled.symbols}

    def address(self, tensor, device):
        return tensor.data_ptr()

    def launch(self, kernel, record, values):
        if self.launch_error:
            raise self.launch_error
        self.launches.append((kernel, record, values, threading.get_ident()))
        if self.run:
            self.run(record)


@dataclass
class CountingCompiler:
    """Stands in for NVRTC and its cache."""

    error: DeviceError | None = None
    calls: list = field(default_factory=list)

    def problem(self):
        return str(self.error) if self.error else None

    def compiled(self, template_ids, capability):
        self.calls.append((tuple(template_ids), capability))
        if self.error:
            raise self.error
        return Compiled("sm_90", b"cubin", dict.fromkeys(template_ids, "_Z"), {})


@dataclass
class FakeCuda:
    """A backend with both stand-ins at hand."""

    runtime: RecordingRuntime = field(default_factory=RecordingRuntime)
    compiler: CountingCompiler = field(default_factory=CountingCompiler)

    def __post_init__(self):
        self.backend = CudaBackend(self.runtime, self.compiler)


CPU = torch.device("cpu")
GPUS = (torch.device("cuda", 0), torch.device("cuda", 1))


@pytest.fixture
def cuda():
    return FakeCuda()

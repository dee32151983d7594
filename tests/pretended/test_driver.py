"""The launch path through the real cuda-core, over a stub of NVIDIA's driver (driver.c).

In a process of its own, which finds the stub where it looks for ``libcuda.so.1``.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.ops.cuda.host_build import COMPILER, NOT_PROVEN
from tests.pretended.device import build_guard

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None, reason=NOT_PROVEN),
    pytest.mark.skipif(sys.platform != "linux", reason="the stub is a Linux library"),
    pytest.mark.skipif(find_spec("cuda") is None, reason="cuda-core is not installed (extra cuda)"),
    pytest.mark.skipif(
        torch.version.cuda is not None, reason="this torch would find the stub's devices empty"
    ),
]
ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, threading
from pathlib import Path
from tests.pretended import device

device.pretend(Path(sys.argv[1]))
import torch
from stylecli.errors import DeviceError
from stylecli.ops.cuda.compiler import Compiled
from stylecli.ops.cuda.launches import Int64, Launch
from stylecli.ops.cuda.runtime import CudaBackend, CudaRuntime

class Compiler:
    cubin = b"accepted" * 8

    def problem(self):
        return None

    def compiled(self, names, capability):
        assert capability == (9, 0)
        return Compiled("sm_90", self.cubin, {name: "symbol" for name in names}, {})

x, y = torch.zeros(4, device="cuda:0"), torch.zeros(4, device="cuda:1")
compiler = Compiler()
backend = CudaBackend(CudaRuntime(), compiler)

def launch(kernel, tensor, grid, number):
    backend.launch(Launch(kernel, (grid, 1, 1), 128, 0, (tensor, number), tensor.device))

launch("k<float>", x, 3, 7)
thread = threading.Thread(target=launch, args=("k<float>", x, 4, -8))
thread.start()
thread.join()
launch("k<float>", y, 5, 9)
compiler.cubin = b"refused" * 8
try:
    launch("other<float>", x, 6, 1)
except DeviceError as error:
    print("refused:", str(error).splitlines()[0])
try:
    launch("k<float>", x, 0x7fffffff, 1 << 40)
except DeviceError as error:
    print("too large:", str(error).splitlines()[0])
print(x.data_ptr(), y.data_ptr())
"""


def test_launches_reach_the_driver_on_every_device_and_thread(tmp_path: Path) -> None:
    assert COMPILER is not None
    source, library = Path(__file__).with_name("driver.c"), tmp_path / "libcuda.so.1"
    options = ["-x", "c", "-w", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([COMPILER, *options, str(source), "-o", str(library)], check=True)
    log = tmp_path / "calls"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": str(tmp_path),
                   "PRETENDED_DRIVER_LOG": str(log), "OMP_NUM_THREADS": "1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, build_guard(COMPILER)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    refused, too_large, addresses = done.stdout.splitlines()
    x, y = addresses.split()
    load = ["symbol 0 0 0", f"function {0x2000 + ord('s')} 0 0"]
    wanted = [
        "retain 0 0 0", "current 0 0 0", "load 0 0 0", *load,
        "launch 0 3 128", f"arguments {x} 7 0",
        # A thread begins without a context, and the kernel is loaded already.
        "retain 0 0 0", "current 0 0 0", "launch 0 4 128", f"arguments {x} -8 0",
        "retain 1 0 0", "current 1 0 0", "load 1 0 0", *load,
        "launch 1 5 128", f"arguments {y} 9 0",
    ]  # fmt: skip
    calls = log.read_text().splitlines()
    assert calls == wanted
    assert refused.startswith("refused: the kernels cannot be loaded on cuda:0")
    assert "does not fit 32 bits" in too_large

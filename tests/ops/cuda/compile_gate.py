"""What NVRTC makes of every kernel for every architecture, and the limits it must keep.

The test of the gate and the script of the table (tests/benchmarks/compile_table.py) share this.
It needs NVRTC from its pip package and neither a GPU nor a driver. The machine code is read with
nvdisasm, from its own pip package.
"""

import multiprocessing
import re
import subprocess
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from stylecli.ops.cuda.calls import variants
from stylecli.ops.cuda.compiler import Compiled, compile_kernels, kernel_source

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")

EVERY_KERNEL = tuple(name for group in variants().values() for name in group)

REGISTER_LIMITS = {
    "bias_act": 64,
    "bias_act_gradient": 72,
    "fir_tile": 64,
    "fir_any": 64,
    "epilogue_plane": 72,
    "epilogue_plane_gradient": 80,
    "epilogue_statistics": 64,
    "epilogue_apply": 64,
    "epilogue_gradient_statistics": 80,
    "epilogue_gradient_apply": 80,
    "filtered_lrelu": 80,
    "filtered_lrelu_slopes": 80,
    "bent_tile": 64,
    "bent_last": 80,
    "bias_act_last": 64,
    "bias_act_last_gradient": 80,
    "fir_last": 64,
    "epilogue_last_statistics": 64,
    "epilogue_last_merge": 40,
    "epilogue_last_apply": 64,
    "epilogue_last_gradient_statistics": 80,
    "epilogue_last_gradient_apply": 80,
}
"""Registers a thread. 64 leave room for 1024 threads on a multiprocessor, 80 for 768."""

LARGEST_PLANE_LIMIT = 128
"""The gradient of the largest plane holds two of them in the registers of its 512 threads."""

DOUBLE_LIMIT = 128
"""float64 serves tests only."""

WIDE_LOADS = ("bias_act", "bias_act_gradient", "epilogue_", "fir_last")
"""Beginnings of the kernels that promise 128-bit loads; those that write pictures, stores too."""

_SECTION = re.compile(r"^\.text\.(\S+):", re.MULTILINE)
_MEMORY = re.compile(r"\b(LDG|STG|LDL|STL)(\.[A-Z0-9.]+)?")


def family(template_id: str) -> str:
    """Return the name of the kernel without its template arguments."""
    return template_id.partition("<")[0]


def register_limit(template_id: str) -> int:
    """Return how many registers a thread of this kernel may take."""
    if "<double" in template_id:
        return DOUBLE_LIMIT
    if template_id.startswith("epilogue_plane_gradient") and template_id.endswith("512, 32>"):
        return LARGEST_PLANE_LIMIT
    return REGISTER_LIMITS[family(template_id)]


def promises_wide_loads(template_id: str) -> bool:
    """Say whether the kernel has a path of 128-bit loads.

    Those of channels-last features read four channels: 64 bits in half precision.
    """
    name = family(template_id)
    if "_last" in name and name != "fir_last":
        return "<float" in template_id and name != "epilogue_last_merge"
    return template_id.startswith(WIDE_LOADS)


def promises_wide_stores(template_id: str) -> bool:
    """Say whether the kernel writes as many values as it reads, 128 bits at a time."""
    return promises_wide_loads(template_id) and "statistics" not in family(template_id)


def compile_all(
    architectures: Sequence[str] = ARCHITECTURES, *, processes: int = 2
) -> list[Compiled]:
    """Compile every kernel, one program for each architecture, in parallel processes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        return list(pool.map(compile_architecture, architectures))


def compile_architecture(architecture: str) -> Compiled:
    """Compile every kernel for one architecture."""
    return compile_kernels(kernel_source(), EVERY_KERNEL, architecture)


def disassembler() -> Path | None:
    """Return the nvdisasm that pip installed, None when it did not."""
    packages = Path(sysconfig.get_path("purelib"))
    return next(packages.glob("nvidia/*/bin/nvdisasm*"), None)


def memory_instructions(compiled: Compiled, tool: Path) -> dict[str, Counter[str]]:
    """Count each kernel's loads and stores of global and local memory, such as ``LDG.128``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernels.cubin"
        file.write_bytes(compiled.cubin)
        done = subprocess.run([tool, "-c", file], capture_output=True, text=True, check=True)
    pieces = _SECTION.split(done.stdout)[1:]
    code = dict(zip(pieces[::2], pieces[1::2], strict=True))
    return {
        name: Counter(_short(*found) for found in _MEMORY.findall(code[symbol]))
        for name, symbol in compiled.symbols.items()
    }


def _short(operation: str, modifiers: str) -> str:
    return f"{operation}.128" if ".128" in modifiers else operation

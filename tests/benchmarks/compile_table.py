"""Write the table of what NVRTC makes of the kernels into docs/kernels-measured.md.

    python tests/benchmarks/compile_table.py          both tables
    python tests/benchmarks/compile_table.py host     the costs on the host alone

Compiles every kernel for every architecture (two CPU minutes), reads the machine code with
nvdisasm, and times the parts of the launch path that need no GPU. The tables stand between
``<!-- compiled -->`` or ``<!-- host -->`` and its end; the limits are those that the tests hold
(tests/ops/cuda/compile_gate.py).
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from stylecli.ops.cuda.compiler import Compiled, nvrtc_version  # noqa: E402
from tests.ops.cuda import compile_gate  # noqa: E402

PAGE = ROOT / "docs" / "kernels-measured.md"
TYPES = ("float", "f16", "bf16")


def table(compiled: list[Compiled]) -> list[str]:
    """Return the table in Markdown: a row for each kernel and shape, a column for each card."""
    tool = compile_gate.disassembler()
    if tool is None:
        raise SystemExit("nvdisasm is not installed, run: pip install 'stylecli[dev]'")
    moves = {one.architecture: compile_gate.memory_instructions(one, tool) for one in compiled}
    header = ["kernel", *compile_gate.ARCHITECTURES, "limit", "shared", "128-bit"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for name in compile_gate.EVERY_KERNEL:
        if "<float" not in name:
            continue
        twins = [name.replace("<float", f"<{kind}") for kind in TYPES]
        twins = [twin for twin in twins if twin in compile_gate.EVERY_KERNEL]
        registers = [
            "/".join(str(one.resources[twin].registers) for twin in twins) for one in compiled
        ]
        shared = max(compiled[0].resources[twin].shared_bytes for twin in twins)
        cells = [
            f"`{name.replace('<float', '<T')}`",
            *registers,
            str(compile_gate.register_limit(name)),
            f"{shared} B" if shared else "",
            wide([counts[twin] for counts in moves.values() for twin in twins]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    every = [taken for one in compiled for taken in one.resources.values()]
    doubles = [
        taken.registers
        for one in compiled
        for name, taken in one.resources.items()
        if "<double" in name
    ]
    local = sum(
        count["LDL"] + count["STL"] for counts in moves.values() for count in counts.values()
    )
    lines += [
        "",
        f"{len(every)} compilations ({len(compile_gate.EVERY_KERNEL)} kernels for "
        f"{len(compiled)} architectures) by NVRTC {nvrtc_version()}: "
        f"{sum(one.spill_bytes for one in every)} bytes spilled, "
        f"{sum(one.stack_bytes for one in every)} bytes of stack, {local} instructions on local "
        f"memory. The float64 kernels, which serve tests, take up to {max(doubles)} registers "
        f"(limit {compile_gate.DOUBLE_LIMIT}).",
    ]
    return lines


def wide(counts: list[dict[str, int]]) -> str:
    """Return what every one of the compilations moves 128 bits at a time."""
    words = {"LDG.128": "loads", "STG.128": "stores"}
    return ", ".join(
        word for operation, word in words.items() if all(count[operation] for count in counts)
    )


def microseconds(work: Callable[[], object], repeat: int = 2000) -> float:
    """Return the median CPU time of one call, of seven rounds."""
    rounds = []
    for _ in range(7):
        begin = time.process_time()
        for _ in range(repeat):
            work()
        rounds.append((time.process_time() - begin) / repeat * 1e6)
    return statistics.median(rounds)


def host_costs() -> list[str]:
    """Return what a first use and a launch cost on the host, as far as that needs no GPU."""
    import torch

    from stylecli.ops import dispatch
    from stylecli.ops.cuda.calls import variants
    from stylecli.ops.cuda.compiler import compile_cached, compile_kernels, kernel_source
    from stylecli.ops.cuda.launches import Int64, Launch, hand_over, set_backend
    from stylecli.ops.cuda.runtime import CudaBackend
    from tests.ops.cuda.standins import CPU, CountingCompiler, RecordingRuntime

    lines = ["| on the host | CPU time |", "|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STYLECLI_CACHE"] = folder
        for name, kernels in variants(("float",)).items():

            def first(kernels: list[str] = kernels) -> Compiled:
                return compile_cached(
                    kernel_source(), kernels, "sm_90",
                    nvrtc_version=nvrtc_version(), compile_kernels=compile_kernels,
                )  # fmt: skip

            begin = time.process_time()
            size = len(first().cubin)
            spent = time.process_time() - begin
            again = microseconds(first, 10) / 1000
            lines.append(
                f"| {name}: {len(kernels)} float32 kernels compiled, {size / 1e3:.0f} kB | "
                f"{spent:.1f} s |"
            )
            lines.append(f"| {name}: the same from the cache | {again:.1f} ms |")
    x = torch.zeros(8)
    question = ("bias_act", CPU, torch.float32)
    dispatch._ANSWERS[question] = True
    lookup = microseconds(lambda: dispatch._ANSWERS.get(("bias_act", x.device, x.dtype)), 20000)
    runtime = RecordingRuntime()
    runtime.launch = lambda *_: None  # type: ignore[method-assign]
    set_backend("cpu", CudaBackend(runtime, CountingCompiler()))
    record = Launch("k<float>", (3, 1, 1), 128, 0, (x, None, x, Int64(8), 7, 0.5, 1.0), CPU)
    lines.append(f"| the check of a later use: a dictionary look-up | {lookup:.2f} µs |")
    own = microseconds(lambda: hand_over(record))
    lines.append(f"| a launch up to cuda-core: look-up, limits, 7 arguments | {own:.1f} µs |")
    lines.append(f"| in cuda-core: configuration and argument slots | {cuda_core_cost():.1f} µs |")
    return lines


def cuda_core_cost() -> float:
    """Return what cuda-core spends on a launch before it calls the driver."""
    import numpy as np
    from cuda.core import LaunchConfig
    from cuda.core._kernel_arg_handler import ParamHolder

    values = (1, 0, 1, 8, np.int32(7), 0.5, 1.0)
    return microseconds(
        lambda: (LaunchConfig(grid=(3, 1, 1), block=(128, 1, 1), shmem_size=0), ParamHolder(values))
    )


def renew(name: str, content: list[str]) -> None:
    """Replace what stands between a mark and its end."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(before + "\n".join([begin, "", *content, "", end]) + after, encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {name}")


def main() -> None:
    """Compile, measure and write."""
    versions = ("cuda-core", "cuda-bindings", "torch")
    named = ", ".join(f"{package} {version(package)}" for package in versions)
    renew("host", [*host_costs(), "", f"{named}; medians of seven rounds."])
    if "host" not in sys.argv[1:]:
        renew("compiled", table(compile_gate.compile_all()))


if __name__ == "__main__":
    main()

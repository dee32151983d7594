"""``stylecli doctor``: one block of text that tells how the toolkit fares on this machine."""

from typing import TYPE_CHECKING, Any

import typer

from stylecli.cli.options import JsonOption, QuietOption
from stylecli.cli.output import Output
from stylecli.errors import ExitCode, plural
from stylecli.progress import format_bytes

if TYPE_CHECKING:
    from stylecli.health import Health

NO_GPU = (
    "no CUDA device: stylecli draws and trains with plain PyTorch",
    "on a GPU, doctor compiles bias_act, upfirdn2d, style_epilogue and filtered_lrelu, checks each",
    "against plain PyTorch in float32, float16, bfloat16 and float64, and measures GB/s of both",
)


def command(json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Check the installation, the devices and the GPU kernels.

    Example: stylecli doctor

    Prints one block to paste into a bug report, then each problem with the command that fixes it.
    On a GPU it also compiles the kernels, checks them against plain PyTorch and times both, and
    tries TF32 and what train --accelerate turns on. Exits with 0, or with 4 if
    STYLECLI_KERNELS=require is set and the kernels do not work.
    """
    from dataclasses import asdict

    from stylecli.health import examine

    output = Output(json=json, quiet=quiet)
    with output.progress("checking kernels", "cases") as progress:
        health = examine(progress=progress)
    output.result(asdict(health), _lines(health, output))
    if not required_kernels_work(health):
        raise typer.Exit(ExitCode.NO_DEVICE)


def required_kernels_work(health: "Health") -> bool:
    """Say whether nothing is required, or every kernel works and there is a device to run on."""
    if health.kernels.get("mode") != "require":
        return True
    rows = health.kernels["operators"]
    return bool(rows) and all(row["works"] for row in rows)


def _lines(health: "Health", output: Output) -> list[str]:
    sections = {
        "versions": _columns(health.versions.items()),
        "devices": [_device(one) for one in health.devices],
        "extras": _columns((name, _extra(one)) for name, one in health.extras.items()),
        "cache": [_cache(health.cache)] if health.cache else [],
        f"kernels (STYLECLI_KERNELS={health.kernels.get('mode', 'auto')})": _kernels(
            health.kernels, output
        ),
        "training on GPUs": [
            f"{one['device']}  {one['name']}: {one['sentence']}" for one in health.training
        ]
        or ["no CUDA device"],
        "problems": health.problems or ["none"],
    }
    lines: list[str] = []
    for title, content in sections.items():
        lines += [title, *(f"  {line}" for line in content)]
    return lines


def _columns(pairs: Any) -> list[str]:
    pairs = list(pairs)
    width = max((len(name) for name, _ in pairs), default=0)
    return [f"{name.ljust(width)}  {value}" for name, value in pairs]


def _device(one: dict[str, Any]) -> str:
    if one["device"] == "cpu":
        from stylecli.hardware import describe_precision

        return (
            f"cpu     {one['name']}, {one['instructions']}, {plural(one['cores'], 'core')}, "
            f"{plural(one['threads'], 'thread')}; {describe_precision(one['bf16_gain'])}"
        )
    if "compute_capability" not in one:
        return f"{one['device']}     {one['name']}"
    return (
        f"{one['device']}  {one['name']}, compute capability {one['compute_capability']}, "
        f"{one['multiprocessors']} multiprocessors, {one['memory_gib']} GiB, "
        f"{one['free_gib']} GiB free"
    )


def _extra(one: dict[str, Any]) -> str:
    return f"installed: {one['unlocks']}" if one["installed"] else f"{one['unlocks']}: {one['fix']}"


def _cache(cache: dict[str, Any]) -> str:
    return (
        f"{cache['folder']}: {format_bytes(cache['free_bytes'])} free, "
        f"{plural(cache['compiled_kernels'], 'file')} of compiled kernels "
        f"({format_bytes(cache['compiled_bytes'])}), {len(cache['weights'])} of weights"
        + ("" if cache["writable"] else ", NOT WRITABLE")
    )


def _kernels(kernels: dict[str, Any], output: Output) -> list[str]:
    if not kernels:
        return ["unknown"]
    if kernels["mode"] == "off":
        return ["switched off: nothing was compiled"]
    if not kernels["devices"]:
        return list(NO_GPU)
    rows = [_kernel_row(row) for row in kernels["operators"]]
    header = ("device", "operator", "dtype", "error", "allowed", "forward", "backward GB/s")
    return [*output.table(header, rows), "GB/s: kernel / plain PyTorch"]


def _kernel_row(row: dict[str, Any]) -> tuple[str, ...]:
    start = (row["device"], row["operator"], row["dtype"])
    if not row["works"]:
        return (*start, "not used", "", "", "")
    speeds = [
        f"{speed['fused']} / {speed['plain']}" if speed else ""
        for speed in (row.get("gb_s", {}).get(way) for way in ("forward", "backward"))
    ]
    return (*start, f"{row['largest_error']:.1e}", f"{row['allowed']:.0e}", *speeds)

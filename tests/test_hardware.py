"""The machine: devices by the names people give, and an allocator that keeps large blocks."""

import mmap
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import stylecli
from stylecli import hardware
from stylecli.errors import DeviceError, UsageError
from stylecli.hardware import (
    available_bytes,
    available_mib,
    bf16_gain,
    choose_precision,
    cuda_arithmetic,
    describe_precision,
    memory_figures,
    quicker_precision,
    resolve_device,
)

PROGRAM = """
import resource
import torch
from stylecli.hardware import tune_memory

def faults():
    for _ in range(8):  # until the heap has grown
        torch.ones(64 << 18)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(64 << 18)  # 64 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
assert tune_memory()
print(faults())
"""


@pytest.fixture
def machine(monkeypatch: Any) -> Any:
    """Return a function that pretends which devices there are."""

    def pretend(*, gpus: int, mps: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("system", "version", "driver", "amd", "none"),
    [
        ("darwin", "2.13.0", False, False, True),
        ("linux", "2.13.0+cpu", True, False, True),
        ("linux", "2.13.0+cu130", True, False, False),
        ("linux", "2.13.0+cu130", False, False, True),
        ("linux", "2.13.0", False, True, False),
        ("win32", "2.13.0+cu130", False, False, False),
    ],
)
def test_that_there_is_no_gpu_is_known_without_torch(
    system: str, version: str, driver: bool, amd: bool, none: bool, monkeypatch: Any
) -> None:
    def load(name: str) -> None:
        if not driver:
            raise OSError(name)

    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    monkeypatch.setattr("ctypes.CDLL", load)
    monkeypatch.setattr("os.path.exists", lambda path: amd)
    found = hardware._cannot_have_cuda.__wrapped__()
    monkeypatch.undo()

    assert found is none
    assert not hardware.lacks_cuda()  # torch is loaded here, and knows itself


@pytest.mark.parametrize(
    ("gpus", "mps", "expected"), [(1, True, "cuda"), (0, True, "mps"), (0, False, "cpu")]
)
def test_auto_takes_the_fastest_that_is_there(
    machine: Any, gpus: int, mps: bool, expected: str
) -> None:
    machine(gpus=gpus, mps=mps)

    assert resolve_device("auto") == torch.device(expected)


def test_a_numbered_gpu_can_be_asked_for(machine: Any) -> None:
    machine(gpus=2, mps=False)

    assert resolve_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize("name", ["cuda", "cuda:2", "mps"])
def test_a_device_this_machine_lacks_ends_with_the_way_out(machine: Any, name: str) -> None:
    machine(gpus=2 if name == "cuda:2" else 0, mps=False)

    with pytest.raises(DeviceError, match=f"device '{name}' is not available.*--device cpu"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0", ""])
def test_an_unknown_name_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match=f"unknown device {name!r}"):
        resolve_device(name)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose malloc it tunes")
def test_freed_blocks_are_used_again() -> None:
    """In a process of its own: the allocator stays as it is told."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    left, asked = map(int, done.stdout.split())

    assert asked * 4 < left


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [("max", "5", 8 << 20), (str(6 << 20), str(2 << 20), 4 << 20), ("100", "300", 0)],
    ids=["no limit", "a container's", "over the limit"],
)
def test_free_memory_is_the_less_of_the_system_s_and_the_container_s(
    tmp_path: Path, monkeypatch: Any, limit: str, used: str, expected: int
) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:  {8 << 10} kB\n")
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text(used)
    monkeypatch.setattr("stylecli.hardware._MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr("stylecli.hardware._CGROUP", tmp_path)

    assert available_bytes() == expected
    assert available_mib(torch.device("cpu")) == expected / 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_that_is_given_back_remains_in_the_peak() -> None:
    before = memory_figures(torch.device("cpu"))
    block = mmap.mmap(-1, 64 << 20)  # its own pages, none of the heap's
    block[:: mmap.PAGESIZE] = b"1" * ((64 << 20) // mmap.PAGESIZE)
    during = memory_figures(torch.device("cpu"))
    assert during["memory_now_mib"] > before["memory_now_mib"] + 60
    block.close()
    after = memory_figures(torch.device("cpu"))

    assert after["memory_mib"] > before["memory_now_mib"] + 60


SWITCHES = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)


def _set_by_old_names(tf32: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32


def _set_by_new_names(tf32: bool) -> None:
    torch.backends.cudnn.conv.fp32_precision = "tf32" if tf32 else "ieee"  # and nothing else


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("by", [_set_by_old_names, _set_by_new_names])
def test_float32_on_cuda_is_what_is_asked_for_whatever_the_program_has_set(
    by: Any, tf32: bool, exact: bool
) -> None:
    """With the new names alone, reading the old ones raises in torch."""
    before = [switch.fp32_precision for switch in SWITCHES]
    try:
        by(tf32)
        theirs = [switch.fp32_precision for switch in SWITCHES]
        with cuda_arithmetic(torch.device("cuda"), exact=exact):
            seen = {switch.fp32_precision for switch in SWITCHES}
            assert seen == {"ieee" if exact else "tf32"}
            assert torch.backends.cudnn.benchmark is not exact
            with cuda_arithmetic(torch.device("cuda"), exact=True):  # a sheet within training
                assert {switch.fp32_precision for switch in SWITCHES} == {"ieee"}
                assert torch.backends.cudnn.deterministic
            assert {switch.fp32_precision for switch in SWITCHES} == seen
        assert [switch.fp32_precision for switch in SWITCHES] == theirs
        assert not torch.backends.cudnn.benchmark
    finally:
        for switch, precision in zip(SWITCHES, before, strict=True):
            switch.fp32_precision = precision


def test_only_one_place_chooses_how_cuda_multiplies() -> None:
    names = re.compile(
        r"allow_tf32|fp32_precision|float32_matmul_precision|cudnn\.(benchmark|deterministic|flags)"
    )
    package = Path(stylecli.__file__).parent
    users = [path.name for path in package.rglob("*.py") if names.search(path.read_text("utf-8"))]
    assert users == ["hardware.py"]


@pytest.mark.parametrize(
    ("units", "gain", "auto"),
    [
        (True, 2.0, "bf16"),
        (True, 0.9, "float32"),
        (False, 1.1, "float32"),
        (False, 0.02, "float32"),
    ],
)
def test_a_processor_is_asked_for_its_precision(
    monkeypatch: Any, units: bool, gain: float, auto: str
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr("stylecli.hardware.has_bf16_units", lambda: units)
    monkeypatch.setattr("stylecli.hardware.bf16_gain", lambda: gain)

    assert quicker_precision(cpu) == choose_precision("auto", cpu) == auto
    assert choose_precision("float32", cpu) == "float32"
    assert choose_precision("bf16", cpu, force=True) == "bf16"
    if gain > 1:
        assert choose_precision("bf16", cpu) == "bf16"
    else:
        with pytest.raises(UsageError, match=f"bf16 is {1 / gain:.1f} times slower.* --force"):
            choose_precision("bf16", cpu)


def test_the_trial_is_short_and_says_who_is_quicker() -> None:
    bf16_gain.cache_clear()
    gain = bf16_gain()
    started = time.process_time()
    assert bf16_gain() == gain > 0
    assert time.process_time() - started < 0.001  # tried once
    assert describe_precision(2.04).startswith("bf16 is 2.0 times as fast as float32")
    assert describe_precision(1 / 46).startswith("float32 is 46.0 times as fast as bf16")

"""The kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.

The launches of the battery are recorded with their data and repeated by a program built with the
sanitizer, on buffers that end where the tensors end. Bugs planted on purpose must be found.
"""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from stylecli.ops.cuda import calls
from tests.ops.cuda.battery import LARGE, SMALL, Case
from tests.ops.cuda.host_build import (
    SANITIZERS,
    HostBackend,
    Recorder,
    installed,
    needs_compiler,
    replay,
)

pytestmark = needs_compiler

TYPES = (torch.float32, torch.bfloat16)  # four values to a 16-byte access, and eight
WARP = 32
WARP_KERNELS = [
    *[
        f"bias_act{part}<float, {smooth}, {WARP}>"
        for part in ("", "_gradient")
        for smooth in (0, 1)
    ],
    *[f"fir_tile<float, {up}, {down}, {WARP}>" for up, down in ((1, 1), (2, 1), (1, 2))],
    f"fir_any<float, {WARP}>",
    *[f"epilogue_plane{part}<float, {WARP}, 8>" for part in ("", "_gradient")],
    *[f"epilogue_{part}<float, {WARP}>" for part in ("statistics", "apply")],
    *[f"epilogue_gradient_{part}<float, {WARP}>" for part in ("statistics", "apply")],
]


def recorded(cases: Iterable[Case], types: Iterable[torch.dtype], backend: HostBackend) -> Recorder:
    recorder = Recorder(backend)
    with installed(recorder):
        for case in cases:
            for dtype in types:
                case.results(case.inputs(dtype))
    return recorder


@pytest.fixture
def warp_host(monkeypatch: Any) -> HostBackend:
    """Blocks of 32 threads: one OS thread each is still bearable."""
    monkeypatch.setattr(calls, "ACTIVATION_THREADS", WARP)
    monkeypatch.setattr(calls, "FIR_THREADS", WARP)
    monkeypatch.setattr(calls, "CHUNK_THREADS", WARP)
    monkeypatch.setattr(calls, "CHUNK", WARP * 16)
    monkeypatch.setattr(calls, "plane_shapes", lambda kind: ((WARP, 8),))
    return HostBackend(WARP_KERNELS)


def named(*names: str) -> list[Case]:
    return [case for case in (*SMALL, *LARGE) if case.name in names]


def test_no_access_is_out_of_bounds_or_unaligned(host: HostBackend, tmp_path: Path) -> None:
    done = replay(recorded((*SMALL, *LARGE), TYPES, host), tmp_path, SANITIZERS["address"])

    assert done.stderr == ""
    assert done.returncode == 0, done.stdout


def test_threads_do_not_race(warp_host: HostBackend, tmp_path: Path) -> None:
    tiled = named("upfirdn2d tiled blur", "upfirdn2d tiled up 2", "upfirdn2d tiled down 2")
    recorder = recorded((*SMALL, *tiled), [torch.float32], warp_host)
    done = replay(recorder, tmp_path, SANITIZERS["thread"])

    assert recorder.kernels == set(WARP_KERNELS)
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout


def test_an_off_by_one_is_found(host: HostBackend, tmp_path: Path) -> None:
    recorder = recorded(named("style_epilogue 5x7"), [torch.float32], host)
    planted = [*SANITIZERS["address"], "-DSTYLECLI_PLANT_OFF_BY_ONE"]
    done = replay(recorder, tmp_path, planted)

    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


def test_a_missing_alignment_guard_is_found(host: HostBackend, tmp_path: Path) -> None:
    recorder = recorded(named("bias_act unaligned"), [torch.float32], host)
    planted = [*SANITIZERS["address"], "-DSTYLECLI_PLANT_MISALIGNED"]
    done = replay(recorder, tmp_path, planted)

    assert done.returncode != 0
    assert "misaligned address" in done.stderr


def test_a_missing_barrier_is_found(warp_host: HostBackend, tmp_path: Path) -> None:
    recorder = recorded(named("style_epilogue 4x4"), [torch.float32], warp_host)
    planted = [*SANITIZERS["thread"], "-DSTYLECLI_PLANT_NO_BARRIER"]
    done = replay(recorder, tmp_path, planted)

    assert done.returncode != 0
    assert "data race" in done.stderr


def test_a_wrong_result_is_found(host: HostBackend, tmp_path: Path) -> None:
    """The replay compares what it computes, so that it cannot pass by doing nothing."""
    recorder = recorded(named("bias_act vector"), [torch.float32], host)
    clamp = recorder.launches[0][-8:]
    recorder.launches[0] = recorder.launches[0][:-8] + struct.pack("<d", 0.25)
    done = replay(recorder, tmp_path, ["-O0"])

    assert clamp == struct.pack("<d", -1.0)
    assert done.returncode == 1
    assert "different: launch 0, bias_act<float, 1, 128>" in done.stdout

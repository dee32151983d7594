"""Training and the commands on a pretended GPU: nothing mixes devices, nothing waits for one.

Everything runs once, in a process of its own that believes in two CUDA devices (device.py).
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ops.cuda.host_build import COMPILER, NOT_PROVEN
from tests.pretended.cases import COMMANDS, FARTHEST, NETWORKS, STEPS
from tests.pretended.device import build_guard

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("pretended"),
    pytest.mark.skipif(COMPILER is None, reason=NOT_PROVEN),
    pytest.mark.skipif(sys.platform != "linux", reason="the guard is built for Linux"),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tried(tmp_path_factory: Any, tiny_lmdb: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What came of every case."""
    import torch

    from stylecli.checkpoint import save_network
    from stylecli.networks.model import new_network
    from tests.pretended.cases import TINY

    if torch.cuda.is_available() or torch.version.cuda:
        pytest.skip("the guard stands in for CUDA in a CPU build of torch only")
    assert COMPILER is not None
    folder = tmp_path_factory.mktemp("pretended")
    (folder / "tiny.lmdb").symlink_to(tiny_lmdb)
    portrait = ROOT / "tests" / "fixtures" / "portraits" / "astronaut.jpg"
    (folder / "photo.jpg").symlink_to(portrait)
    save_network(folder / "tiny.safetensors", new_network("f", seed=0, **TINY))
    command = [sys.executable, "-m", "tests.pretended.cases", build_guard(COMPILER), folder]
    # A cache of its own: what metrics once kept of the same network is not computed again.
    own = {"PYTHONPATH": str(ROOT), "STYLECLI_CACHE": str(folder / "cache")}
    environment = {**os.environ, **own, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = [line[5:] for line in done.stdout.splitlines() if line.startswith("CASE ")]
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in lines]
    return {(row["kind"], row["name"]): row for row in rows}


@pytest.mark.parametrize("kernels", ["off", "require"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_draws_and_judges_as_on_a_cpu(name: str, kernels: str, tried: Any) -> None:
    """In grey levels, and relative. Some compute high resolutions in half precision on a GPU."""
    found = tried["network", name]

    assert "error" not in found, found["error"]
    assert found[f"float32, {kernels}"][0] <= 1
    assert found[f"bf16, {kernels}"][0] <= 5 and found[f"bf16, {kernels}"][1] < 0.5
    assert found[f"D, {kernels}"] < (1e-4 if name.split()[0] == "f" else 0.1)
    assert found[f"waited, {kernels}"] == {}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_computes_on_the_gpu_alone_and_never_waits_for_it(name: str, tried: Any) -> None:
    found = tried["step", name]

    assert "error" not in found, found["error"]
    assert found["waited"] == {}, found["where"]
    kind = "half" if "own half" in name else STEPS[name][1].get("precision", "float32")
    assert max(found["apart"]) < FARTHEST[kind]
    assert found["skipped"] == 0
    assert bool(found["replays"]) == ("graphs" in name)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_run(name: str, tried: Any) -> None:
    found = tried["command", name]

    assert found["exit_code"] == 0, found["output"] + found["error"]
    if "apart" in found:
        assert found["apart"] <= (1 if "bf16" not in name else 5)  # grey levels


@pytest.mark.parametrize("name", COMMANDS)
def test_float32_is_multiplied_in_full_but_in_training(name: str, tried: Any) -> None:
    """With TF32 a search or a metric would come to other numbers than the CPU's."""
    rounding = set(tried["command", name]["rounding"])
    full, tf32 = (
        {f"{kind} in {how}" for kind in ("convolution", "product")} for how in ("ieee", "tf32")
    )

    assert rounding
    if name.split()[0] in ("train", "plan", "bench", "doctor"):
        assert rounding & tf32 and rounding <= full | tf32
    else:
        assert rounding <= full


def test_doctor_tries_training_on_every_gpu(tried: Any) -> None:
    lines = tried["command", "doctor"]["output"].splitlines()
    for name in ("TF32", "channels-last", "graphs"):
        assert sum(line.split()[1:2] == [f"{name}:"] for line in lines) == 2
    assert lines[lines.index("problems") + 1].strip() == "none"


def test_a_gpu_is_timed_by_its_own_events(tried: Any) -> None:
    cases = json.loads(tried["command", "bench"]["output"])["cases"]

    assert any("(TF32)" in case["name"] for case in cases if case["unit"] == "step")
    assert all(case["gpu_seconds"]["median"] > 0 for case in cases)
    assert all(case["gpu_memory_mib"] and "gflops_per_gpu_second" in case for case in cases)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.startswith("train")])
def test_a_batch_is_copied_from_pinned_memory_and_waits_for_nothing(name: str, tried: Any) -> None:
    """But for what is done once: the kernels' checks, and the filters of augmentation.

    A kernel is checked where it is first asked for in a dtype. The first batch does so for all,
    but one: up to 8 px G computes in float32 (EXACT_SIDE), so that the epilogue is asked for in
    bfloat16 when a run grows to 16 px, with graphs or without. What a capture waits for is not
    seen here. The memory is pinned by the GPU that the command names.
    """
    first, *others = tried["command", name]["batches"]

    assert len(others) >= 3
    late = [batch["checked"] for batch in others if batch["checked"]]
    assert late == ([["style_epilogue torch.bfloat16"]] if name == "train with graphs" else [])
    for batch in (first, *others):
        stopped = {kind: batch["where"].get(kind, []) for kind in ("wait", "upload")}
        files = {place.partition(":")[0] for places in stopped.values() for place in places}
        once = {"ops/cuda/selfcheck.py"} if batch["checked"] else set()
        assert files <= once | ({"training/augment.py"} if batch is first else set()), batch
        assert batch["counts"]["pinned upload"] == first["counts"]["pinned upload"]
    pinned = {kind for batch in (first, *others) for kind in batch["where"] if "pinned by" in kind}
    assert pinned == {f"pinned by cuda:{1 if 'second' in name else 0}"}


def test_a_step_asks_for_no_more_than_it_did() -> None:
    """Counted, at 64 px in bf16: without waits, and the kernels save half of the bytes."""
    script = ROOT / "tests" / "benchmarks" / "step_counts.py"
    words = ["--resolutions", "64", "--precisions", "bf16", "--json"]
    command = [sys.executable, "-W", "ignore", str(script), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    plain, fused = (json.loads(line) for line in done.stdout.splitlines())

    assert plain["waits"] == fused["waits"] == 0
    assert (plain["own"], fused["own"]) == (0, 194)
    assert fused["bytes"] < 31e9 and fused["bytes"] < 0.52 * plain["bytes"]
    assert fused["launches"] + fused["own"] < 1720

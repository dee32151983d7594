"""What only a GPU can prove: ``pytest -m gpu`` on a machine that has one, in about ten minutes.

docs/first-hour-on-a-gpu.md says what to run before and after it, and what the figures should be.
"""

import copy
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import stylecli
from stylecli.hardware import cuda_arithmetic
from stylecli.networks.model import new_network
from stylecli.ops import dispatch
from stylecli.ops.convolution import convolve_in_terms_of_itself, input_gradients_only
from stylecli.ops.cuda.launches import DTYPE_NAMES
from stylecli.ops.cuda.selfcheck import check_operator
from stylecli.training.augment import StreamDraws
from stylecli.training.config import CHANNELS_LAST, GRAPHS, OVERLAP, TrainingConfig
from stylecli.training.draws import DrawSource, Streams
from stylecli.training.schedule import Stage
from stylecli.training.step import TrainingStep
from stylecli.training.trials import try_training
from tests.ops.test_convolution import FARTHEST, r1_error

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device: none was found here"
    ),
]
GPU = torch.device("cuda", 0)
TINY = {"resolution": 16, "fmap_base": 64, "fmap_max": 8, "z_dim": 8, "w_dim": 8,
        "mapping_layers": 2, "mapping_fmaps": 8}  # fmt: skip
STAGE = Stage(lod=0.5, resolution=16, batch=8, lr=0.003, tick_kimg=1)
OPERATORS = ("bias_act", "upfirdn2d", "style_epilogue", "filtered_lrelu")


@pytest.fixture(autouse=True)
def _kernels_or_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("STYLECLI_KERNELS", "require")
    dispatch.forget()
    yield
    dispatch.forget()


@pytest.mark.parametrize("dtype", DTYPE_NAMES)
@pytest.mark.parametrize("name", OPERATORS)
def test_kernels_compute_what_plain_pytorch_does(name: str, dtype: torch.dtype) -> None:
    assert all(math.isfinite(error) for error in check_operator(name, GPU, dtype).values())


@pytest.mark.parametrize(("precision", "most", "mean"), [("float32", 1, 0.05), ("bf16", 12, 1.0)])
@pytest.mark.parametrize("preset", ["f", "stylegan3-t", "stylegan3-r"])
def test_pictures_are_those_of_the_cpu(preset: str, precision: Any, most: int, mean: float) -> None:
    """In grey levels."""
    net = new_network(preset, resolution=64, seed=1, fmap_max=128)
    drawn = [
        np.stack([picture.astype(int) for _, picture in
                  stylecli.generate(net, range(4), 0.7, device=device, precision=how)])
        for device, how in (("cpu", "float32"), ("cuda", precision))
    ]  # fmt: skip
    apart = np.abs(drawn[0] - drawn[1])
    assert apart.max() <= most and apart.mean() <= mean


def on_cpu_numbers(step: TrainingStep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a step draw its random numbers on the CPU, so that they are the same on a GPU."""
    step.draws.streams = Streams(step.config.seed, torch.device("cpu"))
    monkeypatch.setattr(DrawSource, "_mine", lambda self, whole: whole.to(step.device))
    mine = StreamDraws._mine
    monkeypatch.setattr(
        StreamDraws, "_mine", lambda self, how, shape: mine(self, how, shape).to(step.device)
    )


@pytest.mark.parametrize(
    ("settings", "farthest"),
    [({}, 2e-3), ({"loss": "wgan-gp"}, 2e-3), ({"share_fakes": True}, 2e-3),
     ({"precision": "bf16"}, 0.3), ({"precision": "fp16"}, 0.1),
     ({"loss": "wgan-gp", "precision": "bf16"}, 0.3),
     ({"precision": "bf16", "accelerations": {CHANNELS_LAST}}, 0.3),
     ({"precision": "fp16", "accelerations": {CHANNELS_LAST}}, 0.1)],
    ids=str,
)  # fmt: skip
def test_a_step_has_the_gradients_of_the_cpu_and_never_waits(
    settings: dict[str, Any], farthest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 32 px: planes that fill the tiles of the kernel for activation and blur.
    stage = replace(STAGE, resolution=32)
    bundle = new_network("f", seed=0, **{**TINY, "resolution": 32})
    reals = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    grads = []
    settings = dict(settings)
    chosen = {"exact": True, "accelerations": frozenset(settings.pop("accelerations", ()))}
    for device in (torch.device("cpu"), GPU):
        config = TrainingConfig(r1_gamma=1.0, **settings)
        step = TrainingStep(copy.deepcopy(bundle), config, device=device, **chosen)
        on_cpu_numbers(step, monkeypatch)
        step.set_stage(stage, reset=True)
        step(reals.to(device), None, stage, 0)
        grads.append([flat.grad.cpu().clone() for flat in (step.flat_D, step.flat_G)])
    apart = [float((a - b).norm() / a.norm()) for a, b in zip(*grads, strict=True)]
    assert max(apart) < farthest, apart

    monkeypatch.undo()  # numbers of the GPU's own, which no copy brings
    monkeypatch.setenv("STYLECLI_KERNELS", "require")
    step.draws.streams = step.streams
    given = reals.to(GPU)
    step(given, None, stage, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(given, None, stage, 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert step.take_statistics()["skipped_steps"] == 0


@pytest.mark.parametrize(("maps", "side"), [(512, 32), (64, 256), (16, 1024)])
def test_the_own_second_derivative_is_torch_s_and_not_slower(maps: int, side: int) -> None:
    """R1's: in float32 to 1e-3, taking at most 1.2 times as long. The times are printed (-s)."""
    x = torch.randn(4, maps, side, side, device=GPU, requires_grad=True)
    w = torch.randn(maps, maps, 3, 3, device=GPU, requires_grad=True)
    ways = {
        "torch": lambda: F.conv2d(x, w, padding=1),
        "own": lambda: convolve_in_terms_of_itself(x, w, None, 1, 1, False),
    }
    found, seconds = {}, {}
    for name, convolve in ways.items():
        for _ in range(3):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            with cuda_arithmetic(GPU, exact=True):
                with input_gradients_only():
                    (g,) = torch.autograd.grad(
                        F.leaky_relu(convolve(), 0.2).sum(), x, create_graph=True
                    )
                found[name] = torch.autograd.grad(g.square().sum(), w)[0]
            torch.cuda.synchronize()
            seconds[name] = time.perf_counter() - begun
    print(f"{maps} maps at {side} px: {seconds}")
    apart = (found["own"] - found["torch"]).norm() / found["torch"].norm()
    assert float(apart) < 1e-3
    assert seconds["own"] < 1.2 * seconds["torch"]


@pytest.mark.parametrize("dtype", FARTHEST, ids=str)
@pytest.mark.parametrize(("maps", "side"), [(64, 64), (16, 1024)])
def test_r1_s_weight_gradient_loses_only_the_last_bits(
    maps: int, side: int, dtype: torch.dtype
) -> None:
    """Of up to 2 million terms, in cuDNN's order; in float32 without TF32."""
    with cuda_arithmetic(GPU, exact=True):
        assert r1_error(maps, side, dtype, "cuda") < FARTHEST[dtype]


def stylecli_here(folder: Path, *words: str, timeout: float = 300) -> str:
    command = [sys.executable, "-m", "stylecli", *words]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_run_trains_stops_and_continues(precision: str, tiny_lmdb: Path, tmp_path: Path) -> None:
    words = ("train", str(tiny_lmdb), "--device", "cuda", "--precision", precision,
             "--batch", "8", "--fmap-max", "8", "--tick-kimg", "0.16")  # fmt: skip
    stylecli_here(tmp_path, *words, "--kimg", "0.64", "--out", "run")
    stylecli_here(tmp_path, *words, "--kimg", "0.96", "--resume", "run", "--out", "further")
    for run in ("run", "further"):
        lines = (tmp_path / run / "stats.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert all(math.isfinite(row["loss_D"]) and row["gpu_reserved_mib"] > 0 for row in rows)
        if precision != "fp16":  # which finds its scale by skipping
            assert sum(row["skipped_steps"] for row in rows) == 0


def test_a_pass_that_does_not_fit_is_halved() -> None:
    """With a share of the memory that the larger pass is over, as torch's own allocator finds."""
    told: list[str] = []
    net = new_network("f", resolution=64, fmap_max=64)
    step = TrainingStep(net, TrainingConfig(), device=GPU, adapt=told.append)
    stage = Stage(lod=0.0, resolution=64, batch=64, lr=0.001, tick_kimg=1)
    step.set_stage(stage, reset=True)
    reals = torch.zeros(64, 3, 64, 64, dtype=torch.uint8)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step(reals, None, stage, 0)
    peak = torch.cuda.max_memory_reserved() / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.7 * peak)
    try:
        step(reals, None, stage, 1)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert told and "--batch-gpu 32" in told[0]
    assert step.take_statistics()["skipped_steps"] == 0


def test_an_operator_runs_on_another_stream_and_in_a_graph() -> None:
    x = torch.randn(2, 8, 32, 32, device=GPU)
    b = torch.randn(8, device=GPU)
    expected = stylecli.ops.bias_act(x, b, act="lrelu")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        aside = stylecli.ops.bias_act(x, b, act="lrelu")
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(aside, expected)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = stylecli.ops.bias_act(x, b, act="lrelu")
    for _ in range(2):
        graph.replay()
    assert torch.equal(captured, expected)


LAZY = {"phases": "lazy", "r1_interval": 2, "pl_weight": 2.0, "pl_interval": 1}
GRAPHED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "float32": ("f", {}, {}),
    "bf16, channels-last": ("f", {"precision": "bf16"}, {"accelerations": {CHANNELS_LAST}}),
    "fp16, augmented": ("f", {"precision": "fp16", "augment": "adaptive"}, {}),
    "WGAN-GP, passes": ("f", {"loss": "wgan-gp", "share_fakes": True}, {"batch_gpu": 4}),
    "StyleGAN2": ("stylegan2", LAZY, {}),
    "StyleGAN3": ("stylegan3-t", {"phases": "lazy", "r1_interval": 2}, {}),
    "R3GAN": ("r3gan", {"phases": "paired", "loss": "relativistic", "r2_gamma": 1.0}, {}),
}


@pytest.mark.parametrize("case", GRAPHED)
def test_graphs_replay_what_plain_steps_do_and_never_wait(case: str) -> None:
    """Captured for real; networks, averages and Adam's state after steps whose fade moves.

    Convolutions are those of --exact, the same every time; some sums are atomic all the same.
    """
    preset, settings, more = GRAPHED[case]
    fields = {**TINY, "resolution": 16}
    if preset != "f":
        del fields["mapping_fmaps"]
    if preset == "r3gan":
        fields = {"resolution": 16, "z_dim": 8, "group_fmaps": 4, "embed_dim": 6}
    if preset == "stylegan3-t":
        fields = {"resolution": 16, "z_dim": 8, "w_dim": 8, "num_layers": 3, "D_fmap_base": 64,
                  "D_fmap_max": 8}  # fmt: skip
    bundle = new_network(preset, seed=0, **fields)
    reals = torch.randint(0, 256, (16 if preset == "r3gan" else 8, 3, 16, 16), dtype=torch.uint8)
    given, ends = reals.to(GPU), []
    for graphs in (False, True):
        chosen = {*more.get("accelerations", ()), *([GRAPHS] if graphs else [])}
        step = TrainingStep(copy.deepcopy(bundle), TrainingConfig(r1_gamma=1.0, **settings),
                            device=GPU, exact=True,
                            **{**more, "accelerations": frozenset(chosen)})  # fmt: skip
        for number in range(8):
            lod = 0.8 - 0.1 * number if bundle.config.grows else 0.0
            stage = Stage(lod, 16, 8, 1e-6, 1.0)  # tiny, or rounding would be told apart by Adam
            step.set_stage(stage, reset=not number)
            if number == 6:
                torch.cuda.set_sync_debug_mode("error")
            try:
                step(given, None, stage, number)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        if graphs:
            assert step.graphs is not None
            assert all(update.replays for update in step.graphs.updates.values() if update.runs > 2)
            assert any(update.replays for update in step.graphs.updates.values())
        ends.append([step.flat_D.data, step.flat_G.data, step.flat_ema.data, step.adam_D.square,
                     step.adam_G.square, step.totals.sums.float(), step.adam_D.steps])  # fmt: skip
    for plain, held in zip(*ends, strict=True):
        apart = float((held - plain).norm() / plain.norm().clamp(min=1e-30))
        assert apart < (1e-3 if "precision" not in settings else 0.05), apart


def test_a_run_with_graphs_continues_as_one_that_never_stopped(
    tiny_lmdb: Path, tmp_path: Path
) -> None:
    words = ("train", str(tiny_lmdb), "--device", "cuda", "--exact", "--accelerate", GRAPHS,
             "--batch", "8", "--fmap-max", "8", "--tick-kimg", "0.16")  # fmt: skip
    stylecli_here(tmp_path, *words, "--kimg", "0.64", "--out", "whole")
    stylecli_here(tmp_path, *words, "--kimg", "0.32", "--out", "half")
    stylecli_here(tmp_path, *words, "--kimg", "0.64", "--resume", "half", "--out", "further")
    last = [
        json.loads((tmp_path / run / "stats.jsonl").read_text().splitlines()[-1])
        for run in ("whole", "further")
    ]
    assert last[0]["nimg"] == last[1]["nimg"]
    assert last[0]["loss_D"] == pytest.approx(last[1]["loss_D"], rel=1e-3)


def test_two_gpus_train_as_one(tiny_lmdb: Path, tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices: this machine has one")
    words = ("train", str(tiny_lmdb), "--device", "cuda", "--exact", "--batch", "8",
             "--fmap-max", "8", "--kimg", "0.16", "--tick-kimg", "0.16")  # fmt: skip
    stylecli_here(tmp_path, *words, "--out", "one")
    stylecli_here(tmp_path, *words, "--gpus", "2", "--out", "two")
    stylecli_here(tmp_path, *words, "--gpus", "2", "--accelerate", OVERLAP, "--out", "early")
    last = [
        json.loads((tmp_path / run / "stats.jsonl").read_text().splitlines()[-1])
        for run in ("one", "two", "early")
    ]
    assert abs(last[0]["loss_D"] - last[1]["loss_D"]) < 0.05
    assert abs(last[1]["loss_D"] - last[2]["loss_D"]) < 0.01


def test_metrics_are_those_of_the_cpu(tiny_network_file: Path, tiny_lmdb: Path) -> None:
    values = []
    for device in ("cpu", "cuda"):
        words = ("metrics", "diversity", "--network", str(tiny_network_file), "--data",
                 str(tiny_lmdb), "--samples", "24", "--device", device, "--json")  # fmt: skip
        found = json.loads(stylecli_here(tiny_network_file.parent, *words))
        values.append(next(iter(found["results"])))
    assert values[0]["value"] == pytest.approx(values[1]["value"], rel=1e-3)


def test_the_first_look_finds_no_problem(tmp_path: Path) -> None:
    """doctor ends with 4 where something is wrong, also within cuda-core, which may hang."""
    stylecli_here(tmp_path, "doctor", timeout=120)


def test_what_training_can_turn_on_works() -> None:
    found = try_training(GPU)
    print(*(f"{one.name}: {one.sentence}" for one in found), sep="\n")
    assert all(one.works for one in found)


def test_bench_measures_drawing_and_training(tmp_path: Path) -> None:
    found = json.loads(stylecli_here(tmp_path, "bench", "--train", "--resolutions", "64,256",
                                     "--batches", "8", "--device", "cuda", "--json"))  # fmt: skip
    print(json.dumps(found["cases"], indent=1))
    assert all(case["gpu_seconds"]["median"] > 0 for case in found["cases"])

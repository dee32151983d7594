"""The kernels, as host code: against plain PyTorch, under sanitizers, in whole networks.

Under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer the launches of the battery
are recorded with their data and repeated by a program built with the sanitizer, on buffers that end
where the tensors end. Bugs planted on purpose must be found.
"""

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from stylecli import ops
from stylecli.errors import DeviceError
from stylecli.networks import stylegan1
from stylecli.networks.model import new_network
from stylecli.networks.registry import make_config
from stylecli.networks.stylegan1_config import PRESETS
from stylecli.ops.cuda import calls
from stylecli.ops.cuda.calls import variants
from stylecli.ops.cuda.filtered_calls import serves_filtered
from stylecli.ops.cuda.launches import DTYPE_NAMES, Launch
from stylecli.ops.filtered_lrelu import filtered_lrelu
from stylecli.ops.reference import ACTIVATIONS, FilteredActivation
from stylecli.training.config import TrainingConfig
from stylecli.training.schedule import Stage
from stylecli.training.step import TrainingStep
from tests.conftest import FIXTURES
from tests.ops.cuda.battery import LARGE, LAST, SMALL, Case
from tests.ops.cuda.host_build import (
    ALL_KERNELS,
    SANITIZERS,
    HostBackend,
    Recorder,
    installed,
    needs_compiler,
    replay,
)

pytestmark = needs_compiler

# Largest error against float64 from equal inputs, as a part of the largest value: of results that
# have x's size, and of gradients that are sums over planes or the batch. Results are rounded once,
# so half precision shows its own last bit; float32 sums show the rounding of up to 16,384 terms.
TOLERANCES = {
    torch.float64: (1e-12, 1e-12),
    torch.float32: (5e-6, 5e-5),
    torch.float16: (1e-3, 1e-3),
    torch.bfloat16: (8e-3, 8e-3),
}
OFFICIAL = FIXTURES / "official"


@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype)[6:])
def test_values_and_gradients_of_every_kernel_equal_float64(
    dtype: torch.dtype, host: HostBackend
) -> None:
    host.launched.clear()
    for case in (*SMALL, *LAST, *LARGE):
        inputs = case.inputs(dtype)
        with installed(host):
            found = case.results(inputs)
        exact = case.results([one.detach().double().requires_grad_() for one in inputs])
        assert calls.is_last(found[0]) == case.channels_last, case.name
        of_pixels, of_sums = TOLERANCES[dtype]
        for ours, wanted in zip(found, exact, strict=True):
            assert ours.dtype == dtype, case.name
            scale = max(1.0, wanted.abs().max().item())
            tolerance = of_sums if wanted.numel() < inputs[0].numel() else of_pixels
            error = (ours.double() - wanted).abs().max().item()
            assert error <= tolerance * scale, case.name
    word = DTYPE_NAMES[dtype]
    assert set(host.launched) == {name for group in variants((word,)).values() for name in group}


def test_the_order_of_threads_does_not_matter(host: HostBackend) -> None:
    """A result that depended on it would be a race on the device."""
    backwards = HostBackend([name for name in ALL_KERNELS if "float" in name], reverse=True)
    for case in (*SMALL, *LAST, *LARGE):
        both = []
        for backend in (host, backwards):
            with installed(backend):
                both.append(case.results(case.inputs(torch.float32)))
        for forwards, reversed_ in zip(*both, strict=True):
            assert torch.equal(forwards, reversed_), case.name


def test_first_and_second_derivatives(host: HostBackend) -> None:
    with installed(host):
        for case in (*SMALL, *LAST):
            inputs = case.inputs(torch.float64)
            assert gradcheck(case.call, inputs, fast_mode=True), case.name
            assert gradgradcheck(case.call, inputs, fast_mode=True), case.name


def test_every_partial_derivative(host: HostBackend) -> None:
    """The slow check, which looks at each number rather than at random projections."""
    torch.manual_seed(0)
    x, b = torch.randn(2, 2, 3, 4), torch.randn(2)
    with installed(host):
        for act in ACTIVATIONS:
            leaves = [one.double().requires_grad_() for one in (x, b)]
            function = lambda x, b, act=act: ops.bias_act(x, b, act=act, clamp=1.5)  # noqa: E731
            assert gradcheck(function, leaves) and gradgradcheck(function, leaves)
        f = torch.tensor([0.5, 1.0, -0.25], dtype=torch.float64)
        leaf = x.double().requires_grad_()
        for taps in (f, torch.outer(f, f)):
            function = lambda x, f=taps: ops.upfirdn2d(x, f, up=2, down=3, padding=2)  # noqa: E731
            assert gradcheck(function, [leaf]) and gradgradcheck(function, [leaf])


def test_official_bias_act(host: HostBackend) -> None:
    data = np.load(OFFICIAL / "bias_act.npz")
    with installed(host):
        for call in json.loads((OFFICIAL / "bias_act.json").read_text("utf-8")):
            index = call.pop("index")
            x, b, dy = (torch.tensor(data[f"{index}_{name}"]) for name in ("x", "b", "dy"))
            y = ops.bias_act(x.requires_grad_(), b.requires_grad_(), **call)
            found = [y, *torch.autograd.grad(y, [x, b], dy)]
            for ours, name in zip(found, ("y", "dx", "db"), strict=True):
                wanted = torch.tensor(data[f"{index}_{name}"])
                assert torch.allclose(ours, wanted, atol=1e-5), (call, name)
    assert host.launched


def test_official_upfirdn2d(host: HostBackend) -> None:
    data = np.load(OFFICIAL / "upfirdn2d.npz")
    with installed(host):
        for call in json.loads((OFFICIAL / "upfirdn2d.json").read_text("utf-8"))["calls"]:
            if call["function"] != "upfirdn2d":
                continue
            index, name = call["index"], call["filter"]
            f = None if name is None else torch.tensor(data[f"filter_{name}"])
            x, dy = (torch.tensor(data[f"{index}_{name}"]) for name in ("x", "dy"))
            y = ops.upfirdn2d(x.requires_grad_(), f, **call["kwargs"])
            (dx,) = torch.autograd.grad(y, [x], dy)
            assert torch.allclose(y, torch.tensor(data[f"{index}_y"]), atol=1e-5)
            assert torch.allclose(dx, torch.tensor(data[f"{index}_dx"]), atol=1e-5)


def test_official_filtered_lrelu(host: HostBackend) -> None:
    data = np.load(OFFICIAL / "filtered_lrelu.npz")
    with installed(host):
        for call in json.loads((OFFICIAL / "filtered_lrelu.json").read_text("utf-8")):
            names = ("up", "down", "padding", "gain", "slope", "clamp", "flip_filter")
            part = {
                key: torch.tensor(data[name])
                if (name := f"{call['index']}_{key}") in data
                else None
                for key in ("x", "b", "fu", "fd", "y", "dy", "dx", "db")
            }
            x, b = part["x"].requires_grad_(), part["b"].requires_grad_()
            settings = {name: call[name] for name in names}
            y = filtered_lrelu(x, part["fu"], part["fd"], b, **settings)
            found = [y, *torch.autograd.grad(y, [x, b], part["dy"])]
            for ours, name in zip(found, ("y", "dx", "db"), strict=True):
                wanted = part[name]
                assert (ours - wanted).abs().max() <= 2e-6 * wanted.abs().max(), (call, name)
    assert any(name.startswith("filtered_lrelu<") for name in host.launched)


@pytest.mark.parametrize("preset", ["stylegan3-t", "stylegan3-r"])
@pytest.mark.parametrize("resolution", [16, 32, 64, 128, 256, 512, 1024])
def test_every_layer_of_stylegan3_has_a_kernel(preset: str, resolution: int) -> None:
    for plan in make_config(preset, resolution=resolution).layers():
        if plan.is_to_rgb:  # bias_act's
            assert (plan.up, plan.down, plan.up_taps, plan.down_taps) == (1, 1, 1, 1)
            assert not any(plan.padding)
        else:
            down = (plan.down_taps,) * (2 if plan.radial else 1)
            how = FilteredActivation(plan.up, plan.down, plan.padding)
            assert serves_filtered(torch.ones(plan.up_taps), torch.ones(down), how)


def test_filters_and_factors_that_have_no_kernel() -> None:
    """Plain PyTorch computes these, as ever."""
    row, square = torch.ones(12), torch.ones(12, 12)
    assert serves_filtered(row, square, FilteredActivation(2, 2))
    assert not serves_filtered(square, row, FilteredActivation(2, 2))
    assert not serves_filtered(row, row, FilteredActivation(2, 4))
    assert not serves_filtered(torch.ones(13), row, FilteredActivation(2, 2))
    assert not serves_filtered(row, torch.ones(13), FilteredActivation(2, 2))
    assert serves_filtered(row[:1], row[:4], FilteredActivation(1, 1))
    assert not serves_filtered(row[:1], row[:5], FilteredActivation(1, 1))
    assert not serves_filtered(row[:2], row[:3], FilteredActivation(1, 1))


def test_nothing_is_launched_for_an_empty_batch(host: HostBackend) -> None:
    x, f = torch.zeros(0, 2, 8, 8, requires_grad=True), torch.ones(12) / 12
    b = torch.zeros(2, requires_grad=True)
    host.launched.clear()
    with installed(host):
        y = filtered_lrelu(x, f, f, b, up=2, down=2, padding=11)
        dx, db = torch.autograd.grad(y.sum(), [x, b])
    assert host.launched == []
    assert y.shape[0] == 0 and dx.shape == x.shape and db.tolist() == [0, 0]


def test_r1_and_path_length_gradients_pass_through(host: HostBackend) -> None:
    """The use the second derivatives are for: a penalty on a gradient, differentiated again."""

    def penalty(leaves: list[torch.Tensor]) -> list[torch.Tensor]:
        x, b, weight, style = leaves
        y = torch.nn.functional.conv2d(ops.bias_act(x, b, act="lrelu"), weight, padding=1)
        y = ops.upfirdn2d(y, torch.ones(2, 2), down=2, padding=1)
        y = ops.style_epilogue(y, b, style=style)
        (gradient,) = torch.autograd.grad((y**3).sum(), [x], create_graph=True)
        return list(torch.autograd.grad(gradient.square().sum(), leaves))

    torch.manual_seed(0)
    shapes: Any = ((2, 4, 8, 8), (4,), (4, 4, 3, 3), (2, 8))
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    wanted = penalty(leaves)
    with installed(host):
        found = penalty(leaves)
    for ours, reference in zip(found, wanted, strict=True):
        assert torch.allclose(ours, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("last", [False, True])
def test_blocks_of_a_discriminator_and_their_second_derivatives(
    host: HostBackend, last: bool
) -> None:
    """Above a tile's side, activation and blur are one kernel, of which R1 asks everything."""

    def penalty(block: torch.nn.Module, x: Tensor) -> list[Tensor]:
        y = block(x)
        (gradient,) = torch.autograd.grad((y**3).sum(), [x], create_graph=True)
        leaves = [x, *block.parameters()]
        of_loss = torch.autograd.grad(y.square().sum(), leaves, retain_graph=True)
        return [y, *of_loss, *torch.autograd.grad(gradient.square().sum(), leaves)]

    torch.manual_seed(0)
    block = stylegan1.DiscriminatorBlock(4, 4, blur=True).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(1, 4, 34, 36, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    wanted = penalty(block, x.clone().requires_grad_())
    host.launched.clear()
    with installed(host):
        found = penalty(block, x.requires_grad_())
    for ours, reference in zip(found, wanted, strict=True):
        assert torch.allclose(ours, reference, rtol=1e-9, atol=1e-9)
    kernel = "bent_last" if last else "bent_tile"
    ways = {name for name in host.launched if name.startswith(kernel)}
    assert ways == {name for name in ALL_KERNELS if name.startswith(f"{kernel}<double")}
    assert not any(name.startswith("fir_") for name in host.launched)


# ---- under sanitizers


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
    *[f"filtered_lrelu<float, {up}, 2, 32, 16, {WARP}>" for up in (2, 4)],
    *[
        f"filtered_lrelu_slopes<float, {factors}, {WARP}>"
        for factors in ("2, 2, 2, 32, 16", "2, 4, 4, 16, 8", "4, 4, 2, 32, 16")
    ],
    *[f"bent_{kind}<float, {way}, {WARP}>" for kind in ("tile", "last") for way in range(3)],
    *[f"{name}<float, {WARP}>" for name in ("fir_last", *calls._LAST)],
    *[
        f"bias_act_last{part}<float, {smooth}, {WARP}>"
        for part in ("", "_gradient")
        for smooth in (0, 1)
    ],
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
    monkeypatch.setattr(calls, "FILTERED_THREADS", WARP)
    monkeypatch.setattr(calls, "LAST_THREADS", WARP)
    monkeypatch.setattr(calls, "CHUNK", WARP * 16)
    monkeypatch.setattr(calls, "plane_shapes", lambda kind: ((WARP, 8),))
    return HostBackend(WARP_KERNELS)


def named(*names: str) -> list[Case]:
    return [case for case in (*SMALL, *LAST, *LARGE) if case.name in names]


def test_no_access_is_out_of_bounds_or_unaligned(host: HostBackend, tmp_path: Path) -> None:
    done = replay(recorded((*SMALL, *LAST, *LARGE), TYPES, host), tmp_path, SANITIZERS["address"])

    assert done.stderr == ""
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_threads_do_not_race(warp_host: HostBackend, tmp_path: Path) -> None:
    tiled = named("upfirdn2d tiled blur", "upfirdn2d tiled up 2", "upfirdn2d tiled down 2",
                  "filtered_lrelu blur by tiles")  # fmt: skip
    recorder = recorded((*SMALL, *LAST, *tiled), [torch.float32], warp_host)
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


# ---- whole networks, with the gradients that training takes


@pytest.fixture
def network(tiny_config_fields: dict[str, Any]) -> Any:
    bundle = new_network("f", seed=0, **tiny_config_fields)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in bundle.G.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return bundle


def losses(bundle: Any) -> list[Tensor]:
    """Return images, logits, the gradients of R1 for D and of a path length for G."""
    G, D = bundle.G.double(), bundle.D.double()
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ws = G.mapping(z)
    images = G.synthesis(ws)
    logits = D(images)
    reals = images.detach().requires_grad_()
    (of_reals,) = torch.autograd.grad(D(reals).sum(), reals, create_graph=True)
    r1 = of_reals.square().sum() + torch.nn.functional.softplus(logits).sum()
    (of_ws,) = torch.autograd.grad((images * reals.detach()).sum(), ws, create_graph=True)
    total = r1 + of_ws.square().sum()
    parameters = [*G.parameters(), *D.parameters()]
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return [images, logits, *(one for one in gradients if one is not None)]


@pytest.mark.parametrize("layout", ["channels last", "planes"])
def test_networks_and_their_penalties(
    layout: str, network: Any, host: HostBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = losses(network)
    host.launched.clear()
    kernels = ("bias_act_last", "fir_last", "epilogue_last_apply", "epilogue_last_gradient_apply")
    if layout == "planes":  # as on a GPU
        monkeypatch.setattr(stylegan1, "in_quick_layout", lambda x: x.contiguous())
        kernels = ("bias_act", "fir_any", "epilogue_plane", "epilogue_plane_gradient")
    with installed(host):
        found = losses(network)

    for kernel in kernels:
        assert any(name.startswith(kernel + "<") for name in host.launched)
    for ours, reference in zip(found, wanted, strict=True):
        assert torch.allclose(ours, reference, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("preset", ["stylegan3-t", "stylegan3-r"])
def test_stylegan3_and_its_path_length(preset: str, host: HostBackend) -> None:
    G = new_network(preset, seed=0, resolution=32, num_layers=4, fmap_base=64, fmap_max=4,
                    z_dim=8, w_dim=8).G.double()  # fmt: skip

    def drawn() -> list[Tensor]:
        ws = torch.randn(2, G.config.num_ws, 8, generator=torch.Generator().manual_seed(1))
        ws = ws.double().requires_grad_()
        images = G.synthesis(ws)
        (of_ws,) = torch.autograd.grad(images.square().sum(), ws, create_graph=True)
        parameters = [one for one in G.synthesis.parameters() if one.requires_grad]
        return [images, of_ws, *torch.autograd.grad(of_ws.square().sum(), parameters)]

    wanted = drawn()
    host.launched.clear()
    with installed(host):
        found = drawn()
    launched = {name.partition(",")[0] for name in host.launched}
    assert {"filtered_lrelu<double", "filtered_lrelu_slopes<double"} <= launched
    for ours, reference in zip(found, wanted, strict=True):
        # Without kernels a filter [h, w] is the sum of its products to 1e-9.
        apart = (ours - reference).abs().max() / reference.abs().max().clamp(min=1e-9)
        assert apart < 1e-7


class Broken:
    """A device on which nothing can be launched any more."""

    def launch(self, record: Launch) -> None:
        raise DeviceError(f"{record.kernel} could not be launched")


def test_a_launch_that_fails_falls_back(network: Any, monkeypatch: Any) -> None:
    wanted = network.G.synthesis(network.G.mapping(torch.ones(2, 8)))
    with installed(Broken()), pytest.warns(RuntimeWarning, match="could not be launched"):
        found = network.G.synthesis(network.G.mapping(torch.ones(2, 8)))

    assert torch.allclose(found, wanted, atol=1e-5)


REDUCED = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", REDUCED, ids=str)
@pytest.mark.parametrize("preset", PRESETS)
def test_networks_in_reduced_precision(
    preset: str, dtype: torch.dtype, tiny_config_fields: dict[str, Any], host: HostBackend
) -> None:
    """Kernels return x's own dtype, where plain PyTorch promotes to float32."""
    layers = min(make_config(preset).mapping_layers, 2)
    bundle = new_network(preset, **{**tiny_config_fields, "mapping_layers": layers})
    ws = bundle.G.mapping(torch.randn(4, 8, generator=torch.Generator().manual_seed(1)))
    wanted = bundle.G.synthesis(ws, lod=0.5)
    with installed(host), torch.autocast("cpu", dtype, cache_enabled=False):
        images = bundle.G.synthesis(ws, lod=0.5)
        logits = bundle.D(images, lod=0.5)

    assert images.dtype == logits.dtype == torch.float32
    assert (images - wanted).abs().max() < 0.05 * wanted.abs().max()
    assert torch.allclose(logits, bundle.D(wanted, lod=0.5), atol=0.1, rtol=0.05)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"loss": "wgan-gp"}, {"loss": "hinge"}, {"share_fakes": True}, {"r2_gamma": 1.0}],
    ids=str,
)
def test_a_training_step_in_reduced_precision(
    settings: dict[str, Any],
    precision: str,
    tiny_config_fields: dict[str, Any],
    host: HostBackend,
) -> None:
    config = TrainingConfig(precision=precision, r1_gamma=1.0, **settings)
    statistics = []
    for backend in (None, host):
        bundle = new_network("f", seed=0, **tiny_config_fields)
        step = TrainingStep(bundle, config)
        stage = Stage(lod=0.5, resolution=16, batch=4, lr=1e-3, tick_kimg=1.0)
        step.set_stage(stage, reset=True)
        generator = torch.Generator().manual_seed(2)
        reals = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=generator)
        with installed(backend):
            step(reals, None, stage, 0)
        statistics.append(step.take_statistics())

    plain, by_kernels = statistics
    assert by_kernels == pytest.approx(plain, rel=0.05, abs=0.02)

"""The kernels, as host code, against plain PyTorch: values, gradients, orders of threads."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylecli import ops
from stylecli.ops.reference import ACTIVATIONS
from tests.conftest import FIXTURES
from tests.ops.cuda.battery import LARGE, SMALL, Case
from tests.ops.cuda.host_build import ALL_KERNELS, HostBackend, installed, needs_compiler

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
@pytest.mark.parametrize("case", [*SMALL, *LARGE], ids=lambda case: case.name)
def test_values_and_gradients_equal_float64(
    case: Case, dtype: torch.dtype, host: HostBackend
) -> None:
    inputs = case.inputs(dtype)
    with installed(host):
        found = case.results(inputs)
    exact = case.results([one.detach().double().requires_grad_() for one in inputs])
    of_pixels, of_sums = TOLERANCES[dtype]
    for ours, wanted in zip(found, exact, strict=True):
        assert ours.dtype == dtype
        scale = max(1.0, wanted.abs().max().item())
        tolerance = of_sums if wanted.numel() < inputs[0].numel() else of_pixels
        assert (ours.double() - wanted).abs().max().item() <= tolerance * scale


def test_the_battery_reaches_every_kernel(host: HostBackend) -> None:
    host.launched.clear()
    with installed(host):
        for case in (*SMALL, *LARGE):
            for dtype in TOLERANCES:
                case.results(case.inputs(dtype))
    assert set(ALL_KERNELS) == set(host.launched)


def test_the_order_of_threads_does_not_matter(host: HostBackend) -> None:
    """A result that depended on it would be a race on the device."""
    backwards = HostBackend([name for name in ALL_KERNELS if "float" in name], reverse=True)
    for case in (*SMALL, *LARGE):
        both = []
        for backend in (host, backwards):
            with installed(backend):
                both.append(case.results(case.inputs(torch.float32)))
        for forwards, reversed_ in zip(*both, strict=True):
            assert torch.equal(forwards, reversed_), case.name


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_first_and_second_derivatives(case: Case, host: HostBackend) -> None:
    inputs = case.inputs(torch.float64)
    with installed(host):
        assert gradcheck(case.call, inputs, fast_mode=True)
        assert gradgradcheck(case.call, inputs, fast_mode=True)


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

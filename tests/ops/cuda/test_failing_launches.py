"""A launch that fails after the check had passed: plain PyTorch takes over, wherever it happens."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stylecli import ops
from stylecli.errors import DeviceError
from stylecli.ops.activation import bias_act_op
from stylecli.ops.cuda import runtime
from stylecli.ops.cuda.runtime import Launch
from stylecli.ops.epilogue import style_epilogue_op
from stylecli.ops.resampling import upfirdn2d_op
from tests.ops.cuda.host_build import HostBackend, installed, needs_compiler

pytestmark = needs_compiler

Call = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

FILTER = torch.tensor([[0.25, 0.5], [0.75, -0.5]], dtype=torch.float64)
LRELU_CLAMPED_AT_2 = ("lrelu", 0.2, 2**0.5, 2.0)
SHAPES = ((2, 3, 4, 4), (3,), (2, 1, 4, 4), (3,), (2, 6))
CALLS: dict[str, Call] = {
    "bias_act": lambda x, b, n, s, style: ops.bias_act(x, b, act="lrelu", clamp=2.0),
    "bias_act of a layer": lambda x, b, n, s, style: ops.bias_act(
        x, b, act="swish", scale=style[:, :3], noise=n, noise_strength=s
    ),
    "bias_act that does nothing": lambda x, b, n, s, style: ops.bias_act(x),
    "upfirdn2d": lambda x, b, n, s, style: ops.upfirdn2d(x, FILTER, up=2, padding=1, gain=4),
    "style_epilogue": lambda x, b, n, s, style: ops.style_epilogue(
        x, b, noise=n, noise_strength=s, style=style
    ),
    "registered bias_act": lambda x, b, n, s, style: bias_act_op(
        x, b, None, None, None, 1, *LRELU_CLAMPED_AT_2
    ),
    "registered upfirdn2d": lambda x, b, n, s, style: upfirdn2d_op(
        x, FILTER, [2, 2], [1, 1], [1, 1, 1, 1], False, 4.0
    ),
    "registered style_epilogue": style_epilogue_op,
}


class Failing:
    """Runs launches but for the one with this number, counted from 0, and all later ones."""

    def __init__(self, host: HostBackend, number: int) -> None:
        self.host, self.number, self.asked = host, number, 0

    def launch(self, record: Launch) -> None:
        self.asked += 1
        if self.asked > self.number:
            raise DeviceError(f"{record.kernel} cannot be launched")
        self.host.launch(record)


def random_leaves() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    return [one.requires_grad_() for one in drawn]


def derivatives(call: Call) -> list[Tensor | None]:
    """Return the output, its gradients and those of the gradients' squares."""
    inputs = random_leaves()
    y = call(*inputs)
    first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True, allow_unused=True)
    penalty = torch.stack([one.square().sum() for one in first if one is not None]).sum()
    return [y, *first, *torch.autograd.grad(penalty, inputs, allow_unused=True)]


def plain(name: str) -> Call:
    """Return the call by public operators, which without a backend are plain PyTorch."""
    return CALLS[name.removeprefix("registered ")]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("number", range(4))
def test_derivatives_are_right_wherever_a_launch_fails(
    name: str, number: int, host: HostBackend
) -> None:
    """In forward (0), in backward (1) or in the backward of that, where there are such launches."""
    wanted = derivatives(plain(name))
    backend = Failing(host, number)
    with installed(backend), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = derivatives(CALLS[name])

    assert backend.asked <= number + 1  # nothing is launched after the failure
    assert len(told) == (backend.asked > number)
    assert all("cannot be launched" in str(one.message) for one in told)
    assert number > 1 or told
    for ours, reference in zip(found, wanted, strict=True):
        assert (ours is None) == (reference is None)
        if ours is not None and reference is not None:
            assert torch.allclose(ours, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CALLS)
def test_a_failure_in_backward_is_an_error_where_kernels_are_required(
    name: str, host: HostBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLECLI_KERNELS", "require")
    inputs = random_leaves()
    with installed(Failing(host, 1)):
        y = CALLS[name](*inputs)
        with pytest.raises(
            DeviceError, match=r"has no kernel on cpu .* cannot be launched"
        ) as told:
            torch.autograd.grad(y.sum(), inputs[0])
    assert told.value.exit_code == 4


@pytest.mark.parametrize("name", CALLS)
def test_a_grid_over_the_limit_falls_back(
    name: str, host: HostBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = plain(name)(*random_leaves())
    monkeypatch.setattr(runtime, "INT_MAX", 0)
    backend = Failing(host, 0)
    with installed(backend), pytest.warns(RuntimeWarning, match="out of range") as told:
        found = CALLS[name](*random_leaves())
    assert len(told) == 1 and backend.asked == 0
    assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-10)


def test_the_fallback_keeps_the_dtype_under_autocast(host: HostBackend) -> None:
    x = torch.randn(1, 2, 6, 6, requires_grad=True)
    f = FILTER.float()
    wanted = ops.upfirdn2d(x, f, padding=1)
    with installed(Failing(host, 0)), pytest.warns(RuntimeWarning, match="cannot be launched"):
        with torch.autocast("cpu", torch.bfloat16):
            found = ops.upfirdn2d(x, f, padding=1)
    assert found.dtype == x.dtype and torch.equal(found, wanted)

"""Which way a call goes: kernels or not, a launch that fails, what torch.compile sees.

First use checks the kernels on the device itself, and a failure of any kind falls back; so does a
launch that fails later, wherever it happens. Registered ops make whole graphs and refuse forward
mode.
"""

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from stylecli import ops
from stylecli.errors import DeviceError, UsageError
from stylecli.ops import dispatch
from stylecli.ops.activation import bias_act_gradient_op, bias_act_op
from stylecli.ops.cuda import launches
from stylecli.ops.cuda.calls import variants
from stylecli.ops.cuda.launches import DTYPE_NAMES, Launch
from stylecli.ops.epilogue import gradient_op, style_epilogue_op, with_statistics_op
from stylecli.ops.filtered_kernels import filtered_lrelu_op, slopes_op
from stylecli.ops.filtered_lrelu import filtered_lrelu
from stylecli.ops.resampling import upfirdn2d_op
from tests.ops.cuda.host_build import HostBackend, installed
from tests.ops.cuda.standins import CPU

# ---- whether kernels are used


FAILURES = {
    "no package": lambda recording: setattr(
        recording.compiler, "error", DeviceError("the package cuda-core is not installed, run: pip")
    ),
    "compile error": lambda recording: setattr(
        recording.compiler, "error", DeviceError("NVRTC 13.0 refused the kernels for sm_90: error")
    ),
    "wrong architecture": lambda recording: setattr(
        recording.compiler,
        "error",
        DeviceError("the NVRTC here compiles for sm_75: the GPU is sm_50"),
    ),
    "load error": lambda recording: setattr(
        recording.runtime, "load_error", RuntimeError("NO_BINARY")
    ),
    "launch error": lambda recording: setattr(
        recording.runtime, "launch_error", RuntimeError("ILLEGAL")
    ),
    "wrong numbers": lambda recording: setattr(recording.runtime, "run", zeros),
}


def zeros(record):
    """Carry a launch out wrongly."""
    for argument in record.arguments:
        if torch.is_tensor(argument):
            argument.zero_()


def test_the_answer_is_remembered(working):
    assert dispatch.decide("bias_act", CPU, torch.float32)
    launched = len(working.runtime.launches)
    assert dispatch.decide("bias_act", CPU, torch.float32)
    assert len(working.runtime.launches) == launched
    assert dispatch.reason("bias_act", CPU, torch.float32) is None


def test_the_check_leaves_random_state_and_gradients_alone(working):
    state = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert dispatch.decide("style_epilogue", CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_check_runs_on_its_device_whatever_the_default(working):
    with torch.device("meta"):
        assert all(dispatch.decide(name, CPU, torch.float32) for name in variants())


@pytest.mark.parametrize("failure", FAILURES)
def test_any_failure_means_plain_pytorch_and_one_warning(working, failure):
    FAILURES[failure](working)
    with pytest.warns(
        RuntimeWarning, match="bias_act uses plain PyTorch on cpu in float32: "
    ) as told:
        assert not dispatch.decide("bias_act", CPU, torch.float32)
        assert not dispatch.decide("bias_act", CPU, torch.float32)
    assert len(told) == 1
    assert dispatch.reason("bias_act", CPU, torch.float32) in str(told[0].message)


@pytest.mark.parametrize("failure", FAILURES)
def test_any_failure_is_an_error_where_kernels_are_required(working, failure, monkeypatch):
    monkeypatch.setenv("STYLECLI_KERNELS", "require")
    FAILURES[failure](working)
    for _ in range(2):
        with pytest.raises(DeviceError, match="bias_act has no kernel on cpu in float32: ") as told:
            dispatch.decide("bias_act", CPU, torch.float32)
        assert told.value.exit_code == 4


def test_one_cause_is_told_once_whatever_it_stops(recording):
    FAILURES["no package"](recording)
    with pytest.warns(RuntimeWarning, match="cuda-core is not installed, run: pip") as told:
        for name in variants():
            for dtype in DTYPE_NAMES:
                assert not dispatch.decide(name, CPU, dtype)
    assert len(told) == 1


def test_off_compiles_nothing(recording, monkeypatch):
    monkeypatch.setenv("STYLECLI_KERNELS", "off")
    assert not dispatch.decide("bias_act", CPU, torch.float32)
    assert recording.compiler.calls == [] and recording.runtime.launches == []


def test_an_unknown_mode_is_a_usage_error(monkeypatch):
    monkeypatch.setenv("STYLECLI_KERNELS", "yes")
    with pytest.raises(UsageError, match="'yes': expected auto, off, require"):
        dispatch.decide("bias_act", CPU, torch.float32)


def test_first_use_during_capture_falls_back_and_is_asked_again_later(working):
    working.runtime.is_capturing = True
    with pytest.warns(RuntimeWarning, match="run one step before the capture") as told:
        assert not dispatch.decide("bias_act", CPU, torch.float32)
        assert not dispatch.decide("bias_act", CPU, torch.float32)
    assert len(told) == 1 and working.compiler.calls == []
    working.runtime.is_capturing = False
    assert dispatch.decide("bias_act", CPU, torch.float32)


def test_a_launch_that_fails_later_switches_to_plain_pytorch(working):
    assert dispatch.decide("bias_act", CPU, torch.float32)
    with pytest.warns(RuntimeWarning, match="plain PyTorch on cpu in float32: out of resources"):
        dispatch.give_up("bias_act", torch.zeros(1), DeviceError("out of resources"))
    assert not dispatch.decide("bias_act", CPU, torch.float32)


def test_without_a_backend_the_cpu_has_no_kernels():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not dispatch.usable("bias_act", torch.zeros(1))


def test_importing_the_operators_loads_no_compiler_and_no_cuda_package():
    code = (  # torch itself imports cuda.bindings where it is installed
        "import torch, sys; before = set(sys.modules)\n"
        "import stylecli.ops.dispatch, stylecli.ops.cuda.runtime, stylecli.ops.cuda.selfcheck\n"
        "print([name for name in set(sys.modules) - before if name.split('.')[0] == 'cuda'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---- a launch that fails after the check had passed


Call = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

FILTER = torch.tensor([[0.25, 0.5], [0.75, -0.5]], dtype=torch.float64)
ROW = torch.tensor([0.5, 0.75, -0.25], dtype=torch.float64)
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
    "filtered_lrelu": lambda x, b, n, s, style: filtered_lrelu(
        x, ROW, FILTER, b, up=2, down=2, padding=2, clamp=2.0
    ),
    "registered filtered_lrelu": lambda x, b, n, s, style: filtered_lrelu_op(
        x, b, ROW, FILTER, 2, 2, [2, 2, 2, 2], 2**0.5, 0.2, 2.0, False
    ),
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


def fresh_leaves() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    return [one.requires_grad_() for one in drawn]


def derivatives(call: Call) -> list[Tensor | None]:
    """Return the output, its gradients and those of the gradients' squares."""
    inputs = fresh_leaves()
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
    inputs = fresh_leaves()
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
    wanted = plain(name)(*fresh_leaves())
    monkeypatch.setattr(launches, "INT_MAX", 0)
    backend = Failing(host, 0)
    with installed(backend), pytest.warns(RuntimeWarning, match="out of range") as told:
        found = CALLS[name](*fresh_leaves())
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


# ---- registered ops, as torch.compile and the autograd modes see them


TAPS = torch.tensor([[0.25, 0.5], [0.75, -0.5]])
LRELU_CLAMPED = ("lrelu", 0.2, 1.5, 1.0)
SWISH = ("swish", 0.0, 1.5, -1.0)
EPILOGUE = ((2, 3, 4, 4), (3,), (2, 1, 4, 4), (3,), (2, 6))


def drawn_leaves(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [one.to(dtype).requires_grad_() for one in drawn]


@pytest.fixture(params=["kernels", "plain PyTorch"])
def either(request: Any) -> Any:
    """The ops by kernels, and as they fall back."""
    if request.param == "plain PyTorch":
        yield request.param
    else:
        with installed(request.getfixturevalue("host")):
            yield request.param


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_opcheck(either: str) -> None:
    def opcheck(op: Any, *arguments: Any) -> None:
        # The fallback has the same schema and autograd: only its output's layout is its own.
        more = ("test_schema", "test_autograd_registration", "test_aot_dispatch_dynamic")
        utils = ("test_faketensor", *(more if either == "kernels" else ()))
        assert set(torch.library.opcheck(op, arguments, test_utils=utils).values()) == {"SUCCESS"}

    x, b, scale, noise, strength = drawn_leaves((2, 3, 8, 9), (3,), (2, 3), (1, 1, 8, 9), (3,))
    opcheck(bias_act_op, x, b, None, None, None, 1, *LRELU_CLAMPED)
    opcheck(bias_act_op, x, b, scale, noise, strength, 1, *SWISH)
    dy = torch.randn_like(x).requires_grad_()
    opcheck(bias_act_gradient_op, dy, x, None, None, None, None, 1, *LRELU_CLAMPED, True, True)
    opcheck(bias_act_gradient_op, dy, x, b, scale, noise, strength, 1, *SWISH, False, True)
    last = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    opcheck(bias_act_op, last, b, None, None, None, 1, *LRELU_CLAMPED)
    opcheck(upfirdn2d_op, x, TAPS, [2, 1], [1, 3], [1, 2, 0, -1], True, 1.5)
    how = (2, 2, [2, 1, 0, 3], 1.5, 0.1, 1.0, True)
    opcheck(filtered_lrelu_op, x, b, TAPS[0], TAPS, *how)
    opcheck(slopes_op, torch.randn(2, 3, 9, 10).double(), x, b, TAPS[0], TAPS, *how, True)
    opcheck(slopes_op, torch.randn_like(x), x, b, TAPS[0], TAPS, *how, False)
    inputs = drawn_leaves(*EPILOGUE)
    opcheck(with_statistics_op, *inputs)
    _, statistics = with_statistics_op(*inputs)
    opcheck(gradient_op, torch.randn_like(inputs[0]), *inputs, statistics)


def network(x: Tensor, b: Tensor, noise: Tensor, strength: Tensor, style: Tensor) -> Tensor:
    y = ops.style_epilogue(x, b, noise=noise, noise_strength=strength, style=style)
    y = ops.upfirdn2d(y, TAPS.to(y.dtype), up=2, padding=1, gain=4)
    y = filtered_lrelu(y, TAPS[0], TAPS, b, up=2, down=2, padding=2, clamp=3.0)
    return ops.bias_act(y, b, act="lrelu", clamp=2.0)


def registered(x: Tensor, b: Tensor, noise: Tensor, strength: Tensor, style: Tensor) -> Tensor:
    """The same through the registered ops, whose derivatives compiled code uses."""
    y = style_epilogue_op(x, b, noise, strength, style)
    y = upfirdn2d_op(y, TAPS.to(y.dtype), [2, 2], [1, 1], [1, 1, 1, 1], False, 4.0)
    y = filtered_lrelu_op(y, b, TAPS[0], TAPS, 2, 2, [2, 2, 2, 2], 2**0.5, 0.2, 3.0, False)
    return bias_act_op(y, b, None, None, None, 1, "lrelu", 0.2, 2**0.5, 2.0)


@pytest.mark.usefixtures("either")
def test_registered_ops_have_second_derivatives() -> None:
    inputs = drawn_leaves(*EPILOGUE)
    assert gradcheck(registered, inputs, fast_mode=True)
    assert gradgradcheck(registered, inputs, fast_mode=True)


def test_eager_and_registered_ops_agree(host: HostBackend) -> None:
    inputs = drawn_leaves(*EPILOGUE, dtype=torch.float32)
    with installed(host):
        outputs = [function(*inputs) for function in (network, registered)]
        gradients = [torch.autograd.grad(y.square().sum(), inputs) for y in outputs]
    assert torch.equal(*outputs)
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.filterwarnings("ignore")  # of the compiler's own modules
def test_compiled_whole_with_gradients(host: HostBackend) -> None:
    """As one graph, in which the kernels stay single ops."""
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        from torch._dynamo.backends.debugging import aot_eager

        seen.extend(str(node.target) for node in graph.graph.nodes)
        compiled: Callable[..., Any] = aot_eager(graph, inputs)
        return compiled

    inputs = drawn_leaves(*EPILOGUE)
    with installed(host):
        torch.compiler.reset()
        y = torch.compile(network, fullgraph=True, backend=backend)(*inputs)
        found = torch.autograd.grad(y.square().sum(), inputs)
        wanted_y = network(*inputs)
        wanted = torch.autograd.grad(wanted_y.square().sum(), inputs)
    torch.compiler.reset()
    assert sum("stylecli" in name for name in seen) == 4, seen
    assert torch.allclose(y, wanted_y)
    assert all(torch.allclose(*pair) for pair in zip(found, wanted, strict=True))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own
def test_forward_mode_is_refused(host: HostBackend) -> None:
    x, b = (one.detach() for one in drawn_leaves((1, 2, 4, 4), (2,)))
    style = torch.zeros(1, 4, dtype=torch.float64)
    calls = (
        lambda x: ops.bias_act(x, b),
        lambda x: ops.upfirdn2d(x, TAPS),
        lambda x: ops.style_epilogue(x, b, style=style),
        lambda x: filtered_lrelu(x, TAPS[0], TAPS, b, up=2, down=2, padding=2),
    )
    with installed(host), forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        for call in calls:
            with pytest.raises(DeviceError, match=r"dual tensor.*STYLECLI_KERNELS=off"):
                call(dual)
            call(x)  # not a dual tensor


@pytest.mark.filterwarnings("ignore")
def test_forward_mode_is_refused_in_compiled_code(host: HostBackend) -> None:
    """Where the op would give a zero tangent: a graph traced before, run with a dual tensor."""
    x = torch.ones(2, 3)
    function = torch.compile(lambda x: ops.bias_act(x, act="lrelu"), backend="aot_eager")
    with installed(host):
        function(x)
        with forward_ad.dual_level(), pytest.raises(DeviceError, match="forward mode"):
            function(forward_ad.make_dual(x, x))
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_plain_pytorch_has_forward_mode() -> None:
    (x,) = drawn_leaves((1, 2, 4, 4))
    _, tangent = torch.func.jvp(lambda x: ops.bias_act(x, act="swish"), (x,), (torch.ones_like(x),))
    assert tangent.abs().sum() > 0

"""What torch.compile and the autograd modes see: registered ops, whole graphs, refusals."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from stylecli import ops
from stylecli.errors import DeviceError
from stylecli.ops.activation import bias_act_gradient_op, bias_act_op
from stylecli.ops.epilogue import gradient_op, style_epilogue_op, with_statistics_op
from stylecli.ops.resampling import upfirdn2d_op
from tests.ops.cuda.host_build import HostBackend, installed, needs_compiler

pytestmark = needs_compiler

F = torch.tensor([[0.25, 0.5], [0.75, -0.5]])
LRELU = ("lrelu", 0.2, 1.5, 1.0)
SWISH = ("swish", 0.0, 1.5, -1.0)
EPILOGUE = ((2, 3, 4, 4), (3,), (2, 1, 4, 4), (3,), (2, 6))


def leaves(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_opcheck(either: str) -> None:
    def opcheck(op: Any, *arguments: Any) -> None:
        # The fallback has the same schema and autograd: only its output's layout is its own.
        more = ("test_schema", "test_autograd_registration", "test_aot_dispatch_dynamic")
        utils = ("test_faketensor", *(more if either == "kernels" else ()))
        assert set(torch.library.opcheck(op, arguments, test_utils=utils).values()) == {"SUCCESS"}

    x, b, scale, noise, strength = leaves((2, 3, 8, 9), (3,), (2, 3), (1, 1, 8, 9), (3,))
    opcheck(bias_act_op, x, b, None, None, None, 1, *LRELU)
    opcheck(bias_act_op, x, b, scale, noise, strength, 1, *SWISH)
    dy = torch.randn_like(x).requires_grad_()
    opcheck(bias_act_gradient_op, dy, x, None, None, None, None, 1, *LRELU, True, True)
    opcheck(bias_act_gradient_op, dy, x, b, scale, noise, strength, 1, *SWISH, False, True)
    last = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    opcheck(bias_act_op, last, b, None, None, None, 1, *LRELU)
    opcheck(upfirdn2d_op, x, F, [2, 1], [1, 3], [1, 2, 0, -1], True, 1.5)
    inputs = leaves(*EPILOGUE)
    opcheck(with_statistics_op, *inputs)
    _, statistics = with_statistics_op(*inputs)
    opcheck(gradient_op, torch.randn_like(inputs[0]), *inputs, statistics)


def network(x: Tensor, b: Tensor, noise: Tensor, strength: Tensor, style: Tensor) -> Tensor:
    y = ops.style_epilogue(x, b, noise=noise, noise_strength=strength, style=style)
    y = ops.upfirdn2d(y, F.to(y.dtype), up=2, padding=1, gain=4)
    return ops.bias_act(y, b, act="lrelu", clamp=2.0)


def registered(x: Tensor, b: Tensor, noise: Tensor, strength: Tensor, style: Tensor) -> Tensor:
    """The same through the registered ops, whose derivatives compiled code uses."""
    y = style_epilogue_op(x, b, noise, strength, style)
    y = upfirdn2d_op(y, F.to(y.dtype), [2, 2], [1, 1], [1, 1, 1, 1], False, 4.0)
    return bias_act_op(y, b, None, None, None, 1, "lrelu", 0.2, 2**0.5, 2.0)


@pytest.mark.usefixtures("either")
def test_registered_ops_have_second_derivatives() -> None:
    inputs = leaves(*EPILOGUE)
    assert gradcheck(registered, inputs, fast_mode=True)
    assert gradgradcheck(registered, inputs, fast_mode=True)


def test_eager_and_registered_ops_agree(host: HostBackend) -> None:
    inputs = leaves(*EPILOGUE, dtype=torch.float32)
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

    inputs = leaves(*EPILOGUE)
    with installed(host):
        torch.compiler.reset()
        y = torch.compile(network, fullgraph=True, backend=backend)(*inputs)
        found = torch.autograd.grad(y.square().sum(), inputs)
        wanted_y = network(*inputs)
        wanted = torch.autograd.grad(wanted_y.square().sum(), inputs)
    torch.compiler.reset()
    assert sum("stylecli" in name for name in seen) == 3, seen
    assert torch.allclose(y, wanted_y)
    assert all(torch.allclose(*pair) for pair in zip(found, wanted, strict=True))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own
def test_forward_mode_is_refused(host: HostBackend) -> None:
    x, b = (one.detach() for one in leaves((1, 2, 4, 4), (2,)))
    style = torch.zeros(1, 4, dtype=torch.float64)
    calls = (
        lambda x: ops.bias_act(x, b),
        lambda x: ops.upfirdn2d(x, F),
        lambda x: ops.style_epilogue(x, b, style=style),
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
    (x,) = leaves((1, 2, 4, 4))
    _, tangent = torch.func.jvp(lambda x: ops.bias_act(x, act="swish"), (x,), (torch.ones_like(x),))
    assert tangent.abs().sum() > 0

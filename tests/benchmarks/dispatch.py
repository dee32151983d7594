"""What calling an operator costs before any kernel runs, in eager mode.

    python tests/benchmarks/dispatch.py

Measured on a 2×2×2×2 tensor with a backend that launches nothing, so what is left is Python,
autograd and the launch record: the work of the CPU per call on a machine with a GPU, except for
the driver's own launch. Medians of interleaved rounds; the last column is relative to a
torch.autograd.Function that does nothing.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stylecli import ops
from stylecli.ops.activation import bias_act_op
from stylecli.ops.cuda.launches import Launch, set_backend

ROUNDS, CALLS = 15, 200


class Nothing:
    """A device whose kernels take no time."""

    def launch(self, record: Launch) -> None:
        """Do nothing."""


class Bare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor) -> Tensor:
        y = torch.empty_like(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return grads[0], grads[0].sum((0, 2, 3))


def calls() -> dict[str, tuple[bool, Callable[[], Tensor]]]:
    """Return the calls by name, with whether they need the idle backend."""
    x = torch.randn(2, 2, 2, 2, requires_grad=True)
    b, style = torch.zeros(2, requires_grad=True), torch.zeros(2, 4, requires_grad=True)
    noise, f = torch.zeros(1, 1, 2, 2), torch.ones(4, 4) / 16
    numbers = (1, "lrelu", 0.2, 2**0.5, -1.0)
    return {
        "bare autograd.Function": (True, lambda: Bare.apply(x, b)),
        "bias_act": (True, lambda: ops.bias_act(x, b, act="lrelu")),
        "upfirdn2d": (True, lambda: ops.upfirdn2d(x, f, up=2, padding=(2, 1, 2, 1))),
        "style_epilogue": (
            True,
            lambda: ops.style_epilogue(x, b, noise=noise, noise_strength=b, style=style),
        ),
        "bias_act as registered op": (True, lambda: bias_act_op(x, b, None, None, None, *numbers)),
        "bias_act in plain PyTorch": (False, lambda: ops.bias_act(x, b, act="lrelu")),
    }


def measure() -> dict[str, tuple[float, float]]:
    """Return microseconds of CPU for the forward call, and for it with its gradient."""
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in calls()}
    for _ in range(ROUNDS):
        for name, (idle, call) in calls().items():
            before = set_backend("cpu", Nothing() if idle else None)
            for kind, step in enumerate((call, lambda call=call: call().sum().backward())):
                step()
                begin = time.process_time()
                for _ in range(CALLS):
                    step()
                found[name][kind].append((time.process_time() - begin) / CALLS * 1e6)
            set_backend("cpu", before)
    return {
        name: (statistics.median(one), statistics.median(both))
        for name, (one, both) in found.items()
    }


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    table = measure()
    bare = table["bare autograd.Function"]
    print("| call | forward, µs | with backward, µs | × bare |")
    print("|---|---|---|---|")
    for name, (forward, both) in table.items():
        print(f"| {name} | {forward:.0f} | {both:.0f} | {forward / bare[0]:.1f} |")


if __name__ == "__main__":
    main()

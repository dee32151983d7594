"""bias_act by kernels or plain PyTorch, and as registered ops, which torch.compile keeps whole.

In eager mode they would cost three times the call of an autograd.Function, so only compiled code
comes to the ops.
"""

from typing import Any

import torch
from torch import Tensor

from stylecli.ops.activation_derivatives import (
    backward,
    gradient_in_steps,
    remember,
    second_backward,
)
from stylecli.ops.activation_reference import Additions, bias_act_ref
from stylecli.ops.activations import Activation, resolved_activation
from stylecli.ops.cuda import activation_calls
from stylecli.ops.dispatch import refuse_forward_mode, run_fused

NAME = "bias_act"


def activated(x: Tensor, more: Additions, dim: int, activation: Activation) -> Tensor:
    """Return clamp(act(x·scale + noise·strength + bias)·gain) in memory of its own."""

    def plain() -> Tensor:
        return activation_calls.laid_out(bias_act_ref(x, more, dim, activation), x, dim, more)

    return run_fused(
        NAME, x, lambda: activation_calls.bias_act_forward(x, more, dim, activation), plain
    )


def activation_gradient(
    dy: Tensor, reference: Tensor, more: Additions, dim: int, activation: Activation,
    from_output: bool, want_sums: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Return what activation_calls.bias_act_gradient does: dx and, if wanted, sums."""

    def kernel() -> tuple[Tensor, Tensor | None]:
        return activation_calls.bias_act_gradient(
            dy, reference, more, dim, activation, from_output=from_output, want_sums=want_sums
        )

    def plain() -> tuple[Tensor, Tensor | None]:
        dx, sums = gradient_in_steps(dy, reference, more, dim, activation, from_output, want_sums)
        return activation_calls.laid_out(dx, reference, dim, more), sums

    return run_fused(NAME, reference, kernel, plain)


@torch.library.custom_op("stylecli::bias_act", mutates_args=())
def bias_act_op(
    x: Tensor, bias: Tensor | None, scale: Tensor | None, noise: Tensor | None,
    strength: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float,
) -> Tensor:  # fmt: skip
    refuse_forward_mode(NAME)
    activation = resolved_activation(act, alpha, gain, clamp)
    return activated(x, Additions(bias, scale, noise, strength), dim, activation)


@bias_act_op.register_fake
def _(x: Any, bias: Any, scale: Any, noise: Any, strength: Any, dim: int, *numbers: Any) -> Tensor:
    return activation_calls.empty_output(x, dim, Additions(bias, scale, noise, strength))


@torch.library.custom_op("stylecli::bias_act_gradient", mutates_args=())
def bias_act_gradient_op(
    dy: Tensor, reference: Tensor, bias: Tensor | None, scale: Tensor | None,
    noise: Tensor | None, strength: Tensor | None, dim: int, act: str, alpha: float, gain: float,
    clamp: float, from_output: bool, want_sums: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    more = Additions(bias, scale, noise, strength)
    activation = resolved_activation(act, alpha, gain, clamp)
    dx, sums = activation_gradient(dy, reference, more, dim, activation, from_output, want_sums)
    return dx, dx.new_empty(0) if sums is None else sums


@bias_act_gradient_op.register_fake
def _(
    dy: Tensor, reference: Tensor, bias: Any, scale: Any, noise: Any, strength: Any, dim: int,
    act: str, alpha: float, gain: float, clamp: float, from_output: bool, want_sums: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    more = Additions(bias, scale, noise, strength)
    dx = activation_calls.empty_output(reference, dim, more)
    shape = activation_calls.sums_shape(reference, dim, more) if want_sums else (0,)
    return dx, dx.new_empty(shape, dtype=activation_calls.wide(dx.dtype))


def _gradient(
    dy: Tensor, reference: Tensor, bias: Tensor | None, scale: Tensor | None,
    noise: Tensor | None, strength: Tensor | None, dim: int, activation: Activation,
    from_output: bool, want_sums: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    numbers = (activation.name, activation.alpha, activation.gain, activation.clamp)
    dx, sums = bias_act_gradient_op(
        dy, reference, bias, scale, noise, strength, dim, *numbers, from_output, want_sums
    )
    return dx, sums if want_sums else None


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    remember(ctx, inputs, resolved_activation(*inputs[6:]), output)


def _first(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
    return (*backward(ctx, dy, _gradient), *[None] * 5)


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.dim, ctx.activation = inputs[6], resolved_activation(*inputs[7:11])
    ctx.from_output, ctx.want_sums = inputs[11:]
    ctx.save_for_backward(None if ctx.from_output else inputs[0], *inputs[1:6])


def _second(ctx: Any, ddx: Tensor | None, dsums: Tensor | None) -> tuple[Tensor | None, ...]:
    dsums = dsums if ctx.want_sums else None
    return (*second_backward(ctx, ddx, dsums, _gradient), *[None] * 7)


bias_act_op.register_autograd(_first, setup_context=_keep)
bias_act_gradient_op.register_autograd(_second, setup_context=_keep_gradient)

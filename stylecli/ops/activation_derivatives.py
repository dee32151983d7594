"""First and second derivatives of bias_act, for the eager function and the registered op alike.

Both hand in the ``gradient`` that they differentiate with: an autograd.Function, or the other op.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stylecli.ops.activation_reference import Additions, along, bias_act_gradient_ref
from stylecli.ops.activations import Activation
from stylecli.ops.partial_derivatives import partial_gradients

Gradient = Callable[..., tuple[Tensor, Tensor | None]]


def remember(ctx: Any, inputs: tuple[Any, ...], activation: Activation, y: Tensor) -> None:
    """Keep what the gradient needs: the output where it tells all, else the inputs."""
    x, bias, scale, noise, strength, dim = inputs[:6]
    ctx.set_materialize_grads(False)
    ctx.dim, ctx.activation = dim, activation
    ctx.from_output = activation.known_by_output and scale is None and noise is None
    ctx.bias_dtype = None if bias is None else bias.dtype
    if ctx.from_output:
        ctx.save_for_backward(y, None, None, None, None)
    else:
        ctx.save_for_backward(x, bias, scale, noise, strength)


def backward(ctx: Any, dy: Tensor | None, gradient: Gradient) -> list[Tensor | None]:
    """Return the gradients of x, bias, scale, noise and strength."""
    if dy is None:
        return [None] * 5
    reference, bias, scale, noise, strength = ctx.saved_tensors
    _, want_bias, want_scale, want_noise, want_strength = ctx.needs_input_grad[:5]
    more = (bias, scale, noise, strength)
    dx, sums = gradient(
        dy, reference, *more, ctx.dim, ctx.activation, ctx.from_output,
        want_bias or want_scale or want_strength,
    )  # fmt: skip
    found: list[Tensor | None] = [dx, None, None, None, None]
    by_plane = scale is not None or noise is not None
    if sums is not None and want_bias:
        own = sums[:, 0]
        own = own.view(dx.shape[0], -1).sum(0) if by_plane else own
        found[1] = own.to(dx.dtype)
    if sums is not None and want_scale:
        found[2] = sums[:, 1].view(dx.shape[0], -1).to(dx.dtype)
    if want_noise:  # rare (noise maps are constants in training), so in plain steps
        found[3] = _noise_gradient(ctx, dy, reference, Additions(*more))
    if sums is not None and want_strength:
        found[4] = sums[:, 2].view(dx.shape[0], -1).sum(0).to(dx.dtype)
    return found


def _noise_gradient(ctx: Any, dy: Tensor, x: Tensor, more: Additions) -> Tensor:
    """Return the gradient of the noise maps: the sum over channels of du·strength."""
    assert more.noise is not None
    exact = torch.promote_types(dy.dtype, torch.float32)
    dy, x = dy.to(exact), x.to(exact)
    bias, scale, noise, strength = (
        None if one is None else one.to(exact)
        for one in (more.bias, more.scale, more.noise, more.strength)
    )
    additions = Additions(bias, scale, noise, strength)
    _, du = bias_act_gradient_ref(dy, x, additions, ctx.dim, ctx.activation, False)
    du = du if strength is None else du * along(strength, du, 1)
    return du.sum(dim=1, keepdim=True).sum_to_size(more.noise.shape).to(more.noise.dtype)


def gradient_in_steps(
    dy: Tensor, reference: Tensor, more: Additions, dim: int, activation: Activation,
    from_output: bool, want_sums: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Return what the gradient kernel returns, in differentiable steps."""
    dx, du = bias_act_gradient_ref(dy, reference, more, dim, activation, from_output)
    if not want_sums:
        return dx, None
    wide = torch.float64 if du.dtype == torch.float64 else torch.float32
    if more.scale is None and more.noise is None:
        others = [axis for axis in range(du.ndim) if axis != dim]
        sums = du.sum(dim=others, dtype=wide) if others else du.to(wide)
        return dx, sums[:, None]
    products = [du, du * reference, du * (0 if more.noise is None else more.noise)]
    return dx, torch.stack([one.sum(dim=(2, 3), dtype=wide).flatten() for one in products], dim=1)


def second_backward(
    ctx: Any, ddx: Tensor | None, dsums: Tensor | None, gradient: Gradient
) -> list[Tensor | None]:
    """Return the gradients of dy, reference, bias, scale, noise and strength."""
    saved = ctx.saved_tensors
    reference = saved[1]
    if ctx.from_output:
        # dx and the sums are linear in dy, and a straight line has no curvature: the operator is
        # its own derivative, to any order.
        if dsums is not None:
            spread = along(dsums[:, 0].to(reference.dtype), reference, ctx.dim)
            ddx = spread.expand_as(reference) if ddx is None else ddx + spread
        if ddx is None:
            return [None] * 6
        more = (None, None, None, None)
        ddy, _ = gradient(ddx, reference, *more, ctx.dim, ctx.activation, True, False)
        return [ddy, None, None, None, None, None]

    def formula(dy: Tensor, x: Tensor, *more: Tensor | None) -> tuple[Tensor, Tensor | None]:
        additions = Additions(*more)
        return gradient_in_steps(
            dy, x, additions, ctx.dim, ctx.activation, False, dsums is not None
        )

    return partial_gradients(formula, saved, ctx.needs_input_grad[:6], (ddx, dsums))

"""bias_act and its gradient in plain PyTorch: the definition, the CPU path and the fallback."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stylecli.ops.activations import Activation


@dataclass(frozen=True, slots=True)
class Additions:
    """What comes between the input and the activation: x·scale + noise·strength + bias.

    bias and strength [C]; scale [N, C]; noise [N or 1, 1, H, W]. Each may be None; strength None
    means one.
    """

    bias: Tensor | None = None
    scale: Tensor | None = None
    noise: Tensor | None = None
    strength: Tensor | None = None


def along(values: Tensor, like: Tensor, dim: int) -> Tensor:
    """View values [C] so that they broadcast along ``dim`` of ``like``."""
    return values.view([-1 if axis == dim else 1 for axis in range(like.ndim)])


def per_plane(values: Tensor, like: Tensor) -> Tensor:
    """View values [N, C] so that they broadcast over the planes of ``like`` [N, C, ...]."""
    return values.view(*values.shape, *[1] * (like.ndim - 2))


def preactivation(x: Tensor, more: Additions, dim: int) -> Tensor:
    """Return x·scale + noise·strength + bias."""
    u = x
    if more.scale is not None:
        u = u * per_plane(more.scale, u)
    if more.noise is not None:
        strength = more.strength
        u = u + (more.noise if strength is None else more.noise * along(strength, u, 1))
    if more.bias is not None:
        u = u + along(more.bias, u, dim)
    return u


def bias_act_ref(x: Tensor, more: Additions, dim: int, activation: Activation) -> Tensor:
    """Return clamp(act(x·scale + noise·strength + bias)·gain): differentiable to any order."""
    y = activation.value(preactivation(x, more, dim), activation.alpha)
    if activation.gain != 1:
        y = y * activation.gain
    if activation.clamp >= 0:
        y = y.clamp(-activation.clamp, activation.clamp)
    return y


def bias_act_gradient_ref(
    dy: Tensor,
    reference: Tensor,
    more: Additions,
    dim: int,
    activation: Activation,
    from_output: bool,
) -> tuple[Tensor, Tensor]:
    """Return dx, and du = dx before the scale, where the output's gradient is ``dy``.

    ``reference`` is the input, or the output if ``from_output``. Closed form in differentiable
    steps, so that it gives all higher derivatives.
    """
    limit = activation.clamp
    if from_output:
        u = reference
        # An output that was cut is the limit as its dtype stores it.
        kept = None if limit < 0 else reference.detach().abs() < reference.new_full((), limit)
    else:
        u = preactivation(reference, more, dim)
        kept = None
        if limit >= 0:
            y = activation.value(u.detach(), activation.alpha) * activation.gain
            kept = y.abs() <= limit
    du = dy * activation.slope(u, activation.alpha) * activation.gain
    if kept is not None:
        du = torch.where(kept, du, 0.0)
    dx = du if more.scale is None else du * per_plane(more.scale, du)
    return dx, du

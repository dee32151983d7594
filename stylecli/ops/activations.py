"""The nine activations of StyleGAN2: defaults, definition and slope of each, in plain PyTorch."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from stylecli.errors import UsageError

SQRT2 = math.sqrt(2.0)
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


@dataclass(frozen=True)
class Activation:
    """An activation with its numbers: clamp(value(u, alpha)·gain, ±clamp)."""

    name: str
    gain: float
    alpha: float
    """Slope below zero of the three pieces of straight line; the others ignore it."""
    code: int
    """Number of a smooth activation in the kernel source; -1 for a piecewise linear one."""
    value: Callable[[Tensor, float], Tensor] = field(compare=False, repr=False)
    slope: Callable[[Tensor, float], Tensor] = field(compare=False, repr=False)
    clamp: float = -1.0
    """Limit of the absolute output; negative for none."""

    @property
    def smooth(self) -> bool:
        return self.code >= 0

    @property
    def known_by_output(self) -> bool:
        """Whether the output tells the slope: then nothing but it is kept for the gradient."""
        return not self.smooth and self.alpha >= 0 and self.gain > 0


def _straight(u: Tensor, alpha: float) -> Tensor:
    return F.leaky_relu(u, alpha)


def _straight_slope(u: Tensor, alpha: float) -> Tensor:
    return torch.where(u > 0, u.new_ones(()), u.new_full((), alpha))


def _elu_slope(u: Tensor, alpha: float) -> Tensor:
    return torch.where(u > 0, 1.0, u.clamp(max=0).exp())


def _swish_slope(u: Tensor, alpha: float) -> Tensor:
    y = u.sigmoid()
    return y * (1 + u * (1 - y))


def _sigmoid_slope(u: Tensor, alpha: float) -> Tensor:
    y = u.sigmoid()
    return y * (1 - y)


def _one(u: Tensor, alpha: float) -> Tensor:
    return torch.ones_like(u)


ACTIVATIONS = {
    row.name: row
    for row in (
        Activation("linear", 1.0, 1.0, -1, lambda u, alpha: u, _one),
        Activation("relu", SQRT2, 0.0, -1, lambda u, alpha: F.relu(u), _straight_slope),
        Activation("lrelu", SQRT2, 0.2, -1, _straight, _straight_slope),
        Activation("tanh", 1.0, 0.0, 0, lambda u, _: u.tanh(), lambda u, _: 1 - u.tanh().square()),
        Activation("sigmoid", 1.0, 0.0, 1, lambda u, alpha: u.sigmoid(), _sigmoid_slope),
        Activation("elu", 1.0, 0.0, 2, lambda u, alpha: F.elu(u), _elu_slope),
        Activation("selu", 1.0, 0.0, 3, lambda u, alpha: F.selu(u),
                   lambda u, _: SELU_SCALE * torch.where(
                       u > 0, 1.0, SELU_ALPHA * u.clamp(max=0).exp())),
        Activation("softplus", 1.0, 0.0, 4, lambda u, alpha: F.softplus(u, threshold=50.0),
                   lambda u, alpha: u.sigmoid()),
        Activation("swish", SQRT2, 0.0, 5, lambda u, alpha: u * u.sigmoid(), _swish_slope),
    )
}  # fmt: skip
"""Name, default gain, default alpha, kernel code, value, slope."""


@lru_cache(maxsize=256)  # a network calls with a handful of settings, thousands of times
def resolved_activation(
    act: str, alpha: float | None = None, gain: float | None = None, clamp: float | None = None
) -> Activation:
    """Return the activation with its numbers filled in; raise UsageError for an unknown name.

    Only lrelu has an alpha: the others ignore it. None means the default; clamp None or negative
    means no limit.
    """
    row = ACTIVATIONS.get(act)
    if row is None:
        raise UsageError(f"unknown activation {act!r}: expected one of {', '.join(ACTIVATIONS)}")
    if gain is not None and gain != row.gain:
        row = replace(row, gain=float(gain))
    if alpha is not None and act == "lrelu" and alpha != row.alpha:
        row = replace(row, alpha=float(alpha))
    if clamp is not None and clamp >= 0:
        row = replace(row, clamp=float(clamp))
    return row
